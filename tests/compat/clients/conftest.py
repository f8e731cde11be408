"""Docker clients in other languages, each doing its normal work against sampand.

Clients that are light are in the ``dev`` extra; others are fetched on first use into
``/var/tmp/sampan-test-tools`` through the caller's network namespace (``tools/in-namespaces``).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.compat.conftest import Sampand

TOOLS = Path("/var/tmp/sampan-test-tools")
FETCH_SECONDS = 270  # a test may take 300 in all
_CLONE_NEWNET = 0x40000000


def _enter(path: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(descriptor)


@pytest.fixture
def inside(sampand: Sampand) -> Iterator[str]:
    """The test's thread is in the daemon's network namespace: published ports are on localhost."""
    if sampand.foreign:
        pytest.skip("needs a daemon of its own")
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(f"/run/netns/{sampand.namespace}")
        yield sampand.namespace
    finally:
        _enter(f"/proc/self/fd/{before}")
        os.close(before)


Fetch = Callable[[str, Sequence[Sequence[str]]], Path]


@pytest.fixture(scope="session")
def fetched() -> Fetch:
    """Make a directory below ``TOOLS`` by commands run in it, once; skips when that fails."""

    def fetch(name: str, commands: Sequence[Sequence[str]]) -> Path:
        directory = TOOLS / name
        if (directory / ".complete").exists():
            return directory
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        outside = os.environ.get("SAMPAN_TEST_HOST_NETNS")
        prefix = ["nsenter", f"--net={outside}", "--"] if outside else []
        deadline = time.monotonic() + FETCH_SECONDS
        for command in commands:
            if shutil.which(command[0]) is None:
                pytest.skip(f"needs {command[0]}")
            try:
                result = subprocess.run(
                    [*prefix, *command],
                    cwd=directory,
                    capture_output=True,
                    text=True,
                    timeout=max(1.0, deadline - time.monotonic()),
                    check=False,
                )
            except subprocess.TimeoutExpired:
                pytest.skip(f"{name} cannot be had in {FETCH_SECONDS} seconds")
            if result.returncode:
                pytest.skip(f"{name} cannot be had: {(result.stderr or result.stdout)[-300:]}")
        (directory / ".complete").touch()
        return directory

    return fetch
