"""Loop devices (loop(4)): a regular file as a block device."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_CONTROL = "/dev/loop-control"
_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A  # Linux 5.8
_LO_FLAGS_READ_ONLY, _LO_FLAGS_AUTOCLEAR = 1, 4
#: struct loop_config: fd, block size, and of loop_info64 the flags; all else is zero
_CONFIG = struct.Struct("=II 5Q III I 160x 2Q 8Q")
#: how often somebody else may take the device we were told is free
_TRIES = 16


@contextmanager
def attached(file: str, *, read_only: bool = False) -> Iterator[str]:
    """The path of a loop device that is ``file`` until nothing has it open or mounted any more.

    So a file system mounted inside the ``with`` keeps it, and its last unmount gives it back.
    """
    access = os.O_RDONLY if read_only else os.O_RDWR
    backing = os.open(file, access | os.O_CLOEXEC)
    try:
        device, path = _configured(backing, access, read_only=read_only)
    finally:
        os.close(backing)
    try:
        yield path
    finally:
        os.close(device)


def _configured(backing: int, access: int, *, read_only: bool) -> tuple[int, str]:
    """(descriptor, path) of a free device that was made to be ``backing``."""
    flags = _LO_FLAGS_AUTOCLEAR | (_LO_FLAGS_READ_ONLY if read_only else 0)
    config = _CONFIG.pack(backing, 0, *(0,) * 5, 0, 0, 0, flags, *(0,) * 10)
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(path, access | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise
            else:
                return device, path
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), _CONTROL)
