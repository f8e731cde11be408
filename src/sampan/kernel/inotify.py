"""inotify(7): being told that files changed, without asking."""

from __future__ import annotations

import ctypes
import os

from sampan.kernel.libc import check, libc

IN_MODIFY = 0x2
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE_SELF = 0x400
IN_NONBLOCK = os.O_NONBLOCK
IN_CLOEXEC = os.O_CLOEXEC

libc.inotify_init1.argtypes = (ctypes.c_int,)
libc.inotify_init1.restype = ctypes.c_int
libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
libc.inotify_add_watch.restype = ctypes.c_int


def inotify_init1(flags: int = IN_NONBLOCK | IN_CLOEXEC) -> int:
    """A new inotify descriptor; the caller closes it. Raises :class:`OSError`."""
    return check(libc.inotify_init1(flags), "inotify_init1")


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    """Watch ``path``; returns the watch descriptor. Raises :class:`OSError` with ``path``."""
    return check(libc.inotify_add_watch(fd, os.fsencode(path), mask), path)
