"""What the registry's data is kept in: a flat store of small and large objects named by keys.

A driver offers what POSIX file systems and S3-compatible object stores both have: whole-object
writes that replace atomically, reads that see every write finished before them (read-after-write,
by any server), listing in byte order, and modification times by the store's own clock. Several
servers may use one store at the same time; they share no memory, and the registry needs neither
locks nor conditional writes (see :mod:`sampan.registry.server.collector` for why that is enough).

Keys are ``/``-separated words this package makes from validated names; a key is never a prefix
directory of another key.

The story of an upload: ``upload_append`` any number of times, from any server; then
``upload_store`` under a key, which may be repeated, and ``upload_discard``. Appended bytes survive
a broken connection: ``upload_size`` says how far it came.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sampan.errors import SampanError


class UploadBusy(SampanError):
    """Another request is appending to the same upload."""

    http_status = 409


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored object: key, size in bytes, modification time in seconds by the store's clock."""

    key: str
    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class LocalFile:
    """An object's bytes are this file, which can be sent with sendfile(2)."""

    path: Path


@dataclass(frozen=True, slots=True)
class Redirect:
    """An object's bytes are at this URL, readable without further credentials for a while."""

    url: str


class Driver(Protocol):
    """A store. Every method raises :class:`~sampan.errors.Unavailable` when the store fails."""

    async def get(self, key: str) -> bytes | None:
        """The bytes of a small object, None when there is none."""
        ...

    async def put(self, key: str, data: bytes) -> None:
        """Write an object, durably, replacing any; readers see the old or the new one whole."""
        ...

    async def touch(self, key: str) -> None:
        """Make an empty object, or set its modification time to now. Need not be durable."""
        ...

    async def stat(self, key: str) -> Entry | None:
        """Size and time of an object, None when there is none."""
        ...

    async def delete(self, key: str) -> bool:
        """Remove an object; whether there was one. Idempotent."""
        ...

    def list(self, prefix: str, after: str = "") -> AsyncIterator[Entry]:
        """Objects whose key begins with ``prefix`` (ending in ``/``), in byte order of keys.

        ``after`` is a key: it and everything before it is left out.
        """
        ...

    async def locate(self, key: str, content_type: str) -> LocalFile | Redirect | None:
        """Where a client can be sent the bytes of a stored object from; None: :meth:`read` it."""
        ...

    def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes ``start`` to ``end`` (exclusive) of a stored object, in pieces."""
        ...

    async def upload_append(self, upload: str, offset: int, data: AsyncIterator[bytes]) -> int:
        """Append to an upload that has ``offset`` bytes; the new size.

        Keeps what arrived when ``data`` raises. Raises :class:`UploadBusy`.
        """
        ...

    async def upload_size(self, upload: str) -> int:
        """How many bytes an upload has; 0 for one nothing was appended to."""
        ...

    def upload_read(self, upload: str) -> AsyncIterator[bytes]:
        """The bytes appended so far."""
        ...

    async def upload_store(self, upload: str, key: str) -> None:
        """Make the upload's bytes the object ``key``, durably; the upload stays. Idempotent."""
        ...

    async def upload_discard(self, upload: str) -> None:
        """Forget an upload's bytes. Idempotent."""
        ...

    def uploads(self) -> AsyncIterator[Entry]:
        """Uploads with bytes: ``key`` is the upload id, ``modified`` the last append."""
        ...

    async def tidy(self, oldest: float) -> None:
        """Remove what writers that died before ``oldest`` left behind, invisible to the rest."""
        ...

    async def close(self) -> None:
        """Give connections back."""
        ...
