"""A queue of bytes for one reader that may be slow: memory first, then an unlinked file.

The writer (a container's output) never waits for the reader (a client): what the reader has not
taken stays here, in memory up to :data:`MEMORY` bytes, beyond that in a file that has no name and
vanishes with its descriptor, up to a bound. Bytes come out in the order they went in.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sampan.errors import NoSpace

P = ParamSpec("P")
T = TypeVar("T")

#: bytes kept in memory before the file is used
MEMORY = 1 << 20
#: bytes written to or read from the file at once
CHUNK = 256 << 10
#: bytes that may wait for the disk before the source has to be paused
BEHIND = 8 << 20
#: bytes a client may be behind altogether before it is given up
LIMIT = 4 << 30


class Spool:
    """One queue. Run :meth:`spill` beside the reader; :meth:`close` releases the file.

    ``on_room`` is called when the disk has caught up with a source that was :attr:`behind`.
    """

    def __init__(
        self, directory: Path, *, limit: int = LIMIT, on_room: Callable[[], None] = lambda: None
    ) -> None:
        self._directory = directory
        self._on_room = on_room
        self._limit = limit
        self._head: deque[bytes] = deque()
        self._tail: deque[bytes] = deque()
        self._head_size = 0
        self._tail_size = 0
        self._file = -1
        self._read_at = 0
        self._written = 0
        self._spilling = False
        self._ended = False
        self._disk: set[asyncio.Future[Any]] = set()
        self._changed = asyncio.Event()
        self._too_much = asyncio.Event()

    @property
    def empty(self) -> bool:
        """Whether everything that was pushed has been popped."""
        return not (self._head or self._tail or self._spilling or self._read_at < self._written)

    @property
    def behind(self) -> bool:
        """Whether the disk cannot follow: pause the source until this is False again."""
        return self._tail_size > BEHIND

    def push(self, data: bytes) -> None:
        """Append; raises :class:`NoSpace` when the reader is hopelessly behind."""
        on_disk = self._spilling or self._read_at < self._written
        if on_disk or self._tail or self._head_size >= MEMORY:
            self._tail.append(data)
            self._tail_size += len(data)
            if self._written - self._read_at + self._tail_size > self._limit:
                raise NoSpace(f"a client fell more than {self._limit} bytes behind its stream")
            if self._tail_size >= CHUNK:
                self._too_much.set()
        else:
            self._head.append(data)
            self._head_size += len(data)
        self._changed.set()

    def end(self) -> None:
        """No more will be pushed."""
        self._ended = True
        self._changed.set()

    async def pop(self) -> bytes:
        """The next bytes, waiting for some; ``b""`` at the end."""
        while True:
            if self._head:
                data = b"".join(self._head) if len(self._head) > 1 else self._head[0]
                self._head.clear()
                self._head_size = 0
                return data
            if self._read_at < self._written:
                return await self._read()
            if self._tail and not self._spilling:
                self._head, self._tail = self._tail, self._head
                self._head_size, self._tail_size = self._tail_size, 0
                continue
            if self._ended and not self._spilling:
                return b""
            self._changed.clear()
            await self._changed.wait()

    async def spill(self) -> None:
        """Move what is too much for memory to the file, for ever; run as a task."""
        while True:
            await self._too_much.wait()
            self._too_much.clear()
            if self._tail_size < CHUNK:
                continue
            was_behind = self.behind
            data = b"".join(self._tail)
            self._tail.clear()
            self._tail_size = 0
            self._spilling = True
            await self._on_disk(self._write, data)
            self._spilling = False
            self._written += len(data)
            self._changed.set()
            if was_behind:
                self._on_room()

    async def close(self) -> None:
        """Forget what is queued and release the file, once no thread uses it any more."""
        if self._disk:
            await asyncio.wait(self._disk)
        self._head.clear()
        self._tail.clear()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, data: bytes) -> None:
        if self._file < 0:
            self._file = os.open(self._directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        view = memoryview(data)
        at = self._written
        while view:
            count = os.pwrite(self._file, view, at)
            view, at = view[count:], at + count

    async def _read(self) -> bytes:
        size = min(CHUNK, self._written - self._read_at)
        data = await self._on_disk(os.pread, self._file, size, self._read_at)
        self._read_at += len(data)
        if self._read_at == self._written and not self._spilling:
            os.ftruncate(self._file, 0)
            self._read_at = self._written = 0
        return data

    async def _on_disk(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run in a thread that :meth:`close` waits for even if the caller is cancelled."""
        job = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
        self._disk.add(job)
        job.add_done_callback(self._disk.discard)
        return await asyncio.shield(job)
