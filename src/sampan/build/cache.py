"""The build cache: which layer a step made, by the step's key.

One SQLite file of its own (a cache may be thrown away; the engine's state may not). A record pins
its layer's blob and snapshot: :meth:`BuildCache.pinned` is what garbage collection must keep.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest

_SCHEMA = """
create table if not exists record (
    key text primary key, parent text not null, kind text not null, description text not null,
    diff_id text, blob text, media_type text, blob_size integer, chain text, size integer not null,
    created integer not null, used integer not null, uses integer not null
) strict, without rowid;
create index if not exists record_used on record (used);
create table if not exists definition (
    definition text primary key, key text not null
) strict, without rowid;
create index if not exists definition_key on definition (key);
"""
#: How many steps that change no files are remembered.
_MOST_SEEN = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer a step made: its tar, its blob, and the snapshot of it with all below."""

    diff_id: Digest
    descriptor: Descriptor
    chain_id: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One step's result; ``layer`` None for a step that left no change. Times in seconds.

    ``definition`` is what the step was made of, where a build has told
    (:mod:`sampan.build.outline`).
    """

    key: str
    parent: str
    kind: str
    description: str
    layer: Layer | None
    size: int
    created: int
    used: int = 0
    uses: int = 0
    definition: str = ""


class BuildCache:
    """Records of one data root. Every method may be called from any thread."""

    def __init__(self, path: Path) -> None:
        """Open or create the cache; one that cannot be read is started anew."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._seen: dict[str, None] = {}
        try:
            self._database = self._open(path)
        except sqlite3.DatabaseError:
            path.unlink()  # losing a cache costs time, nothing else
            self._database = self._open(path)

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = normal")
        database.executescript(_SCHEMA)
        return database

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def find(self, key: str, now: int) -> Record | None:
        """The record of ``key``, noted as used at ``now``."""
        with self._lock:
            rows = self._database.execute(
                "update record set used = max(used, ?), uses = uses + 1 where key = ? returning *",
                (now, key),
            ).fetchall()
        return _record(rows[0]) if rows else None

    def defined(self, definition: str) -> str | None:
        """The key of the step last made of ``definition``, whose record is there."""
        with self._lock:
            row = self._database.execute(
                "select key from definition natural join record where definition = ?",
                (definition,),
            ).fetchone()
        return str(row[0]) if row else None

    def define(self, definition: str, key: str) -> None:
        """A step made of ``definition`` has come to the record of ``key``."""
        with self._lock:
            self._database.execute(
                "insert or replace into definition values (?, ?)", (definition, key)
            )

    def seen(self, key: str) -> bool:
        """Whether a step that only changes the configuration was done before; it is from now on.

        Remembered as long as the process lives: there is nothing to reuse, only to tell.
        """
        with self._lock:
            known = key in self._seen
            self._seen[key] = None
            while len(self._seen) > _MOST_SEEN:
                del self._seen[next(iter(self._seen))]
            return known

    def store(self, record: Record) -> None:
        """Keep a record; one with the same key is replaced."""
        layer = record.layer
        with self._lock:
            self._database.execute(
                "insert or replace into record values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    record.key,
                    record.parent,
                    record.kind,
                    record.description,
                    str(layer.diff_id) if layer else None,
                    str(layer.descriptor.digest) if layer else None,
                    layer.descriptor.media_type if layer else None,
                    layer.descriptor.size if layer else None,
                    str(layer.chain_id) if layer else None,
                    record.size,
                    record.created,
                    record.used or record.created,
                    record.uses,
                ),
            )

    def records(self) -> list[Record]:
        """All records, least recently used first."""
        with self._lock:
            rows = self._database.execute("select * from record order by used, key").fetchall()
        return [_record(row) for row in rows]

    def forget(self, keys: Sequence[str]) -> None:
        """Drop records; what they pinned is for garbage collection."""
        with self._lock:
            for table in ("record", "definition"):
                self._database.executemany(
                    f"delete from {table} where key = ?", [(key,) for key in keys]
                )

    def pinned(self) -> Iterator[Layer]:
        """The layers records refer to."""
        for record in self.records():
            if record.layer is not None:
                yield record.layer


def _record(row: Sequence[str | int | None]) -> Record:
    key, parent, kind, description, diff_id, blob, media, blob_size, chain, *numbers = row
    layer = None
    if diff_id is not None:
        layer = Layer(
            diff_id=Digest.parse(str(diff_id)),
            descriptor=Descriptor(
                media_type=str(media), digest=Digest.parse(str(blob)), size=int(blob_size or 0)
            ),
            chain_id=Digest.parse(str(chain)),
        )
    size, created, used, uses = (int(number or 0) for number in numbers)
    return Record(
        key=str(key),
        parent=str(parent),
        kind=str(kind),
        description=str(description),
        layer=layer,
        size=size,
        created=created,
        used=used,
        uses=uses,
    )
