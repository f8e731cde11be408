"""Killed at every write to the disk: what is there afterwards is whole, and work goes on."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sampan.content.store import FileStore
from sampan.image import Unpacker, load
from sampan.snapshot import Kind
from sampan.snapshot.overlay import OverlaySnapshotter
from tests.archives import docker_archive, files, member, tar

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="whiteouts need root")

LAYERS = (
    files({"etc/a": b"1", "etc/b": b"x" * 5000}),
    tar(member("etc/.wh.a"), member("etc/c", b"2")),
)
ARCHIVE = docker_archive(*LAYERS)
#: Everything that changes what a later process finds.
POINTS = ("open", "write", "rename", "fsync", "mkdir", "unlink", "rmdir", "mknod", "setxattr")
KILLED = 9


def work(root: Path) -> None:
    content = FileStore(root / "content")
    snapshots = OverlaySnapshotter(root / "snapshots")
    (loaded,) = load(io.BytesIO(ARCHIVE), content)
    assert loaded.image is not None
    Unpacker(content, snapshots).unpack(loaded.image)
    key = f"box-{os.getpid()}"
    snapshots.prepare(key, str(loaded.image.chain_id))
    snapshots.remove(key)


def killed_at(point: int, action: Callable[[], None]) -> bool:
    """Run ``action`` in a child that dies before its ``point``-th change; False if it ended."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, KILLED)
        return code == KILLED
    left = point
    os_open = os.open
    try:
        for name in POINTS:
            original = getattr(os, name)

            def counted(*arguments: Any, _original: Any = original, **keywords: Any) -> Any:
                nonlocal left
                if _original is not os_open or arguments[1] & os.O_CREAT:
                    left -= 1
                if left < 0:
                    os._exit(KILLED)
                return _original(*arguments, **keywords)

            setattr(os, name, counted)
        action()
        os._exit(0)
    except BaseException:
        os._exit(1)


def check(root: Path) -> None:
    """What a restarted engine does first, and what it must find."""
    content = FileStore(root / "content")
    for info in content.walk():
        content.read(info.digest)  # invariant 1: a blob has its digest
    content.sweep(older_than=0)
    assert list((root / "content" / "ingest").iterdir()) == []
    snapshots = OverlaySnapshotter(root / "snapshots")
    for snapshot in list(snapshots.walk())[::-1]:
        if snapshot.kind is not Kind.COMMITTED:
            snapshots.remove(snapshot.key)  # as the engine does for what no row mentions
    snapshots.sweep()
    assert snapshots.sweep() == 0
    trees = [path for path in (root / "snapshots").iterdir() if not path.name.startswith(".")]
    assert len(trees) == len(list(snapshots.walk()))
    for name in (".work", ".trash"):
        assert list((root / "snapshots" / name).iterdir()) == []


def test_killed_anywhere(tmp_path: Path) -> None:
    point = 0
    while killed_at(point, partial(work, root := tmp_path / str(point))):
        check(root)
        assert not killed_at(1 << 30, partial(work, root))  # the same work, to its end
        check(root)
        shutil.rmtree(root)
        point += 1
    assert point > 50
    snapshots = list(OverlaySnapshotter(root / "snapshots").walk())
    assert [info.kind for info in snapshots] == [Kind.COMMITTED] * 2
