"""sampan's own command line, and servers beside the daemon under test."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.compat.conftest import DockerCli, Sampand

Serve = Callable[..., AbstractContextManager[None]]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sampan's command line as a program."""
    path = tmp_path_factory.mktemp("bin") / "sampan"
    path.write_text(
        f"#!{sys.executable} -I\nimport sys\nfrom sampan.cli.main import main\n"
        f"sys.argv[0] = {str(path)!r}\nmain()\n"
    )
    path.chmod(0o755)
    return path


@pytest.fixture
def sampan(sampand: Sampand, program: Path) -> DockerCli:
    """sampan's command line on the daemon under test."""
    return DockerCli(str(program), sampand.host, sampand.root / "cli")


@pytest.fixture
def serve(sampand: Sampand, tmp_path: Path) -> Serve:
    """Runs a server in the daemon's network namespace until the end of a block."""

    @contextlib.contextmanager
    def running(port: int, *words: str) -> Iterator[None]:
        command = ["nsenter", f"--net=/run/netns/{sampand.namespace}", *words]
        with open(tmp_path / f"server-{port}.log", "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _await(sampand.namespace, port, process)
            yield
        finally:
            process.terminate()
            process.wait(60)

    return running


def _await(namespace: str, port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until something listens there; setns(2) of a thread would do, a child is simpler."""
    probe = (
        "import socket,sys\n"
        "s=socket.socket(); s.settimeout(5)\n"
        f"sys.exit(s.connect_ex(('127.0.0.1', {port})) != 0)"
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, "-I", "-c", probe],
            check=False,
        )
        if done.returncode == 0:
            return
    raise AssertionError(f"nothing listens on port {port}")
