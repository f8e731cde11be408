"""capabilities(7): the names, and the five sets of the calling process."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

from sampan.kernel import prctl
from sampan.kernel.libc import check, number, typed

#: Numbered from 0 (include/uapi/linux/capability.h).
NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
NUMBERS = {name: index for index, name in enumerate(NAMES)}

_VERSION_3 = 0x20080522
_capset = typed("syscall", ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p)
_capget = typed("syscall", ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p)
_CAPSET, _CAPGET = number("capset"), number("capget")


def mask(names: Iterable[str]) -> int:
    """The bit mask of capability names; raises :class:`KeyError` for one that does not exist."""
    return sum({1 << NUMBERS[name] for name in names})


def names(bits: int) -> tuple[str, ...]:
    """The names in a bit mask."""
    return tuple(name for index, name in enumerate(NAMES) if bits >> index & 1)


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) for the calling thread; masks of 64 bits."""
    header = struct.pack("=Ii", _VERSION_3, 0)
    low, high = 0xFFFFFFFF, 32
    data = struct.pack(
        "=6I",
        effective & low,
        permitted & low,
        inheritable & low,
        effective >> high,
        permitted >> high,
        inheritable >> high,
    )
    check(_capset(_CAPSET, header, data), "capset")


def capget() -> tuple[int, int, int]:
    """capget(2): (effective, permitted, inheritable) of the calling thread."""
    header = struct.pack("=Ii", _VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    check(_capget(_CAPGET, header, data), "capget")
    e0, p0, i0, e1, p1, i1 = struct.unpack("=6I", data.raw)
    return e0 | e1 << 32, p0 | p1 << 32, i0 | i1 << 32


def bounding_of(pid: int) -> int:
    """The bounding set of another process, as a mask (proc_pid_status(5)). Raises OSError."""
    fd = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, 1 << 16)
    finally:
        os.close(fd)
    return int(text.partition(b"CapBnd:")[2].split(None, 1)[0], 16)


def drop_bounding(keep: int, last: int) -> None:
    """Leave only ``keep`` in the bounding set; ``last`` is the kernel's highest capability."""
    for index in range(last + 1):
        if not keep >> index & 1:
            prctl.prctl(prctl.PR_CAPBSET_DROP, index)


def raise_ambient(bits: int) -> None:
    """Make the ambient set exactly ``bits`` (each must be permitted and inheritable)."""
    prctl.prctl(prctl.PR_CAP_AMBIENT, prctl.PR_CAP_AMBIENT_CLEAR_ALL)
    for index in range(64):
        if bits >> index & 1:
            prctl.prctl(prctl.PR_CAP_AMBIENT, prctl.PR_CAP_AMBIENT_RAISE, index)
