"""Reading a blob while it is still being written, so that unpacking overlaps the download."""

from __future__ import annotations

import io
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sampan.errors import NotFound, Unavailable
from sampan.model.digest import Digest


class Writing(Protocol):
    """What a follower needs to know of a writer."""

    offset: int


@dataclass(frozen=True, slots=True)
class _Ingest:
    path: Path
    writer: Writing


class Live:
    """The writers of one process by the digest they expect, and a bell that rings for news."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._writers: dict[Digest, list[_Ingest]] = {}
        self._restarts: dict[Digest, int] = {}
        self._followers = 0

    def started(self, digest: Digest, path: Path, writer: Writing) -> None:
        """``writer`` begins to fill ``path``."""
        with self.changed:
            self._writers.setdefault(digest, []).append(_Ingest(path, writer))
            self.changed.notify_all()

    def grew(self, digest: Digest) -> None:
        """New bytes came; costs nothing while nobody follows."""
        if self._followers:
            with self.changed:
                self.changed.notify_all()

    def restarted(self, digest: Digest, writer: Writing) -> None:
        """``writer`` threw its bytes away: its followers must give up or verify again."""
        with self.changed:
            self._restarts[digest] = self._restarts.get(digest, 0) + 1
            self.changed.notify_all()

    def ended(self, digest: Digest, writer: Writing) -> None:
        """``writer`` committed or gave up."""
        with self.changed:
            remaining = [
                item for item in self._writers.get(digest, []) if item.writer is not writer
            ]
            if remaining:
                self._writers[digest] = remaining
            else:
                self._writers.pop(digest, None)
                self._restarts.pop(digest, None)
            self.changed.notify_all()

    def find(self, digest: Digest) -> _Ingest | None:
        """The writer furthest ahead (call with ``changed`` held)."""
        return max(self._writers.get(digest, ()), key=lambda item: item.writer.offset, default=None)

    def follow(self, delta: int) -> None:
        """Count followers (call with ``changed`` held)."""
        self._followers += delta


class Following(io.RawIOBase):
    """The reading end of :meth:`sampan.content.ContentStore.follow`.

    Bytes already given out stay valid over a writer's restart or replacement: all writers of one
    digest write the same bytes, or fail to commit, which the reader's own verification finds.
    """

    def __init__(self, live: Live, digest: Digest, blob: Path, timeout: float) -> None:
        super().__init__()
        self._live = live
        self._digest = digest
        self._blob = blob
        self._timeout = timeout
        self._position = 0
        self._fd = -1
        self._final = False
        self._ingest: _Ingest | None = None
        with live.changed:
            live.follow(1)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed: Buffer
        while True:
            available = self._wait()
            count = min(len(buffer), available) if available else len(buffer)
            got = os.preadv(self._fd, [memoryview(buffer)[:count]], self._position)
            if got or self._final:
                self._position += got
                return got

    def _wait(self) -> int:
        """Wait until bytes can be read; returns how many (0: up to the end of the file)."""
        if self._final:
            return 0
        deadline = time.monotonic() + self._timeout
        with self._live.changed:
            while True:
                if self._switch(self._blob):
                    self._final = True
                    return 0
                ingest = self._live.find(self._digest)
                if ingest is not None and ingest.writer.offset > self._position:
                    if ingest is self._ingest or self._switch(ingest.path):
                        self._ingest = ingest
                        return ingest.writer.offset - self._position
                    continue  # renamed to the blob this moment
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    if ingest is None:
                        raise NotFound(f"content {self._digest} is neither stored nor arriving")
                    raise Unavailable(f"content {self._digest} stopped arriving")
                self._live.changed.wait(remaining)

    def _switch(self, path: Path) -> bool:
        """Read from ``path`` henceforth; False when there is no such file (any more)."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        return True

    def close(self) -> None:
        if not self.closed:
            with self._live.changed:
                self._live.follow(-1)
            if self._fd >= 0:
                os.close(self._fd)
        super().close()
