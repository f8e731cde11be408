"""A registry of ours in a network namespace of its own, and the tools of others beside it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

TIMEOUT = 120
PORT = 5000


@dataclass(frozen=True)
class Place:
    """A network namespace with a registry on 127.0.0.1:5000 whose store is below ``root``."""

    namespace: str
    root: Path

    @property
    def registry(self) -> str:
        return f"127.0.0.1:{PORT}"

    def command(self, *words: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *words]

    def run(self, *words: str, **environment: str) -> str:
        """Run a program inside; its output. Fails with what it said."""
        result = subprocess.run(
            self.command(*words),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            env={**os.environ, **environment},
        )
        assert result.returncode == 0, f"{words}: {result.stdout}{result.stderr}"
        return result.stdout

    @contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """A program that runs inside until the end of the block."""
        with open(self.root / f"{Path(words[0]).name}.log", "ab") as log:
            process = subprocess.Popen(self.command(*words), stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def await_answer(self, *words: str) -> None:
        """Until a program inside succeeds."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            result = subprocess.run(self.command(*words), capture_output=True, check=False)
            if result.returncode == 0:
                return
            assert time.monotonic() < deadline, (words, result.stderr)
            time.sleep(0.05)


def from_go(package: str, target: Path) -> Path:
    """A program built in ``target`` from a Go module (``path@version``); skips when that fails."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("needs go")
    # Modules come from outside the tests' network namespace (tools/in-namespaces).
    outside = os.environ.get("SAMPAN_TEST_HOST_NETNS")
    prefix = ["nsenter", f"--net={outside}", "--"] if outside else []
    result = subprocess.run(
        [*prefix, go, "install", package],
        env={**os.environ, "GOBIN": str(target)},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    if result.returncode:
        pytest.skip(f"{package} cannot be built: {result.stderr[-200:]}")
    return target / package.partition("@")[0].rpartition("/")[2]


def needs(*programs: str) -> None:
    """Skip without them."""
    missing = [program for program in programs if shutil.which(program) is None]
    if os.geteuid() != 0:
        missing.append("root")
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A namespace with our registry in it, served by two processes."""
    needs("ip", "nsenter", "curl")
    name = f"sampan-registry-{os.getpid()}"
    root = tmp_path_factory.mktemp("place")
    subprocess.run(["ip", "netns", "add", name], check=True)
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["ip", "netns", "delete", name], check=True)
        made = Place(name, root)
        made.run("ip", "link", "set", "lo", "up")
        command = [sys.executable, "-m", "sampan.registry.server", "--workers", "2"]
        command += ["--listen", made.registry, "--root", str(root / "registry")]
        stack.enter_context(made.running(*command))
        made.await_answer("curl", "-sf", f"http://{made.registry}/v2/")
        yield made
