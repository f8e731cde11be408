"""The docker command line over mutual TLS, and keys typed at a terminal that detach it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import tty
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.compat.conftest import CLI, DockerCli, Eventually, Sampand, busybox_archive
from tests.conformance.api.test_tls import issue

PORT = 2376


@dataclass(frozen=True)
class Remote(DockerCli):
    """A command line inside the daemon's network namespace, talking TLS."""

    namespace: str = ""

    def tls(
        self, *arguments: str, who: str = "client", input: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with the certificate of ``who``."""
        certificates = self.config.parent
        command = [
            "nsenter", f"--net=/run/netns/{self.namespace}", self.program,
            f"--host=tcp://localhost:{PORT}", "--tlsverify",
            f"--tlscacert={certificates}/ca.pem", f"--tlscert={certificates}/{who}.pem",
            f"--tlskey={certificates}/{who}-key.pem", *arguments,
        ]  # fmt: skip
        environment = {key: v for key, v in self.environment.items() if key != "DOCKER_HOST"}
        return subprocess.run(
            command, input=input, capture_output=True, text=True, timeout=60, env=environment,
            check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def remote(namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """A daemon that listens on TCP for clients with a certificate of its authority."""
    root = tmp_path_factory.mktemp("remote")
    authority = issue(root, "ca")
    issue(root, "server", authority)
    issue(root, "client", authority)
    issue(root, "stranger")
    (root / "daemon.json").write_text("{}")
    (root / "cli").mkdir()
    flags = [
        f"--host=tcp://127.0.0.1:{PORT}", "--tlsverify", f"--tlscacert={root}/ca.pem",
        f"--tlscert={root}/server.pem", f"--tlskey={root}/server-key.pem",
    ]  # fmt: skip
    daemon = Sampand(root, namespace, flags=flags)
    daemon.start()
    try:
        cli = Remote(CLI, daemon.host, root / "cli", namespace)
        archive = root / "busybox.tar"
        archive.write_bytes(busybox_archive())
        cli("load", "-i", str(archive))
        yield cli
    finally:
        daemon.stop()


def test_input_ends_and_output_goes_on_over_tls(remote: Remote) -> None:
    data = "line\n" * 50_000
    script = "wc -l; sleep 0.3; echo still here"
    result = remote.tls("run", "--rm", "-i", "busybox", "sh", "-c", script, input=data)
    assert (result.returncode, result.stdout) == (0, "50000\nstill here\n")
    result = remote.tls("run", "--rm", "-i", "busybox", "cat", input=data)
    assert (result.returncode, result.stdout) == (0, data)


def test_strangers_are_refused(remote: Remote) -> None:
    result = remote.tls("version", who="stranger")
    assert result.returncode == 1
    assert "tls: " in result.stderr


def test_detach_keys(docker: DockerCli, name: str, eventually: Eventually) -> None:
    leader, follower = pty.openpty()
    tty.setraw(follower)
    process = subprocess.Popen(
        [docker.program, "run", "-it", "--name", name, "busybox", "sh"],
        stdin=follower, stdout=follower, stderr=follower, env=docker.environment,
        start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    with os.fdopen(leader, "r+b", buffering=0) as terminal:
        seen = b""
        while b"# " not in seen:
            seen += terminal.read(1000) or b""
        terminal.write(b"\x10\x11")
        assert process.wait(30) == 0
    assert docker.out("inspect", "-f", "{{.State.Status}}", name) == "running"


def test_a_reload_changes_what_can_change(
    sampand: Sampand, docker: DockerCli, eventually: Eventually
) -> None:
    if sampand.foreign:
        pytest.skip("needs a daemon of its own")
    path = Path(sampand.root / "daemon.json")
    path.write_text('{"labels": ["colour=green"]}')
    os.kill(sampand.pid, signal.SIGHUP)
    try:
        eventually(lambda: "colour=green" in docker.out("info", "-f", "{{.Labels}}"))
        path.write_text('{"nonsense": 1}')
        os.kill(sampand.pid, signal.SIGHUP)
        eventually(lambda: "nonsense" in sampand.log())
        assert "colour=green" in docker.out("info", "-f", "{{.Labels}}")
    finally:
        path.write_text("{}")
        os.kill(sampand.pid, signal.SIGHUP)
