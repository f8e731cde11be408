"""namespaces(7): creating, joining and telling apart."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
from collections.abc import Iterable

from sampan.kernel.libc import check, typed

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

#: The OCI runtime specification's names.
FLAGS = {
    "mount": CLONE_NEWNS,
    "pid": CLONE_NEWPID,
    "network": CLONE_NEWNET,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "user": CLONE_NEWUSER,
    "cgroup": CLONE_NEWCGROUP,
    "time": CLONE_NEWTIME,
}
#: Their files below /proc/<pid>/ns.
FILES = {name: {"mount": "mnt", "network": "net"}.get(name, name) for name in FLAGS}

NS_GET_NSTYPE = 0xB703
_INITIAL_USER = 0xEFFFFFFD

_setns = typed("setns", ctypes.c_int, ctypes.c_int, restype=ctypes.c_int)
_unshare = typed("unshare", ctypes.c_int, restype=ctypes.c_int)


def setns(fd: int, flags: int) -> None:
    """setns(2): ``fd`` is a namespace, or a pidfd and ``flags`` the kinds to join (Linux 5.8)."""
    check(_setns(fd, flags), "setns")


def join(entries: Iterable[tuple[int, str]]) -> None:
    """Join (CLONE_NEW* flag, path of a namespace file) in this order.

    All files are opened first: after a mount namespace was joined its paths lead elsewhere. Raises
    :class:`OSError` with the path, also when a file is a namespace of another kind.
    """
    with contextlib.ExitStack() as stack:
        opened: list[tuple[int, int, str]] = []
        for flag, path in entries:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            opened.append((fd, flag, path))
        for fd, flag, path in opened:
            try:
                setns(fd, flag)
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from error


def unshare(flags: int) -> None:
    """unshare(2)."""
    check(_unshare(flags), "unshare")


def own(file: str) -> int:
    """A descriptor of the calling process's namespace; ``file`` as in /proc/self/ns."""
    return os.open(f"/proc/self/ns/{file}", os.O_RDONLY | os.O_CLOEXEC)


def in_initial_user() -> bool:
    """Whether we are in the user namespace the host booted with (PROC_USER_INIT_INO)."""
    return os.stat("/proc/self/ns/user").st_ino == _INITIAL_USER


def kind(fd: int) -> int:
    """The CLONE_NEW* flag of the namespace behind ``fd``; raises :class:`OSError` if it is none."""
    return fcntl.ioctl(fd, NS_GET_NSTYPE)
