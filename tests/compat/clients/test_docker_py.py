"""docker-py (PyPI ``docker``), as programs use it."""

from __future__ import annotations

import gc
import io
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import Healthcheck, IPAMConfig, IPAMPool, LogConfig, Mount, Ulimit

from tests.compat.conftest import Eventually, Sampand

# docker-py leaves the sockets of attach and exec to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def client(sampand: Sampand) -> Iterator[docker.DockerClient]:
    """A client that removes what the test made."""
    found = docker.DockerClient(base_url=sampand.host, timeout=60)
    yield found
    for container in found.containers.list(all=True):
        container.remove(force=True, v=True)
    found.networks.prune()
    found.close()
    gc.collect()


@pytest.fixture
def sleeper(client: docker.DockerClient) -> Container:
    """A running container."""
    return client.containers.run("busybox", ["sleep", "1000"], detach=True, init=True)


def test_system(client: docker.DockerClient) -> None:
    assert client.ping() is True
    assert client.version()["ApiVersion"] == client.api._version
    info = client.info()
    assert info["OSType"] == "linux"
    assert info["ContainersRunning"] == 0
    usage = client.df()  # API 1.52 renamed its parts
    assert usage.get("ImageUsage", {}).get("TotalCount") or usage.get("Images")


def test_run_gives_output_or_raises(client: docker.DockerClient) -> None:
    assert client.containers.run("busybox", "echo hello", remove=True) == b"hello\n"
    both = client.containers.run(
        "busybox", ["sh", "-c", "echo out; echo err >&2"], remove=True, stderr=True, stream=True
    )
    assert sorted(both) == [b"err\n", b"out\n"]
    with pytest.raises(ContainerError) as failed:
        client.containers.run("busybox", ["sh", "-c", "echo oh >&2; exit 3"], remove=True)
    assert (failed.value.exit_status, failed.value.stderr) == (3, b"oh\n")
    with pytest.raises(APIError, match="executable file not found"):
        client.containers.run("busybox", "nope", remove=True)
    (left,) = client.containers.list(all=True)  # docker-py removes only what was started
    assert left.status == "created"
    left.remove()
    with pytest.raises(ImageNotFound):
        client.images.get("nope")
    with pytest.raises(NotFound):
        client.containers.get("nope")
    assert client.containers.list(all=True) == []


def test_lifecycle_and_listing(client: docker.DockerClient) -> None:
    container = client.containers.create(
        "busybox", ["sh", "-c", "trap 'exit 4' TERM; while :; do sleep 0.05; done"],
        name="py-life", labels={"role": "x"}, environment={"A": "b"}, hostname="box",
        mem_limit="64m", nano_cpus=500_000_000, ulimits=[Ulimit(name="nofile", soft=99, hard=99)],
        tmpfs={"/t": "size=1m"}, cap_drop=["ALL"], security_opt=["no-new-privileges"],
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 0}, working_dir="/tmp",
        extra_hosts={"there": "10.1.2.3"}, devices=["/dev/null:/dev/mine:rwm"], user="0:0",
        healthcheck=Healthcheck(test=["CMD", "true"], interval=10**9),
    )  # fmt: skip
    assert container.status == "created"
    container.start()
    container.reload()
    assert container.status == "running"
    assert [c.name for c in client.containers.list(filters={"label": "role=x"})] == ["py-life"]
    assert container.image.tags == ["busybox:latest"]
    assert container.labels == {"role": "x"}
    container.pause()
    assert client.containers.list(filters={"status": "paused"}) == [container]
    container.unpause()
    container.rename("py-renamed")
    container.update(mem_limit="128m", memswap_limit="256m")
    container.reload()
    assert (container.name, container.attrs["HostConfig"]["Memory"]) == ("py-renamed", 128 << 20)
    assert any("trap" in process[-1] for process in container.top()["Processes"])
    container.stop(timeout=10)
    assert container.wait()["StatusCode"] in (0, 4)
    container.reload()
    assert container.attrs["State"]["ExitCode"] == 4
    container.restart(timeout=0)
    container.kill()
    assert container.wait(condition="not-running")["StatusCode"] == 137
    container.remove()
    with pytest.raises(NotFound):
        container.reload()


