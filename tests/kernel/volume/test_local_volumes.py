"""The local driver on a real file system: durability, mounts on use, copy-up, containment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import Conflict, Corrupt, InvalidParameter, NotFound, StartFailed, Unsupported
from sampan.kernel import mount
from sampan.volume.local import LocalVolumes, disk_usage, unpin

NOW = "2026-01-02T03:04:05Z"


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[LocalVolumes]:
    yield LocalVolumes(tmp_path / "volumes")
    for line in Path("/proc/self/mountinfo").read_text().splitlines()[::-1]:
        if (point := line.split()[4]).startswith(str(tmp_path)):
            mount.umount2(point)


def test_volume_lives_across_restarts_until_removed(volumes: LocalVolumes, tmp_path: Path) -> None:
    made = volumes.create("data", created_at=NOW, labels={"a": "b"})
    (made.mountpoint / "file").write_text("kept")
    assert volumes.create("data", created_at="later", labels={"other": "x"}) == made
    again = LocalVolumes(tmp_path / "volumes")
    assert again.get("data") == made
    assert again.list() == (made,)
    assert (made.mountpoint / "file").read_text() == "kept"
    again.remove("data")
    assert os.listdir(tmp_path / "volumes") == []
    for call in (again.get, again.remove, again.mount):
        with pytest.raises(NotFound, match="get data: no such volume"):
            call("data")
    with pytest.raises(NotFound):
        again.get("../../etc")


def test_interrupted_create_and_remove(volumes: LocalVolumes, tmp_path: Path) -> None:
    half = tmp_path / "volumes" / "half" / "_data"
    half.mkdir(parents=True)
    (half / "precious").write_text("x")
    removed = tmp_path / "volumes" / ".removed-0123" / "_data"
    removed.mkdir(parents=True)
    again = LocalVolumes(tmp_path / "volumes")
    assert again.list() == ()
    assert not removed.exists()
    again.create("half", created_at=NOW)
    assert (half / "precious").read_text() == "x"
    (tmp_path / "volumes" / "half" / "volume.json").write_text("{")
    with pytest.raises(Corrupt, match="half"):
        again.get("half")


def test_bind_tmpfs_and_failing_volumes_are_mounted_on_use(
    volumes: LocalVolumes, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("host")
    volumes.create(
        "bound", created_at=NOW, options={"type": "none", "o": "bind,ro", "device": str(source)}
    )
    volumes.create(
        "memory", created_at=NOW, options={"type": "tmpfs", "o": "size=64k", "device": "tmpfs"}
    )
    volumes.create(
        "broken", created_at=NOW, options={"type": "none", "o": "bind", "device": "/no/such"}
    )
    for _ in range(2):  # idempotent
        bound, memory = volumes.mount("bound"), volumes.mount("memory")
    assert (bound / "file").read_text() == "host"
    with pytest.raises(OSError, match="Read-only"):
        (bound / "new").write_text("x")
    assert os.statvfs(memory).f_blocks * os.statvfs(memory).f_frsize == 65536
    with pytest.raises(
        StartFailed, match="failed to mount local volume broken: mount /no/such: no"
    ):
        volumes.mount("broken")
    with pytest.raises(Conflict, match="in use"):
        volumes.remove("bound")
    for _ in range(2):
        volumes.unmount("bound")
        volumes.unmount("memory")
    for name in ("bound", "memory", "broken"):
        volumes.remove(name)
    assert (source / "file").read_text() == "host"


def test_copy_up_fills_empty_volumes_and_stays_inside_the_image(
    volumes: LocalVolumes, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "srv/www").mkdir(parents=True)
    (root / "srv/www/index").write_text("page")
    os.chown(root / "srv/www", 33, 44)
    os.chmod(root / "srv/www", 0o2750)
    (root / "link").symlink_to("/srv")
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv/secret").write_text("host")
    (root / "escape").symlink_to("../srv")
    fd = os.open(root, os.O_PATH)
    try:
        for name, path in (("one", "/srv/www"), ("two", "/link/www")):
            volume = volumes.create(name, created_at=NOW)
            assert volumes.copy_up(name, fd, path)
            assert (volume.mountpoint / "index").read_text() == "page"
            status = volume.mountpoint.stat()
            assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (33, 44, 0o2750)
            (volume.mountpoint / "index").write_text("mine")
            assert not volumes.copy_up(name, fd, path)
            assert (volume.mountpoint / "index").read_text() == "mine"
        escape = volumes.create("three", created_at=NOW)
        volumes.copy_up("three", fd, "/escape")
        assert not (escape.mountpoint / "secret").exists()
        assert (
            not volumes.copy_up("four", fd, "/none")
            if volumes.create("four", created_at=NOW)
            else False
        )
    finally:
        os.close(fd)


def test_subpath_does_not_leave_the_volume(volumes: LocalVolumes, tmp_path: Path) -> None:
    volume = volumes.create("data", created_at=NOW)
    (volume.mountpoint / "in").mkdir()
    (volume.mountpoint / "in/file").write_text("inside")
    (volume.mountpoint / "etc").symlink_to("/etc")
    (volume.mountpoint / "up").symlink_to("../../../../etc")
    for escape in ("etc/passwd", "up/passwd", "../../../../../../etc/passwd"):
        with pytest.raises(InvalidParameter, match="escapes the base directory"):
            volumes.subpath("data", escape)
    with pytest.raises(NotFound, match="cannot access path"):
        volumes.subpath("data", "in/nothing")
    directory, file = tmp_path / "pins/dir", tmp_path / "pins/file"
    volumes.pin_subpath("data", "in", directory)
    volumes.pin_subpath("data", "in/file", file)
    # what the container does to the path afterwards changes nothing
    (volume.mountpoint / "in").rename(volume.mountpoint / "elsewhere")
    (volume.mountpoint / "in").symlink_to("/etc")
    assert os.listdir(directory) == ["file"]
    assert file.read_text() == "inside"
    for target in (directory, file):
        unpin(target)
        unpin(target)
    assert os.listdir(tmp_path / "pins") == []


def test_usage_counts_hard_links_once(volumes: LocalVolumes) -> None:
    volume = volumes.create("data", created_at=NOW)
    (volume.mountpoint / "big").write_bytes(b"x" * 100_000)
    once = volumes.usage("data")
    os.link(volume.mountpoint / "big", volume.mountpoint / "again")
    assert volumes.usage("data") == once == disk_usage(volume.mountpoint)
    assert 100_000 <= once < 200_000


def test_a_file_system_the_kernel_lacks_is_named(volumes: LocalVolumes) -> None:
    options = {"type": "nosuchfs", "device": "x", "o": "addr=127.0.0.1"}
    volumes.create("net", created_at=NOW, options=options)
    with pytest.raises(StartFailed, match="mount x: this kernel has no file system nosuchfs"):
        volumes.mount("net")
    volumes.remove("net")


def image(path: Path, *features: str) -> Path:
    """A file that holds an empty ext4 file system."""
    if not Path("/dev/loop-control").exists():
        subprocess.run(["modprobe", "loop"], check=True)
    with open(path, "wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", *features, path], check=True)
    return path


@pytest.mark.parametrize("words", ["", "loop", "loop,noatime"])
def test_a_file_that_holds_a_file_system(volumes: LocalVolumes, tmp_path: Path, words: str) -> None:
    file = image(tmp_path / "disk")
    before = attached_to(tmp_path)
    volumes.create(
        "disk", created_at=NOW, options={"type": "ext4", "device": str(file), "o": words}
    )
    there = volumes.mount("disk")
    assert (there / "lost+found").is_dir()
    (there / "kept").write_text("x")
    assert attached_to(tmp_path) == [str(file)]
    volumes.unmount("disk")
    assert before == attached_to(tmp_path) == []
    options = {"type": "ext4", "device": str(file), "o": "ro,noload"}
    volumes.create("again", created_at=NOW, options=options)
    there = volumes.mount("again")
    assert (there / "kept").read_text() == "x"
    with pytest.raises(OSError, match="Read-only file system"):
        (there / "more").write_text("x")
    volumes.unmount("again")
    # what holds none fails and keeps no device
    (tmp_path / "empty").write_bytes(bytes(1 << 20))
    options = {"type": "ext4", "device": str(tmp_path / "empty")}
    volumes.create("empty", created_at=NOW, options=options)
    with pytest.raises(StartFailed, match="failed to mount local volume empty"):
        volumes.mount("empty")
    assert attached_to(tmp_path) == []


def attached_to(directory: Path) -> list[str]:
    """Files below a directory that are loop devices now."""
    found = (
        path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file")
    )
    return sorted(name for name in found if name.startswith(f"{directory}/"))


def test_size_is_kept_or_refused(volumes: LocalVolumes, tmp_path: Path) -> None:
    """Where the file system has project quotas; elsewhere no volume is made, and why is said."""
    file = image(tmp_path / "disk", "-O", "project,quota")
    volumes.create(
        "base",
        created_at=NOW,
        options={"type": "ext4", "device": str(file), "o": "prjquota"},
    )
    try:
        inner = LocalVolumes(volumes.mount("base") / "volumes")
    except StartFailed:  # the kernel knows no quota files (CONFIG_QFMT_V2)
        with pytest.raises(Unsupported, match="quota size requested but no quota support: "):
            volumes.create("small", created_at=NOW, options={"size": "1m"})
        with pytest.raises(NotFound):
            volumes.get("small")
        assert not (tmp_path / "volumes" / "small").exists()
        return
    made = [
        inner.create(name, created_at=NOW, options={"size": size}).mountpoint
        for name, size in (("one", "1m"), ("two", "2m"))
    ]
    free = inner.create("free", created_at=NOW).mountpoint

    def filled(directory: Path, name: str = "big") -> int:
        """How many KiB fit, for whom a limit is one: CAP_SYS_RESOURCE is above it (quotactl(2))."""
        confined = ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"]
        writing = ["dd", "if=/dev/zero", f"of={directory}/{name}", "bs=1k", "count=4096"]
        subprocess.run([*confined, *writing], capture_output=True, check=False)
        return (directory / name).stat().st_size >> 10

    # (a few blocks are the directory's)
    assert 900 < filled(made[0]) <= 1024
    assert 1900 < filled(made[1]) <= 2048
    assert filled(free) == 4096
    copy = inner.snapshot("one", "copy", created_at=NOW)
    assert copy.options == {"size": "1m"}
    assert filled(copy.mountpoint, "more") < 100
    for name in ("one", "two", "free", "copy"):
        inner.remove(name)
    volumes.unmount("base")
