"""python-on-whales (PyPI), which drives the docker command line and reads its JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from python_on_whales import DockerClient
from python_on_whales.exceptions import DockerException, NoSuchContainer

from tests.compat.conftest import CLI, Eventually, Sampand


@pytest.fixture
def client(sampand: Sampand) -> Iterator[DockerClient]:
    """A client that removes what the test made."""
    found = DockerClient(
        host=sampand.host, config=sampand.root / "cli", client_call=[CLI], client_type="docker"
    )
    yield found
    left = found.container.list(all=True)
    if left:
        found.container.remove(left, force=True, volumes=True)


def test_run(client: DockerClient) -> None:
    assert client.run("busybox", ["echo", "hello"], remove=True) == "hello"
    lines = list(client.run("busybox", ["seq", "3"], remove=True, stream=True))
    assert lines == [("stdout", b"1\n"), ("stdout", b"2\n"), ("stdout", b"3\n")]
    with pytest.raises(DockerException) as failed:
        client.run("busybox", ["sh", "-c", "echo oh >&2; exit 9"], remove=True)
    assert failed.value.return_code == 9
    assert "oh" in str(failed.value)


def test_container(client: DockerClient, tmp_path: Path, eventually: Eventually) -> None:
    container = client.run(
        "busybox", ["sh", "-c", "echo started; exec sleep 1000"], detach=True, name="whale",
        init=True, envs={"A": "b"}, labels={"role": "x"}, memory="64m", cpus=0.5, hostname="box",
        health_cmd="true", restart="on-failure:2", tty=True, tmpfs=["/run"],
        add_hosts=[("there", "10.1.2.3")], pids_limit=50, log_driver="local",
    )  # fmt: skip
    assert container.state.running
    assert container.state.status == "running"
    assert container.config.labels == {"role": "x"}
    assert container.host_config.memory == 64 << 20
    assert container.host_config.restart_policy.maximum_retry_count == 2
    assert container.name == "whale"
    assert client.container.list(filters=[("label", "role=x")]) == [container]
    eventually(lambda: client.container.logs(container) == "started\r\n")
    assert container.execute(["sh", "-c", "echo $A; cat /etc/hostname"]) == "b\nbox"
    container.pause()
    assert container.state.paused
    container.unpause()
    (tmp_path / "f").write_text("copied")
    container.copy_to(tmp_path / "f", "/tmp/f")
    stats = client.stats([container])[0]
    assert stats.memory_used > 0
    assert stats.container_name == "whale"
    container.rename("whale2")
    client.container.update(container, memory="128m", memory_swap="256m")
    assert client.container.inspect("whale2").host_config.memory == 128 << 20
    container.stop(time=0)
    assert client.container.wait(container) in (137, 143)
    container.remove()
    with pytest.raises(NoSuchContainer):
        client.container.inspect("whale2")
    assert not client.container.exists("whale2")


def test_files(client: DockerClient, tmp_path: Path) -> None:
    container = client.container.create("busybox", ["cat", "/etc/new"])
    (tmp_path / "new").write_text("hello")
    client.copy(tmp_path / "new", (container, "/etc/new"))
    assert container.start(attach=True) == "hello"
    client.copy((container, "/etc/new"), tmp_path / "back")
    assert (tmp_path / "back").read_text() == "hello"
    assert container.diff() == {"/etc": "C", "/etc/new": "A"}
    container.export(tmp_path / "all.tar")
    assert (tmp_path / "all.tar").stat().st_size > 1_000_000
    image = container.commit("whale-made")
    assert client.run(image, ["cat", "/etc/new"], remove=True) == "hello"
    image.remove(force=True)


def test_networks_and_volumes(client: DockerClient, tmp_path: Path) -> None:
    with client.network.create("whale-net", subnet="10.78.0.0/24", labels={"a": "b"}) as network:
        server = client.run(
            "busybox", ["sh", "-c", "echo served >/tmp/i; exec httpd -f -h /tmp"], detach=True,
            name="whale-server", networks=["whale-net"], network_aliases=["web"],
        )  # fmt: skip
        fetch = ["sh", "-c", "until wget -qO- http://web/i 2>/dev/null; do sleep 0.1; done"]
        assert client.run("busybox", fetch, remove=True, networks=[network]) == "served"
        assert server.network_settings.networks["whale-net"].ip_address.startswith("10.78.0.")
        assert {entry.name for entry in network.containers.values()} == {"whale-server"}
        client.network.disconnect(network, server)
        assert client.network.list(filters=[("label", "a=b")]) == [network]
    with client.volume.create("whale-vol", labels={"a": "b"}) as volume:
        client.run(
            "busybox", ["sh", "-c", "echo kept >/v/f"], remove=True, volumes=[(volume, "/v")]
        )
        assert client.run(
            "busybox", ["cat", "/v/f"], remove=True, volumes=[(volume, "/v", "ro")]
        ) == "kept"  # fmt: skip
        assert client.volume.list(filters=[("label", "a=b")]) == [volume]


def test_images_and_system(client: DockerClient, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nLABEL who=me\nCMD echo built\n")
    image = client.legacy_build(tmp_path, tags="whale-built")
    assert image.config.labels == {"who": "me"}
    assert client.run("whale-built", remove=True) == "built"
    image.tag("whale-built:two")
    client.image.save("whale-built:two", output=tmp_path / "image.tar")
    client.image.remove(["whale-built", "whale-built:two"])
    assert not client.image.exists("whale-built:two")
    assert client.image.load(tmp_path / "image.tar") == ["whale-built:two"]
    client.image.remove("whale-built:two")
    info = client.system.info()
    assert info.driver
    assert info.os_type == "linux"
    assert client.system.disk_free().images.total_count >= 1
    assert client.version().server is not None
