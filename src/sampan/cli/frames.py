"""The multiplexed output of containers without a terminal (Engine API, "Stream format").

frame  ::= stream 0 0 0 length payload
stream ::= 0 (stdin) | 1 (stdout) | 2 (stderr) | 3 (error), one byte
length ::= four bytes, big endian
"""

from __future__ import annotations

from sampan.cli.fault import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

STDOUT = 1
STDERR = 2
SYSTEM_ERROR = 3
_HEADER = 8


class FrameError(CliError):
    """The bytes are not frames."""


class Demultiplexer:
    """Takes the stream apart as it arrives; payloads are passed on piece by piece."""

    def __init__(self) -> None:
        self._pending = b""
        self._stream = 0
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """``(stream, payload piece)`` for what ``data`` brings. Raises :class:`FrameError`."""
        data = self._pending + data
        self._pending = b""
        at = 0
        while at < len(data):
            if self._left == 0:
                header = data[at : at + _HEADER]
                if len(header) < _HEADER:
                    self._pending = header
                    return
                self._stream = header[0]
                if self._stream > SYSTEM_ERROR:
                    raise FrameError(f"Unrecognized input header: {self._stream}")
                self._left = int.from_bytes(header[4:], "big")
                at += _HEADER
            piece = data[at : at + self._left]
            if piece:
                yield self._stream, piece
            at += len(piece)
            self._left -= len(piece)
