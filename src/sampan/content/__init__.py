"""Blobs by digest: the protocol every layer above stores and reads image content through.

The life of a blob::

    writer(expected=...)  →  write(chunk) ...  →  commit() → Digest  →  open / path / read
           ↑ interrupted: writer(ref=same) goes on at writer.offset      →  delete(digest)

Invariant 1 of the project: *a blob under its digest has that digest*. Bytes become visible under
their digest only in :meth:`ContentWriter.commit`, by a rename after fsync; what a crash leaves
are ingests, never half blobs. The implementation is :class:`sampan.content.store.FileStore`;
durable small files go through :func:`sampan.content.atomic.atomic_write`. Standard library alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

from sampan.model.digest import Digest

Buffer = bytes | bytearray | memoryview

#: The largest manifest, index or configuration read into memory, in bytes (OCI distribution
#: spec: registries accept at least 4 MiB of manifest).
DOCUMENT_LIMIT = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobInfo:
    """One stored blob: ``size`` in bytes, ``modified`` in seconds since the epoch."""

    digest: Digest
    size: int
    modified: float


class ContentWriter(Protocol):
    """One blob being written; a context manager.

    Leaving the context without :meth:`commit` aborts an anonymous writer, and keeps what a writer
    with a ``ref`` received so far, to go on from later. A writer belongs to one thread at a time.
    """

    @property
    def offset(self) -> int:
        """Bytes held so far; where a resumed transfer continues (a Range request's start)."""
        ...

    @property
    def digest(self) -> Digest:
        """The digest of the bytes held so far."""
        ...

    def write(self, data: Buffer, /) -> int:
        """Append ``data``; returns its length.

        Raises :class:`~sampan.errors.DigestMismatch` as soon as more bytes come than were
        announced, :class:`~sampan.errors.NoSpace` when the disk is full.
        """
        ...

    def truncate(self) -> None:
        """Start again at offset 0 (the server did not honour the Range request)."""
        ...

    def commit(self, expected: Digest | None = None) -> Digest:
        """Make the bytes a blob and return its digest; durable when it returns.

        Harmless when the blob exists already, and when called twice. Raises
        :class:`~sampan.errors.DigestMismatch` when digest or size are not the announced ones
        (then nothing is kept, a ``ref``'s partial bytes included).
        """
        ...

    def abort(self) -> None:
        """Throw the bytes away; harmless after :meth:`commit` or when called twice."""
        ...

    def close(self) -> None:
        """Leave as the context manager does."""
        ...

    def __enter__(self) -> ContentWriter: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


class ContentStore(Protocol):
    """A set of immutable blobs. Every method may be called from any thread."""

    def writer(
        self,
        *,
        expected: Digest | None = None,
        size: int | None = None,
        ref: str | None = None,
        algorithm: str = "sha256",
    ) -> ContentWriter:
        """A writer for one blob.

        ``expected`` and ``size`` (bytes) are verified on the way and at commit. ``ref`` names a
        resumable ingest: opening the same ref again continues where it was left, also after a
        crash; while another writer holds it, raises :class:`~sampan.errors.Conflict`. Opening a
        writer for a blob that exists is allowed and harmless; ask :meth:`exists` first.
        """
        ...

    def open(self, digest: Digest) -> BinaryIO:
        """The blob, opened for reading (unbuffered, seekable); raises NotFound."""
        ...

    def follow(self, digest: Digest, *, timeout: float) -> BinaryIO:
        """The blob as a stream that may still be arriving.

        Reads what a writer opened with ``expected=digest`` has received and waits for more, until
        it commits; so layers unpack while they download. A committed blob is simply opened.
        The bytes are unverified until the end: the consumer must verify them itself (``apply``
        does). ``timeout`` bounds, in seconds, each wait for new bytes. Raises NotFound when
        neither blob nor writer appears, or when the writer gives up, within it.
        """
        ...

    def read(self, digest: Digest, *, limit: int = DOCUMENT_LIMIT) -> bytes:
        """The whole of a small document, verified against its digest.

        Raises NotFound, and Corrupt when it is larger than ``limit`` bytes or does not verify.
        """
        ...

    def path(self, digest: Digest) -> Path:
        """Where the blob is, for sendfile(2) and the like; raises NotFound."""
        ...

    def size(self, digest: Digest) -> int:
        """Its size in bytes; raises NotFound."""
        ...

    def exists(self, digest: Digest) -> bool:
        """Whether the blob is stored."""
        ...

    def add(self, data: bytes, *, expected: Digest | None = None) -> Digest:
        """Store a small document in one step; idempotent. Raises DigestMismatch."""
        ...

    def delete(self, digest: Digest) -> bool:
        """Remove the blob; False when there was none. Open readers keep their bytes."""
        ...

    def walk(self) -> Iterator[BlobInfo]:
        """Every blob, in no particular order."""
        ...

    def ingests(self) -> Iterator[tuple[str, int]]:
        """Resumable ingests as (ref, bytes held)."""
        ...

    def abort(self, ref: str) -> bool:
        """Throw away a resumable ingest; False when there is none. Conflict when it is held."""
        ...

    def sweep(self, *, older_than: float) -> int:
        """Remove what interrupted writers left, if idle for ``older_than`` seconds.

        Returns the number of bytes freed. Called at start-up and by garbage collection.
        """
        ...


__all__ = ["DOCUMENT_LIMIT", "BlobInfo", "Buffer", "ContentStore", "ContentWriter"]
