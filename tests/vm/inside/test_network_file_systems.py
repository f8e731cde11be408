"""Volumes on an NFS server, which is this machine's own kernel: for the virtual machine alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import StartFailed
from sampan.volume.local import LocalVolumes

pytestmark = pytest.mark.skipif(
    "SAMPAN_VM" not in os.environ, reason="starts the kernel's NFS server: for make test-vm alone"
)
CONTROL = Path("/proc/fs/nfsd")
NOW = "2026-01-02T03:04:05Z"


def run(*words: str | Path) -> None:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stdout, done.stderr)


@pytest.fixture
def exported(tmp_path: Path) -> Iterator[Path]:
    """A directory that the NFS (version 4) server at 127.0.0.1 has as its root."""
    directory = tmp_path / "served"
    directory.mkdir()
    run("modprobe", "nfsd")
    if not (CONTROL / "threads").exists():
        run("mount", "-t", "nfsd", "nfsd", CONTROL)
    options = "rw,fsid=0,no_root_squash,insecure,no_subtree_check"
    run("exportfs", "-i", "-o", options, f"127.0.0.1:{directory}")
    with subprocess.Popen(["rpc.mountd", "-F", "-N", "2", "-N", "3"]) as mountd:
        try:
            # A server that begins waits for clients of an earlier one, which there was not.
            for name in ("nfsv4leasetime", "nfsv4gracetime"):
                (CONTROL / name).write_text("10")
            run("rpc.nfsd", "-N", "3", "-H", "127.0.0.1", "2")
            (CONTROL / "v4_end_grace").write_text("Y")
            yield directory
        finally:
            run("rpc.nfsd", "0")
            mountd.terminate()
    run("exportfs", "-u", f"127.0.0.1:{directory}")


def test_nfs_volumes(exported: Path, tmp_path: Path) -> None:
    (exported / "greeting").write_text("hello")
    (exported / "part").mkdir()
    volumes = LocalVolumes(tmp_path / "volumes")
    for name, device, words in (
        ("whole", ":/", "addr=127.0.0.1,rw,nfsvers=4"),
        ("named", ":/", "addr=localhost,ro,vers=4.2,soft"),
        ("part", ":/part", "addr=127.0.0.1,nfsvers=4.1"),
    ):
        options = {"type": "nfs", "device": device, "o": words}
        volumes.create(name, created_at=NOW, options=options)
    there = volumes.mount("whole")
    assert (there / "greeting").read_text() == "hello"
    (there / "answer").write_text("to you")
    assert (exported / "answer").read_text() == "to you"
    read_only = volumes.mount("named")
    assert (read_only / "answer").read_text() == "to you"
    with pytest.raises(OSError, match="Read-only"):
        (read_only / "more").write_text("")
    (volumes.mount("part") / "file").write_text("x")
    assert (exported / "part" / "file").exists()
    for name in ("whole", "named", "part"):
        volumes.unmount(name)
        volumes.remove(name)
    assert (exported / "answer").exists()
    options = {"type": "nfs", "device": ":/absent", "o": "addr=127.0.0.1,vers=4.2"}
    volumes.create("absent", created_at=NOW, options=options)
    with pytest.raises(StartFailed, match="failed to mount local volume absent"):
        volumes.mount("absent")
