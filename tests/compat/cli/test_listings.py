"""Listings, templates and inspections print what docker prints."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.compat.cli.conftest import Both
from tests.compat.conftest import DockerCli, Sampand

SESSION = "cli-listing"


@pytest.fixture(scope="module")
def objects(sampand: Sampand) -> Iterator[str]:
    """A running and a stopped container, a network and a volume to look at."""
    from tests.compat.conftest import CLI

    docker = DockerCli(CLI, sampand.host, sampand.root / "cli")
    docker("network", "create", "--label", "net=1", f"{SESSION}-net")
    docker("volume", "create", "--label", "vol=1", f"{SESSION}-vol")
    docker("run", "-d", "--name", f"{SESSION}-run", "-l", "a=b", "-l", "c=d", "--network",
           f"{SESSION}-net", "-p", "127.0.0.1:18080:80", "--expose", "81-83",
           "-v", f"{SESSION}-vol:/data", "-e", "X=1", "--health-cmd", "true", "busybox",
           "sh", "-c", "sleep 1000; echo a long command line")  # fmt: skip
    docker("run", "--name", f"{SESSION}-done", "--network", "none", "busybox", "sh", "-c", "exit 3",
           status=3)  # fmt: skip
    docker("tag", "busybox", "example.test:5000/team/app:1")
    try:
        yield SESSION
    finally:
        docker("rm", "-f", "-v", f"{SESSION}-run", f"{SESSION}-done")
        docker("volume", "rm", f"{SESSION}-vol")
        docker("network", "rm", f"{SESSION}-net")
        docker("rmi", "example.test:5000/team/app:1")


PS_FIELDS = [
    "ID",
    "Names",
    "Image",
    "Command",
    "CreatedAt",
    "RunningFor",
    "Ports",
    "State",
    "Status",
    "Size",
    "Labels",
    "Mounts",
    "Networks",
    "LocalVolumes",
]


@pytest.mark.parametrize(
    "command",
    [
        "ps",
        "ps -a",
        "ps -aq",
        "ps -a --no-trunc",
        "ps -as",
        "ps -n 1",
        "ps -l",
        "ps -a --format raw",
        "ps -a --format table",
        "container ls -a -f label=a=b",
        "container list -a -f status=exited -q --no-trunc",
        "images",
        "images -q",
        "images --no-trunc --digests",
        "images example.test:5000/team/app",
        "image ls --filter dangling=true",
        "images --format raw",
        "volume ls",
        "volume ls -q",
        "volume ls -f label=vol=1",
        "network ls",
        "network ls -q --no-trunc",
        "network ls -f driver=bridge",
        "network ls --format json",
        "volume ls --format json",
        "images --format json",
        "history busybox",
        "history -q busybox",
        "history --no-trunc -H=false busybox",
        "history --format json busybox",
        "port cli-listing-run",
        "port cli-listing-run 80",
        "port cli-listing-run 80/udp",
        "diff cli-listing-done",
        "inspect --type image cli-listing-done",
        "inspect --type nonsense x",
        "wait cli-listing-done",
        "events --since 1h --until 0s --filter container=cli-listing-done --filter event=create",
        "events --since 0 --until 0s --filter container=cli-listing-done --filter event=create",
        "events --until 0 --filter container=cli-listing-done --filter event=create",
        "system df -v",
        "context ls",
        "context inspect",
        "context show",
        "logs cli-listing-done",
        "ps -aq --format {{.Names}}",
        "inspect -s cli-listing-net -f {{.Name}}",
        "inspect cli-listing-run busybox cli-listing-net -f {{.Name}}",
    ],
)
def test_same_output(both: Both, objects: str, command: str) -> None:
    both(*command.split())


@pytest.mark.parametrize("field", PS_FIELDS)
def test_ps_fields(both: Both, objects: str, field: str) -> None:
    both("ps", "-a", "--format", f"{{{{.{field}}}}}")


@pytest.mark.parametrize(
    "template",
    [
        "table {{.Names}}\t{{.Status}}\t{{.Ports}}",
        "table {{.ID}}\\t{{.Image}}",
        "table {{upper .Names}}\t{{.Networks}}",
        '{{.Names}}: {{.Label "a"}}',
        '{{range split .Labels ","}}<{{.}}>{{end}}',
        '{{if eq .State "running"}}{{.Names | upper}}{{else}}-{{end}}',
        '{{printf "%-20s|%5.3s|%q" .Names .State .Image}}',
        "{{json .Names}} {{title .State}} {{truncate .Names 6}} {{pad .State 2 3}}",
        "{{with $x := .Image}}{{$x}}{{end}} {{len .Names}}",
        '{{join (split .Names "-") "+"}}',
        "{{.Nope}}",
        "{{.Names",
        "{{nope .Names}}",
        "{{.Names | }}",
        "{{end}}",
        "{{if .Names}}",
        "{{index .Names 99}}",
        "{{println .Names .State}}",
        "plain",
    ],
)
def test_ps_templates(both: Both, objects: str, template: str) -> None:
    both("ps", "-a", "--filter", f"name={SESSION}", "--format", template)


@pytest.mark.parametrize(
    "template",
    [
        "{{.Id}} {{.ID}} {{.Name}}",
        "{{.State.Status}} {{.State.ExitCode}} {{.State.Running}} {{.State.OOMKilled}}",
        "{{json .Config.Env}} {{.Config.Env}} {{.Config.Cmd}}",
        '{{json .Config.Labels}} {{.Config.Labels}} {{index .Config.Labels "a"}}',
        "{{.NetworkSettings.Ports}}",
        '{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}',
        "{{range $p, $c := .NetworkSettings.Ports}}{{$p}}={{len $c}};{{end}}",
        "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.Gateway}}{{end}}",
        "{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{end}}",
        "{{range .Mounts}}{{.Type}}:{{.Destination}}:{{.RW}}{{end}}",
        "{{json .Mounts}}",
        "{{.HostConfig.NetworkMode}} {{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}",
        "{{.HostConfig.RestartPolicy}} {{.HostConfig.LogConfig.Type}} {{.HostConfig.Privileged}}",
        "{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}",
        "{{.Config.Healthcheck.Test}} {{.Config.Healthcheck.Interval}}",
        '{{index .Config.Labels "nope"}}|{{index .HostConfig.Sysctls "nope"}}',
        '{{index .NetworkSettings.Ports "9/tcp"}}',
        "{{.HostConfig.Binds}} {{json .HostConfig.CapAdd}} {{.Config.Entrypoint}}",
        "{{.Nope}}",
        "{{.State.Nope}}",
        "{{.Config.Nope.Deeper}}",
        "{{.Platform}} {{.Driver}} {{.RestartCount}} {{.Path}} {{.Args}}",
        "{{len .Mounts}} {{not .State.Running}} {{and .State.Running .State.Paused}}",
        '{{- /* comment */ -}} {{.Name}} {{- " x" }}',
        "{{.HostConfig.PidsLimit}} {{.HostConfig.OomKillDisable}} {{.SizeRw}}",
        "{{if gt (len .Config.Env) 0}}{{index .Config.Env 0}}{{end}}",
    ],
)
def test_inspect_templates(both: Both, objects: str, template: str) -> None:
    both("inspect", "--format", template, f"{SESSION}-run")


@pytest.mark.parametrize(
    "arguments",
    [
        ("image", "inspect", "-f", "{{.Id}} {{.RepoTags}} {{.Os}}/{{.Architecture}}", "busybox"),
        ("image", "inspect", "-f", "{{json .Config.Cmd}} {{.Config.Entrypoint}}", "busybox"),
        ("image", "inspect", "-f", "{{.RootFS.Type}} {{len .RootFS.Layers}}", "busybox"),
        ("network", "inspect", "-f", "{{.Name}} {{.Driver}} {{.Labels}}", f"{SESSION}-net"),
        ("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", f"{SESSION}-net"),
        ("network", "inspect", "-f", "{{range .Containers}}{{.Name}}{{end}}", f"{SESSION}-net"),
        ("volume", "inspect", "-f", "{{.Name}} {{.Driver}} {{.Labels}}", f"{SESSION}-vol"),
        ("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}"),
        ("images", "--format", "table {{.Repository}}\t{{.Digest}}\t{{.CreatedSince}}"),
        ("network", "ls", "--format", '{{.Name}} {{.IPv4}} {{.Internal}} {{.Label "net"}}'),
        ("volume", "ls", "--format", '{{.Name}}|{{.Label "vol"}}|{{.Links}}'),
        ("version", "--format", "{{.Server.Os}}/{{.Server.Arch}} {{.Server.APIVersion}}"),
        ("info", "--format", "{{.OSType}} {{.NCPU}} {{.Containers}} {{.Driver}}"),
        ("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_other_templates(both: Both, objects: str, arguments: tuple[str, ...]) -> None:
    both(*arguments)


@pytest.mark.parametrize(
    "command",
    [
        "inspect cli-listing-run",
        "inspect cli-listing-done busybox cli-listing-net cli-listing-vol",
        "inspect nope cli-listing-done",
        "container inspect -s cli-listing-done",
        "image inspect busybox",
        "image inspect nope busybox",
        "network inspect cli-listing-net bridge",
        "volume inspect cli-listing-vol nope",
        "inspect -f json cli-listing-run cli-listing-done",
        "inspect -f json nope",
    ],
)
def test_inspect_prints_the_objects(
    docker: DockerCli, sampan: DockerCli, objects: str, command: str
) -> None:
    """docker decodes some objects into its own structs first: what it adds then is empty."""
    expected = docker(*command.split(), status=None)
    actual = sampan(*command.split(), status=None)
    assert (actual.returncode, actual.stderr) == (expected.returncode, expected.stderr)
    assert covers(json.loads(actual.stdout), json.loads(expected.stdout))
    assert actual.stdout.startswith("[{" if "json" in command and actual.returncode == 0 else "[")


def covers(ours: object, docker: object) -> bool:
    """Whether everything docker shows is there with the same value, empty things left aside."""
    if isinstance(ours, dict) and isinstance(docker, dict):
        return all(covers(ours.get(key), value) for key, value in docker.items())
    if isinstance(ours, list) and isinstance(docker, list):
        return len(ours) == len(docker) and all(map(covers, ours, docker))
    if isinstance(docker, dict) and not ours:
        return all(not value for value in docker.values())
    return ours == docker or (not ours and not docker)
