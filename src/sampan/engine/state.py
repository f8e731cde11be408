"""The engine's durable state: one SQLite file, written by one thread.

The engine keeps what it works with in memory and reads the file only when it opens; every change
is one transaction, in the order it was submitted. WAL with ``synchronous=NORMAL`` commits without
fsync: a crash of the process loses nothing that was committed, a crash of the machine may lose
the last moments but never consistency (sqlite.org/wal.html). Rows are inserted last and deleted
first, so a row always means something that exists.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeAlias

from sampan.errors import Conflict, Corrupt, NoSpace, SampanError

Value: TypeAlias = str | bytes | int | float | None
Statement: TypeAlias = tuple[str, tuple[Value, ...]]
Row: TypeAlias = tuple[Value, ...]

log = logging.getLogger(__name__)

#: one entry for each schema version; ``user_version`` tells how many were applied
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE images (
            digest TEXT PRIMARY KEY, media_type TEXT NOT NULL, size INTEGER NOT NULL,
            config TEXT NOT NULL, created INTEGER NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE image_names (
            name TEXT PRIMARY KEY, digest TEXT NOT NULL REFERENCES images(digest),
            updated INTEGER NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE containers (
            id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record BLOB NOT NULL,
            state BLOB NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE networks (
            id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE,
            document BLOB NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE endpoints (
            id TEXT PRIMARY KEY,
            container TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,
            network TEXT NOT NULL REFERENCES networks(id), document BLOB NOT NULL,
            UNIQUE (container, network)) WITHOUT ROWID""",
        """CREATE TABLE addresses (
            network TEXT NOT NULL REFERENCES networks(id), address TEXT NOT NULL,
            endpoint TEXT NOT NULL REFERENCES endpoints(id) ON DELETE CASCADE,
            PRIMARY KEY (network, address)) WITHOUT ROWID""",
        "CREATE INDEX addresses_endpoint ON addresses(endpoint)",
        "CREATE INDEX image_names_digest ON image_names(digest)",
        "CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    ),
    (
        """CREATE TABLE id_ranges (
            container TEXT PRIMARY KEY REFERENCES containers(id) ON DELETE CASCADE,
            first_uid INTEGER NOT NULL, first_gid INTEGER NOT NULL,
            size INTEGER NOT NULL) WITHOUT ROWID""",
    ),
    ("ALTER TABLE images ADD COLUMN pushed TEXT NOT NULL DEFAULT ''",),
    ("ALTER TABLE images ADD COLUMN used INTEGER NOT NULL DEFAULT 0",),
    ("ALTER TABLE images ADD COLUMN referrers TEXT NOT NULL DEFAULT '[]'",),
)


class State:
    """The state file of one engine; :meth:`write` from the loop, :meth:`read` from anywhere."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._jobs: queue.SimpleQueue[tuple[Sequence[Statement], Future[None]] | None]
        self._jobs = queue.SimpleQueue()
        self._connection = self._open()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="sampan-state", daemon=True)
        self._thread.start()

    def _open(self) -> sqlite3.Connection:
        """Open, migrate; raises Corrupt or Conflict (made by a newer sampan)."""
        try:
            connection = sqlite3.connect(
                self._path, isolation_level=None, check_same_thread=False, cached_statements=64
            )
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA foreign_keys=ON")
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version > len(MIGRATIONS):
                raise Conflict(
                    f"{self._path} was written by a newer sampan (schema {version}, this one "
                    f"knows {len(MIGRATIONS)})"
                )
            for number in range(version, len(MIGRATIONS)):
                connection.execute("BEGIN")
                for statement in MIGRATIONS[number]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={number + 1}")
                connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise Corrupt(f"cannot open the engine's state {self._path}: {error}") from error
        return connection

    def read(self, query: str, values: tuple[Value, ...] = ()) -> list[Row]:
        """All rows of a query. Blocking; what was submitted before may not be in it yet."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def submit(self, *statements: Statement) -> Future[None]:
        """Queue one transaction; a failure is logged and set on the future.

        Use the future only where the outcome matters before going on: order is kept anyway.
        """
        future: Future[None] = Future()
        self._jobs.put((statements, future))
        return future

    async def write(self, *statements: Statement) -> None:
        """Perform one transaction and wait until it is committed.

        Raises Conflict when a constraint forbids it, NoSpace when the disk is full.
        """
        await asyncio.wrap_future(self.submit(*statements))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            statements, future = job
            try:
                with self._lock:
                    self._transact(statements)
            except SampanError as error:
                log.error("state: %s", error.message)
                future.set_exception(error)
            else:
                future.set_result(None)

    def _transact(self, statements: Sequence[Statement]) -> None:
        execute = self._connection.execute
        try:
            execute("BEGIN")
            for statement, values in statements:
                execute(statement, values)
            execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.rollback()
            raise _translate(error) from error

    def close(self) -> None:
        """Commit what was submitted and close the file."""
        self._jobs.put(None)
        self._thread.join()
        self._connection.close()


def _translate(error: sqlite3.Error) -> SampanError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_CONSTRAINT:
        return Conflict(f"the change contradicts the engine's state: {error}")
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return NoSpace(f"cannot write the engine's state: {error}")
    return Corrupt(f"the engine's state cannot be changed: {error}")
