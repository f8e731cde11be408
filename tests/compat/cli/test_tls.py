"""The command line over mutual TLS: flags, environment, contexts; directions end one by one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.conftest import CLI, DockerCli, Sampand, busybox_archive
from tests.conformance.api.test_tls import issue

PORT = 2377


@pytest.fixture(scope="module")
def daemon(namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sampand]:
    """A daemon that listens on TCP for clients with a certificate of its authority."""
    root = tmp_path_factory.mktemp("tls")
    authority = issue(root, "ca")
    for name in ("server", "client"):
        issue(root, name, authority)
    issue(root, "stranger")
    (root / "daemon.json").write_text("{}")
    flags = [
        f"--host=tcp://127.0.0.1:{PORT}", "--tlsverify", f"--tlscacert={root}/ca.pem",
        f"--tlscert={root}/server.pem", f"--tlskey={root}/server-key.pem", "--bridge=none",
    ]  # fmt: skip
    found = Sampand(root, namespace, flags=flags)
    found.start()
    try:
        (root / "cli").mkdir()
        (root / "b.tar").write_bytes(busybox_archive())
        DockerCli(CLI, found.host, root / "cli")("load", "-i", str(root / "b.tar"))
        yield found
    finally:
        found.stop()


class Client:
    """Runs sampan inside the daemon's network namespace."""

    def __init__(self, daemon: Sampand, program: Path, config: Path) -> None:
        self._daemon = daemon
        self._program = program
        self._config = config

    def __call__(
        self, *words: str, input: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", f"--net=/run/netns/{self._daemon.namespace}", self._program, *words],
            input=input, capture_output=True, text=True, timeout=60, check=False,
            env={"PATH": os.environ["PATH"], "DOCKER_CONFIG": str(self._config), **environment},
        )  # fmt: skip

    def flags(self, who: str = "client", ca: str = "ca") -> list[str]:
        root = self._daemon.root
        return [
            f"--host=tcp://localhost:{PORT}", "--tlsverify", f"--tlscacert={root}/{ca}.pem",
            f"--tlscert={root}/{who}.pem", f"--tlskey={root}/{who}-key.pem",
        ]  # fmt: skip


@pytest.fixture
def client(daemon: Sampand, cli_directory: Path, tmp_path: Path) -> Client:
    return Client(daemon, cli_directory / "docker", tmp_path)


def test_input_ends_and_output_goes_on(client: Client) -> None:
    data = "line\n" * 200_000
    run = (*client.flags(), "run", "--rm", "-i", "--network", "none", "busybox")
    result = client(*run, "sh", "-c", "wc -l; echo still here", input=data)
    assert (result.returncode, result.stdout) == (0, "200000\nstill here\n")
    result = client(*run, "cat", input=data)
    assert (result.returncode, result.stdout, result.stderr) == (0, data, "")


def test_certificates_are_checked_both_ways(client: Client) -> None:
    result = client(*client.flags(who="stranger"), "ps")
    assert result.returncode == 1
    assert "error during connect" in result.stderr
    result = client(*client.flags(ca="stranger"), "ps")
    assert result.returncode == 1
    assert "error during connect" in result.stderr


def test_environment_and_contexts(client: Client, daemon: Sampand, tmp_path: Path) -> None:
    for name, source in (("ca", "ca"), ("cert", "client"), ("key", "client-key")):
        (tmp_path / f"{name}.pem").write_bytes((daemon.root / f"{source}.pem").read_bytes())
    host = f"tcp://localhost:{PORT}"
    names = {"DOCKER_HOST": host, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    assert client("images", "-q", **names).returncode == 0
    endpoint = ",".join(
        [f"host={host}", *(f"{name}={tmp_path}/{name}.pem" for name in ("ca", "cert", "key"))]
    )
    assert client("context", "create", "secure", "--docker", endpoint).returncode == 0
    result = client("--context", "secure", "images", "-q")
    assert (result.returncode, result.stderr) == (0, "")
