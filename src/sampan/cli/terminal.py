"""The terminal: its size, raw mode, and nothing else.

Raw mode is ``cfmakeraw(3)`` without touching output processing of other descriptors; the former
settings come back however the block ends.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


def size(descriptor: int) -> tuple[int, int]:
    """Rows and columns of a terminal, (0, 0) when it is none."""
    try:
        terminal = os.get_terminal_size(descriptor)
    except OSError:
        return 0, 0
    return terminal.lines, terminal.columns


def width(descriptor: int = 1) -> int:
    """Columns to lay text out for: the terminal's, else 80."""
    return size(descriptor)[1] or 80


class RawMode:
    """A context in which a terminal passes every byte on: no echo, no signals, no line editing.

    Does nothing when the descriptor is not a terminal.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._saved: list[int | list[bytes | int]] | None = None

    def __enter__(self) -> RawMode:
        if os.isatty(self._descriptor):
            import termios
            import tty

            self._saved = termios.tcgetattr(self._descriptor)
            tty.setraw(self._descriptor, termios.TCSANOW)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._saved is not None:
            import termios

            termios.tcsetattr(self._descriptor, termios.TCSANOW, self._saved)
            self._saved = None
