"""The registry's store in an S3-compatible bucket, which any number of servers can share.

Uploads are multipart uploads with parts of :data:`PART` bytes. What does not fill a part yet is
kept as an object of its own, ``uploads/<id>/tail``, beside ``uploads/<id>/parts``, which lists the
parts; so a chunk may have any size and any server may take it. The digest is only known at the
end: finished bytes are copied to their key inside the object store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec

from sampan.errors import NotFound
from sampan.registry.server.config import S3
from sampan.registry.server.driver import Entry, LocalFile, Redirect, UploadBusy
from sampan.registry.server.s3client import S3Client

#: Parts must have five mebibytes but for the last, and there are at most 10,000 of them.
PART = 16 << 20
#: Larger objects are copied in parts.
_COPY = 1 << 30


class _Parts(msgspec.Struct):
    """A multipart upload: its id, its parts' entity tags, bytes in parts, bytes in the tail.

    ``finished`` says that the parts were made the object ``uploads/<id>/data``.
    """

    upload: str = ""
    tags: list[str] = []
    stored: int = 0
    tail: int = 0
    finished: bool = False


class S3Driver:
    """A :class:`~sampan.registry.server.driver.Driver` in a bucket."""

    def __init__(self, config: S3) -> None:
        self._config = config
        self._client = S3Client(config)

    async def get(self, key: str) -> bytes | None:
        try:
            return await self._client.get(key)
        except NotFound:
            return None

    async def put(self, key: str, data: bytes) -> None:
        await self._client.put(key, data)

    async def touch(self, key: str) -> None:
        await self._client.put(key, b"")

    async def stat(self, key: str) -> Entry | None:
        found = await self._client.head(key)
        return Entry(key, found.size, found.modified) if found else None

    async def delete(self, key: str) -> bool:
        existed = await self._client.head(key) is not None
        await self._client.delete(key)
        return existed

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Entry]:
        async for item in self._client.list(prefix, after):
            yield Entry(item.key, item.size, item.modified)

    async def locate(self, key: str, content_type: str) -> LocalFile | Redirect | None:
        if not self._config.redirect:
            return None
        query = {"response-content-type": content_type}
        return Redirect(self._client.presigned(key, self._config.redirect_seconds, query))

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        if start < end:
            async for piece in self._client.stream(key, start, end):
                yield piece

    # -- uploads

    @staticmethod
    def _name(upload: str, part: str) -> str:
        return f"uploads/{upload}/{part}"

    async def _parts(self, upload: str) -> _Parts:
        content = await self.get(self._name(upload, "parts"))
        return msgspec.json.decode(content, type=_Parts) if content else _Parts()

    async def _save(self, upload: str, parts: _Parts) -> None:
        await self.put(self._name(upload, "parts"), msgspec.json.encode(parts))

    async def upload_append(self, upload: str, offset: int, data: AsyncIterator[bytes]) -> int:
        parts = await self._parts(upload)
        if parts.stored + parts.tail != offset or parts.finished:
            raise UploadBusy("another request has appended to this upload")
        buffer = bytearray()
        if parts.tail:
            buffer += await self._client.get(self._name(upload, "tail"))
        try:
            async for piece in data:
                buffer += piece
                while len(buffer) >= PART:
                    await self._send(upload, parts, bytes(memoryview(buffer)[:PART]))
                    del buffer[:PART]
        finally:
            # Also when the connection broke: what arrived is kept.
            await self.put(self._name(upload, "tail"), bytes(buffer))
            parts.tail = len(buffer)
            await self._save(upload, parts)
        return parts.stored + parts.tail

    async def _send(self, upload: str, parts: _Parts, data: bytes) -> None:
        key = self._name(upload, "data")
        if not parts.upload:
            parts.upload = await self._client.multipart_begin(key)
        number = len(parts.tags) + 1
        parts.tags.append(await self._client.multipart_put(key, parts.upload, number, data))
        parts.stored += len(data)

    async def upload_size(self, upload: str) -> int:
        parts = await self._parts(upload)
        return parts.stored + parts.tail

    async def upload_read(self, upload: str) -> AsyncIterator[bytes]:
        parts = await self._complete(upload)
        if not parts.stored:
            return
        async for piece in self._client.stream(self._name(upload, "data"), 0, parts.stored):
            yield piece

    async def _complete(self, upload: str) -> _Parts:
        """Make the upload's bytes one object. Idempotent."""
        parts = await self._parts(upload)
        if parts.finished:
            return parts
        key = self._name(upload, "data")
        tail = await self._client.get(self._name(upload, "tail")) if parts.tail else b""
        if not parts.upload:
            await self.put(key, tail)
            parts.stored = len(tail)
        else:
            if tail:
                await self._send(upload, parts, tail)
            await self._client.multipart_finish(key, parts.upload, parts.tags)
        parts.tail, parts.finished = 0, True
        await self._save(upload, parts)
        return parts

    async def upload_store(self, upload: str, key: str) -> None:
        if await self._client.head(key):
            return
        parts = await self._complete(upload)
        source = self._name(upload, "data")
        if parts.stored <= _COPY:
            await self._client.copy(source, key)
            return
        target = await self._client.multipart_begin(key)
        ranges = range(0, parts.stored, _COPY)
        tags = await asyncio.gather(
            *(
                self._client.multipart_copy(
                    key, target, number, source, start, min(start + _COPY, parts.stored)
                )
                for number, start in enumerate(ranges, 1)
            )
        )
        await self._client.multipart_finish(key, target, list(tags))

    async def upload_discard(self, upload: str) -> None:
        parts = await self._parts(upload)
        if parts.upload and not parts.finished:
            await self._client.multipart_abort(self._name(upload, "data"), parts.upload)
        for part in ("data", "tail", "parts"):
            await self._client.delete(self._name(upload, part))

    async def uploads(self) -> AsyncIterator[Entry]:
        async for item in self._client.list("uploads/"):
            upload, _, part = item.key.removeprefix("uploads/").partition("/")
            if part == "parts":
                yield Entry(upload, item.size, item.modified)

    async def tidy(self, oldest: float) -> None:
        async for key, upload, begun in self._client.multipart_list():
            known = await self._parts(key.removeprefix("uploads/").partition("/")[0])
            if begun < oldest and known.upload != upload:
                await self._client.multipart_abort(key, upload)

    async def close(self) -> None:
        await self._client.close()
