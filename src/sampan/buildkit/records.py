"""Records of builds: what ``docker buildx history`` lists, shows, keeps and removes.

A build is recorded from its beginning; what it came to is kept below one directory each, which
appears whole or not at all::

    root/<hash of the build's id>/record    the record, control.proto's BuildHistoryRecord
    root/<hash of the build's id>/<hex>     documents the record names, by their sha256

How many are kept is :mod:`sampan.build.retention`'s to say. Nothing else depends on a record: one
that a power failure has spoilt is left out.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from google.protobuf.message import DecodeError

from sampan.build.retention import Retention, expired
from sampan.buildkit.protocol import control_pb2 as control
from sampan.buildkit.recordfilter import chosen
from sampan.content.atomic import TEMPORARY_PREFIX, atomic_write
from sampan.engine.threads import Threads
from sampan.errors import NotFound, Unavailable
from sampan.model.digest import Digest

log = logging.getLogger("sampan.buildkit")

#: Events a follower may be behind before it is told that it is too slow.
BACKLOG = 1024
_RECORD = "record"
Kind: TypeAlias = "control.BuildHistoryEventType.ValueType"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document a record names, with its media type."""

    data: bytes
    media_type: str

    @property
    def digest(self) -> Digest:
        """What it is named by."""
        return Digest.of(self.data)

    def descriptor(self, annotations: Mapping[str, str] | None = None) -> control.Descriptor:
        """As a record names it."""
        return control.Descriptor(
            media_type=self.media_type,
            digest=str(self.digest),
            size=len(self.data),
            annotations=annotations or {},
        )