def test_logs(client: docker.DockerClient) -> None:
    script = "for i in 1 2 3; do echo out$i; done; echo err >&2"
    container = client.containers.run("busybox", ["sh", "-c", script], detach=True)
    container.wait()
    assert container.logs(stderr=False) == b"out1\nout2\nout3\n"
    assert container.logs(stdout=False) == b"err\n"
    assert container.logs(tail=1) in (b"out3\n", b"err\n")
    assert container.logs(stderr=False, tail=2).startswith(b"out")
    assert b"".join(container.logs(stderr=False, stream=True, follow=True)).count(b"out") == 3
    assert container.logs(timestamps=True, stdout=False).split(b" ")[1] == b"err\n"


def test_attach(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", "cat", stdin_open=True)
    channel = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    raw = channel._sock
    container.start()
    raw.sendall(b"through\n")
    raw.shutdown(socket.SHUT_WR)
    received = b""
    while data := raw.recv(4096):
        received += data
    assert received == b"\x01\0\0\0\0\0\0\x08through\n"
    channel.close()
    assert container.wait()["StatusCode"] == 0


def test_exec(sleeper: Container, client: docker.DockerClient) -> None:
    result = sleeper.exec_run(["sh", "-c", "echo out; echo err >&2; exit 7"], demux=True)
    assert result == (7, (b"out\n", b"err\n"))
    result = sleeper.exec_run("pwd", workdir="/tmp", user="user", environment={"A": "b"})
    assert result == (0, b"/tmp\n")
    assert sleeper.exec_run("tty", tty=True).output.strip() == b"/dev/pts/0"
    assert b"".join(sleeper.exec_run("seq 3", stream=True).output) == b"1\n2\n3\n"
    _, stream = sleeper.exec_run("cat", stdin=True, socket=True)
    stream._sock.sendall(b"in\n")
    stream._sock.shutdown(socket.SHUT_WR)
    assert stream.read(100) == b"\x01\0\0\0\0\0\0\x03in\n"
    stream.close()
    made = client.api.exec_create(sleeper.id, ["sh", "-c", "read x"], stdin=True, tty=True)
    held = client.api.exec_start(made["Id"], socket=True, tty=True)
    client.api.exec_resize(made["Id"], height=20, width=60)
    assert client.api.exec_inspect(made["Id"])["Running"] is True
    held._sock.sendall(b"\n")
    while held.read(100):
        pass
    assert client.api.exec_inspect(made["Id"])["ExitCode"] == 0
    held.close()
    assert sleeper.exec_run("nope").exit_code == 127


def test_archives(sleeper: Container) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size, entry.uid, entry.mode = 5, 1000, 0o640
        tar.addfile(entry, io.BytesIO(b"hello"))
    assert sleeper.put_archive("/tmp", data.getvalue())
    assert sleeper.exec_run("stat -c '%u %a %s' /tmp/file").output == b"1000 640 5\n"
    stream, stat = sleeper.get_archive("/tmp/file")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
        assert tar.extractfile("file").read() == b"hello"  # type: ignore[union-attr]
    assert (stat["name"], stat["size"]) == ("file", 5)
    with pytest.raises(NotFound, match="Could not find the file /nope in container"):
        sleeper.get_archive("/nope")
    changes = {(change["Path"], change["Kind"]) for change in sleeper.diff()}
    assert ("/tmp/file", 1) in changes
    exported = io.BytesIO(b"".join(sleeper.export()))
    with tarfile.open(fileobj=exported) as tar:
        names = tar.getnames()
    assert "tmp/file" in names
    assert not any(name.startswith(("proc/", "sys/")) for name in names)


def test_stats(sleeper: Container) -> None:
    once = sleeper.stats(stream=False)
    assert once["pids_stats"]["current"] >= 1
    assert once["precpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert set(once["networks"]) == {"eth0"}
    stream = sleeper.stats(stream=True, decode=True)
    assert next(stream)["memory_stats"]["usage"] > 0
    stream.close()


def test_networks_and_names(client: docker.DockerClient) -> None:
    pool = IPAMPool(subnet="10.77.0.0/24", gateway="10.77.0.9")
    network = client.networks.create(
        "py-net", driver="bridge", ipam=IPAMConfig(pool_configs=[pool]), labels={"a": "b"}
    )
    client.containers.run(
        "busybox", ["sh", "-c", "echo served >/tmp/i; httpd -f -h /tmp"], detach=True,
        name="py-server", network="py-net",
    )  # fmt: skip
    fetch = ["sh", "-c", "until wget -qO- http://py-server/i; do sleep 0.1; done"]
    assert client.containers.run("busybox", fetch, network="py-net", remove=True) == b"served\n"
    other = client.containers.run("busybox", ["sleep", "1000"], detach=True)
    network.connect(other, aliases=["friend"], ipv4_address="10.77.0.50")
    assert b"10.77.0.50" in client.containers.run(
        "busybox", "nslookup friend", network="py-net", remove=True
    )
    network.reload()
    assert {c.name for c in network.containers} == {"py-server", other.name}
    with pytest.raises(APIError, match="active endpoints"):
        network.remove()
    network.disconnect(other)
    assert [n.name for n in client.networks.list(filters={"label": "a=b"})] == ["py-net"]


def test_two_tiers_meet_in_one_service(client: docker.DockerClient, eventually: Eventually) -> None:
    """What compose makes of ``front`` and ``back``: pages ask the application, it the database."""
    for name, internal in (("tier-front", False), ("tier-back", True)):
        client.networks.create(name, driver="bridge", internal=internal, enable_ipv6=True)
    serve = ["sh", "-c", "hostname >/tmp/h; exec httpd -f -h /tmp"]
    for name, network in (("web", "front"), ("app", "front"), ("db", "back")):
        client.containers.run(
            "busybox", serve, detach=True, name=f"tier-{name}", hostname=name,
            network=f"tier-{network}",
            networking_config={
                f"tier-{network}": client.api.create_endpoint_config(aliases=[name])
            },
        )  # fmt: skip
    client.networks.get("tier-back").connect("tier-app", aliases=["app-behind"])

    def asks(who: str, host: str) -> bytes:
        command = ["timeout", "1", "wget", "-qO-", f"http://{host}/h"]
        found = client.containers.get(f"tier-{who}").exec_run(command)
        return bytes(found.output) if found.exit_code == 0 else b""

    def address(who: str, network: str, key: str = "IPAddress") -> str:
        attributes = client.containers.get(f"tier-{who}").attrs
        return str(attributes["NetworkSettings"]["Networks"][f"tier-{network}"][key])

    for who, host in (("web", "app"), ("app", "web"), ("app", "db"), ("db", "app-behind")):
        eventually(lambda who=who, host=host: asks(who, host) != b"")
        assert asks(who, host).decode().strip() == host.removesuffix("-behind")
    assert asks("web", "db") == asks("web", "app-behind") == asks("db", "web") == b""
    six = address("db", "back", "GlobalIPv6Address")
    assert asks("web", address("db", "back")) == asks("web", f"[{six}]") == b""
    assert asks("web", address("app", "back")) == b""
    assert asks("app", f"[{six}]") == b"db\n"
    # nothing leaves the internal network
    routes = client.containers.get("tier-db").exec_run(["ip", "route"]).output
    assert b"default" not in routes


def test_volumes(client: docker.DockerClient, tmp_path: Path) -> None:
    volume = client.volumes.create("py-vol", labels={"a": "b"})
    (tmp_path / "f").write_text("host")
    client.containers.run(
        "busybox", ["sh", "-c", "cat /h/f >/v/f; ! touch /h/x"], remove=True,
        volumes={"py-vol": {"bind": "/v", "mode": "rw"}, str(tmp_path): {"bind": "/h",
                                                                         "mode": "ro"}},
    )  # fmt: skip
    mount = Mount("/w", "py-vol", read_only=True)
    assert client.containers.run("busybox", "cat /w/f", mounts=[mount], remove=True) == b"host"
    assert [v.name for v in client.volumes.list(filters={"label": "a=b"})] == ["py-vol"]
    volume.remove()
    with pytest.raises(NotFound):
        client.volumes.get("py-vol")


def test_ports(client: docker.DockerClient, inside: str) -> None:
    container = client.containers.run(
        "busybox", ["sh", "-c", "echo web >/tmp/i; exec httpd -f -h /tmp"], detach=True,
        ports={"80/tcp": ("127.0.0.1", None), "81/udp": 4081},
    )  # fmt: skip
    container.reload()
    assert container.ports["81/udp"][0]["HostPort"] == "4081"
    port = int(container.ports["80/tcp"][0]["HostPort"])
    container.exec_run(["sh", "-c", "until wget -qO- http://localhost/i; do sleep 0.05; done"])
    with socket.create_connection(("127.0.0.1", port), 10) as web:
        web.sendall(b"GET /i HTTP/1.0\r\n\r\n")
        text = web.makefile("rb").read()
    assert text.endswith(b"\r\n\r\nweb\n")


def test_events(client: docker.DockerClient) -> None:
    stream = client.events(decode=True, filters={"type": "container", "label": "watched"})
    client.containers.run("busybox", "true", labels=["watched"], remove=True)
    seen = []
    for event in stream:
        seen.append(event["Action"])
        if event["Action"] == "destroy":
            break
    stream.close()
    assert seen == ["create", "start", "die", "destroy"] or seen == [
        "create", "attach", "start", "die", "destroy",
    ]  # fmt: skip


def test_images(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["touch", "/made"], detach=True)
    container.wait()
    image = container.commit("py-image", "one", changes='CMD ["ls", "/made"]')
    assert image.tags == ["py-image:one"]
    assert client.containers.run(image, remove=True) == b"/made\n"
    assert [layer["CreatedBy"] for layer in image.history()] == ["touch /made", "tests"]
    container.remove()
    assert image.tag("py-image", "two")
    image.reload()
    assert sorted(image.tags) == ["py-image:one", "py-image:two"]
    saved = b"".join(image.save(named="py-image:two"))
    client.images.remove("py-image:one")
    client.images.remove("py-image:two", force=True)
    with pytest.raises(ImageNotFound):
        client.images.get(image.id)
    (again,) = client.images.load(saved)
    assert (again.id, again.tags) == (image.id, ["py-image:two"])
    client.images.remove(again.id)
    assert client.images.list("py-image") == []


def test_a_commit_tells_where_it_is_from(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", "true")
    image = container.commit("py-child", changes='EXPOSE 8000\nCMD ["ls"]\nLABEL a=b c=d')
    assert image.attrs["Parent"] == client.images.get("busybox").id
    assert image.attrs["Config"]["ExposedPorts"] == {"8000/tcp": {}}
    assert image.attrs["Config"]["Cmd"] == ["ls"]
    assert image.labels == {"a": "b", "c": "d"}
    container.remove()
    client.images.remove(image.id)


def test_failures_have_a_status(client: docker.DockerClient) -> None:
    with pytest.raises(APIError) as failed:
        client.api.pull("127.0.0.1:1/nobody/there", stream=True)
    assert failed.value.status_code >= 500
    with pytest.raises(APIError, match="unknown operating system or architecture") as failed:
        client.api.pull("busybox", platform="foo")
    assert failed.value.status_code == 400
    assert client.api.prune_networks() == {"NetworksDeleted": None}
    assert client.api.prune_containers()["ContainersDeleted"] is None
    pruned = client.api.prune_builds(filters={"id": ["nothing"]})
    assert pruned == {"CachesDeleted": None, "SpaceReclaimed": 0}


def test_requests_are_shown_as_they_were_made(client: docker.DockerClient) -> None:
    low = client.api
    host = low.create_host_config(log_config=LogConfig(type="json-file", config=None))
    made = low.inspect_container(low.create_container("busybox", "true", host_config=host))
    assert made["HostConfig"]["LogConfig"] == {"Type": "json-file", "Config": {}}
    host = low.create_host_config(isolation="default")
    made = low.inspect_container(low.create_container("busybox", "true", host_config=host))
    assert made["HostConfig"]["Isolation"] == "default"
    pool = IPAMPool(subnet="10.76.0.0/16", iprange="10.76.5.0/24", aux_addresses={"a": "10.76.1.5"})
    network = client.networks.create("py-ipam", ipam=IPAMConfig(pool_configs=[pool]))
    assert network.attrs["IPAM"]["Options"] is None
    network.remove()


def test_files_of_a_volume_before_the_first_start(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", "cat /vol/f", volumes=["/vol"])
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        entry = tarfile.TarInfo("f")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"early"))
    assert container.put_archive("/vol", data.getvalue())
    container.start()
    container.wait()
    assert container.logs() == b"early"


def test_a_link_to_what_comes_later(client: docker.DockerClient) -> None:
    client.networks.create("py-links")
    endpoint = client.api.create_endpoint_config(links=[("py-later", "upstream")])
    first = client.containers.run(
        "busybox", "sleep 1000", detach=True, network="py-links",
        networking_config={"py-links": endpoint},
    )  # fmt: skip
    client.containers.run("busybox", "sleep 1000", detach=True, network="py-links", name="py-later")
    assert first.exec_run("nslookup upstream").exit_code == 0


def test_builds_that_fail_early_have_a_status(client: docker.DockerClient) -> None:
    for text, words in ((b"", "cannot be empty"), (b"FROM busybox\nNOPE", "unknown instruction")):
        with pytest.raises(APIError, match=words) as failed:
            client.api.build(fileobj=io.BytesIO(text), rm=True).send(None)
        assert failed.value.status_code == 400


def test_what_the_classic_builder_says(client: docker.DockerClient) -> None:
    def build(text: str, **options: object) -> list[str]:
        source = io.BytesIO(text.encode())
        return [line.get("stream", "") for line in client.api.build(
            fileobj=source, decode=True, rm=True, **options)]  # fmt: skip

    text = "FROM busybox\nRUN echo complaint >&2\nRUN touch /made\n"
    assert "\x1b[91mcomplaint\n\x1b[0m" in build(text, tag="py-classic")
    assert " ---> Using cache\n" in build(text, cache_from=["py-classic"])
    assert " ---> Using cache\n" not in build(text, cache_from=["py-nowhere"])
    client.images.remove("py-classic", force=True)


def test_build(client: docker.DockerClient, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nARG WHAT=x\nCOPY f /f\nRUN cat /f >/g && echo $WHAT >>/g\nCMD cat /g\n"
    )
    (tmp_path / "f").write_text("file ")
    image, lines = client.images.build(
        path=str(tmp_path), tag="py-built", buildargs={"WHAT": "arg"}, rm=True
    )
    assert any("Successfully tagged py-built" in line.get("stream", "") for line in lines)
    assert client.containers.run("py-built", remove=True) == b"file arg\n"
    client.images.remove(image.id, force=True)


def test_health(client: docker.DockerClient, eventually: Eventually) -> None:
    check = Healthcheck(test=["CMD-SHELL", "test -e /ok"], interval=200_000_000, retries=1)
    container = client.containers.run(
        "busybox", ["sleep", "1000"], detach=True, healthcheck=check, init=True
    )

    def is_(what: str) -> bool:
        container.reload()
        return container.health == what  # type: ignore[no-any-return]

    eventually(lambda: is_("unhealthy"))
    container.exec_run("touch /ok")
    eventually(lambda: is_("healthy"))
