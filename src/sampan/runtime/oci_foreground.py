"""``run`` and ``exec`` in the foreground: terminal, signals, waiting.

The caller's terminal is put into raw mode and everything is copied both ways; its size follows
SIGWINCH. All other signals go to the container's process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import termios
import tty
from types import FrameType

from sampan.kernel import prctl

_CHUNK = 32768
#: Not forwarded: ours, or the runtime's of Go and Python.
_OWN = {
    signal.SIGCHLD,
    signal.SIGURG,
    signal.SIGWINCH,
    signal.SIGPIPE,
    signal.SIGKILL,
    signal.SIGSTOP,
}


def become_subreaper() -> None:
    """Orphans of the container become our children, so that its end can be waited for."""
    prctl.set_child_subreaper(True)


class Foreground:
    """Holds the terminal for the time of one process; restores everything on exit."""

    def __init__(self, terminal: bool) -> None:
        """``terminal``: the process has one, and we are the other side of it."""
        self._wanted = terminal
        self._master = -1
        self._saved: list[object] | None = None
        self._handlers: dict[int, object] = {}
        self._pid = 0

    def __enter__(self) -> Foreground:
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._handlers.clear()
        if self._saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]
            self._saved = None
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def take_terminal(self, master: int) -> None:
        """Keep a duplicate of the master end; the caller's terminal becomes raw."""
        self._master = fcntl.fcntl(master, fcntl.F_DUPFD_CLOEXEC, 3)
        if os.isatty(0):
            self._saved = termios.tcgetattr(0)
            tty.setraw(0)
            self._resize()

    def _resize(self) -> None:
        with contextlib.suppress(OSError):
            size = fcntl.ioctl(0, termios.TIOCGWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def wait(self, pid: int) -> int:
        """Serve until ``pid`` (a child) ends; its exit status, 128+N for signal N."""
        self._pid = pid
        pidfd = os.pidfd_open(pid)
        try:
            self._forward_signals()
            self._serve(pidfd)
        finally:
            os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def _forward_signals(self) -> None:
        for number in signal.valid_signals() - _OWN:
            self._install(number, self._forward)
        if self._master >= 0:
            self._install(signal.SIGWINCH, lambda _number, _frame: self._resize())

    def _install(self, number: int, handler: object) -> None:
        # The C library keeps a few numbers for itself.
        with contextlib.suppress(OSError, ValueError):
            self._handlers[number] = signal.signal(number, handler)  # type: ignore[arg-type]

    def _forward(self, number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, number)

    def _serve(self, pidfd: int) -> None:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        if self._master < 0:
            poller.poll()
            return
        poller.register(self._master, select.POLLIN)
        poller.register(0, select.POLLIN)
        ended = False
        while True:
            ready = dict(poller.poll(0 if ended else None))
            if self._master in ready and not self._copy_output():
                poller.unregister(self._master)
                if ended:
                    return
            elif ended and self._master not in ready:
                return
            if 0 in ready and not self._copy_input():
                poller.unregister(0)
            if pidfd in ready and not ended:
                poller.unregister(pidfd)
                ended = True

    def _copy_output(self) -> bool:
        try:
            data = os.read(self._master, _CHUNK)
        except OSError:
            return False  # EIO: the last holder of the other side is gone
        _write_all(1, data)
        return bool(data)

    def _copy_input(self) -> bool:
        data = os.read(0, _CHUNK)
        if data:
            with contextlib.suppress(OSError):
                _write_all(self._master, data)
        return bool(data)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
