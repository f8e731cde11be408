"""syncfs(2): write everything one file system holds back to its disk."""

from __future__ import annotations

import ctypes

from sampan.kernel.libc import check, typed

_syncfs = typed("syncfs", ctypes.c_int, restype=ctypes.c_int)


def syncfs(fd: int) -> None:
    """Commit the caches of the file system that open descriptor ``fd`` is on."""
    check(_syncfs(fd), "syncfs")
