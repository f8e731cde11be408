"""Makes a container for a monitor, then ends.

Making one takes a plan, cgroups, mounts and a megabyte of memory that nobody needs afterwards. So
the monitor does not do it: its child does, and gives it what it made, the first process included
(which is the monitor's child all the same, see CLONE_PARENT in clone(2)).

A maker waits, forked ahead of time, for the launcher's next connection: neither its fork nor its
monitor's is in the way of a start.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import Any, NoReturn

from sampan.errors import SampanError, StartFailed
from sampan.kernel import cgroup, namespaces, process
from sampan.runtime import channel, plan_codec, records, spawn
from sampan.runtime.connection import listen, trusted
from sampan.runtime.operations import Failure, sentence
from sampan.runtime.plan import Plan
from sampan.runtime.streams import Ends, open_ends

_REQUEST_SECONDS = 10.0


def serve(
    listener: socket.socket,
    monitor: socket.socket,
    taken: int,
    layout: cgroup.Layout,
    identity: channel.Message,
) -> NoReturn:
    """Wait for a connection to the launcher and do what it asks; then end.

    ``taken``: pipe to the launcher: a byte when the connection is there, its end when we are done.
    ``identity``: the answer for who only asks which launcher this is.
    """
    client, _ = listener.accept()
    listener.close()
    os.write(taken, b"1")
    monitor.send(b"1")
    if trusted(client):
        client.settimeout(_REQUEST_SECONDS)
        message, blob, _ = channel.receive_frame(client)
        client.settimeout(None)
        if message is not None and message.get("op") == "create":
            Maker(monitor, layout).make(client, message, blob)
        elif message is not None:
            channel.send_frame(client, {"ok": True, **identity})
    os._exit(0)


class Maker:
    """One container being made. ``monitor``: the channel to the process it is made for."""

    def __init__(self, monitor: socket.socket, layout: cgroup.Layout) -> None:
        self._monitor = monitor
        self._layout = layout
        self._stack = contextlib.ExitStack()
        self._directory = ""

    def make(self, client: socket.socket, message: channel.Message, blob: bytes) -> None:
        """Make what ``message`` says, answer ``client``, hand everything to the monitor.

        On failure all is undone, and the client told why.
        """
        try:
            with self._stack:
                plan, child = self._begin(client, message, blob)
                self._stack.pop_all()
        except (SampanError, Failure, OSError) as error:
            reason = as_error(error)
            channel.send_frame(client, {"error": type(reason).__name__, "message": reason.message})
            return
        try:
            spawn.provision(child, plan, self._layout)
        except (SampanError, Failure, OSError) as error:
            # The client has its answer, so it is the monitor that must end this.
            failed = {"kind": "failed", "message": as_error(error).message}
            channel.send_frame(self._monitor, failed)
            return
        channel.send_frame(self._monitor, {"kind": "done", "warnings": child.warnings})

    def _begin(
        self, client: socket.socket, message: channel.Message, blob: bytes
    ) -> tuple[Plan, spawn.Child]:
        """Everything up to the answer: namespaces exist."""
        self._directory = message["directory"]
        plan = plan_codec.decode(message["plan"], blob)
        listener = self._prepare_directory()
        self._publish(plan, 0, 0)
        ends = open_ends(
            terminal=plan.terminal, stdin=message["open_stdin"], output=not plan.terminal
        )
        child = spawn.spawn(plan, self._layout, streams=ends.child, sibling=True)
        self._stack.callback(_end, child)
        start_time = process.start_time(child.pid)
        self._publish(plan, child.pid, start_time)
        self._hand_over(client, message, plan, child, listener, ends, start_time)
        answer = {"ok": True, "pid": child.pid, "start_time": start_time}
        with contextlib.suppress(OSError):  # it has gone: the monitor notices as well
            channel.send_frame(client, answer)
        return plan, child

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

    def _publish(self, plan: Plan, pid: int, start_time: int) -> None:
        record = live_record(plan.container_id, plan.cgroup, pid, start_time, os.getppid())
        records.write(self._directory, records.INIT, record)

    def _hand_over(
        self,
        client: socket.socket,
        message: channel.Message,
        plan: Plan,
        child: spawn.Child,
        listener: socket.socket,
        ends: Ends,
        start_time: int,
    ) -> None:
        """What the monitor needs from now on, in one message. Ours are closed when we end."""
        seccomp = plan.seccomp
        fds = [client.fileno(), listener.fileno(), child.pidfd, child.channel.fileno()]
        fds += [fd for fd in ends.ours if fd >= 0]
        handed: dict[str, Any] = {
            "kind": "made",
            "directory": self._directory,
            "container_id": plan.container_id,
            "cgroup": plan.cgroup,
            "pid": child.pid,
            "start_time": start_time,
            "own_pids": bool(plan.new & namespaces.CLONE_NEWPID),
            "joinable": plan.new | sum(flag for flag, _ in plan.join),
            "limits": plan.limits,
            "terminal": plan.terminal,
            "open": [fd >= 0 for fd in ends.ours],
            "stdin": message["open_stdin"],
            "stdin_once": message["stdin_once"],
            "stall_timeout": message["stall_timeout"],
            "log": message["log"],
            "seccomp": None if seccomp is None else seccomp.flags,
            "stage": child.stage,
        }
        program = b"" if seccomp is None else seccomp.program
        channel.send_frame(self._monitor, handed, program, fds)


def live_record(
    container_id: str,
    path: str,
    pid: int,
    start_time: int,
    monitor_pid: int,
    status: str = "created",
) -> dict[str, Any]:
    """The contents of init.json: :class:`sampan.runtime.requests.Live`."""
    return {
        "container_id": container_id,
        "pid": pid,
        "start_time": start_time,
        "monitor_pid": monitor_pid,
        "cgroup": path,
        "status": status,
    }


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


def _end(child: spawn.Child) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)


def _remove_directory(path: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(path)
