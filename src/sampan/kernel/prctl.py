"""prctl(2): attributes of the calling process."""

from __future__ import annotations

import ctypes

from sampan.kernel.libc import check, typed

PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

_prctl = typed("prctl", ctypes.c_int, *[ctypes.c_ulong] * 4, restype=ctypes.c_int)
_prctl_name = typed("prctl", ctypes.c_int, ctypes.c_char_p, restype=ctypes.c_int)


def prctl(option: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    """prctl(2) with integer arguments."""
    return check(_prctl(option, a, b, c, d), f"prctl({option})")


def set_name(name: str) -> None:
    """The name ``ps -o comm`` shows, 15 bytes at most."""
    check(_prctl_name(PR_SET_NAME, name.encode()[:15]), "prctl(PR_SET_NAME)")


def set_parent_death_signal(signal: int) -> None:
    """Get ``signal`` when the parent ends. Cleared by a change of credentials: set it after."""
    prctl(PR_SET_PDEATHSIG, signal)


def set_dumpable(dumpable: bool) -> None:
    """Whether others of our uid may ptrace us and read our /proc files; execve(2) resets it."""
    prctl(PR_SET_DUMPABLE, int(dumpable))


def set_no_new_privileges() -> None:
    """Never gain privileges by execve(2) again; also what lets anybody install seccomp filters."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def set_child_subreaper(on: bool) -> None:
    """Become the parent of orphaned descendants."""
    prctl(PR_SET_CHILD_SUBREAPER, int(on))
