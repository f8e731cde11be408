"""Signals as bytes on a pipe, so that one poll loop sees them in order with everything else."""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

#: Signals that mean something to this process only, or that cannot be caught.
_OWN = ("SIGKILL", "SIGSTOP", "SIGCHLD", "SIGPIPE", "SIGURG", "SIGSEGV", "SIGBUS", "SIGFPE")
_MORE_OWN = ("SIGILL", "SIGTTIN", "SIGTTOU", "SIGPROF", "SIGVTALRM", "SIGTRAP", "SIGABRT")


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """The wake-up descriptor carries the signal; nothing is left to do here."""


class SignalPipe:
    """While open, caught signals arrive as numbers instead of interrupting.

    ``proxied``: catch everything a container may want to know of; else window changes only.
    """

    def __init__(self, *, proxied: bool) -> None:
        names = {item.name for item in signal.Signals} - {*_OWN, *_MORE_OWN}
        self._numbers = [signal.Signals[name] for name in names] if proxied else [signal.SIGWINCH]
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._former: dict[int, object] = {}
        self._wakeup = -1

    def __enter__(self) -> SignalPipe:
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in self._numbers:
            self._former[number] = signal.signal(number, _ignore)
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._read

    def take(self) -> list[int]:
        """The signals that arrived since the last call."""
        try:
            return list(os.read(self._read, 256))
        except BlockingIOError:
            return []


def api_name(number: int) -> str:
    """The signal as the API names it: ``INT``, ``RTMIN+3``."""
    first = signal.SIGRTMIN
    if number >= first:
        return "RTMIN" if number == first else f"RTMIN+{number - first}"
    return signal.Signals(number).name.removeprefix("SIG")
