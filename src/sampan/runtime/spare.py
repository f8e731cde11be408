"""A container's first process, made while nobody waited.

A fork into new namespaces is a good part of a start. Nearly every container wants the same kinds
of them, so a waiting worker keeps such a process at hand; when its container comes, the process is
told the plan and goes on as any init does. What it must not have of its own yet is a copy of the
host's mounts: that would lack what is mounted from now on. It has an empty mount namespace to move
to when it is told, or makes a copy if the plan needs one.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeAlias

from sampan.kernel import cgroup, mount, namespaces, prctl, process
from sampan.model.idmap import IdMap
from sampan.runtime import blank, channel, init, plan_codec, spawn
from sampan.runtime.channel import Message
from sampan.runtime.context import Source
from sampan.runtime.operation import Operation
from sampan.runtime.planned import Plan
from sampan.runtime.process_operations import join_cgroups
from sampan.runtime.userns import hand_over

_KINDS = (
    namespaces.CLONE_NEWPID
    | namespaces.CLONE_NEWUTS
    | namespaces.CLONE_NEWIPC
    | namespaces.CLONE_NEWNET
)
_FAILED = 255
_CGROUPS = "cgroups"
Rehearsal: TypeAlias = Callable[[int], dict[Source, int]]


class Spare:
    """One waiting process. ``pid``, ``pidfd`` and ``start_time`` (proc(5), field 22) are its."""

    #: Seconds it is good for: its network namespace has taken on the host's sysctls as they were.
    SECONDS = 60.0

    def __init__(self, rehearse: Rehearsal, *, user: bool = False) -> None:
        """Make one; it is the child of our parent, which has to reap it.

        Before it waits it calls ``rehearse`` with a directory of nobody, and keeps the mounts that
        returns. ``user``: in a user namespace of its own, with no ids yet. Raises :class:`OSError`.
        The caller must be single-threaded.
        """
        self._made = time.monotonic()
        self._user = user
        self._joined = False
        self._channel, theirs = channel.pair()
        kinds = _KINDS | (namespaces.CLONE_NEWUSER if user else 0)
        with theirs:
            try:
                directory = mount.new_filesystem("tmpfs", "rehearsal", [("mode", "777")])
                with mount.descriptor(directory):
                    self.pid, self.pidfd = process.clone3(kinds | process.CLONE_PARENT)
                    if self.pid == 0:
                        _wait(theirs, directory, rehearse, user=user)
                self.start_time = process.start_time(self.pid)
            except OSError:
                self._channel.close()
                raise

    def fits(self, plan: Plan) -> bool:
        """Whether it can become the first process of this container.

        Not where the process belongs into another user namespace, or has to be born in namespaces
        or on processors of the plan's.
        """
        if time.monotonic() - self._made > self.SECONDS or plan.affinity:
            return False
        if bool(plan.new & namespaces.CLONE_NEWUSER) != self._user:
            return False
        if self._user and plan.join:
            return False  # what is joined is joined with the host's privileges
        joined = 0
        for flag, _ in plan.join:
            joined |= flag
        if joined & (namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWPID):
            return False
        if plan.new & namespaces.CLONE_NEWTIME:
            return False
        return (plan.new | joined) & _KINDS == _KINDS and bool(plan.new & namespaces.CLONE_NEWPID)

    def join(self, path: str, layout: cgroup.Layout) -> None:
        """Have it join the cgroups at ``path`` before it is told the plan, if it is alive."""
        with spawn.cgroup_files(path, layout) as fds, contextlib.suppress(OSError):
            channel.send_value(self._channel, _CGROUPS, fds)
            self._joined = True

    def become(self, value: Message, blob: bytes, streams: tuple[int, int, int]) -> spawn.Child:
        """Have it perform the plan that was encoded as ``value`` and ``blob``.

        Raises :class:`OSError`; EMSGSIZE for a plan that does not fit into one packet.
        """
        if self._user:
            hand_over(streams, IdMap(value["uid_map"], value["gid_map"]))
        channel.send_value(self._channel, (value, blob), streams)
        return spawn.Child(
            pid=self.pid, pidfd=self.pidfd, channel=self._channel, cgroup_joined=self._joined
        )

    def network(self) -> int:
        """A descriptor of its network namespace; -1 when that is too old or its user namespace's,
        or it died."""
        if self._user or time.monotonic() - self._made > self.SECONDS:
            return -1
        try:
            return os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return -1

    def end(self) -> int:
        """End it: nobody needs it. Returns its pid, which our parent has to reap."""
        self._channel.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.close(self.pidfd)
        return self.pid


def _wait(told: socket.socket, directory: int, rehearse: Rehearsal, *, user: bool) -> NoReturn:
    """In the waiting process: until somebody says what to become, or is gone."""
    try:
        gc.disable()
        prctl.set_dumpable(False)
        init.forget_imports()
        process.close_all_but({told.fileno(), directory})
        early = channel.readable(told)
        premade = {} if early else rehearse(directory)
        # In a user namespace no file system can be made before there are ids.
        empty = -1 if early or user else blank.make()
        os.close(directory)
        message, fds = channel.receive_value(told)
        joined = message == _CGROUPS
        if joined:
            join_cgroups(fds)
            message, fds = channel.receive_value(told)
        if message is None:
            os._exit(0)
        plan = plan_codec.decode(*message)
        context = spawn.init_context(plan, told)
        context.cgroups_expected = bool(plan.cgroup) and not joined
        setup: Sequence[Operation] = plan.setup
        if not plan.join:  # they are of our own namespaces
            context.premade = premade
        if empty >= 0 and plan.new & namespaces.CLONE_NEWNS and blank.suits(setup):
            context.blank, setup = empty, blank.arranged(setup)
        else:
            context.apart = namespaces.CLONE_NEWNS
    except BaseException:
        os._exit(_FAILED)  # our maker notices; nothing may unwind into what it was doing
    init.run(context, setup, plan.finish, (fds[0], fds[1], fds[2]))
