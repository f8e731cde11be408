"""Handles what happens to one container: streams, log, attach, exec, its start and its end.

A worker is a child of the container's monitor (:mod:`monitor`) and lives while there is something
to do. It holds all descriptors of the container meanwhile. After a quiet second it gives them and
its state back and ends (:meth:`Worker._rest`); the monitor forks another when something happens
(:func:`sampan.runtime.worker_process.wake`). See :mod:`sampan.runtime.client` for what it is asked.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

from sampan.errors import Conflict, InvalidParameter, NotFound, SampanError, StartFailed
from sampan.kernel import cgroup, namespaces
from sampan.kernel.seccomp import Filter
from sampan.runtime import channel, foreign, records, spawn
from sampan.runtime.channel import Message
from sampan.runtime.connection import Connection, trusted
from sampan.runtime.exec_tasks import DRAIN_SECONDS, ExecTasks, hand_over
from sampan.runtime.log_file import Log
from sampan.runtime.loop import READ, Loop
from sampan.runtime.maker import as_error, ask_to_reap
from sampan.runtime.spawn import Child
from sampan.runtime.state import State, freeze, publish
from sampan.runtime.streams import Streams
from sampan.runtime.task import Task

_LINGER_SECONDS = 60.0  # a failed container waits this long for somebody to ask why
_QUIET_SECONDS = 1.0  # after which the worker gives way to the sleeping monitor
_LONGEST_QUIET_SECONDS = 30.0
_RESTING_CONNECTIONS = 200  # descriptors that fit into one message, less our own


class Worker:
    """Callbacks of the loop and of tasks; see the module's docstring."""

    def __init__(
        self, monitor: socket.socket, layout: cgroup.Layout, state: State, *, taken: int = -1
    ) -> None:
        """``taken``: closed when the program runs or never will."""
        self._taken = taken
        self._monitor = monitor
        self._layout = layout
        self._state = state
        self._loop = Loop()
        self._directory = state.directory
        self._cgroup = state.cgroup
        flags = state.seccomp_flags
        self._filter = None if flags < 0 else Filter(program=state.seccomp_program, flags=flags)
        self._starter: Connection | None = None
        self._aborter: Connection | None = None
        self._keeper: Connection | None = None
        self._remapped = bool(state.joinable & namespaces.CLONE_NEWUSER)
        self._creator: Connection | None = None
        self._watchers: list[Connection] = []
        self._connections: set[Connection] = set()
        self._oom: cgroup.OomWatch | None = None
        self._error = StartFailed(state.error) if state.error else None
        self._finished = False
        self._log = self._open_log()
        self._streams = self._open_streams()
        self._main = self._open_task()
        self._execs = ExecTasks(
            self._loop, layout, patience=state.patience, tell=self._tell, codes=state.exec_codes
        )
        self._listener: socket.socket | None = socket.socket(fileno=state.listener)
        self._loop.add(state.listener, READ, self._accept)
        for fd in state.connections:
            self._connections.add(self._connect(fd))
        if state.creator >= 0:
            self._creator = self._connect(state.creator)
        for fd in state.watchers:
            watcher = self._connect(fd)
            watcher.watch_end()
            self._watchers.append(watcher)
        if self._main.state == "running":
            self._watch_memory()
        if self._error is not None:
            self._main.kill()
        self._quiet = _QUIET_SECONDS
        self._loop.when_quiet(self._quiet, self._rest)

    def _connect(self, fd: int) -> Connection:
        sock = socket.socket(fileno=fd)
        return Connection(self._loop, sock, self._dispatch, self._disconnected)

    def _open_log(self) -> Log | None:
        settings = self._state.log
        if settings["driver"] == "none":
            return None
        try:
            return Log.open(
                settings["driver"],
                settings["path"],
                max_size=settings["max_size"],
                max_file=settings["max_file"],
                compress=settings["compress"],
                attrs=settings["attrs"],
                pending=self._state.log_pending,
            )
        except OSError as error:
            self._error = self._error or StartFailed(f"the log cannot be opened: {error}")
            return None

    def _open_streams(self) -> Streams:
        state = self._state
        return Streams(
            self._loop,
            state.pipes,
            terminal=state.terminal,
            stdin=state.stdin,
            stdin_once=state.stdin_once,
            log=self._log,
            patience=state.patience,
            on_end=self._output_ended,
            manager=state.manager,
            input_ended=state.input_ended,
            ended=state.output_ended,
        )

    def _open_task(self) -> Task:
        state = self._state
        if state.channel >= 0:
            init = socket.socket(fileno=state.channel)
        else:
            init = socket.socket()
            init.close()
        child = Child(pid=state.pid, pidfd=state.pidfd, channel=init, warnings=list(state.warnings))
        child.helper, state.helper = state.helper, 0
        return Task(
            self._loop,
            self,
            child,
            self._streams,
            limits=state.limits,
            running=state.channel < 0,
            reap=self._reap,
        )

    def _reap(self, pid: int) -> int:
        """Have the monitor reap its child; returns the wait status."""
        return ask_to_reap(self._monitor, pid)

    def _rest(self) -> None:
        """Nothing happened for a while: if nothing is under way either, give everything back."""
        state = self._state
        connections = [*self._connections, *self._watchers]
        if self._creator is not None:
            connections.append(self._creator)
        if (
            self._main.state != "running"
            or self._starter is not None
            or self._execs.running()
            or not self._streams.at_rest
            or (self._log is not None and self._log.busy)
            or not all(connection.at_rest for connection in connections)
            or len(connections) > _RESTING_CONNECTIONS
        ):
            # Not before long: who is attached to an idle container may stay for days.
            self._quiet = min(self._quiet * 2, _LONGEST_QUIET_SECONDS)
            self._loop.when_quiet(self._quiet, self._rest)
            return
        self._execs.close()
        state.channel = -1
        state.pipes, state.manager = self._streams.ends
        state.input_ended = self._streams.input_ended
        state.output_ended = self._streams.ended
        state.log_pending = {} if self._log is None else self._log.pending()
        state.exec_codes = self._execs.codes
        state.creator = -1 if self._creator is None else self._creator.sock.fileno()
        plain = self._connections - set(self._watchers) - {self._creator}
        state.connections = [connection.sock.fileno() for connection in plain]
        state.watchers = [watcher.sock.fileno() for watcher in self._watchers]
        if self._oom is not None:
            state.oom_event = self._oom.fileno()
            state.oom_kills = cgroup.oom_kills(self._layout, self._cgroup)
        frozen, fds = freeze(state)
        # The input pipe is last and not slept on: it is ready as long as nobody reads it.
        sleep_on = len(fds) - (state.pipes[0] >= 0)
        channel.send_value(self._monitor, ("rest", frozen, sleep_on), fds)
        os._exit(0)

    def run(self) -> None:
        """Serve until the container has ended and everybody has heard of it."""
        self._loop.run()
        self._execs.close()

    def task_ready(self, task: Task) -> None:
        """Init waits; it goes on when somebody asked."""
        if self._keeper is not None:
            self._keeper.reply({"ok": True})
            self._keeper = None
        if self._starter is not None:
            task.start()

    def task_started(self, task: Task) -> None:
        """The program runs."""
        if self._starter is not None:
            self._starter.reply({"ok": True, "warnings": task.child.warnings})
            self._starter = None
        self._let_launcher_go_on()
        self._tell({"event": "started"})
        publish(self._state, "running")
        self._watch_memory()

    def _let_launcher_go_on(self) -> None:
        if self._taken >= 0:
            os.close(self._taken)
            self._taken = -1

    def task_failed(self, task: Task, error: StartFailed) -> None:
        """Set-up failed. The process ends by itself or was killed; its end comes next."""
        self._let_launcher_go_on()
        if self._error is None:
            self._error = error

    def task_exited(self, task: Task) -> None:
        """Reaped."""
        if not self._state.own_pids and self._cgroup:
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
        state = self._state
        with contextlib.suppress(OSError):
            self._oom = cgroup.OomWatch(self._layout, self._cgroup)
            self._loop.add(self._oom.fileno(), READ, self._memory_event)
            if state.oom_event >= 0:
                os.close(state.oom_event)  # it belonged to the last worker, whose count we compare
                state.oom_event = -1
                if cgroup.oom_kills(self._layout, self._cgroup) > state.oom_kills:
                    self._note_kill()

    def _memory_event(self, events: int) -> None:
        if self._oom is not None and self._oom.consume():
            self._note_kill()

    def _note_kill(self) -> None:
        self._state.oom_killed = True
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
            "oom": self._state.oom_killed,
            "at": time.time_ns(),
            "error": "" if self._error is None else self._error.message,
        }
        records.write(self._directory, records.EXIT, record)
        unheard = self._starter is self._aborter is self._keeper is None
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
        if self._cgroup and not self._state.oom_killed:
            with contextlib.suppress(OSError):
                self._state.oom_killed = cgroup.oom_kills(self._layout, self._cgroup) > 0
            if self._state.oom_killed:
                self._tell({"event": "oom"})

    def _answer_waiting(self) -> None:
        if self._starter is not None:
            error = self._error or StartFailed(spawn.DIED)
            starter, self._starter = self._starter, None
            starter.fail(error)
        if self._keeper is not None:
            keeper, self._keeper = self._keeper, None
            keeper.fail(self._error or StartFailed(spawn.DIED))
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
        try:
            if self._state.foreign and (complaint := foreign.erase(self._state.foreign)):
                self._tell({"event": "warning", "message": complaint})
            if not self._cgroup:
                return
            cgroup.destroy(self._layout, self._cgroup, self._state.scope)
        except (OSError, SampanError) as error:
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
        self._connections.add(self._connect(sock.detach()))

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
        elif self._main.state == "setup" and not failing and not self._remapped:
            self._main.start_when_ready()

    def _keep(self, connection: Connection, message: Message, blob: bytes) -> None:
        """Init is to wait for whoever starts it, also when who made it is gone."""
        if self._error is not None and self._finished:
            connection.fail(self._error)
            self._leave()
            return
        if self._error is None and self._main.state not in ("setup", "ready"):
            raise Conflict("the container was started already")
        self._creator = None
        if self._error is None and self._main.state == "ready":
            connection.reply({"ok": True})
        else:
            self._keeper = connection  # of a failing one: answered when its end is recorded

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
            raise self._error or Conflict("the container has ended")
        if connection.reply({"ok": True}):
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
        task.streams.resize(message["height"], message["width"])
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
        connection.reply({"ok": True, "pid": pid, "start_time": self._state.start_time})

    def _exec(self, connection: Connection, message: Message, blob: bytes) -> None:
        if self._main.state != "running":
            raise Conflict("the container is not running")
        if runtime := self._state.foreign:
            self._execs.start_foreign(connection, message, runtime)
            return
        path, child = self._cgroup, self._main.child
        self._execs.start(
            connection,
            message,
            into=(child.pidfd, self._state.joinable),
            path=cgroup.with_room(self._layout, path, child.pid) if path else "",
            seccomp=self._filter,
        )

    def _exec_exit(self, connection: Connection, message: Message, blob: bytes) -> None:
        connection.reply({"ok": True, "code": self._execs.code(message["exec_id"])})


_HANDLERS = {
    "start": Worker._start,
    "keep": Worker._keep,
    "abort": Worker._abort_request,
    "attach": Worker._attach,
    "watch": Worker._watch,
    "resize": Worker._resize,
    "signal": Worker._signal,
    "close-stdin": Worker._close_stdin,
    "status": Worker._status,
    "exec": Worker._exec,
    "exec-exit": Worker._exec_exit,
}
