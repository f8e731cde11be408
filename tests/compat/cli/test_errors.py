"""What is wrong with a command line is said in docker's words, on the same stream, same status."""

from __future__ import annotations

import shlex
import signal

import pytest

from tests.compat.cli.conftest import Both
from tests.compat.conftest import DockerCli


@pytest.mark.parametrize(
    "command",
    [
        "ps --foo",
        "ps -z",
        "ps extra",
        "ps -n",
        "ps -n x",
        "ps --filter foo",
        "ps --filter nope=1",
        "ps --all=perhaps",
        "ps -qx",
        "ps --=x",
        "rm",
        "rename a",
        "container foo",
        "foo",
        "--foo ps",
        "-H",
        "run",
        "run --name",
        "run -e",
        "rm nope nope2",
        "rm -f nope",
        "stop nope",
        "kill -s NOPE nope",
        "pause nope",
        "logs nope",
        "logs --since nonsense nope",
        "top nope",
        "port nope",
        "exec nope",
        "exec nope true",
        "exec -it nope true",
        "attach nope",
        "start nope nope2",
        "start -a nope nope2",
        "start -a nope",
        "wait nope",
        "diff nope",
        "export nope",
        "export -o /nonexistent/x nope",
        "save nope",
        "save -o /nonexistent/x busybox",
        "rmi nope",
        "rmi -f nope",
        "tag nope also",
        "tag busybox 'A B'",
        "commit nope",
        "commit nope 'A B'",
        "history nope",
        "pull 'a b'",
        "pull -a busybox:latest",
        "update nope",
        "update -m 10x nope",
        "stats --no-stream nope",
        "cp a b",
        "cp a:b c:d",
        "cp '' a:b",
        "cp nope:/a /tmp/b",
        "network rm nope",
        "network connect nope nope",
        "network inspect nope",
        "network create --gateway 10.0.0.1 x",
        "network create --subnet 10.0.0.0/24 --gateway 10.1.0.1 x",
        "network create --subnet 10.0.0.0/24 --subnet 10.0.0.0/25 x",
        "volume rm nope",
        "volume inspect nope",
        "context use nope",
        "context rm nope",
        "context rm default",
        "context create default",
        "context create 'x y'",
        "context create abc --docker foo=1",
        "context inspect nope",
        "load -i /nonexistent",
        "import /nonexistent",
        "login --password-stdin",
        "login -u x",
        "search",
        "system prune --volumes --filter until=1h",
        "inspect",
        "inspect -f '{{.' busybox",
        "version --format '{{.Nope}}'",
        "info --format '{{.'",
        "images --format '{{.Nope}}'",
        "help nope",
        "--tlsverify=false ps",
        "--tls ps",
        "-H npipe://x ps",
        "-H foo://x ps",
        "rename nope other",
        "context create abc --docker host=foo",
        "context rm -f nope",
        "inspect ''",
    ],
)
def test_same_complaint(both: Both, command: str) -> None:
    both(*shlex.split(command))


