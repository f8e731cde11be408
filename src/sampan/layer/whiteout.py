"""Whiteouts of a layer: turned into overlay's marks, or carried out at once."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from sampan.layer.lowers import OPAQUE_XATTR
from sampan.layer.removal import remove
from sampan.layer.tree import DIRECTORY_FLAGS, names, open_directory


def make_whiteout(parent: int, name: bytes) -> None:
    """Mark ``name`` of directory ``parent`` as removed from lower layers.

    What this layer itself has there stays, whichever came first (OCI layer.md "Whiteouts"); a
    directory is made opaque, so that only what lower layers have in it goes.
    """
    try:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent)
    except FileExistsError:
        if stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
            fd = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
            try:
                set_opaque(fd)
            finally:
                os.close(fd)


def set_opaque(fd: int) -> None:
    """Make an open directory hide everything lower layers have in it."""
    os.setxattr(b"/proc/self/fd/%d" % fd, OPAQUE_XATTR, b"y")


class Made:
    """The paths one layer has made so far, with the directories above them.

    Whiteouts of a layer concern only what was there before it, in whatever order they come.
    """

    def __init__(self) -> None:
        self._paths: set[bytes] = set()

    def add(self, path: bytes) -> None:
        """The layer has ``path``."""
        while path and path not in self._paths:
            self._paths.add(path)
            path = path.rpartition(b"/")[0]

    def remove_one(self, parent: int, path: bytes, name: bytes) -> None:
        """Remove ``path``, ``name`` in directory ``parent``, but what the layer made of it."""
        if path not in self._paths:
            with suppress(FileNotFoundError):
                remove(parent, name)
        elif stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
            fd = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
            try:
                self.remove_in(fd, path)
            finally:
                os.close(fd)

    def remove_in(self, top: int, path: bytes) -> None:
        """Remove everything in directory ``top`` (at ``path``) that the layer did not make."""
        pending = [b""]
        while pending:
            below = pending.pop()
            fd = open_directory(top, below)
            try:
                for name in names(fd):
                    inner = below + b"/" + name if below else name
                    if (path + b"/" + inner if path else inner) not in self._paths:
                        remove(fd, name)
                    elif stat.S_ISDIR(os.lstat(name, dir_fd=fd).st_mode):
                        pending.append(inner)
            finally:
                os.close(fd)
