"""Blob uploads: monolithic, in chunks, resumed, cancelled, mounted (OCI distribution spec, "Push").

A session is an object in the store, so any server may take the next request of an upload. Hashing
goes along with writing. How far the hash came is kept with the session when a request ends well; a
chunk that a connection broke in the middle of is kept, and hashed again at the end.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
from aiohttp import web

from sampan.model.digest import Digest, Hasher
from sampan.registry.server import keys, routing
from sampan.registry.server.call import Call, content_headers
from sampan.registry.server.driver import UploadBusy
from sampan.registry.server.errors import Code, ProtocolError
from sampan.registry.server.ranges import parse_chunk, received

_BATCH = 1 << 20
_ALGORITHMS = ("sha256", "sha512", "sha384")
#: Hash objects of uploads that may continue here; others are hashed again. Bounds memory only.
_MAX_HASHERS = 256


class Session(msgspec.Struct, kw_only=True):
    """An upload: its repository, and the digest of its first ``hashed`` bytes."""

    repository: str
    algorithm: str = "sha256"
    started: float
    hashed: int = 0
    digest: str = ""


class Uploads:
    """What one server process remembers of uploads to save work; none of it is needed."""

    def __init__(self) -> None:
        self._hashers: dict[str, tuple[int, Hasher]] = {}
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="registry-hash")

    def hasher(self, upload: str, session: Session, size: int) -> Hasher | None:
        """The state of a hash over exactly the ``size`` bytes there are."""
        position, hasher = self._hashers.pop(upload, (0, None))
        if size == 0:
            return hashlib.new(session.algorithm)
        return hasher if position == size else None

    def remember(self, upload: str, size: int, hasher: Hasher) -> None:
        """Keep a hash for the next chunk."""
        self._hashers[upload] = size, hasher
        if len(self._hashers) > _MAX_HASHERS:
            self._hashers.pop(next(iter(self._hashers)))

    async def hashed(
        self, data: AsyncIterator[bytes], hasher: Hasher | None
    ) -> AsyncIterator[bytes]:
        """``data`` in pieces of a mebibyte, hashed while the consumer writes them."""
        loop = asyncio.get_running_loop()
        async for batch in _batches(data):
            work = hasher and loop.run_in_executor(self._pool, hasher.update, batch)
            try:
                yield batch
            finally:
                if work:
                    await work

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False)


async def _batches(data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    pieces: list[bytes] = []
    size = 0
    try:
        async for piece in data:
            pieces.append(piece)
            size += len(piece)
            if size >= _BATCH:
                yield b"".join(pieces)
                pieces, size = [], 0
    except (ConnectionError, web.RequestPayloadError):
        if pieces:  # what arrived before the connection broke counts: uploads resume
            yield b"".join(pieces)
        raise
    if pieces:
        yield b"".join(pieces)


async def start(call: Call) -> web.StreamResponse:
    """POST: mount a blob, take one whole, or begin a session."""
    algorithm = call.query("digest-algorithm") or "sha256"
    if algorithm not in _ALGORITHMS:
        raise ProtocolError(Code.DIGEST_INVALID, f"unsupported algorithm {algorithm[:40]!r}")
    if call.query("mount") and (answer := await _mount(call)):
        return answer
    await call.services.quotas.check(call.repository, call.request.content_length or 0)
    session = Session(repository=call.repository, algorithm=algorithm, started=time.time())
    upload = str(uuid.uuid4())
    if call.query("digest"):
        digest = routing.digest(call.query("digest"))
        session.algorithm = digest.algorithm
        await _append(call, upload, session, 0)
        return await _finish(call, upload, session, digest)
    await _save(call, upload, session)
    return _progress(call, upload, 0, status=202)


async def _mount(call: Call) -> web.StreamResponse | None:
    """201 when the blob could be taken from another repository; None: upload it."""
    source = call.query("from")
    digest = routing.digest(call.query("mount"))
    if not source:
        return None  # whoever knows a digest need not be allowed to read the blob
    routing.repository(source)
    if not call.services.gate.rules.allows(call.identity, source, "pull"):
        return None
    if blob := await call.services.store.blob(source, digest):
        await call.services.quotas.check(call.repository, blob.size)
    if not await call.services.store.mount(source, call.repository, digest):
        return None
    call.services.notify("mount", call, digest, source=source)
    return _created(call, digest)


async def chunk(call: Call) -> web.StreamResponse:
    """PATCH: append to an upload."""
    upload, session, size = await _session(call)
    await _in_order(call, upload, size)
    await call.services.quotas.check(call.repository, size + (call.request.content_length or 0))
    size = await _append(call, upload, session, size)
    await _save(call, upload, session)
    return _progress(call, upload, size, status=202)


async def finish(call: Call) -> web.StreamResponse:
    """PUT: append what the body holds, check the digest, and make it a blob."""
    upload, session, size = await _session(call)
    if not call.query("digest"):
        raise ProtocolError(Code.DIGEST_INVALID, "no digest parameter")
    digest = routing.digest(call.query("digest"))
    if call.request.body_exists and call.request.content_length != 0:
        await _in_order(call, upload, size)
        await call.services.quotas.check(call.repository, size + (call.request.content_length or 0))
        if size == 0:
            session.algorithm = digest.algorithm
        await _append(call, upload, session, size)
    return await _finish(call, upload, session, digest)


async def status(call: Call) -> web.StreamResponse:
    """GET: how far an upload is."""
    upload, _, size = await _session(call)
    return _progress(call, upload, size, status=204)


async def cancel(call: Call) -> web.StreamResponse:
    """DELETE: forget an upload."""
    upload, _, _ = await _session(call)
    await _discard(call, upload)
    return web.Response(status=204)


async def _session(call: Call) -> tuple[str, Session, int]:
    """The upload the path names, its session, and its size."""
    upload = call.route.argument
    if routing.is_upload(upload):
        content = await call.services.store.driver.get(keys.session(upload))
        if content is not None:
            session = msgspec.json.decode(content, type=Session)
            if session.repository == call.repository:
                return upload, session, await call.services.store.driver.upload_size(upload)
    raise ProtocolError(Code.BLOB_UPLOAD_UNKNOWN, "no such upload")


async def _in_order(call: Call, upload: str, size: int) -> None:
    """That the body continues where the upload stands; 416 otherwise."""
    header = call.request.headers.get("Content-Range")
    if header is None:
        return
    if parse_chunk(header, call.request.content_length) != size:
        raise ProtocolError(
            Code.BLOB_UPLOAD_INVALID,
            f"the upload has {size} bytes, the chunk is {header!r}",
            status=416,
            headers={"Range": received(size), "Location": _location(call, upload)},
        )


async def _append(call: Call, upload: str, session: Session, size: int) -> int:
    """Take the request's body in; ``session`` then says what was hashed. The new size."""
    services = call.services
    hasher = services.uploads.hasher(upload, session, size)
    if hasher is not None and size == 0:
        hasher = hashlib.new(session.algorithm)
    limited = services.quotas.limited(call.repository, size, call.body())
    try:
        new_size = await services.store.driver.upload_append(
            upload, size, services.uploads.hashed(limited, hasher)
        )
    except UploadBusy as error:
        raise ProtocolError(Code.BLOB_UPLOAD_INVALID, error.message, status=409) from error
    if hasher is not None:
        session.hashed, session.digest = new_size, hasher.hexdigest()
        services.uploads.remember(upload, new_size, hasher)
    return new_size


