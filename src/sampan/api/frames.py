"""The multiplexed stream of attach and logs (API v1.55, ``ContainerAttach``: "Stream format").

A frame is a header of 8 bytes, ``[stream, 0, 0, 0, length (u32, big endian)]``, and its payload;
stream 1 is standard output, 2 standard error.
"""

from __future__ import annotations

import struct

HEADER_SIZE = 8


def frame(stream: int, payload: bytes) -> bytes:
    """One frame."""
    return struct.pack(">B3xI", stream, len(payload)) + payload


class Deframer:
    """Takes the frames off a multiplexed stream; a frame may arrive in any number of pieces."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0

    def feed(self, data: bytes) -> bytes:
        """The payload in ``data``, whatever stream it belongs to."""
        payload: list[bytes] = []
        at = 0
        while at < len(data):
            if not self._left:
                take = HEADER_SIZE - len(self._header)
                self._header += data[at : at + take]
                at += take
                if len(self._header) == HEADER_SIZE:
                    (self._left,) = struct.unpack_from(">I", self._header, 4)
                    self._header = b""
                continue
            piece = data[at : at + self._left]
            payload.append(piece)
            self._left -= len(piece)
            at += len(piece)
        return b"".join(payload)
