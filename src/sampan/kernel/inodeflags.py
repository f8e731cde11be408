"""Inode flags (ioctl_iflags(2)): FS_IOC_GETFLAGS and FS_IOC_SETFLAGS."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

FS_TOPDIR_FL = 0x00020000

# _IOR('f', 1, long) and _IOW('f', 2, long); the size field is that of long, the value an int.
_SIZE = struct.calcsize("@l")
_GETFLAGS = 2 << 30 | _SIZE << 16 | ord("f") << 8 | 1
_SETFLAGS = 1 << 30 | _SIZE << 16 | ord("f") << 8 | 2


def add_flags(directory: Path, flags: int) -> None:
    """Set inode flags on ``directory``; raises :class:`OSError` where they are not known."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        buffer = bytearray(8)
        fcntl.ioctl(fd, _GETFLAGS, buffer)
        (present,) = struct.unpack_from("@i", buffer)
        if present & flags != flags:
            fcntl.ioctl(fd, _SETFLAGS, struct.pack("@iI", present | flags, 0))
    finally:
        os.close(fd)
