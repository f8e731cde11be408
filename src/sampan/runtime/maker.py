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

from sampan.errors import Corrupt, SampanError, StartFailed
from sampan.kernel import cgroup, process
from sampan.kernel.mount import descriptor
from sampan.runtime import channel, foreign, plan_codec, records, spawn
from sampan.runtime.connection import listen
from sampan.runtime.operations import Failure, sentence
from sampan.runtime.planned import Plan
from sampan.runtime.spare import Spare
from sampan.runtime.state import State, publish
from sampan.runtime.streams import Ends, close_ends, open_ends

_PLAN_SECONDS = 10.0


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
        self._planned = False
        self._tree = -1
        self._listener: socket.socket | None = None

    def make(self, client: socket.socket, outline: channel.Message) -> State | None:
        """Make what ``outline`` and the plan that follows it on ``client`` say, and answer.

        None on failure: all is undone then, and the client told why, unless it has gone without a
        plan. What fails after the answer is in the state's ``error``. :meth:`close` comes after.
        """
        try:
            with self._stack:
                state, streams = self.lay_out(client, outline)
                message, blob = self._read(client)
                if message is None:
                    return None
                plan: Plan | None = None
                if "foreign" in message:
                    with descriptor(self._tree):
                        child = self._delegate(state, message["foreign"], blob, streams)
                else:
                    plan, child = self._people(state, message["plan"], blob, streams)
                made = {"ok": True, "pid": child.pid, "start_time": state.start_time}
                with contextlib.suppress(OSError):  # it has gone, which the worker notices as well
                    channel.send_frame(client, made)
                self._stack.pop_all()
        except (SampanError, Failure, OSError) as error:
            reason = as_error(error)
            if not self._planned:
                self._read(client)
            with contextlib.suppress(OSError):
                answer = {"error": type(reason).__name__, "message": reason.message}
                channel.send_frame(client, answer)
            return None
        try:
            if plan is not None:
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

    def undo(self) -> None:
        """Undo what was made so far."""
        self._stack.close()

    def close(self) -> None:
        """End the process that waited in vain. Idempotent."""
        if self._spare is not None:
            ask_to_reap(self._monitor, self._spare.end())
            self._spare = None

    def lay_out(
        self, client: socket.socket, outline: channel.Message
    ) -> tuple[State, tuple[int, int, int]]:
        """Make what needs no plan: directory, socket, cgroups; :meth:`undo` takes it back.

        Returns what is known now, and the streams of who is to live there.
        """
        ends = open_ends(
            terminal=outline["terminal"],
            stdin=outline["open_stdin"],
            output=not outline["terminal"],
        )
        self._directory = outline["directory"]
        self._listener = self._prepare_directory()
        state = self._state(outline, client, self._listener, ends)
        if self._spare is not None:
            state.pid, state.start_time = self._spare.pid, self._spare.start_time
        publish(state, "created")  # a worker killed from here on leaves something to be found
        if state.cgroup:
            cgroup.create(cgroup.plan(self._layout, state.cgroup, outline["resources"]))
            self._stack.callback(cgroup.remove, self._layout, state.cgroup)
            if self._spare is not None and self._layout.mode != "v2":
                self._stack.callback(self.close)
                self._spare.join(state.cgroup, self._layout)
        return state, ends.child

    def _read(self, client: socket.socket) -> tuple[channel.Message | None, bytes]:
        """The plan; None when the client has gone, or thinks for too long."""
        self._planned = True
        client.settimeout(_PLAN_SECONDS)
        with contextlib.suppress(TimeoutError, ConnectionResetError, Corrupt):
            message, blob, fds = channel.receive_frame(client)
            self._tree = fds[0] if fds else -1
            client.settimeout(None)
            return message, blob
        return None, b""

    def _people(
        self,
        state: State,
        value: channel.Message,
        blob: bytes,
        streams: tuple[int, int, int],
    ) -> tuple[Plan, spawn.Child]:
        """Have a first process: namespaces exist when this returns."""
        plan = plan_codec.decode(value, blob)
        made = bool(state.cgroup)
        child = self._waiting_process(plan, value, blob, streams)
        if child is None:
            child = self._new_process(plan, streams, cgroup_made=made)
        self._stack.callback(self._end, child)
        child.cgroup_made = made
        close_ends(streams)
        state.plan(plan)
        state.pidfd, state.channel = child.pidfd, child.channel.fileno()
        if child.pid != state.pid or state.scope:
            state.pid, state.start_time = child.pid, process.start_time(child.pid)
            publish(state, "created")
        channel.send_value(self._monitor, ("made", child.pid, self._directory, plan.container_id))
        return plan, child

    def _delegate(
        self,
        state: State,
        wanted: channel.Message,
        config: bytes,
        streams: tuple[int, int, int],
    ) -> spawn.Child:
        """Have another runtime make the first process."""
        self.close()
        state.pid = state.start_time = 0
        state.runtime, state.own_pids = wanted["runtime"], wanted["own_pids"]
        runtime = state.foreign
        assert runtime is not None
        publish(state, "created")  # who finds us dead has the runtime forget what it has made
        self._stack.callback(cgroup.kill, self._layout, state.cgroup)
        self._stack.callback(foreign.erase, runtime)
        _adopt(self._monitor, True)
        try:
            child = foreign.make(
                runtime,
                config,
                self._tree,
                streams,
                terminal=state.terminal,
                shared=wanted["shared"],
            )
        finally:
            _adopt(self._monitor, False)
        self._stack.callback(self._end, child)
        close_ends(streams)
        state.pidfd, state.channel, state.helper = child.pidfd, child.channel.fileno(), child.helper
        state.pid, state.start_time = child.pid, process.start_time(child.pid)
        publish(state, "created")
        made = ("made", child.pid, self._directory, state.container_id)
        channel.send_value(self._monitor, made)
        return child

    def _waiting_process(
        self, plan: Plan, value: channel.Message, blob: bytes, streams: tuple[int, int, int]
    ) -> spawn.Child | None:
        """The one that waits, told the plan, if it can be this container's first."""
        spare = self._spare
        if spare is None or not spare.fits(plan):
            return None
        if plan.cgroup and self._layout.mode == "v2" and plan.scope is None:
            # It is born in its cgroup: being moved waits for an RCU grace period here, whoever
            # writes cgroup.procs, which takes longer than making all its namespaces. It still
            # gets the network namespace of the one that waits.
            return None
        try:
            child = spare.become(value, blob, streams)
        except OSError as error:
            if error.errno in (errno.EMSGSIZE, errno.EPIPE, errno.ECONNRESET):
                return None
            raise
        self._spare = None
        return child

    def _new_process(
        self, plan: Plan, streams: tuple[int, int, int], *, cgroup_made: bool
    ) -> spawn.Child:
        """Another one, on the network of the one that waits if that fits."""
        network = -1 if self._spare is None else self._spare.network()
        self.close()  # it may be in the container's cgroup, where it would count
        try:
            return spawn.spawn(
                plan,
                self._layout,
                streams=streams,
                sibling=True,
                spare_network=network,
                cgroup_made=cgroup_made,
            )
        finally:
            if network >= 0:
                os.close(network)

    def _state(
        self,
        outline: channel.Message,
        client: socket.socket,
        listener: socket.socket,
        ends: Ends,
    ) -> State:
        """What is known before there is a plan."""
        return State(
            directory=self._directory,
            container_id=outline["id"],
            cgroup=outline["cgroup"],
            terminal=outline["terminal"],
            stdin=outline["open_stdin"],
            stdin_once=outline["stdin_once"],
            patience=outline["stall_timeout"],
            log=outline["log"],
            listener=listener.fileno(),
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


def _adopt(monitor: socket.socket, on: bool) -> None:
    """Have the monitor become the parent of who is orphaned below it, or no longer."""
    channel.send_value(monitor, ("adopt", on))
    channel.receive_value(monitor)


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