@pytest.mark.parametrize(
    "flags",
    [
        "-m x",
        "-m 10y",
        "--cpus x",
        "--cpus 0.0000000001",
        "-p foo",
        "-p 1.2.3.4.5:80:80",
        "-p 80-82:90-91",
        "-p 80/foo",
        "-p 99999:1",
        "-p ''",
        "-v :/x",
        "-v ''",
        "--mount foo",
        "--mount type=volume,target=/x,bind-propagation=shared",
        "--mount type=bind,foo=x",
        "--mount src=/x",
        "--mount type=tmpfs,target=/x,tmpfs-size=y",
        "--mount type=tmpfs,target=/x,tmpfs-mode=9",
        "--mount type=bind,src=/,dst=/x,readonly=maybe",
        "--mount type=bind,src=/,dst=/x,bind-recursive=x",
        "--mount type=bind,src=/,dst=/x,bind-recursive=readonly",
        "--ulimit nofile=10:5",
        "--ulimit foo=1",
        "--ulimit nofile",
        "--ulimit nofile=x",
        "--device foo",
        "--device a:b:c",
        "--dns x",
        "--dns-search '!'",
        "--add-host foo",
        "--add-host a:b",
        "--gpus foo=1",
        "--gpus count=x",
        "--gpus count=1,count=2",
        "--label =x",
        "-e =x",
        "--env-file /nope",
        "--label-file /nope",
        "--restart on-failure:x",
        "--restart :x",
        "--network a --network host",
        "--network a --network a",
        "--network name=a,foo=1",
        "--network name=a,alias=x --network-alias y",
        "--network alias=x",
        "--network-alias x",
        "--device-read-bps foo",
        "--device-read-bps /dev/sda:x",
        "--device-read-iops /dev/sda:1m",
        "--blkio-weight-device x",
        "--blkio-weight-device /dev/sda:1",
        "--blkio-weight 99999",
        "--memory-swappiness 101",
        "--pid foo",
        "--uts foo",
        "--userns foo",
        "--cgroupns foo",
        "--security-opt foo",
        "--security-opt seccomp=/nope",
        "--log-driver none --log-opt a=b",
        "--storage-opt x",
        "--no-healthcheck --health-cmd x",
        "--health-interval -1s",
        "--health-interval 5",
        "--health-retries -1",
        "--rm --restart always",
        "-d -a stdout",
        "-a foo",
        "--mac-address zz",
        "--link a:b:c",
        "--sysctl x",
        "--sysctl kernel.nope=1",
        "--device-cgroup-rule x",
        "--expose 80:90",
        "--expose x",
        "--expose 9-8",
        "--cidfile /etc/passwd",
        "--pull foo",
        "-it",
        "--stop-timeout x",
        "--shm-size x",
        "--runtime nope",
        "--name /",
    ],
)
def test_same_complaint_about_run(both: Both, flags: str) -> None:
    both("run", *shlex.split(flags), "busybox", "true")


@pytest.mark.parametrize("image", ["BUSYBOX", "a b", ":x", "busybox:", "nope@sha256:12"])
def test_same_complaint_about_images(both: Both, image: str) -> None:
    both("run", "--pull", "never", image)


@pytest.mark.parametrize("words", [(), ("container",), ("network",)])
def test_help_that_was_not_asked_for_is_a_complaint(
    docker: DockerCli, sampan: DockerCli, words: tuple[str, ...]
) -> None:
    for cli in (docker, sampan):
        result = cli(*words)
        assert result.stdout == ""
        assert "Usage:" in result.stderr
        asked = cli(*words, "nosuch", "--help")
        assert "Usage:" in asked.stdout
        assert asked.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["system", "volume", "container"])
def test_a_question_ended_by_a_signal_is_no_failure(
    sampan: DockerCli, kind: str, number: signal.Signals
) -> None:
    """As docker's own suite has it (``TestPromptExitCode``)."""
    process = sampan.popen(kind, "prune")
    assert process.stdout is not None
    asked = b""
    while b"[y/N] " not in asked:
        byte = process.stdout.read(1)
        assert byte, asked
        asked += byte
    process.send_signal(number)
    rest, complaint = process.communicate(timeout=60)
    assert (process.returncode, rest, complaint) == (0, b"\n", b"")


@pytest.mark.parametrize("words", ["pull busybox", "push busybox", "run --rm busybox true"])
def test_content_trust_is_not_left_out_silently(
    sampan: DockerCli, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**sampan.environment, "DOCKER_CONTENT_TRUST": "1"}
    monkeypatch.setattr(DockerCli, "environment", environment)
    refused = sampan(*words.split(), status=None)
    assert refused.returncode in (1, 125)
    assert "content trust is not available" in refused.stderr
    command, *rest = words.split()
    tried = sampan(command, "--disable-content-trust", *rest, status=None)
    assert "content trust" not in tried.stderr
