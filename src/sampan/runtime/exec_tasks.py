"""More processes in a running container (``exec``), as its monitor keeps them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from sampan.errors import (
    CommandNotExecutable,
    CommandNotFound,
    Conflict,
    NotFound,
    StartFailed,
)
from sampan.kernel import cgroup, namespaces
from sampan.kernel.seccomp import Filter
from sampan.runtime import foreign, plan_codec, spawn
from sampan.runtime.channel import Message
from sampan.runtime.connection import Connection
from sampan.runtime.loop import Guarded, Loop
from sampan.runtime.standin import StandIns
from sampan.runtime.streams import Streams, close_ends, open_ends
from sampan.runtime.task import KILLED, Task

DRAIN_SECONDS = 2.0  # as dockerd waits for output after the end
_REMEMBERED = 256


@dataclass(slots=True)
class _Request:
    """Who asked for an exec, and what of its streams it gets (None: detached)."""

    connection: Connection
    attach: Message | None


class ExecTasks:
    """All execs of one container: owner of their tasks.

    Whatever goes wrong with one, be it a mistake of ours, ends that one: the container and the
    others go on.
    """

    def __init__(
        self,
        loop: Loop,
        layout: cgroup.Layout,
        *,
        patience: float,
        tell: Callable[[Message], None],
        codes: dict[str, int],
    ) -> None:
        """``tell`` sends an event to whoever watches; ``codes``: of those that have ended."""
        self._loop = loop
        self._layout = layout
        self._patience = patience
        self._tell = tell
        self._tasks: dict[str, Task] = {}
        self.codes = codes
        self._requests: dict[str, _Request] = {}
        self._stand_ins = StandIns(layout)
        self._last: tuple[tuple[int, int], Filter | None] | None = None

    def start(
        self,
        connection: Connection,
        message: Message,
        *,
        into: tuple[int, int],
        path: str,
        seccomp: Filter | None,
    ) -> None:
        """Begin one; it is answered when it runs or has failed.

        ``into``: pidfd of the container and the namespaces to join; ``path``: its cgroup;
        ``seccomp``: its filter. Raises :class:`Conflict`, :class:`OSError`; nothing is left then.
        """
        self._check_free(message["exec_id"])
        self._last = into, seccomp
        value = message["plan"]
        plan = plan_codec.decode(value, b"")
        plan = plan_codec.joining(plan, path, seccomp if message["seccomp"] else None)

        def make(streams: tuple[int, int, int]) -> spawn.Child:
            child = self._stand_ins.take(value, plan, into, streams)
            return child or spawn.spawn(plan, self._layout, streams=streams, into=into)

        task = self._begin(connection, message, make, plan.terminal, plan.limits)
        try:
            spawn.provision(task.child, plan, self._layout)
            if not into[1] & namespaces.CLONE_NEWUSER:
                task.start_when_ready()
        except (StartFailed, OSError) as error:
            task.kill()
            self.task_failed(task, StartFailed(str(error)))
        except Exception as error:
            self._broken(task.name, error)

    def start_foreign(
        self, connection: Connection, message: Message, runtime: foreign.Runtime
    ) -> None:
        """As :meth:`start`, by another runtime."""
        self._check_free(message["exec_id"])
        process, terminal = message["process"], bool(message["terminal"])

        def make(streams: tuple[int, int, int]) -> spawn.Child:
            return foreign.execute(runtime, process, streams, terminal=terminal)

        self._begin(connection, message, make, terminal, ())

    def _check_free(self, name: str) -> None:
        if name in self._tasks or name in self.codes:
            raise Conflict(f"exec id {name} is taken")

    def _begin(
        self,
        connection: Connection,
        message: Message,
        make: Callable[[tuple[int, int, int]], spawn.Child],
        terminal: bool,
        limits: Sequence[tuple[int, int, int]],
    ) -> Task:
        """The task of a process that ``make`` makes of its streams."""
        name: str = message["exec_id"]
        attach = {key: message[key] for key in ("stdin", "stdout", "stderr")}
        attached = any(attach.values()) or terminal
        ends = open_ends(terminal=terminal, stdin=message["stdin"], output=attached)
        try:
            child = make(ends.child)
        except BaseException:
            close_ends(ends.ours)
            raise
        finally:
            close_ends(ends.child)
        task = self._task(name, child, ends.ours, message["stdin"], terminal, limits)
        self._tasks[name] = task
        self._requests[name] = _Request(connection, attach if attached else None)
        return task

    def _task(
        self,
        name: str,
        child: spawn.Child,
        ours: tuple[int, int, int],
        stdin: bool,
        terminal: bool,
        limits: Sequence[tuple[int, int, int]],
    ) -> Task:
        """Of a process that was made; on failure it is undone and our ends are closed."""
        loop = Guarded(self._loop, partial(self._broken, name))
        try:
            streams = Streams(
                loop,
                ours,
                terminal=terminal,
                stdin=stdin,
                stdin_once=True,
                log=None,
                patience=self._patience,
                on_end=partial(self._output_ended, name),
                held=True,
            )
            return Task(loop, self, child, streams, limits=limits, name=name)
        except BaseException:
            close_ends(ours)
            _discard(child)
            raise

    def _broken(self, name: str, error: Exception) -> None:
        """What nobody expected: this exec ends, answered if it was not yet."""
        task = self._tasks.get(name)
        if task is None:
            return
        running = task.state == "running"
        task.abandon()
        self._loop.cancel(task)
        reason = StartFailed(f"exec failed: {type(error).__name__}: {error}")
        if not task.code:
            task.code = KILLED + signal.SIGKILL if running else reason.exit_code
        request = self._requests.pop(name, None)
        if request is not None and request.connection.open:
            request.connection.fail(reason)
        self._finish(name)
        with contextlib.suppress(Exception):  # perhaps they are what is broken
            task.streams.close()

    def find(self, name: str) -> Task:
        """A running one. Raises :class:`NotFound`."""
        try:
            return self._tasks[name]
        except KeyError:
            raise NotFound(f"no such exec instance: {name}") from None

    def code(self, name: str) -> int | None:
        """Exit code of an ended one, None while it runs. Raises :class:`NotFound`."""
        if name in self.codes:
            return self.codes[name]
        self.find(name)
        return None

    def running(self) -> list[Message]:
        """Those that run, as a watch tells them."""
        return [{"exec_id": name, "pid": task.child.pid} for name, task in self._tasks.items()]

    def task_ready(self, task: Task) -> None:
        """Nobody starts an exec in a step of its own: go on."""
        task.start()

    def task_started(self, task: Task) -> None:
        """Answer, and make the asking connection its stream."""
        request = self._requests[task.name]
        answer = {"ok": True, "pid": task.child.pid, "warnings": task.child.warnings}
        heard = request.connection.open and request.connection.reply(answer)
        del self._requests[task.name]
        if heard and request.attach:
            hand_over(request.connection, task.streams, request.attach)
        elif request.attach is not None and task.streams.waits_for_input:
            task.streams.close_stdin()
        task.streams.release()

    def task_failed(self, task: Task, error: StartFailed) -> None:
        """Answer with the reason; its end comes next."""
        # The same code as who hears the reason makes of it, whichever comes first.
        kind = CommandNotFound if isinstance(error, CommandNotFound) else CommandNotExecutable
        task.code = kind.exit_code
        request = self._requests.pop(task.name, None)
        if request is not None and request.connection.open:
            request.connection.fail(error)
        task.streams.close()

    def task_exited(self, task: Task) -> None:
        """Reaped. What it wrote last may still be on its way."""
        if task.streams.ended:
            self._finish(task.name)
        else:
            self._loop.deadline(task, DRAIN_SECONDS, task.streams.end_output)

    def _output_ended(self, name: str) -> None:
        task = self._tasks.get(name)
        if task is not None and task.state == "ended":
            self._loop.cancel(task)
            self._finish(name)

    def _finish(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is None:
            return
        self.codes[name] = task.code
        while len(self.codes) > _REMEMBERED:
            del self.codes[next(iter(self.codes))]
        self._tell({"event": "exec-exit", "exec_id": name, "code": task.code})
        if self._last is not None and self._stand_ins.wanted(*self._last):
            self._loop.deadline(self, 0, self._stand_ins.make)

    def close(self) -> None:
        """There will be no more."""
        self._stand_ins.close()


def _discard(child: spawn.Child) -> None:
    """Undo a spawn."""
    signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
    os.waitpid(child.pid, 0)
    child.close()


def hand_over(connection: Connection, streams: Streams, attach: Message) -> None:
    """From here on ``connection`` is a stream of a process."""
    sock, early = connection.take()
    streams.attach(
        sock,
        stdin=attach["stdin"],
        stdout=attach["stdout"],
        stderr=attach["stderr"],
        early=early,
    )
