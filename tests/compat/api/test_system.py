"""The daemon and its objects: version, info, images, networks, volumes; other clients; sockets."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.compat.conftest import CLI, DockerCli, Sampand, busybox_archive


def test_version_and_info(docker: DockerCli) -> None:
    version = json.loads(docker.out("version", "--format", "json"))
    assert version["Server"]["Os"] == "linux"
    assert version["Server"]["ApiVersion"] == "1.55"
    info = json.loads(docker.out("info", "--format", "json"))
    assert info["Images"] >= 1
    assert info["Swarm"]["LocalNodeState"] == "inactive"
    assert "Server Version" in docker.out("info")


def test_images(docker: DockerCli, tmp_path: Path) -> None:
    assert "busybox" in docker.out("images", "--format", "{{.Repository}}").splitlines()
    docker("tag", "busybox", "compat/other:1")
    assert docker.out("images", "-q", "compat/other:1") == docker.out("images", "-q", "busybox")
    archive = tmp_path / "saved.tar"
    docker("save", "-o", str(archive), "compat/other:1")
    docker("rmi", "compat/other:1")
    docker("image", "inspect", "compat/other:1", status=1)
    assert "Loaded image: compat/other:1" in docker.out("load", "-i", str(archive))
    assert docker.out("history", "-q", "busybox")
    docker("rmi", "compat/other:1")


def test_networks(docker: DockerCli, name: str) -> None:
    docker("network", "create", "compat-net")
    docker("run", "-d", "--name", name, "--network", "compat-net", "busybox", "sleep", "1000")
    found = json.loads(docker.out("network", "inspect", "compat-net"))[0]
    assert [one["Name"] for one in found["Containers"].values()] == [name]
    result = docker("network", "rm", "compat-net", status=1)
    assert "has active endpoints" in result.stderr
    docker("rm", "-f", name)
    docker("network", "rm", "compat-net")
    result = docker("network", "rm", "bridge", status=1)
    assert "bridge is a pre-defined network and cannot be removed" in result.stderr


def test_disk_usage_and_prune(docker: DockerCli, name: str) -> None:
    docker("run", "--name", name, "-v", "/anonymous", "busybox", "true")
    assert docker.out("system", "df").startswith("TYPE")
    assert name in docker.out("system", "df", "-v")
    docker("container", "prune", "-f")
    docker("volume", "prune", "-f")
    docker("network", "prune", "-f")
    docker("image", "prune", "-f")
    assert docker.out("ps", "-aq") == ""


ERRORS: list[tuple[str, int, str]] = [
    ("attach nope", 1, "No such container: nope"),
    ("logs nope", 1, "No such container: nope"),
    ("start nope", 1, "No such container: nope"),
    ("exec nope true", 1, "No such container: nope"),
    ("kill nope", 1, "cannot kill container: nope: No such container: nope"),
    ("wait nope", 1, "No such container: nope"),
    ("rm nope", 1, "No such container: nope"),
    ("commit nope", 1, "No such container: nope"),
    ("network rm nope", 1, "network nope not found"),
    ("volume rm nope", 1, "get nope: no such volume"),
    ("rmi nope", 1, "No such image: nope:latest"),
    ("tag nope x", 1, "No such image: nope"),
    ("history nope", 1, "No such image: nope"),
    ("run --rm --pull never nosuch true", 125, "No such image: nosuch:latest"),
    ("run --rm --memory 1k busybox true", 125, "Minimum memory limit allowed is 6MB"),
    ("run --rm --network nope busybox true", 125, "network nope not found"),
    ("run --rm -u nouser busybox true", 125, "unable to find user nouser"),
    ("run --rm -w rel busybox true", 125, "the working directory 'rel' is invalid"),
    ("run --rm --network container:nope busybox true", 125, "No such container: nope"),
    ("run --rm --cap-add FOO busybox true", 125, "CAP_FOO"),
    ("run --rm --ipc foo busybox true", 125, "IPC mode"),
    ("run --rm --log-driver foo busybox true", 125, "foo"),
    ("run --rm --log-opt foo=1 busybox true", 125, "unknown log opt 'foo' for json-file"),
    ("run --rm --runtime foo busybox true", 125, "foo"),
    ("run --rm -v /x:relative busybox true", 125, "mount path must be absolute"),
    ("run --rm --device /dev/nope busybox true", 127,
     'error gathering device information while adding custom device "/dev/nope": no such file '
     "or directory"),
    ("create --restart foo busybox", 1, "foo"),
    ("swarm leave", 1, "This node is not part of a swarm"),
    ("service ls", 1, "This node is not a swarm manager."),
]  # fmt: skip


@pytest.mark.parametrize(("command", "status", "text"), ERRORS, ids=[e[0] for e in ERRORS])
def test_errors_read_as_dockerds(docker: DockerCli, command: str, status: int, text: str) -> None:
    assert text in docker(*command.split(), status=status).stderr
    assert docker.out("ps", "-aq") == ""


def test_conflicts_name_the_container(docker: DockerCli, name: str) -> None:
    identity = docker.out("run", "-d", "--name", name, "busybox", "sleep", "1000")
    assert (
        f'Conflict. The container name "/{name}" is already in use by container "{identity}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    ) in docker("run", "--name", name, "busybox", status=125).stderr
    assert (
        "Stop the container before attempting removal or force remove"
        in (docker("rm", name, status=1).stderr)
        or "cannot remove container" in docker("rm", name, status=1).stderr
    )
    assert "is not paused" in docker("unpause", name, status=1).stderr
    assert "nvalid signal: FOO" in docker("kill", "-s", "FOO", name, status=1).stderr


def test_the_older_command_line(docker20: DockerCli, name: str) -> None:
    assert docker20.out("run", "--rm", "busybox", "echo", "hi") == "hi"
    docker20("run", "-d", "--name", name, "busybox", "sleep", "1000")
    assert docker20("exec", "-i", name, "cat", input="x").stdout == "x"
    assert name in docker20.out("ps")
    assert docker20.out("inspect", "-f", "{{.NetworkSettings.IPAddress}}", name)
    docker20("rm", "-f", name)


def test_docker_py(sampand: Sampand) -> None:
    docker_py = pytest.importorskip("docker")
    client = docker_py.DockerClient(base_url=sampand.host, timeout=60)
    try:
        assert client.ping()
        assert client.containers.run("busybox", ["echo", "hi"], remove=True) == b"hi\n"
        container = client.containers.run("busybox", "sleep 1000", detach=True)
        try:
            assert container.attrs["Config"]["Entrypoint"] is None
            status, output = container.exec_run("echo from exec", demux=True)
            assert (status, output) == (0, (b"from exec\n", None))
            sock = container.exec_run(["cat"], stdin=True, socket=True).output
            sock._sock.sendall(b"typed\n")
            assert sock._sock.recv(100).endswith(b"typed\n")
            sock._sock.close()
            sock.close()
            chunks, stat = container.get_archive("/etc/passwd")
            assert stat["name"] == "passwd"
            assert b"root:x:0:0" in b"".join(chunks)
            assert container.stats(stream=False)["memory_stats"]["usage"] > 0
            container.stop(timeout=0)
            assert container.wait()["StatusCode"] == 137
        finally:
            container.remove(force=True)
        with pytest.raises(docker_py.errors.ImageNotFound):
            client.images.get("nosuch-image-here")
    finally:
        client.close()


@pytest.fixture(scope="module")
def second(namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Sampand:
    """A daemon with several sockets; not started."""
    root = tmp_path_factory.mktemp("second")
    (root / "daemon.json").write_text("{}")
    (root / "cli").mkdir()
    flags = [
        f"--host=unix://{root}/ro.sock?mode=ro",
        f"--host=unix://{root}/team.sock?label=team=a",
        "--metrics-addr=127.0.0.1:9323",
    ]
    return Sampand(root, namespace, flags=flags)


def test_sockets_metrics_and_the_end(second: Sampand, namespace: str) -> None:
    second.start()
    cli = DockerCli(CLI, f"unix://{second.root}/ro.sock", second.root / "cli")
    assert "this socket is read-only" in cli("volume", "create", "x", status=1).stderr
    assert cli.out("volume", "ls", "-q") == ""
    full = DockerCli(CLI, second.host, second.root / "cli")
    full("volume", "create", "mine", "--label", "team=a")
    full("volume", "create", "other")
    team = DockerCli(CLI, f"unix://{second.root}/team.sock", second.root / "cli")
    assert team.out("volume", "ls", "-q") == "mine"
    assert team("volume", "rm", "other", status=1).stderr
    team("volume", "create", "ours")
    assert full.out("volume", "ls", "-q", "--filter", "label=team=a").split() == ["mine", "ours"]
    for flags in (["--volumes-from", "nope"], ["-v", "other:/x"]):
        refused = team("run", *flags, "image", status=125).stderr
        assert "No such" in refused
        assert "locally" not in refused  # that the image was missing, and then pulled
    scrape = subprocess.run(
        ["nsenter", f"--net=/run/netns/{namespace}", "curl", "-s",
         "http://127.0.0.1:9323/metrics"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert 'route="/volumes/create"' in scrape
    assert "engine_daemon_container_states_containers" in scrape
    assert 'engine_daemon_container_actions_seconds_count{action="create"} 2' in scrape
    assert re.search(r'engine_daemon_engine_info\{architecture="\w+",daemon_id=".*"\} 1', scrape)
    assert "engine_daemon_health_checks_failed_total 0" in scrape
    assert re.search(r"^engine_daemon_events_total [1-9]", scrape, re.MULTILINE)
    assert (second.root / "pid").read_text() == str(second.pid)
    assert second.stop() == 0
    assert not second.socket.exists()
    assert not (second.root / "pid").exists()


def test_volumes_made_for_a_container_of_a_scoped_socket(second: Sampand) -> None:
    """They are in the scope as well; those that are there without its labels are out of reach."""
    second.start()
    try:
        full = DockerCli(CLI, second.host, second.root / "cli")
        archive = second.root / "busybox.tar"
        archive.write_bytes(busybox_archive())
        full("load", "-i", str(archive))
        full("volume", "create", "theirs")
        team = DockerCli(CLI, f"unix://{second.root}/team.sock", second.root / "cli")
        before = set(team.out("volume", "ls", "-q").split())
        volumes = ("-v", "fresh:/a", "--mount", "type=volume,src=newer,dst=/b", "-v", "/c")
        team("create", "--name", "scoped", *volumes, "busybox", "true")
        made = set(team.out("volume", "ls", "-q").split()) - before
        assert {"fresh", "newer"} < made
        assert len(made) == 3
        refused = team("create", "-v", "theirs:/a", "busybox", "true", status=1)
        assert "No such volume: theirs" in refused.stderr
        team("create", "--name", "again", "-v", "fresh:/a", "busybox", "true")
        team("rm", "-v", "scoped", "again")
        assert set(team.out("volume", "ls", "-q").split()) - before == {"fresh", "newer"}
    finally:
        second.stop()
