"""One request on its way: what handlers get, and the answers they give."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlencode

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from sampan.model.digest import Digest
from sampan.registry.server import routing
from sampan.registry.server.access import Identity
from sampan.registry.server.driver import Entry, Redirect
from sampan.registry.server.errors import Code, ProtocolError
from sampan.registry.server.ranges import parse_range
from sampan.registry.server.routing import Route

if TYPE_CHECKING:
    from sampan.registry.server.services import Services


#: How long a client may pause within a body, in seconds; a stalled upload blocks no other.
IDLE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Call:
    """A request, what its path addresses, who sent it, and everything to answer it with."""

    request: web.BaseRequest
    route: Route
    identity: Identity
    services: Services

    @property
    def repository(self) -> str:
        """The repository the path is in."""
        return self.route.repository

    def query(self, name: str) -> str:
        """A query parameter, empty when absent."""
        return self.request.query.get(name, "")

    async def body(self) -> AsyncIterator[bytes]:
        """The request's body; raises BLOB_UPLOAD_INVALID when nothing comes for a while."""
        pieces = self.request.content.iter_any()
        while True:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    piece = await anext(pieces, None)
            except TimeoutError as error:
                raise ProtocolError(
                    Code.BLOB_UPLOAD_INVALID, "the client sends nothing any more", status=408
                ) from error
            if piece is None:
                return
            yield piece

    def page_size(self, limit: int) -> int | None:
        """The ``n`` parameter up to ``limit``, None when absent; raises 400 for nonsense."""
        text = self.query("n")
        if not text:
            return None
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise ProtocolError(Code.UNSUPPORTED, f"invalid n: {text[:40]!r}", status=400)
        return min(int(text), limit)

    def digest(self) -> Digest:
        """The digest the path ends in; raises DIGEST_INVALID."""
        return routing.digest(self.route.argument)

    def fresh(self, digest: Digest) -> bool:
        """Whether the client says it has this content already (``If-None-Match``)."""
        header = self.request.headers.get("If-None-Match")
        return header is not None and str(digest) in header


def base_url(request: web.BaseRequest) -> str:
    """Scheme and host as the client used them, also behind a proxy that says so."""
    scheme = request.headers.get("X-Forwarded-Proto", request.scheme)
    host = request.headers.get("X-Forwarded-Host", request.host)
    return f"{'https' if scheme == 'https' else 'http'}://{host}"


def link(path: str, parameters: Mapping[str, str]) -> dict[str, str]:
    """The ``Link`` header to the next page (RFC 5988)."""
    return {"Link": f'<{path}?{urlencode(parameters)}>; rel="next"'}


def content_headers(digest: Digest) -> dict[str, str]:
    """What identifies content in every answer that has or names it."""
    text = str(digest)
    return {"Docker-Content-Digest": text, "ETag": f'"{text}"'}


class FileAnswer(web.StreamResponse):
    """The ``length`` bytes from ``start`` of an open file, sent with sendfile(2) without TLS.

    Takes the file over.
    """

    def __init__(
        self, file: BinaryIO, start: int, length: int, *, status: int, headers: Mapping[str, str]
    ) -> None:
        super().__init__(status=status, headers=headers)
        self.content_length = length
        self._file = file
        self._offset = start

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if self.prepared:
            return await super().prepare(request)
        with self._file:
            writer = await super().prepare(request)
            count = self.content_length
            if request.method != "HEAD" and count and request.transport:
                await asyncio.get_running_loop().sendfile(
                    request.transport, self._file, self._offset, count, fallback=True
                )
            return writer


class StreamAnswer(web.StreamResponse):
    """``length`` bytes that come in ``pieces``."""

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        length: int,
        *,
        status: int,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(status=status, headers=headers)
        self.content_length = length
        self._pieces = pieces

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if self.prepared:
            return await super().prepare(request)
        writer = await super().prepare(request)
        if request.method != "HEAD":
            async for piece in self._pieces:
                await self.write(piece)
        return writer


async def blob_answer(call: Call, blob: Entry, digest: Digest) -> web.StreamResponse:
    """The answer to GET or HEAD of a blob: bytes, a range of them, or a redirect."""
    headers = content_headers(digest) | {
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
        "Cache-Control": "max-age=31536000, immutable",
    }
    if call.fresh(digest):
        return web.Response(status=304, headers=headers)
    start, end, status = 0, blob.size, 200
    header = call.request.headers.get("Range")
    condition = call.request.headers.get("If-Range")
    if header and call.request.method == "GET" and condition in (None, f'"{digest}"'):
        part = parse_range(header, blob.size)
        if part:
            start, end = part
            status = 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{blob.size}"
    driver = call.services.store.driver
    place = await driver.locate(blob.key, headers["Content-Type"])
    if isinstance(place, Redirect):
        if call.request.method == "GET":
            return web.Response(
                status=307, headers=content_headers(digest) | {"Location": place.url}
            )
        response = web.StreamResponse(headers=headers)
        response.content_length = blob.size
        return response
    if place is None:
        pieces = driver.read(blob.key, start, end)
        return StreamAnswer(pieces, end - start, status=status, headers=headers)
    try:
        file = open(place.path, "rb", buffering=0)  # noqa: ASYNC230, SIM115  # microseconds; sent later
    except FileNotFoundError as error:
        raise ProtocolError(Code.BLOB_UNKNOWN, f"{digest} was deleted this moment") from error
    return FileAnswer(file, start, end - start, status=status, headers=headers)
