"""Remove a directory tree, however deep it is, by descriptor and without following links."""

from __future__ import annotations

import errno
import os
import stat

from sampan.layer.tree import DIRECTORY_FLAGS


def remove_tree(parent: int, name: str | bytes) -> None:
    """Delete directory ``name`` of directory descriptor ``parent`` with everything in it.

    Subdirectories that are not empty are first moved up into ``name`` itself, so neither
    recursion nor path lengths limit the depth (a container may nest as deep as it likes).
    Raises FileNotFoundError when there is none, OSError when something cannot go.
    """
    top = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
    try:
        serial = 0
        pending: list[bytes] = []
        _empty(top, top, pending, serial)
        while pending:
            child = pending.pop()
            inner = os.open(child, DIRECTORY_FLAGS, dir_fd=top)
            try:
                serial = _empty(inner, top, pending, serial)
            finally:
                os.close(inner)
            os.rmdir(child, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


def remove(parent: int, name: bytes) -> None:
    """Delete whatever ``name`` of directory ``parent`` is; FileNotFoundError if nothing."""
    if not _unlink(parent, name):
        remove_tree(parent, name)


def _unlink(fd: int, name: bytes) -> bool:
    """Unlink ``name`` unless it is a directory (False)."""
    try:
        os.unlink(name, dir_fd=fd)
        return True
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
        if not stat.S_ISDIR(os.lstat(name, dir_fd=fd).st_mode):
            raise
        return False


def _empty(fd: int, top: int, pending: list[bytes], serial: int) -> int:
    """Unlink what is in ``fd``; directories that are not empty move to ``top`` and wait."""
    for entry in os.listdir(fd):
        name = os.fsencode(entry)
        if _unlink(fd, name):
            continue
        try:
            os.rmdir(name, dir_fd=fd)
            continue
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if fd == top:
            pending.append(name)
            continue
        moved = b".sampan-%d" % serial
        while _exists(moved, top):
            serial += 1
            moved = b".sampan-%d" % serial
        os.rename(name, moved, src_dir_fd=fd, dst_dir_fd=top)
        pending.append(moved)
    return serial


def _exists(name: bytes, fd: int) -> bool:
    try:
        os.lstat(name, dir_fd=fd)
    except FileNotFoundError:
        return False
    return True
