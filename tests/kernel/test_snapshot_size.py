"""Sizes of container roots (``--storage-opt size``) on a file system that has project quotas."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import Unsupported
from sampan.snapshot.overlay import OverlaySnapshotter
from sampan.snapshot.rootfs import detached_mount

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small ext4 with project quotas."""
    file, place = tmp_path / "file", tmp_path / "disk"
    with open(file, "wb") as image:
        image.truncate(64 << 20)
    if not Path("/dev/loop-control").exists():
        subprocess.run(["modprobe", "loop"], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-O", "project,quota", str(file)], check=True)
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-o", "loop,prjquota", str(file), str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs project quotas (CONFIG_QFMT_V2): {mounted.stderr.decode()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _filled(snapshots: OverlaySnapshotter, key: str) -> int:
    """How many KiB fit, for whom a limit is one: CAP_SYS_RESOURCE is above it (quotactl(2))."""
    fd = detached_mount(snapshots.mounts(key), writable=True)
    try:
        confined = ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"]
        # What is in the lower layer is copied through overlay's working directory.
        script = "echo more >> lower; mkdir d; dd if=/dev/zero of=d/big bs=1k count=4096; mv d e"
        subprocess.run(
            [*confined, "sh", "-c", f"cd /proc/self/fd/{fd} && {script}"],
            capture_output=True,
            check=True,
            pass_fds=(fd,),
        )
        return Path(f"/proc/self/fd/{fd}/e/big").stat().st_size >> 10
    finally:
        os.close(fd)


def test_each_root_has_its_size(disk: Path) -> None:
    snapshots = OverlaySnapshotter(disk / "snapshots")
    snapshots.prepare("new")
    fd = detached_mount(snapshots.mounts("new"), writable=True)
    Path(f"/proc/self/fd/{fd}/lower").write_text("1")
    os.close(fd)
    snapshots.commit("base", "new")
    for key, size in (("one", 1 << 20), ("two", 2 << 20), ("free", 0)):
        snapshots.prepare(key, "base")
        if size:
            snapshots.limit(key, size)
    # (a few blocks are the directories')
    assert 900 < _filled(snapshots, "one") <= 1024
    assert 1900 < _filled(snapshots, "two") <= 2048
    assert _filled(snapshots, "free") == 4096
    snapshots.remove("two")
    snapshots.prepare("three", "base")
    snapshots.limit("three", 3 << 20)
    assert 2900 < _filled(snapshots, "three") <= 3072


def test_a_file_system_without_quotas_says_so(tmp_path: Path) -> None:
    """Whichever there is: the one of the tests, or a tmpfs, which has no projects."""
    place = tmp_path / "tmpfs"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], check=True)
    try:
        snapshots = OverlaySnapshotter(place / "snapshots")
        snapshots.prepare("box")
        with pytest.raises(Unsupported, match=r"^--storage-opt size: "):
            snapshots.limit("box", 1 << 20)
        snapshots.remove("box")
    finally:
        subprocess.run(["umount", str(place)], check=True)
