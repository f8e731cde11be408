"""Making processes and setting what they carry: clone3(2), close_range(2), and small ones."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
from collections.abc import Iterable, Sequence

from sampan.kernel.libc import check, number, typed

CLONE_PIDFD = 0x1000
CLONE_PARENT = 0x8000
CLONE_INTO_CGROUP = 0x200000000

PER_LINUX, PER_LINUX32 = 0x0, 0x8

_long, _int, _uint = ctypes.c_long, ctypes.c_int, ctypes.c_uint
_ulong, _pointer = ctypes.c_ulong, ctypes.c_char_p

_clone3 = typed("syscall", _long, ctypes.c_void_p, ctypes.c_size_t, locked=True)
_close_range = typed("syscall", _long, _uint, _uint, _uint)
_ioprio_set = typed("syscall", _long, _int, _int, _int)
_sched_setattr = typed("syscall", _long, _int, _pointer, _uint)
_set_mempolicy = typed("syscall", _long, _int, _pointer, _ulong)
_keyctl = typed("syscall", _long, _int, _pointer)
_faccessat2 = typed("syscall", _long, _int, _pointer, _int, _int)
_personality = typed("personality", _ulong, restype=_int)
_malloc_trim = typed("malloc_trim", ctypes.c_size_t, restype=_int)
_setdomainname = typed("setdomainname", _pointer, ctypes.c_size_t, restype=_int)

_signal = typed("signal", _int, ctypes.c_void_p, restype=ctypes.c_void_p)
_setfsuid = typed("setfsuid", _uint, restype=_int)
_setfsgid = typed("setfsgid", _uint, restype=_int)

_CLONE3, _CLOSE_RANGE = number("clone3"), number("close_range")
_IOPRIO_SET, _SCHED_SETATTR = number("ioprio_set"), number("sched_setattr")
_SET_MEMPOLICY, _KEYCTL = number("set_mempolicy"), number("keyctl")
_FACCESSAT2 = number("faccessat2")
_KEYCTL_JOIN_SESSION_KEYRING = 1
_AT_EACCESS = 0x200
_HIGHEST = 0xFFFFFFFF
#: As many as the kernel can be built for, and more than that (NR_CPUS).
_PROCESSORS = range(8192)


def clone3(flags: int, *, cgroup: int = 0, exit_signal: int = signal.SIGCHLD) -> tuple[int, int]:
    """clone3(2) as a fork: (0, -1) in the child, (its pid, a pidfd of it) in the parent.

    ``flags`` are CLONE_NEW* and CLONE_PARENT; ``cgroup`` is the descriptor of the v2 cgroup to be
    born in. The caller must be single-threaded. The interpreter's own fork handlers run, as for
    :func:`os.fork`; the interpreter lock is held across the call.
    """
    pidfd = ctypes.c_int(-1)
    flags |= CLONE_PIDFD | (CLONE_INTO_CGROUP if cgroup else 0)
    if flags & CLONE_PARENT:
        exit_signal = 0  # clone3(2): the parent's own exit signal is taken
    arguments = struct.pack(
        "=11Q", flags, ctypes.addressof(pidfd), 0, 0, exit_signal, 0, 0, 0, 0, 0, cgroup
    )
    buffer = ctypes.create_string_buffer(arguments, len(arguments))
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = _clone3(_CLONE3, ctypes.addressof(buffer), len(arguments))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0, -1
    code = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(code, os.strerror(code), "clone3")
    return int(pid), pidfd.value


def close_range(first: int, last: int = _HIGHEST) -> None:
    """close_range(2): close every descriptor from ``first`` to ``last``."""
    check(_close_range(_CLOSE_RANGE, first, last, 0), "close_range")


def close_all_but(keep: set[int], first: int = 3) -> None:
    """Close every descriptor from ``first`` on that is not in ``keep``."""
    for fd in sorted(keep):
        if fd >= first:
            if fd > first:
                close_range(first, fd - 1)
            first = fd + 1
    close_range(first)


def ioprio_set(kind: int, priority: int) -> None:
    """ioprio_set(2) for the calling process; ``kind`` 1 real time, 2 best effort, 3 idle."""
    check(_ioprio_set(_IOPRIO_SET, 1, 0, kind << 13 | priority), "ioprio_set")


def sched_setattr(
    policy: int, flags: int, nice: int, priority: int, runtime: int, deadline: int, period: int
) -> None:
    """sched_setattr(2) for the calling thread; times in nanoseconds."""
    attributes = struct.pack(
        "=IIQiIQQQ", 48, policy, flags, nice, priority, runtime, deadline, period
    )
    check(_sched_setattr(_SCHED_SETATTR, 0, attributes, 0), "sched_setattr")


def allow_processors(cpus: Iterable[int]) -> None:
    """sched_setaffinity(2); without ``cpus`` wherever our cpuset lets us: the kernel takes the
    rest away."""
    os.sched_setaffinity(0, cpus or _PROCESSORS)


def forget_affinity() -> None:
    """Undo what whoever started us was told to keep to.

    Joining a cpuset did that until Linux 6.2; since then what was asked for once is kept by all
    descendants, in whatever cgroup they are.
    """
    if len(os.sched_getaffinity(0)) < (os.cpu_count() or 1):
        allow_processors(())


def set_mempolicy(mode: int, nodes: int) -> None:
    """set_mempolicy(2); ``mode`` with its flags, ``nodes`` a bit mask."""
    bits = nodes.to_bytes(128, "little") if nodes else None
    check(_set_mempolicy(_SET_MEMPOLICY, mode, bits, 1024 if nodes else 0), "set_mempolicy")


def join_session_keyring(name: str) -> None:
    """keyctl_join_session_keyring(3): a new session keyring, sharing none of the host's keys."""
    check(_keyctl(_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, name.encode()), "keyctl")


