"""Forking straight into a v2 cgroup: clone3(2) with CLONE_INTO_CGROUP (Linux 5.7).

The child starts as a member of the cgroup, so nobody writes cgroup.procs and nobody waits for
the RCU grace period that costs. Python's own fork bookkeeping (locks, ``os.register_at_fork``
hooks) is run around the call as os.fork() does it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct

from sampan.kernel.libc import SYS_CLONE3, typed

_CLONE_INTO_CGROUP = 0x200000000

# "locked" keeps the interpreter lock, as os.fork() does: the child holds it from birth.
_clone3 = typed("syscall", ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t, locked=True)


def fork_into(cgroup_fd: int, flags: int = 0) -> int:
    """Fork; the child is born in the v2 cgroup open at ``cgroup_fd``.

    ``flags`` are further CLONE_* bits (new namespaces). Returns 0 in the child and its pid in
    the parent, as os.fork(). To be called by a single-threaded process only. Raises OSError:
    ENOSYS and E2BIG on kernels without it, EBUSY for a cgroup that may hold no process, EACCES.
    """
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls,
    # set_tid, set_tid_size, cgroup
    attr = ctypes.create_string_buffer(
        struct.pack(
            "=11Q", flags | _CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, cgroup_fd
        ),
        88,
    )
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    pid: int = _clone3(SYS_CLONE3, ctypes.addressof(attr), len(attr))
    if pid == 0:
        python.PyOS_AfterFork_Child()
        return 0
    number = ctypes.get_errno()
    python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, os.strerror(number), "clone3")
    return pid
