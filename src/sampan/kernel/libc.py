"""The C library handle, error checking and raw system call numbers.

Wrappers elsewhere in this package are named after their man page, declare argument types once and
raise :class:`OSError` with errno, message and the object concerned. They go through here.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

from sampan.errors import Unsupported

#: The C library of this process. ``use_errno`` keeps errno per thread: :func:`ctypes.get_errno`.
libc = ctypes.CDLL(None, use_errno=True)

#: The same, keeping the interpreter lock: for calls after which this may be another process.
libc_locked = ctypes.PyDLL(None, use_errno=True)

_X86_64 = {
    "close": 3,
    "mmap": 9,
    "mprotect": 10,
    "munmap": 11,
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "sendmsg": 46,
    "clone": 56,
    "execve": 59,
    "wait4": 61,
    "setsid": 112,
    "sched_setscheduler": 144,
    "capget": 125,
    "capset": 126,
    "pivot_root": 155,
    "set_mempolicy": 238,
    "keyctl": 250,
    "exit_group": 231,
    "ioprio_set": 251,
    "sched_setattr": 314,
    "seccomp": 317,
    "bpf": 321,
}
_AARCH64 = {
    "close": 57,
    "mmap": 222,
    "mprotect": 226,
    "munmap": 215,
    "rt_sigaction": 134,
    "rt_sigprocmask": 135,
    "sendmsg": 211,
    "clone": 220,
    "execve": 221,
    "wait4": 260,
    "setsid": 157,
    "sched_setscheduler": 119,
    "exit_group": 94,
    "capget": 90,
    "capset": 91,
    "pivot_root": 41,
    "set_mempolicy": 237,
    "keyctl": 219,
    "ioprio_set": 30,
    "sched_setattr": 274,
    "seccomp": 277,
    "bpf": 280,
}
_EVERYWHERE = {  # Since Linux 5.1 new calls have one number on all architectures.
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "faccessat2": 439,
    "mount_setattr": 442,
    "quotactl_fd": 443,
}
_BY_MACHINE = {"x86_64": _X86_64, "aarch64": _AARCH64}
_NUMBERS = _EVERYWHERE | _BY_MACHINE.get(os.uname().machine, {})


def number(name: str) -> int:
    """The system call's number here; raises :class:`Unsupported` on an unknown architecture."""
    try:
        return _NUMBERS[name]
    except KeyError:
        machine = os.uname().machine
        raise Unsupported(f"sampan does not know the number of {name}(2) on {machine}") from None


def typed(name: str, *argtypes: Any, restype: Any = ctypes.c_long, locked: bool = False) -> Any:
    """A C function object of its own with ``argtypes`` declared, for one wrapper.

    ``name`` may be ``syscall``: the first of ``argtypes`` is the number then.
    """
    function = (libc_locked if locked else libc)[name]
    function.argtypes = argtypes
    function.restype = restype
    return function


_raw = typed("syscall", *[ctypes.c_long] * 7)


def syscall(nr: int, *args: int) -> int:
    """syscall(2) with up to six integer arguments; -1 on error, see :func:`ctypes.get_errno`.

    Addresses are passed as integers: the caller keeps what they point at alive.
    """
    return int(_raw(nr, *args, *(0,) * (6 - len(args))))


def check(result: int, name: str | bytes | None = None) -> int:
    """``result`` when it is no error; raises :class:`OSError` about ``name`` when negative."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)
    return int(result)


SYS_BPF = _NUMBERS.get("bpf", -1)
SYS_CLONE3 = _NUMBERS["clone3"]
SYS_SECCOMP = _NUMBERS.get("seccomp", -1)