def personality(persona: int) -> None:
    """personality(2)."""
    check(_personality(persona), "personality")


def set_groups(groups: Sequence[int]) -> None:
    """setgroups(2).

    It is denied for good in a user namespace where a user without rights mapped his own group
    alone (user_namespaces(7)): then the groups he has stay, which are nobody's in there.
    """
    try:
        os.setgroups(groups)
    except PermissionError:
        if groups:
            raise


def setfsuid(uid: int) -> None:
    """setfsuid(2): the user id that counts for files. Raises :class:`OSError` when refused."""
    _setfsuid(uid)
    if _setfsuid(0xFFFFFFFF) != uid:  # the only way to learn the present one; changes nothing
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), f"setfsuid({uid})")


def setfsgid(gid: int) -> None:
    """setfsgid(2), as :func:`setfsuid`."""
    _setfsgid(gid)
    if _setfsgid(0xFFFFFFFF) != gid:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), f"setfsgid({gid})")


def setdomainname(name: str) -> None:
    """setdomainname(2): the NIS domain name of the UTS namespace."""
    encoded = name.encode()
    check(_setdomainname(encoded, len(encoded)), "setdomainname")


def accessible(path: str, mode: int) -> bool:
    """faccessat2(2) with AT_EACCESS: whether our effective ids may; OSError for other reasons.

    A seccomp filter that does not know the call is no answer: access(2) asks for the real ids.
    """
    result = _faccessat2(_FACCESSAT2, -100, os.fsencode(path), mode, _AT_EACCESS)
    if result < 0 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS):
        return os.access(path, mode)
    if result < 0 and ctypes.get_errno() in (errno.EACCES, errno.EROFS):
        return False
    check(result, path)
    return True


class Title:
    """What /proc/<pid>/cmdline (and so ``ps``) shows, instead of the arguments we got.

    These are overwritten in place (proc_pid_stat(5): arg_start, arg_end); children inherit them,
    and may use the same object.
    """

    __slots__ = ("_size", "_start")

    def __init__(self) -> None:
        fields = stat_fields("self")
        start, end = int(fields[45]), int(fields[46])
        self._start = start
        self._size = max(end - start, 0) if start else 0

    def set(self, title: str) -> None:
        """Show ``title``, cut to the room there is."""
        if self._size:
            text = title.encode()[: self._size - 1]
            ctypes.memmove(self._start, text + bytes(self._size - len(text)), self._size)


def set_signal(number: int, *, ignored: bool) -> None:
    """signal(3): SIG_IGN or SIG_DFL, without the interpreter's knowing."""
    _signal(number, 1 if ignored else 0)


def trim_heap() -> None:
    """malloc_trim(3): give free heap pages back to the kernel."""
    _malloc_trim(0)


def stat_fields(pid: int | str) -> list[bytes]:
    """proc_pid_stat(5) from field 3, the state, on: the name before it may hold anything.

    Raises :class:`FileNotFoundError`, :class:`ProcessLookupError` when there is no such process.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def parent(pid: int) -> int:
    """The parent of ``pid``. Raises as :func:`stat_fields`."""
    return int(stat_fields(pid)[1])


def start_time(pid: int) -> int:
    """When ``pid`` started, in clock ticks since boot (proc_pid_stat(5), field 22).

    With the pid this names one process for ever. Raises :class:`FileNotFoundError`.
    """
    return int(stat_fields(pid)[19])