async def _finish(call: Call, upload: str, session: Session, digest: Digest) -> web.StreamResponse:
    """Verify the whole upload and link it into the repository."""
    services = call.services
    size = await services.store.driver.upload_size(upload)
    services.uploads.hasher(upload, session, size)
    if session.hashed == size and session.digest and session.algorithm == digest.algorithm:
        actual = Digest(session.algorithm, session.digest)
    else:
        hasher = digest.hasher()
        async for _ in services.uploads.hashed(services.store.driver.upload_read(upload), hasher):
            pass
        actual = Digest(digest.algorithm, hasher.hexdigest())
    if actual != digest:
        await _discard(call, upload)
        raise ProtocolError(
            Code.DIGEST_INVALID,
            f"the upload has digest {actual}, not {digest}",
            detail={"digest": str(digest)},
        )
    await services.store.link_upload(call.repository, upload, digest)
    await _discard(call, upload)
    services.notify("push", call, digest, size=size)
    return _created(call, digest)


async def _save(call: Call, upload: str, session: Session) -> None:
    await call.services.store.driver.put(keys.session(upload), msgspec.json.encode(session))


async def _discard(call: Call, upload: str) -> None:
    await call.services.store.driver.upload_discard(upload)
    await call.services.store.driver.delete(keys.session(upload))


def _location(call: Call, upload: str) -> str:
    return f"/v2/{call.repository}/blobs/uploads/{upload}"


def _progress(call: Call, upload: str, size: int, *, status: int) -> web.Response:
    headers = {
        "Location": _location(call, upload),
        "Range": received(size),
        "Docker-Upload-UUID": upload,
    }
    return web.Response(status=status, headers=headers)


def _created(call: Call, digest: Digest) -> web.Response:
    headers = content_headers(digest)
    headers["Location"] = f"/v2/{call.repository}/blobs/{digest}"
    return web.Response(status=201, headers=headers)
