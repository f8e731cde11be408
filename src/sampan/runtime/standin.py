"""A process made ahead of the next exec, which stands in for it until its program runs.

A fork, the memory pages that are copied after it and those that execve gives back are most of an
exec's time; and nothing may wait in the container's pid namespace, where its processes would see
it. So what waits is outside. It is told the plan, becomes what the program is to be in everything
but its pid namespace, and has posix_spawn(3) make that: a clone that copies nothing. Then it ends,
and the program is our child (PR_SET_CHILD_SUBREAPER).

For a moment the new process, which the container can see, shares its memory with one that is in
the host's pid namespace. Nobody may reach into it there: it is not dumpable, so that takes
CAP_SYS_PTRACE in our user namespace. Where the container has that, each exec is forked, as are
those that need more than a spawn passes on.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import socket
from typing import NoReturn

from sampan.errors import Unsupported
from sampan.kernel import capabilities, cgroup, libc, namespaces, prctl, process, sock_filter
from sampan.kernel.seccomp import AUDIT_ARCHITECTURES, Filter
from sampan.runtime import channel, init, plan_codec, rehearsal, spawn
from sampan.runtime.channel import Message
from sampan.runtime.forked import forked
from sampan.runtime.planned import Plan
from sampan.runtime.userns import pid_of

_OFTEN = 2  # a health check asks once in our short life, and needs nobody to wait
_RLIMIT_NPROC = 6
_PTRACE = capabilities.NUMBERS["CAP_SYS_PTRACE"]
#: What a spawned process inherits, or does itself. Not the terminal, of which it is to be the
#: owner; labels, which a process gives itself; or a scheduler, which may end with its process.
_INHERITED = frozenset(
    {
        *("await_cgroups", "enter", "session", "keyring", "personality", "memory_policy"),
        *("io_priority", "identify", "own_streams", "enter_directory", "seccomp", "bounding"),
        *("become", "capabilities", "umask", "no_new_privileges", "die_with_parent", "program"),
        "execute",
    }
)
#: What posix_spawn(3) and telling of it call, besides what a plan does in any case.
_CALLS: tuple[str, ...]
_CALLS = ("mmap", "mprotect", "munmap", "rt_sigaction", "rt_sigprocmask", "setsid", "execve")
_CALLS += ("pidfd_open", "sendmsg", "close", "sched_setscheduler", "wait4", "exit_group")
_SPAWN_FLAGS = 0x100 | 0x4000 | signal.SIGCHLD  # CLONE_VM, CLONE_VFORK


class StandIns:
    """Who waits for the execs of one container: one process at most, our child.

    Another child forks them, so that our own memory is not shared anew before each exec.
    """

    def __init__(self, layout: cgroup.Layout) -> None:
        self._layout = layout
        self._nursery: _Process | None = None
        self._expected = False
        self._asked = 0
        self._safe: bool | None = None

    def take(
        self, value: Message, plan: Plan, into: tuple[int, int], streams: tuple[int, int, int]
    ) -> spawn.Child | None:
        """Have it perform ``plan``, which was decoded from ``value``, if one waits and it can.

        ``into`` and ``streams`` as for :func:`sampan.runtime.spawn.spawn`.
        """
        self._asked += 1
        if not self._expected or not _fits(plan, self._layout):
            return None
        waiting = self._born()
        if waiting is None:
            return None
        try:
            return waiting.become(value, plan, into, streams)
        except OSError:  # it has died, or the plan does not fit into a message
            waiting.end()
            return None

    def wanted(self, into: tuple[int, int], seccomp: Filter | None) -> bool:
        """Whether to :meth:`make` one: somebody asks often, and it is safe in this container."""
        if self._expected or self._asked < _OFTEN:
            return False
        if self._safe is None:
            self._safe = self._layout.mode != "v2" and _out_of_reach(into) and _allows(seccomp)
        return self._safe

    def make(self) -> None:
        """Have one wait. The caller must be single-threaded."""
        if self._expected:
            return
        try:
            if self._nursery is None:
                # Who is orphaned by one that stood in is our child.
                prctl.set_child_subreaper(True)
                self._nursery = _Process(*forked(_breed))
            channel.send_value(self._nursery.channel, True)
            self._expected = True
        except OSError:  # the next exec goes without, and says what it is
            self.close()

    def close(self) -> None:
        """Nobody will ask any more."""
        if self._expected and (waiting := self._born()) is not None:
            waiting.end()
        if self._nursery is not None:
            self._nursery.end()
            self._nursery = None

    def _born(self) -> _Process | None:
        """Who waits, if the nursery is done with it."""
        nursery = self._nursery
        if nursery is None or not channel.readable(nursery.channel):
            return None
        self._expected = False
        pid, fds = channel.receive_value(nursery.channel)
        if pid is None:  # it has died: of memory, or somebody killed it
            nursery.end()
            self._nursery = None
            return None
        return _Process(pid, fds[0], socket.socket(fileno=fds[1]))


class _Process:
    """A child of ours that listens on the other end of ``channel``."""

    def __init__(self, pid: int, pidfd: int, channel: socket.socket) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.channel = channel

    def become(
        self, value: Message, plan: Plan, into: tuple[int, int], streams: tuple[int, int, int]
    ) -> spawn.Child:
        """Raises :class:`OSError`; it still is to be ended then."""
        spawn.give_streams(streams, plan, into)
        program, flags = (plan.seccomp.program, plan.seccomp.flags) if plan.seccomp else (b"", -1)
        told = (value, plan.cgroup, program, flags, into[1])
        channel.send_value(self.channel, told, (*streams, into[0]))
        return spawn.Child(pid=self.pid, pidfd=self.pidfd, channel=self.channel, stand_in=True)

    def end(self) -> None:
        self.channel.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.pidfd)


def _breed(told: socket.socket) -> NoReturn:
    """In the nursery: fork one, a child of our maker, whenever asked to, until that is gone."""
    gc.disable()
    prctl.set_name("sampan-nursery")
    prctl.set_dumpable(False)
    init.forget_imports()
    process.close_all_but({told.fileno()})
    while channel.receive_value(told)[0] is not None:
        made = _Process(*forked(_wait, process.CLONE_PARENT))
        channel.send_value(told, made.pid, (made.pidfd, made.channel.fileno()))
        os.close(made.pidfd)
        made.channel.close()
    os._exit(0)


def _wait(told: socket.socket) -> NoReturn:
    """In the waiting process: until somebody says what to become, or is gone."""
    prctl.set_name("sampan-exec")
    process.close_all_but({told.fileno()})
    if not channel.readable(told):
        rehearsal.stand_in()
    message, fds = channel.receive_value(told)
    if message is None:
        os._exit(0)
    value, path, program, flags, kinds = message
    seccomp = None if flags < 0 else Filter(program=program, flags=flags)
    plan = plan_codec.joining(plan_codec.decode(value, b""), path, seccomp)
    *streams, pidfd = fds
    context = spawn.init_context(plan, told, into=(pidfd, kinds))
    context.into = (pidfd, kinds)  # with the pid namespace: who is spawned is born there
    context.cgroups_expected = bool(path)
    context.stands_in = True
    init.run(context, plan.setup, plan.finish, (streams[0], streams[1], streams[2]))


def _fits(plan: Plan, layout: cgroup.Layout) -> bool:
    """Whether a process that stands in can do all this plan asks."""
    if plan.affinity or any(kind == _RLIMIT_NPROC for kind, _, _ in plan.limits):
        return False
    if plan.seccomp is not None and plan.seccomp.listener:
        return False
    if any(step.name not in _INHERITED for step in (*plan.setup, *plan.finish)):
        return False
    return not plan.cgroup or cgroup.has_room(layout, plan.cgroup, 2)


def _out_of_reach(into: tuple[int, int]) -> bool:
    """Whether nothing in the container may reach into the memory of a process of ours."""
    pidfd, kinds = into
    if not kinds & namespaces.CLONE_NEWPID:
        return False
    if kinds & namespaces.CLONE_NEWUSER:
        return True
    try:
        return not capabilities.bounding_of(pid_of(pidfd)) >> _PTRACE & 1
    except OSError:
        return False


def _allows(seccomp: Filter | None) -> bool:
    """Whether a filter lets a process spawn another."""
    if seccomp is None:
        return True
    architecture = AUDIT_ARCHITECTURES.get(os.uname().machine)
    if architecture is None:
        return False

    def answer(name: str, *arguments: int) -> int:
        return sock_filter.answer(seccomp.program, architecture, libc.number(name), arguments)

    try:
        # The C library goes on with clone(2) where clone3(2) seems not to exist.
        clone3 = answer("clone3") in (sock_filter.ALLOW, sock_filter.ERRNO | errno.ENOSYS)
        calls = all(answer(name) == sock_filter.ALLOW for name in _CALLS)
        return clone3 and calls and answer("clone", _SPAWN_FLAGS) == sock_filter.ALLOW
    except Unsupported:
        return False
