"""Pseudo-terminals: pts(4), ioctl_tty(2)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios

from sampan.kernel.openat import (
    DEVPTS_SUPER_MAGIC,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    filesystem_magic,
    is_device,
    openat2,
)

_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
_PTMX = (5, 2)


def open_pair(devpts: int) -> tuple[int, int]:
    """A new terminal of the devpts mounted at ``devpts``: (manager, terminal) descriptors.

    Neither is found by its name: the terminal comes from the manager by TIOCGPTPEER, so nothing
    a container puts into its /dev can take its place (CVE-2025-52565). Nor is anything opened that
    is not the kernel's own: that may block, or do things. Raises :class:`OSError` when it is no
    devpts.
    """
    flags = os.O_RDWR | os.O_NOCTTY
    if filesystem_magic(devpts) != DEVPTS_SUPER_MAGIC:
        raise OSError(errno.ENODEV, "not a devpts", "/dev/pts")
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
    manager = openat2(devpts, "ptmx", flags, resolve)
    try:
        if not is_device(manager, *_PTMX):
            raise OSError(errno.ENODEV, "not a pseudo-terminal multiplexer", "/dev/pts/ptmx")
        fcntl.ioctl(manager, _TIOCSPTLCK, struct.pack("i", 0))
        terminal = fcntl.ioctl(manager, _TIOCGPTPEER, flags | os.O_CLOEXEC)
    except OSError:
        os.close(manager)
        raise
    return manager, terminal


def set_window_size(fd: int, height: int, width: int) -> None:
    """TIOCSWINSZ, in characters; the foreground process group gets SIGWINCH."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def make_controlling(fd: int) -> None:
    """TIOCSCTTY: ``fd`` becomes the controlling terminal of this session leader."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
