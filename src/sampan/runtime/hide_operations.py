"""Operations that keep parts of the container's file system from its programs."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence

from sampan.kernel import mount as m
from sampan.kernel import openat
from sampan.runtime.context import Context, Source

#: What masked directories are covered with.
EMPTY: Source
EMPTY = "tmpfs", "tmpfs", (("size", "0"), ("nr_inodes", "1"), ("mode", "755")), m.MOUNT_ATTR_RDONLY


def mask(context: Context, *, paths: Sequence[str]) -> None:
    """Hide paths: files below the host's null device, directories below an empty tmpfs.

    The null device is opened before the root changes, and checked to be it: the container's
    /dev/null may be anything (CVE-2025-31133).
    """
    with contextlib.ExitStack() as opened:
        null = opened.enter_context(m.descriptor(os.open("/dev/null", os.O_PATH | os.O_CLOEXEC)))
        if not openat.is_device(null, 1, 3):
            raise OSError(errno.ENODEV, "not the null device", "/dev/null")
        empty = -1
        for path in paths:
            target = _existing(context.root, path)
            if target < 0:
                continue
            with m.descriptor(target):
                if not stat.S_ISDIR(os.fstat(target).st_mode):
                    source = null
                elif empty < 0:
                    empty = context.premade.pop(EMPTY, -1)
                    if empty < 0:
                        empty = m.new_filesystem(*EMPTY)
                    opened.enter_context(m.descriptor(empty))
                    m.move_mount(empty, target)
                    continue
                else:
                    source = empty
                with m.descriptor(m.clone_tree(source, "", recursive=False)) as cover:
                    m.move_mount(cover, target)


def protect(context: Context, *, paths: Sequence[str]) -> None:
    """Make paths read-only, with everything below them."""
    for path in paths:
        target = _existing(context.root, path)
        if target < 0:
            continue
        with (
            m.descriptor(target),
            m.descriptor(m.clone_tree(target, "", recursive=True)) as clone,
        ):
            m.mount_setattr(clone, "", set_=m.MOUNT_ATTR_RDONLY, recursive=True)
            m.move_mount(clone, target)


def _existing(root: int, path: str) -> int:
    """``path`` inside the root, -1 when there is none."""
    try:
        return openat.in_root(root, path)
    except (FileNotFoundError, NotADirectoryError):
        return -1
