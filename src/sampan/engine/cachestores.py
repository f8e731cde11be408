"""Blobs of caches that come from elsewhere, read by worker threads; clients' stores of blobs.

Layers are unpacked in threads, while registries and clients are talked to on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from sampan.engine.threads import BodyReader
from sampan.errors import InvalidParameter, SampanError, Unavailable
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest

#: Feeds a blob's bytes to a reader.
Feed = Callable[[Descriptor, BodyReader], Awaitable[None]]
_PIECE = 1 << 20
_LIMIT = 64 << 20


class BlobStore(Protocol):
    """Blobs by digest."""

    def read(self, blob: Descriptor) -> AsyncIterator[bytes]:
        """A blob's bytes, not verified. Raises NotFound, SampanError."""
        ...


class ClientStore(BlobStore, Protocol):
    """A directory of the client's that holds blobs by digest."""

    async def write(self, blob: Descriptor, chunks: AsyncIterator[bytes]) -> None:
        """Store a blob; one that is there already is left alone, ``chunks`` unread."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Blobs:
    """Blobs fed on ``loop``, as blocking iterators for its worker threads."""

    loop: asyncio.AbstractEventLoop
    feed: Feed

    def fetch(self, blob: Descriptor) -> Iterator[bytes]:
        """A blob's bytes, not verified. Raises what feeding raises, or Unavailable."""
        body, task = asyncio.run_coroutine_threadsafe(self._begin(blob), self.loop).result()
        try:
            while data := body.read(_PIECE):
                yield data
        except OSError as error:
            if isinstance(error.__cause__, SampanError):
                raise error.__cause__ from None
            raise Unavailable(f"blob {blob.digest}: {error}") from error
        finally:
            body.close()
            self.loop.call_soon_threadsafe(task.cancel)

    async def _begin(self, blob: Descriptor) -> tuple[BodyReader, asyncio.Task[None]]:
        body = BodyReader()

        async def run() -> None:
            try:
                await self.feed(blob, body)
            except (SampanError, OSError) as error:  # it may be that nothing was fed as yet
                with contextlib.suppress(type(error)):
                    await body.feed(_Broken(error))

        return body, asyncio.create_task(run())


@dataclass(frozen=True, slots=True)
class _Broken:
    """A stream that fails from the start."""

    error: SampanError | OSError

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        raise self.error


async def document(store: BlobStore, digest: Digest) -> bytes:
    """A document of a store, verified and bounded. Raises InvalidParameter, NotFound."""
    data = bytearray()
    async for piece in store.read(Descriptor(media_type="", digest=digest, size=0)):
        data += piece
        if len(data) > _LIMIT:
            raise InvalidParameter(f"{digest} is larger than {_LIMIT} bytes")
    if Digest.of(bytes(data), digest.algorithm) != digest:
        raise InvalidParameter(f"the client's {digest} does not have that digest")
    return bytes(data)
