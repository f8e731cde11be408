"""Iterators of chunks as streams, for what reads instead of iterating."""

from __future__ import annotations

import io
from collections.abc import Iterator


class Chunks(io.RawIOBase):
    """An iterator of byte chunks as a stream to read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._held = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """The next chunk, at most ``size`` bytes of it; everything if negative."""
        if size < 0:
            rest, self._held = self._held, b""
            return rest + b"".join(self._chunks)
        while not self._held:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._held = chunk
        taken, self._held = self._held[:size], self._held[size:]
        return taken