class Records:
    """The records below a directory. Its methods are for one event loop."""

    def __init__(self, root: Path, bounds: Retention, threads: Threads) -> None:
        self._root = root
        self._bounds = bounds
        self._threads = threads
        self._active: dict[str, control.BuildHistoryRecord] = {}
        self._done: dict[str, control.BuildHistoryRecord] | None = None
        self._loading = asyncio.Lock()
        self._followers: set[asyncio.Queue[control.BuildHistoryEvent]] = set()

    @property
    def enabled(self) -> bool:
        """Whether builds are recorded."""
        return self._bounds.enabled

    def begin(self, record: control.BuildHistoryRecord) -> None:
        """A build has begun."""
        self._active[record.Ref] = record
        self._tell(control.STARTED, record)

    def drop(self, ref: str) -> None:
        """A build is over and nothing of it is kept."""
        if self._active.pop(ref, None) is not None:
            self._tell(control.DELETED, control.BuildHistoryRecord(Ref=ref))

    async def complete(
        self, record: control.BuildHistoryRecord, documents: Iterable[Document]
    ) -> None:
        """A build is over: keep its record with the documents it names. Raises OSError."""
        done = await self._loaded()
        await self._threads.run(self._write, record, tuple(documents))
        self._active.pop(record.Ref, None)
        done[record.Ref] = record
        self._tell(control.COMPLETE, record)
        unpinned = ((one.Ref, one.CompletedAt.seconds) for one in done.values() if not one.pinned)
        for ref in expired(unpinned, self._bounds, now=time.time()):
            await self._remove(ref)

    async def get(self, ref: str) -> control.BuildHistoryRecord | None:
        """The record of a build that is over."""
        return (await self._loaded()).get(ref)

    async def delete(self, ref: str) -> None:
        """Forget a build that is over; NotFound."""
        if ref not in await self._loaded():
            raise NotFound(f"no build record {ref}")
        await self._remove(ref)

    async def pin(self, ref: str, pinned: bool) -> None:
        """Keep a record whatever its age, or no longer; NotFound."""
        record = await self.get(ref)
        if record is None:
            raise NotFound(f"no build record {ref}")
        if record.pinned == pinned:
            return
        record.pinned = pinned
        record.Generation += 1
        data = record.SerializeToString()
        await self._threads.run(atomic_write, self._directory(ref) / _RECORD, data)
        self._tell(control.COMPLETE, record)

    @asynccontextmanager
    async def listening(
        self, request: control.BuildHistoryRequest
    ) -> AsyncIterator[AsyncIterator[control.BuildHistoryEvent]]:
        """The records a request asks for, then what becomes of them unless it wants no more.

        Nothing that happens inside the context is missed. Raises InvalidParameter for what may not
        be asked.
        """
        done = await self._loaded()
        queue: asyncio.Queue[control.BuildHistoryEvent] = asyncio.Queue(BACKLOG)
        self._followers.add(queue)
        try:
            yield self._events(request, self._present(request, done), queue)
        finally:
            self._followers.discard(queue)

    async def _events(
        self,
        request: control.BuildHistoryRequest,
        present: Sequence[control.BuildHistoryEvent],
        queue: asyncio.Queue[control.BuildHistoryEvent],
    ) -> AsyncIterator[control.BuildHistoryEvent]:
        for event in present:
            yield event
        while not request.EarlyExit:
            event = await queue.get()
            if request.Ref in ("", event.record.Ref):
                yield event
            if queue not in self._followers and queue.empty():
                raise Unavailable("too slow to hear of all builds")

    def _present(
        self,
        request: control.BuildHistoryRequest,
        done: Mapping[str, control.BuildHistoryRecord],
    ) -> list[control.BuildHistoryEvent]:
        def those(
            records: Mapping[str, control.BuildHistoryRecord],
        ) -> list[control.BuildHistoryRecord]:
            return [one for one in records.values() if request.Ref in ("", one.Ref)]

        found = [_event(control.STARTED, one) for one in those(self._active)]
        if not request.ActiveOnly:
            past = chosen(those(done), request.Filter, request.Limit)
            found += [_event(control.COMPLETE, one) for one in past]
        return found

    async def read(self, digest: Digest) -> bytes | None:
        """A document of any record, None when there is none. Raises OSError."""
        await self._loaded()
        return await self._threads.run(self._read, digest)

    def _read(self, digest: Digest) -> bytes | None:
        if digest.algorithm != "sha256":
            return None
        for directory in self._directories():
            try:
                data = (directory / digest.hex).read_bytes()
            except FileNotFoundError:
                continue
            if Digest.of(data) == digest:
                return data
        return None

    def _tell(self, kind: Kind, record: control.BuildHistoryRecord) -> None:
        event = _event(kind, record)
        for queue in tuple(self._followers):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._followers.discard(queue)

    async def _loaded(self) -> dict[str, control.BuildHistoryRecord]:
        """The records that are kept, read when they are first wanted."""
        async with self._loading:
            if self._done is None:
                self._done = await self._threads.run(self._load)
        return self._done

    def _load(self) -> dict[str, control.BuildHistoryRecord]:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self._root.glob(f"{TEMPORARY_PREFIX}*"):
            shutil.rmtree(path, ignore_errors=True)
        found: dict[str, control.BuildHistoryRecord] = {}
        for directory in self._directories():
            try:
                data = (directory / _RECORD).read_bytes()
                record = control.BuildHistoryRecord.FromString(data)
            except (FileNotFoundError, DecodeError):
                record = control.BuildHistoryRecord()
            if self._directory(record.Ref) != directory:
                log.warning("a record of a build is spoilt and removed: %s", directory)
                shutil.rmtree(directory, ignore_errors=True)
                continue
            found[record.Ref] = record
        return found

    def _write(self, record: control.BuildHistoryRecord, documents: Iterable[Document]) -> None:
        target = self._directory(record.Ref)
        with tempfile.TemporaryDirectory(
            prefix=TEMPORARY_PREFIX, dir=self._root, ignore_cleanup_errors=True
        ) as name:
            place = Path(name) / "new"
            place.mkdir(mode=0o700)
            for one in documents:
                (place / one.digest.hex).write_bytes(one.data)
            (place / _RECORD).write_bytes(record.SerializeToString())
            if target.exists():  # the id of an earlier build, used again
                os.rename(target, Path(name) / "old")
            os.rename(place, target)

    async def _remove(self, ref: str) -> None:
        done = await self._loaded()
        if done.pop(ref, None) is None:
            return
        self._tell(control.DELETED, control.BuildHistoryRecord(Ref=ref))
        await self._threads.run(self._erase, ref)

    def _erase(self, ref: str) -> None:
        """The directory goes at once, in one step; what is in it after that."""
        with tempfile.TemporaryDirectory(
            prefix=TEMPORARY_PREFIX, dir=self._root, ignore_cleanup_errors=True
        ) as name:
            os.rename(self._directory(ref), Path(name) / "old")

    def _directory(self, ref: str) -> Path:
        return self._root / hashlib.sha256(ref.encode()).hexdigest()[:32]

    def _directories(self) -> Iterator[Path]:
        with os.scandir(self._root) as entries:
            names = sorted(one.name for one in entries if not one.name.startswith("."))
        return (self._root / name for name in names)


def _event(kind: Kind, record: control.BuildHistoryRecord) -> control.BuildHistoryEvent:
    return control.BuildHistoryEvent(type=kind, record=record)
