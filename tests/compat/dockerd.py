"""Debian's dockerd as a peer: in a network namespace of its own, with roots of its own."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


def run(*command: str | Path, input: bytes | None = None) -> str:
    """Run a peer; its standard output."""
    result = subprocess.run(
        [str(word) for word in command], input=input, capture_output=True, timeout=120, check=False
    )
    assert result.returncode == 0, (command, result.stdout[-2000:], result.stderr[-2000:])
    return result.stdout.decode()


@dataclass(frozen=True)
class Docker:
    host: str

    def __call__(self, *arguments: str, input: bytes | None = None) -> str:
        return run("docker", "-H", self.host, *arguments, input=input)


@pytest.fixture(scope="module")
def dockerd(namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """Debian's dockerd in a network namespace of its own, with roots of its own."""
    if shutil.which("dockerd") is None:
        pytest.skip("needs dockerd")
    root = tmp_path_factory.mktemp("dockerd")
    host = f"unix://{root}/sock"
    with open(root / "log", "wb") as log:
        daemon = subprocess.Popen(
            [
                *("nsenter", f"--net=/run/netns/{namespace}", "dockerd", f"--host={host}"),
                *(f"--data-root={root}/data", f"--exec-root={root}/exec"),
                *(f"--pidfile={root}/pid", "--bridge=none", "--iptables=false"),
                "--ip6tables=false",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 60
        while subprocess.run(
            ["docker", "-H", host, "version"], capture_output=True, check=False
        ).returncode:
            assert daemon.poll() is None, (root / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, "dockerd does not answer"
            time.sleep(0.1)
        yield Docker(host)
    finally:
        daemon.terminate()
        daemon.wait(60)
        shutil.rmtree(root, ignore_errors=True)
