"""containerd's shim (io.containerd.runc.v2) runs its tasks with sampan-runtime.

containerd has its own roots and a network namespace; cgroups are below a parent of ours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sampan.kernel import cgroup
from tests.compat.conftest import busybox_archive
from tests.compat.runtime.test_engines import (
    PROGRAM,
    Result,
    caller,
    on_terminal,
    remove_cgroups,
)

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="sampan-runtime is not installed")
IMAGE = "docker.io/library/busybox:latest"
PARENT = f"/sampan-test-{os.getpid()}-containerd"
CONFIG = """version = 2
root = "{root}/root"
state = "{root}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs"]
[grpc]
address = "{root}/sock"
[ttrpc]
address = "{root}/ttrpc"
"""


@dataclass(frozen=True)
class Containerd:
    """``ctr`` for a containerd, and where the runtime keeps its state."""

    root: Path

    @property
    def words(self) -> tuple[str, ...]:
        return ("ctr", "--address", f"{self.root}/sock", "--namespace", "test")

    def __call__(self, *words: str, input: bytes | None = None) -> Result:
        return caller(*self.words)(*words, input=input)

    def ok(self, *words: str, input: bytes | None = None) -> str:
        result = self(*words, input=input)
        assert result.returncode == 0, (words, result.stdout, result.stderr)
        return result.stdout

    def run(self, name: str, *words: str) -> tuple[str, ...]:
        """The words of ``ctr run`` up to the program's own."""
        runtime = ("--runc-binary", str(PROGRAM), "--runc-root", str(self.root / "runtime"))
        group = ("--cgroup", f"{PARENT}/{name}")
        return ("run", *runtime, *group, "--snapshotter", "overlayfs", *words, IMAGE, name)

    def status(self, name: str) -> str:
        for line in self.ok("task", "ls").splitlines()[1:]:
            task, _, status = line.split()
            if task == name:
                return status
        return ""


@pytest.fixture(scope="module")
def containerd(namespace: str) -> Iterator[Containerd]:
    if shutil.which("containerd") is None or shutil.which("ctr") is None:
        pytest.skip("needs containerd")
    found = Containerd(Path(tempfile.mkdtemp(prefix="sampan-containerd-")))
    found.root.chmod(0o711)  # the root of a user namespace has to get to its files
    config = found.root / "config.toml"
    config.write_text(CONFIG.format(root=found.root))
    with open(found.root / "log", "wb") as log:
        daemon = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{namespace}", "containerd", "--config", str(config)],
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 60
        while found("version").returncode:
            assert daemon.poll() is None, (found.root / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, "containerd does not answer"
            time.sleep(0.1)
        archive = found.root / "busybox.tar"
        archive.write_bytes(busybox_archive(IMAGE))
        found.ok("images", "import", "--snapshotter", "overlayfs", str(archive))
        yield found
    finally:
        for name in found("task", "ls", "-q").stdout.split():
            found("task", "kill", "--signal", "SIGKILL", name)
            found("task", "delete", "--force", name)
        for name in found("container", "ls", "-q").stdout.split():
            found("container", "delete", name)
        daemon.terminate()
        daemon.wait(60)
        remove_cgroups(PARENT)
        shutil.rmtree(found.root, ignore_errors=True)


def test_run(containerd: Containerd) -> None:
    """In the foreground: output, exit status, input, a terminal, errors, limits."""
    run = containerd.run
    assert containerd.ok(*run("echo", "--rm"), "echo", "hi") == "hi\n"
    assert containerd(*run("seven", "--rm"), "sh", "-c", "exit 7").returncode == 7
    missing = containerd(*run("missing", "--rm"), "nope")
    assert missing.returncode == 1
    assert "executable file not found in $PATH" in missing.stderr
    assert containerd.ok(*run("cat", "--rm"), "head", "-c2", input=b"in") == "in"
    words = (*containerd.words, *run("tty", "--rm", "--tty"))
    assert on_terminal(words, "tty").split()[0] == "/dev/pts/0"
    limited = run("limited", "--rm", "--memory-limit", str(32 << 20), "--read-only", "--seccomp")
    eaten = containerd(*limited, "sh", "-c", "x=12345678; while :; do x=$x$x; done")
    assert eaten.returncode == 137, eaten
    mapping = ("--uidmap", "0:100000:1000", "--gidmap", "0:100000:1000")
    mapped = containerd.ok(*run("mapped", "--rm", *mapping), "cat", "/proc/self/uid_map")
    assert mapped.split() == ["0", "100000", "1000"]


def test_life(containerd: Containerd) -> None:
    """A task that is executed in, paused, resumed, measured, changed, killed and deleted."""
    containerd.ok(*containerd.run("life", "--detach"), "sleep", "1000")
    assert containerd.status("life") == "RUNNING"
    execute = ("task", "exec", "--exec-id")
    done = containerd(*execute, "e1", "life", "sh", "-c", "echo ex; exit 4")
    assert (done.stdout, done.returncode) == ("ex\n", 4)
    assert containerd(*execute, "e2", "life", "nope").returncode == 1
    words = (*containerd.words, *execute, "e3", "--tty", "life")
    assert on_terminal(words, "tty").split()[0] == "/dev/pts/0"
    assert len(containerd.ok("task", "ps", "life").splitlines()) == 2
    assert "pids" in containerd.ok("task", "metrics", "life")
    containerd.ok("task", "pause", "life")
    assert containerd.status("life") == "PAUSED"
    containerd.ok("task", "resume", "life")
    assert containerd.status("life") == "RUNNING"
    containerd.ok("task", "kill", "--signal", "SIGKILL", "life")
    deadline = time.monotonic() + 60
    while containerd.status("life") == "RUNNING":
        assert time.monotonic() < deadline
    assert containerd.status("life") == "STOPPED"
    containerd("task", "delete", "life")
    containerd.ok("container", "delete", "life")


def test_nothing_stays_behind(containerd: Containerd) -> None:
    """Neither cgroups, nor what the runtime keeps, nor mounts."""
    for directory in cgroup.probe().directories(PARENT):
        if os.path.isdir(directory):
            assert not [entry for entry in os.scandir(directory) if entry.is_dir()]
    assert list((containerd.root / "runtime").glob("*/*")) == []
    assert f"{containerd.root}/state" not in Path("/proc/self/mountinfo").read_text()
