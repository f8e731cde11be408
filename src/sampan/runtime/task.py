"""One process of a container as its monitor sees it: being made, running, ended.

Who stands in for it may do the first part (:mod:`standin`), our child as well, which ends when the
program executes. Made ``setup`` -> ``ready`` -> ``starting`` -> ``running`` -> ``ended``; a failure
leads from any of the first three to ``ended`` with an error.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from sampan.errors import StartFailed
from sampan.runtime import channel, spawn
from sampan.runtime.limits import set_limits
from sampan.runtime.loop import READ, Loop
from sampan.runtime.spawn import Child
from sampan.runtime.streams import Streams
from sampan.runtime.userns import pid_of

KILLED = 128  # a shell's and Docker's way to show a signal: 128 + its number


class Owner(Protocol):
    """Who is told what becomes of a task."""

    def task_ready(self, task: Task) -> None: ...
    def task_started(self, task: Task) -> None: ...
    def task_failed(self, task: Task, error: StartFailed) -> None: ...
    def task_exited(self, task: Task) -> None: ...


class Task:
    """A child, its streams and its state. ``code`` and ``signal`` count once ``ended``."""

    __slots__ = (
        "_aside",
        "_executing",
        "_loop",
        "_owner",
        "_reap",
        "_started_ahead",
        "child",
        "code",
        "limits",
        "name",
        "on_seccomp",
        "signal",
        "state",
        "streams",
    )

    def __init__(
        self,
        loop: Loop,
        owner: Owner,
        child: Child,
        streams: Streams,
        *,
        limits: Sequence[tuple[int, int, int]],
        name: str = "",
        running: bool = False,
        reap: Callable[[int], int] = lambda pid: os.waitpid(pid, 0)[1],
    ) -> None:
        """``limits``: as in a plan; ``name``: the exec id, "" for the container's first process.

        ``running``: it is past its start. ``reap``: gets the wait status of an ended child.
        """
        self._loop = loop
        self._owner = owner
        self.child = child
        self.streams = streams
        self.name = name
        self.limits = limits
        self._reap = reap
        self.state = "running" if running else "setup"
        self.code = 0
        self.signal = 0
        self._executing = False
        self._aside = 0
        self._started_ahead = False
        self.on_seccomp: Callable[[int], None] | None = None
        if not running:
            loop.add(child.channel.fileno(), READ, self._channel_ready)
        loop.add(child.pidfd, READ, self._ended)

    def start(self) -> None:
        """Let a ready init run its program."""
        self.state = "starting"
        self.child.warnings += set_limits(self.child.pid, self.limits)
        with contextlib.suppress(OSError):  # it has died: its end is noticed as such
            channel.send(self.child.channel, {"kind": "start"})

    def start_when_ready(self) -> None:
        """Have init run its program as soon as it can, without a word between.

        It sets its limits itself, so it must have our privileges: none in a user namespace.
        """
        self._started_ahead = True
        with contextlib.suppress(OSError):
            channel.send(self.child.channel, {"kind": "start", "limits": self.limits})

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; a process that has ended is fine."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.child.pidfd, number)

    def _channel_ready(self, events: int) -> None:
        self._receive()

    def _receive(self) -> bool:
        """One message of init; False at the end of the channel."""
        message, fds = channel.receive(self.child.channel)
        if message is None:
            self._close_channel()
            if self._executing and self.state == "starting":
                self.state = "running"
                self._owner.task_started(self)
            return False
        try:
            self._handle(message, fds)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _handle(self, message: channel.Message, fds: list[int]) -> None:
        kind = message["kind"]
        if kind == "ready":
            self.child.warnings += message["warnings"]
            self.state = "starting" if self._started_ahead else "ready"
            if not self._started_ahead:
                self._owner.task_ready(self)
        elif kind == "terminal":
            self.streams.use_terminal(fds.pop())
        elif kind == "seccomp" and self.on_seccomp is not None:
            self.on_seccomp(fds[0])
        elif kind == "executing":
            self._executing = True
            if fds:
                self._replaced(fds.pop())
            self.child.warnings += message.get("warnings", ())
        elif kind == "failed":
            self._fail(spawn.failure(message))

    def _replaced(self, pidfd: int) -> None:
        """The program runs: from here on the task is that, and not who stood in for it."""
        child = self.child
        self._loop.remove(child.pidfd)
        self._aside = child.pid
        self._loop.add(child.pidfd, READ, partial(self._stood_aside, child.pidfd))
        child.stand_in = False
        child.pidfd, child.pid = pidfd, pid_of(pidfd)
        self._loop.add(pidfd, READ, self._ended)

    def _stood_aside(self, pidfd: int, events: int) -> None:
        self._loop.remove(pidfd)
        os.close(pidfd)
        self._reap_aside()

    def _reap_aside(self) -> None:
        """Have its child, the program, be ours; its end is under way."""
        if self._aside:
            os.waitpid(self._aside, 0)
            self._aside = 0

    def _fail(self, error: StartFailed) -> None:
        if self.state != "ended":
            self.state = "ended"
            self.code = error.exit_code
            self._owner.task_failed(self, error)

    def _close_channel(self) -> None:
        if self.child.channel.fileno() >= 0:
            self._loop.remove(self.child.channel.fileno())
            self.child.channel.close()
        if self.child.helper:
            os.waitpid(self.child.helper, 0)  # it has nothing more to say, and ends
            self.child.helper = 0

    def abandon(self) -> None:
        """End a process of ours (not with ``reap``) of which nobody wants to know any more."""
        self.state = "ended"
        self._close_channel()
        if self.child.pidfd >= 0:
            self.kill()
            self._loop.remove(self.child.pidfd)
            self._loop.add(self.child.pidfd, READ, self._abandoned_ended)

    def _abandoned_ended(self, events: int) -> None:
        self._loop.remove(self.child.pidfd)
        with contextlib.suppress(ChildProcessError):  # it was reaped before it was abandoned
            os.waitpid(self.child.pid, 0)
        self.child.close()

    def _ended(self, events: int) -> None:
        """The process is a zombie: hear its last words, then reap it."""
        stood_in = self.child.stand_in
        while self.child.channel.fileno() >= 0 and self._receive():
            pass
        if stood_in and not self.child.stand_in:
            return  # its last word was that the program runs
        self._reap_aside()
        self._loop.remove(self.child.pidfd)
        status = self._reap(self.child.pid)
        if self.state != "running":
            self._fail(StartFailed(spawn.DIED))
        else:
            self.state = "ended"
            code = os.waitstatus_to_exitcode(status)
            self.signal = max(-code, 0)
            self.code = code if code >= 0 else KILLED - code
        self.child.close()
        self._owner.task_exited(self)
