"""The process beside each container: owns its streams, its log, its end.

It is forked by the launcher ahead of time, gets a container from its maker (:mod:`maker`) and stays
until that has ended and everybody has heard of it. It may idle for years, so it does and touches as
little as it can. See :mod:`sampan.runtime.client` for what it is asked.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import time
from typing import Any

from sampan.errors import Conflict, InvalidParameter, NotFound, SampanError, StartFailed
from sampan.kernel import cgroup, prctl, process
from sampan.kernel.seccomp import Filter
from sampan.runtime import channel, records, spawn
from sampan.runtime.channel import Message
from sampan.runtime.connection import Connection, trusted
from sampan.runtime.exec_tasks import DRAIN_SECONDS, ExecTasks, hand_over
from sampan.runtime.log_file import Log
from sampan.runtime.loop import READ, Loop
from sampan.runtime.maker import as_error, live_record
from sampan.runtime.spawn import Child
from sampan.runtime.streams import Streams
from sampan.runtime.task import Task

_LINGER_SECONDS = 60.0  # a failed container waits this long for somebody to ask why
_SETTLE_SECONDS = 1.0
_SIGTERM = int(signal.SIGTERM)


def serve(pair: socket.socket, maker_pid: int, layout: cgroup.Layout, title: process.Title) -> None:
    """Wait for what the maker makes, and be its monitor: returns when all is over."""
    taken = pair.recv(1)
    prctl.set_parent_death_signal(0)  # from here on the launcher may go
    process.set_signal(_SIGTERM, ignored=True)
    handed, program, fds = channel.receive_frame(pair) if taken else (None, b"", [])
    if handed is None:
        os.waitpid(maker_pid, 0)
        return
    prctl.set_name("sampan-monitor")
    title.set(f"sampan-monitor {handed['container_id']}")
    Monitor(pair, maker_pid, layout, handed, program, fds).run()


class Monitor:
    """One container. Callbacks of the loop and of tasks; see the module's docstring."""

    def __init__(
        self,
        pair: socket.socket,
        maker_pid: int,
        layout: cgroup.Layout,
        handed: Message,
        program: bytes,
        fds: list[int],
    ) -> None:
        """``handed``, ``program``, ``fds``: see :meth:`sampan.runtime.maker.Maker._hand_over`."""
        self._layout = layout
        self._loop = Loop()
        self._maker = (pair, maker_pid)
        self._directory: str = handed["directory"]
        self._container_id: str = handed["container_id"]
        self._cgroup: str = handed["cgroup"]
        self._own_pids: bool = handed["own_pids"]
        self._joinable: int = handed["joinable"]
        self._start_time: int = handed["start_time"]
        flags = handed["seccomp"]
        self._filter = None if flags is None else Filter(program=program, flags=flags)
        self._starter: Connection | None = None
        self._aborter: Connection | None = None
        self._watchers: list[Connection] = []
        self._connections: set[Connection] = set()
        self._oom: cgroup.OomWatch | None = None
        self._oom_killed = False
        self._error: StartFailed | None = None
        self._finished = False
        client, listener, pidfd, init, *pipes = fds
        self._creator: Connection | None = Connection(
            self._loop, socket.socket(fileno=client), self._dispatch, self._disconnected
        )
        self._listener: socket.socket | None = socket.socket(fileno=listener)
        self._loop.add(listener, READ, self._accept)
        self._log: Log | None = None
        try:
            self._log = _open_log(handed["log"])
        except OSError as error:
            self._error = StartFailed(f"the log cannot be opened: {error}")
        self._streams = self._make_streams(handed, pipes)
        child = Child(pid=handed["pid"], pidfd=pidfd, channel=socket.socket(fileno=init))
        self._main = Task(self._loop, self, child, self._streams, limits=handed["limits"])
        self._execs = ExecTasks(
            self._loop,
            layout,
            patience=handed["stall_timeout"],
            tell=self._tell,
            settle=lambda: self._loop.deadline("settle", _SETTLE_SECONDS, self._settle),
        )
        if handed["stage"]:
            os.waitpid(handed["stage"], 0)
        self._loop.add(pair.fileno(), READ, self._made)

    def _make_streams(self, handed: Message, pipes: list[int]) -> Streams:
        given = iter(pipes)
        stdin, stdout, stderr = (next(given) if there else -1 for there in handed["open"])
        return Streams(
            self._loop,
            (stdin, stdout, stderr),
            terminal=handed["terminal"],
            stdin=handed["stdin"],
            stdin_once=handed["stdin_once"],
            log=self._log,
            patience=handed["stall_timeout"],
            on_end=self._output_ended,
        )

    def _made(self, events: int) -> None:
        """The maker's last word: init has all it needs, or cannot get it."""
        pair, pid = self._maker
        message, _, _ = channel.receive_frame(pair)
        self._loop.remove(pair.fileno())
        pair.close()
        os.waitpid(pid, 0)
        if message is not None and message["kind"] == "done":
            self._main.child.warnings += message["warnings"]
        else:
            reason = message["message"] if message is not None else spawn.DIED
            self._error = self._error or StartFailed(reason)
        if self._error is not None:
            self._main.kill()

    def run(self) -> None:
        """Serve until the container has ended and everybody has heard of it."""
        self._loop.run()

    def _settle(self) -> None:
        """Give back what making things left behind: this process may idle for years."""
        gc.collect()
        process.trim_heap()

    def task_ready(self, task: Task) -> None:
        """Init waits; it goes on when somebody asked."""
        if self._starter is not None:
            task.start()

    def task_started(self, task: Task) -> None:
        """The program runs."""
        if self._starter is not None:
            self._starter.reply({"ok": True, "warnings": task.child.warnings})
            self._starter = None
        self._tell({"event": "started"})
        self._publish_running()
        self._watch_memory()
        self._settle()

    def _publish_running(self) -> None:
        record = live_record(
            self._container_id,
            self._cgroup,
            self._main.child.pid,
            self._start_time,
            os.getpid(),
            status="running",
        )
        records.write(self._directory, records.INIT, record)

    def task_failed(self, task: Task, error: StartFailed) -> None:
        """Set-up failed. The process ends by itself or was killed; its end comes next."""
        if self._error is None:
            self._error = error

    def task_exited(self, task: Task) -> None:
        """Reaped."""
        if not self._own_pids and self._cgroup:
            # Without a pid namespace of its own, what it started survives it.
            with contextlib.suppress(OSError):
                cgroup.kill(self._layout, self._cgroup)
        if self._streams.ended or self._error is not None:
            self._finish()
        else:
            self._loop.deadline("drain", DRAIN_SECONDS, self._streams.end_output)

    def _output_ended(self) -> None:
        self._loop.cancel("drain")
        if self._main.state == "ended" and not self._finished:
            self._finish()

    def _watch_memory(self) -> None:
        if not self._cgroup or self._layout.directory("memory", self._cgroup) is None:
            return
        with contextlib.suppress(OSError):
            self._oom = cgroup.OomWatch(self._layout, self._cgroup)
            self._loop.add(self._oom.fileno(), READ, self._memory_event)

    def _memory_event(self, events: int) -> None:
        if self._oom is not None and self._oom.consume():
            self._oom_killed = True
            self._tell({"event": "oom"})

    def _finish(self) -> None:
        """The end: output is complete, everything is removed, the record is durable."""
        task = self._main
        if self._finished:
            return
        self._finished = True
        self._note_memory()
        if self._error is not None:
            self._streams.close()
        if self._log is not None:
            self._log.close()
        self._remove_cgroup()
        record = {
            "code": task.code,
            "signal": task.signal,
            "oom": self._oom_killed,
            "at": time.time_ns(),
            "error": "" if self._error is None else self._error.message,
        }
        records.write(self._directory, records.EXIT, record)
        unheard = self._starter is None and self._aborter is None
        lingers = self._error is not None and unheard and self._creator is not None
        if not lingers:
            self._stop_listening()
        self._tell({"event": "exit", **record})
        if lingers:
            # Nobody has heard why yet: whoever asks to start it will.
            self._loop.deadline("linger", _LINGER_SECONDS, self._leave)
        else:
            self._answer_waiting()

    def _note_memory(self) -> None:
        if self._oom is not None:
            self._loop.remove(self._oom.fileno())
            self._oom.close()
            self._oom = None
        if self._cgroup and not self._oom_killed:
            with contextlib.suppress(OSError):
                self._oom_killed = cgroup.oom_kills(self._layout, self._cgroup) > 0
            if self._oom_killed:
                self._tell({"event": "oom"})

    def _answer_waiting(self) -> None:
        if self._starter is not None:
            error = self._error or StartFailed(spawn.DIED)
            starter, self._starter = self._starter, None
            starter.fail(error)
        if self._aborter is not None:
            self._aborter.reply({"ok": True})
        self._leave()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._loop.remove(self._listener.fileno())
            self._listener.close()
            self._listener = None
            records.remove(self._directory, records.SOCKET, records.INIT)

    def _leave(self) -> None:
        """Be gone, once attached clients have got all output."""
        self._stop_listening()
        if self._streams.idle:
            self._loop.stop()
        else:
            self._loop.deadline("leave", 0.05, self._leave)

    def _remove_cgroup(self) -> None:
        if not self._cgroup:
            return
        try:
            cgroup.kill(self._layout, self._cgroup)
            cgroup.remove(self._layout, self._cgroup)
        except OSError as error:
            # Processes that do not die (uninterruptible): recover() or the engine's sweep retries.
            self._tell({"event": "warning", "message": f"cgroup is left: {error}"})

    def _accept(self, events: int) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        if not trusted(sock):
            sock.close()
            return
        self._connections.add(Connection(self._loop, sock, self._dispatch, self._disconnected))

    def _disconnected(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if connection in self._watchers:
            self._watchers.remove(connection)
        if connection is not self._creator:
            return
        self._creator = None
        if self._finished:
            if self._error is not None:
                self._leave()
        elif self._main.state in ("setup", "ready") and self._starter in (None, connection):
            # Who made it is gone and it never ran: nobody will start it.
            self._starter = None
            self._abort()

    def _dispatch(self, connection: Connection, message: Message, blob: bytes) -> None:
        handler = _HANDLERS.get(message.get("op", ""))
        try:
            if handler is None:
                raise InvalidParameter(f"unknown request {message.get('op')!r}")
            handler(self, connection, message, blob)
        except SampanError as error:
            connection.fail(error)
        except OSError as error:
            connection.fail(as_error(error))

    def _tell(self, event: Message) -> None:
        for watcher in list(self._watchers):
            watcher.line(event)

    def _task(self, exec_id: str | None) -> Task:
        if exec_id:
            return self._execs.find(exec_id)
        return self._main

    def _start(self, connection: Connection, message: Message, blob: bytes) -> None:
        if self._error is not None and self._finished:
            connection.fail(self._error)
            self._leave()
            return
        failing = self._error is not None and self._starter is None
        if not failing and (
            self._starter is not None or self._main.state not in ("setup", "ready")
        ):
            raise Conflict("the container was started already")
        self._starter = connection  # of a failing one: answered when its end is recorded
        if self._main.state == "ready":
            self._main.start()

    def _abort_request(self, connection: Connection, message: Message, blob: bytes) -> None:
        if self._finished:
            connection.reply({"ok": True})
            self._leave()
            return
        if self._main.state not in ("setup", "ready"):
            raise Conflict("the container was started already")
        self._aborter = connection
        self._abort()

    def _abort(self) -> None:
        self._error = StartFailed("the container was not started")
        self._main.kill()

    def _attach(self, connection: Connection, message: Message, blob: bytes) -> None:
        if self._finished:
            raise Conflict("the container has ended")
        if connection.reply({"ok": True}):
            self._connections.discard(connection)
            hand_over(connection, self._streams, message)

    def _watch(self, connection: Connection, message: Message, blob: bytes) -> None:
        task = self._main
        status = "running" if task.state == "running" else "created"
        connection.reply({"ok": True})
        connection.watch_end()
        state = {
            "event": "state",
            "status": status,
            "pid": task.child.pid,
            "execs": self._execs.running(),
        }
        if connection.line(state):
            self._watchers.append(connection)

    def _resize(self, connection: Connection, message: Message, blob: bytes) -> None:
        task = self._task(message["exec_id"])
        if not task.streams.resize(message["height"], message["width"]):
            raise Conflict("the process has no terminal")
        connection.reply({"ok": True})

    def _signal(self, connection: Connection, message: Message, blob: bytes) -> None:
        task = self._task(message["exec_id"])
        if task.state == "ended":
            raise NotFound("the process has ended")
        task.kill(message["signal"])
        connection.reply({"ok": True})

    def _close_stdin(self, connection: Connection, message: Message, blob: bytes) -> None:
        self._task(message["exec_id"]).streams.close_stdin()
        connection.reply({"ok": True})

    def _status(self, connection: Connection, message: Message, blob: bytes) -> None:
        pid = self._main.child.pid
        connection.reply({"ok": True, "pid": pid, "start_time": self._start_time})

    def _exec(self, connection: Connection, message: Message, blob: bytes) -> None:
        if self._main.state != "running":
            raise Conflict("the container is not running")
        self._execs.start(
            connection,
            message,
            into=(self._main.child.pidfd, self._joinable),
            path=self._cgroup,
            seccomp=self._filter,
        )

    def _exec_exit(self, connection: Connection, message: Message, blob: bytes) -> None:
        connection.reply({"ok": True, "code": self._execs.code(message["exec_id"])})


_HANDLERS = {
    "start": Monitor._start,
    "abort": Monitor._abort_request,
    "attach": Monitor._attach,
    "watch": Monitor._watch,
    "resize": Monitor._resize,
    "signal": Monitor._signal,
    "close-stdin": Monitor._close_stdin,
    "status": Monitor._status,
    "exec": Monitor._exec,
    "exec-exit": Monitor._exec_exit,
}


def _open_log(settings: dict[str, Any]) -> Log | None:
    if settings["driver"] == "none":
        return None
    return Log.open(
        settings["driver"],
        settings["path"],
        max_size=settings["max_size"],
        max_file=settings["max_file"],
        compress=settings["compress"],
        attrs=settings["attrs"],
    )
