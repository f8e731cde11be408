"""testcontainers-python (PyPI): containers for the length of a test, reached by their ports."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.compat.conftest import Sampand

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


@pytest.fixture
def here(sampand: Sampand, inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library finds the daemon as it does everywhere; its reaper image is not to be had."""
    monkeypatch.setenv("DOCKER_HOST", sampand.host)
    from testcontainers.core.config import testcontainers_config

    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)
    return


def _get(host: str, port: int) -> bytes:
    with socket.create_connection((host, port), 10) as web:
        web.sendall(b"GET /i HTTP/1.0\r\n\r\n")
        return web.makefile("rb").read()


def test_a_server_is_awaited_and_reached(here: None, tmp_path: Path) -> None:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.waiting_utils import wait_for_logs

    (tmp_path / "i").write_text("hello")
    script = "echo $GREETING; exec httpd -f -h /www"
    container = (
        DockerContainer("busybox")
        .with_command(["sh", "-c", script])
        .with_env("GREETING", "ready to serve")
        .with_volume_mapping(tmp_path, "/www", "ro")
        .with_exposed_ports(80)
        .with_kwargs(labels={"team": "x"})
    )
    with container:
        wait_for_logs(container, "ready to serve", timeout=30)
        status, _ = container.exec(["sh", "-c", "until wget -qO- localhost/i; do sleep 0.05; done"])
        assert status == 0
        host, port = container.get_container_host_ip(), int(container.get_exposed_port(80))
        assert _get(host, port).endswith(b"hello")
        out, err = container.get_logs()
        assert (out, err) == (b"ready to serve\n", b"")
        wrapped = container.get_wrapped_container()
        assert wrapped.labels["team"] == "x"
    with pytest.raises(OSError, match="refused"):
        _get(host, port)


def test_two_on_a_network(here: None) -> None:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.network import Network
    from testcontainers.core.waiting_utils import wait_for_logs

    with Network() as network:
        server = (
            DockerContainer("busybox")
            .with_command(["sh", "-c", "echo served >/tmp/i; exec httpd -f -h /tmp"])
            .with_network(network)
            .with_network_aliases("web")
        )
        fetch = "until wget -qO- http://web/i; do sleep 0.1; done; sleep 1000"
        caller = DockerContainer("busybox").with_command(["sh", "-c", fetch]).with_network(network)
        with server, caller:
            wait_for_logs(caller, "served", timeout=30)


def test_an_image_built_for_the_test(here: None, tmp_path: Path) -> None:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.image import DockerImage

    (tmp_path / "Dockerfile").write_text("FROM busybox\nCMD echo built here\n")
    with DockerImage(path=tmp_path, tag="tc-built:1") as image, DockerContainer(str(image)) as c:
        assert c.get_wrapped_container().wait()["StatusCode"] == 0
        assert c.get_logs()[0] == b"built here\n"
