"""The last lines a program printed, for the error that tells of its failure."""

from __future__ import annotations

from collections import deque


class Tail:
    """Keeps the last ``lines`` lines, each at most ``width`` bytes of it."""

    def __init__(self, lines: int = 10, width: int = 2000) -> None:
        self._lines: deque[bytes] = deque(maxlen=lines)
        self._open = b""
        self._width = width

    def add(self, data: bytes) -> None:
        """Take in what was printed."""
        *done, self._open = (self._open + data).split(b"\n")
        self._lines.extend(line[-self._width :] for line in done)
        self._open = self._open[-self._width :]

    def text(self) -> str:
        """The lines, with what is not UTF-8 replaced."""
        lines = [*self._lines, *([self._open] if self._open else [])]
        return b"\n".join(lines).decode(errors="replace")
