"""Making a container: what the first worker of a monitor does before it looks after it.

It was forked ahead of time, so neither its own fork nor its monitor's is in the way of a start. The
container's first process is the monitor's child, not ours (CLONE_PARENT in clone(2)): the monitor
stays when we end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket

from sampan.errors import SampanError, StartFailed
from sampan.kernel import cgroup, namespaces, process
from sampan.runtime import channel, plan_codec, records, spawn
from sampan.runtime.connection import listen
from sampan.runtime.operations import Failure, sentence
from sampan.runtime.plan import Plan
from sampan.runtime.spare import Spare
from sampan.runtime.state import State, publish
from sampan.runtime.streams import Ends, close_ends, open_ends


class Maker:
    """One container being made.

    ``monitor``: the channel to the process it is made for; ``spare``: a process that waits to be
    its first.
    """

    def __init__(
        self, monitor: socket.socket, layout: cgroup.Layout, spare: Spare | None = None
    ) -> None:
        self._monitor = monitor
        self._layout = layout
        self._spare = spare
        self._stack = contextlib.ExitStack()
        self._directory = ""
        self._listener: socket.socket | None = None

    def make(self, client: socket.socket, message: channel.Message, blob: bytes) -> State | None:
        """Make what ``message`` says and answer ``client``.

        None on failure: all is undone then, and the client told why. What fails after the answer
        is in the state's ``error``. :meth:`close` comes after.
        """
        try:
            with self._stack:
                plan, child, state = self._begin(client, message, blob)
                self._stack.pop_all()
        except (SampanError, Failure, OSError) as error:
            reason = as_error(error)
            answer = {"error": type(reason).__name__, "message": reason.message}
            channel.send_frame(client, answer)
            return None
        try:
            spawn.provision(child, plan, self._layout)
        except (SampanError, Failure, OSError) as error:
            state.error = as_error(error).message
        state.warnings += child.warnings
        if child.stage:
            ask_to_reap(self._monitor, child.stage)
        # From here on these are the worker's, by number.
        for sock in (client, child.channel, self._listener):
            if sock is not None:
                sock.detach()
        return state

    def close(self) -> None:
        """End the process that waited in vain. Idempotent."""
        if self._spare is not None:
            ask_to_reap(self._monitor, self._spare.end())
            self._spare = None

    def _begin(
        self, client: socket.socket, message: channel.Message, blob: bytes
    ) -> tuple[Plan, spawn.Child, State]:
        """Everything up to the answer: namespaces exist."""
        self._directory = message["directory"]
        plan = plan_codec.decode(message["plan"], blob)
        ends = open_ends(
            terminal=plan.terminal, stdin=message["open_stdin"], output=not plan.terminal
        )
        child = self._waiting_process(plan, message["plan"], blob, ends.child)
        if child is not None:
            self._stack.callback(self._end, child)
        self._listener = self._prepare_directory()
        state = self.state(message, plan, client, self._listener, ends)
        if child is None:
            publish(state, "created")  # a worker killed from here on leaves a process to be found
            child = self._new_process(plan, ends.child)
            self._stack.callback(self._end, child)
        close_ends(ends.child)
        state.pid, state.pidfd = child.pid, child.pidfd
        state.channel = child.channel.fileno()
        state.start_time = process.start_time(child.pid)
        publish(state, "created")
        made = ("made", child.pid, self._directory, plan.container_id)
        channel.send_value(self._monitor, made)
        answer = {"ok": True, "pid": child.pid, "start_time": state.start_time}
        with contextlib.suppress(OSError):  # it has gone, which the worker notices as well
            channel.send_frame(client, answer)
        return plan, child, state

    def _waiting_process(
        self, plan: Plan, value: channel.Message, blob: bytes, streams: tuple[int, int, int]
    ) -> spawn.Child | None:
        """The one that waits, told the plan, if it can be this container's first."""
        spare = self._spare
        if spare is None or not spare.fits(plan):
            return None
        if plan.cgroup and self._layout.mode == "v2" and plan.scope is None:
            return None  # it is born in its cgroup, rather than moved there
        try:
            child = spare.become(value, blob, streams)
        except OSError as error:
            if error.errno in (errno.EMSGSIZE, errno.EPIPE, errno.ECONNRESET):
                return None
            raise
        self._spare = None
        return child

    def _new_process(self, plan: Plan, streams: tuple[int, int, int]) -> spawn.Child:
        """Another one, on the network of the one that waits if that fits."""
        network = -1 if self._spare is None else self._spare.network()
        try:
            return spawn.spawn(
                plan, self._layout, streams=streams, sibling=True, spare_network=network
            )
        finally:
            if network >= 0:
                os.close(network)

    def state(
        self,
        message: channel.Message,
        plan: Plan,
        client: socket.socket,
        listener: socket.socket,
        ends: Ends,
    ) -> State:
        """What is known before the process exists."""
        seccomp = plan.seccomp
        return State(
            directory=self._directory,
            container_id=plan.container_id,
            cgroup=plan.cgroup,
            scope=plan.scope.unit if plan.scope else "",
            pid=0,
            start_time=0,
            own_pids=bool(plan.new & namespaces.CLONE_NEWPID),
            joinable=plan.new | sum(flag for flag, _ in plan.join),
            limits=list(plan.limits),
            seccomp_flags=-1 if seccomp is None else seccomp.flags,
            seccomp_program=b"" if seccomp is None else seccomp.program,
            terminal=plan.terminal,
            stdin=message["open_stdin"],
            stdin_once=message["stdin_once"],
            patience=message["stall_timeout"],
            log=message["log"],
            listener=listener.fileno(),
            pidfd=-1,
            channel=-1,
            creator=client.fileno(),
            pipes=ends.ours,
        )

    def _prepare_directory(self) -> socket.socket:
        try:
            os.mkdir(self._directory, 0o700)
            self._stack.callback(_remove_directory, self._directory)
        except FileExistsError:
            pass
        listener = listen(self._directory, records.SOCKET)
        self._stack.callback(records.remove, self._directory, records.SOCKET, records.INIT)
        records.remove(self._directory, records.EXIT)
        return listener

    def _end(self, child: spawn.Child) -> None:
        """Undo: what was made for it dies or is closed with us."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        ask_to_reap(self._monitor, child.pid)


def ask_to_reap(monitor: socket.socket, pid: int) -> int:
    """Have the monitor wait for its child ``pid``; returns the wait status."""
    channel.send_value(monitor, ("reap", pid))
    status, _ = channel.receive_value(monitor)
    assert status is not None, "the monitor is gone, and we with it"
    return int(status)


def as_error(error: Exception) -> SampanError:
    """Any failure of making a container, as one sentence."""
    if isinstance(error, SampanError):
        return error
    if isinstance(error, Failure):
        return StartFailed(sentence(error.name, error.reason, error.path))
    if isinstance(error, OSError):
        what = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return StartFailed(f"cannot make the container: {what}{error.strerror}")
    return StartFailed(f"cannot make the container: {error}")


def _remove_directory(path: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(path)
