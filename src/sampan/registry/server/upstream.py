"""Pull-through cache: repositories whose content is another registry's, fetched when asked for.

Content addressed by digest is fetched once and never again. A tag is asked for again when what is
known of it is older than ``fresh_seconds``; when the upstream is away, the last known answer is
given with a warning (OCI distribution spec, "Warnings"). A blob is passed on while it arrives: it
goes into a spool, which is a content store, and every client that wants it follows the spool, so
that a hundred clients cause one download and the slowest delays nobody.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from aiohttp import web

from sampan.content.store import FileStore
from sampan.errors import InvalidParameter, NotFound, SampanError, Unavailable
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.registry.client import Registry, Settings
from sampan.registry.credentials import Credentials
from sampan.registry.download import Download
from sampan.registry.progress import Listener, ignore
from sampan.registry.registries import HUB_HOST, Endpoint
from sampan.registry.repository import Repository
from sampan.registry.server import keys
from sampan.registry.server.call import Call, StreamAnswer, blob_answer, content_headers
from sampan.registry.server.config import Upstream as Configured
from sampan.registry.server.errors import Code, ProtocolError
from sampan.registry.server.metrics import Metrics
from sampan.registry.server.store import Store
from sampan.registry.session import Patience
from sampan.registry.tls import Certificates

_PIECE = 1 << 20
_FOLLOW_SECONDS = 30.0
_FOLLOWERS = 64
_SPOOL_SECONDS = 600.0
_STALE = {"Warning": '299 - "the upstream registry is away; this is what it last said"'}


class Upstreams:
    """All upstreams of a server; opened and closed with it."""

    def __init__(
        self, configured: Sequence[Configured], store: Store, metrics: Metrics, spool: Path
    ) -> None:
        # The longest prefix first: it is the most particular.
        ordered = sorted(configured, key=lambda item: len(item.prefix), reverse=True)
        self._upstreams = [Upstream(item, store, metrics, spool) for item in ordered]

    def of(self, repository: str) -> Upstream | None:
        """The upstream of a repository, None when its content is this registry's own."""
        for upstream in self._upstreams:
            if upstream.serves(repository):
                return upstream
        return None

    async def __aenter__(self) -> Upstreams:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for upstream in self._upstreams:
            await upstream.close()


class Upstream:
    """One other registry. ``spool`` is a directory; ``clock`` gives seconds since the epoch."""

    def __init__(
        self,
        config: Configured,
        store: Store,
        metrics: Metrics,
        spool: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        parts = urlsplit(config.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InvalidParameter(f"invalid upstream {config.url!r}")
        self._config = config
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._spool = FileStore(spool)
        self._base = parts.path.strip("/")
        self._endpoint = Endpoint(
            host=parts.netloc, repository="", scheme=parts.scheme, insecure=parts.scheme == "http"
        )
        certificates = Certificates(authorities=config.ca_file)
        self._registry = Registry(
            # A client waits for the answer: do not insist for long.
            Settings(
                certificates=certificates, downloads=8, patience=Patience(attempts=2, pause=0.2)
            )
        )
        self._threads = ThreadPoolExecutor(_FOLLOWERS, thread_name_prefix="registry-follow")
        self._stack = AsyncExitStack()
        self._origin: Repository | None = None

    def serves(self, repository: str) -> bool:
        """Whether a repository's content is this upstream's."""
        return repository.startswith(self._config.prefix)

    async def close(self) -> None:
        """Close connections and let threads go."""
        await self._stack.aclose()
        await self._registry.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _repository(self, name: str) -> Repository:
        """The repository at the upstream that ``name`` here is."""
        if self._origin is None:
            credentials = Credentials(
                username=self._config.username, password=self._config.password
            )
            self._origin = await self._stack.enter_async_context(
                self._registry.connect(self._endpoint, credentials)
            )
        theirs = name.removeprefix(self._config.prefix).lstrip("/")
        if self._endpoint.host == HUB_HOST and "/" not in theirs:
            theirs = f"library/{theirs}"
        return replace(self._origin, name=f"{self._base}/{theirs}".lstrip("/"))

    async def manifest(
        self, repository: str, reference: str | Digest
    ) -> tuple[Digest, dict[str, str]]:
        """The digest of a manifest that is in the store now, and headers to send with it.

        Raises MANIFEST_UNKNOWN when there is no such thing, :class:`Unavailable` when the upstream
        is away and nothing is known.
        """
        if isinstance(reference, Digest):
            if await self._store.manifest(repository, reference) is None:
                await self._fetch(repository, reference)
            else:
                self._metrics.add("upstream_hits_total")
            return reference, {}
        known = await self._store.tag(repository, reference)
        if known and await self._is_fresh(repository, reference, known):
            self._metrics.add("upstream_hits_total")
            return known, {}
        try:
            origin = await self._repository(repository)
            digest = (await origin.resolve(reference)).digest
            if await self._store.manifest(repository, digest) is None:
                await self._fetch(repository, digest)
        except NotFound as error:
            raise ProtocolError(Code.MANIFEST_UNKNOWN, error.message) from error
        except SampanError:
            if known is None or await self._store.manifest(repository, known) is None:
                raise
            self._metrics.add("upstream_stale_total")
            return known, dict(_STALE)
        await self._store.set_tag(repository, reference, digest)
        return digest, {}

    async def _is_fresh(self, repository: str, tag: str, digest: Digest) -> bool:
        entry = await self._store.driver.stat(keys.tag(repository, tag))
        if entry is None or entry.modified < self._clock() - self._config.fresh_seconds:
            return False
        return await self._store.manifest(repository, digest) is not None

    async def _fetch(self, repository: str, digest: Digest) -> None:
        self._metrics.add("upstream_misses_total")
        origin = await self._repository(repository)
        try:
            manifest = await origin.manifest(digest)
        except NotFound as error:
            raise ProtocolError(Code.MANIFEST_UNKNOWN, error.message) from error
        await self._store.put_manifest(repository, manifest, complete=False)

    async def tags(self, repository: str) -> list[str]:
        """The upstream's tags, or those known here when it is away."""
        try:
            origin = await self._repository(repository)
            return [tag async for tag in origin.tags()]
        except NotFound as error:
            raise ProtocolError(Code.NAME_UNKNOWN, error.message) from error
        except Unavailable:
            self._metrics.add("upstream_stale_total")
            return [tag async for tag in self._store.tags(repository)]

    async def blob(self, call: Call, digest: Digest) -> web.StreamResponse:
        """A blob that is not in the store: passed on while it is fetched into it."""
        origin = await self._repository(call.repository)
        size = await origin.has_blob(digest)
        if size is None:
            raise ProtocolError(Code.BLOB_UNKNOWN, f"{call.repository} has no blob {digest}")
        headers = content_headers(digest) | {"Content-Type": "application/octet-stream"}
        if call.request.method == "HEAD":
            answer = web.StreamResponse(headers=headers)
            answer.content_length = size
            return answer
        self._metrics.add("upstream_misses_total")
        descriptor = Descriptor(media_type=headers["Content-Type"], digest=digest, size=size)
        work = self._transfer(call.repository, descriptor)
        if "Range" in call.request.headers:
            await work
            blob = await self._store.blob(call.repository, digest)
            if blob is None:
                raise Unavailable(f"{digest} was fetched and is gone")
            return await blob_answer(call, blob, digest)
        return StreamAnswer(self._follow(digest, work), size, status=200, headers=headers)

    async def _transfer(self, repository: str, descriptor: Descriptor) -> None:
        """Bring a blob into the store; everybody who wants it shares one download."""

        async def start(listener: Listener) -> None:
            download = Download(
                await self._repository(repository),
                descriptor,
                self._spool,
                threads=self._registry.threads,
                report=listener,
            )
            await download.run()
            await self._take(repository, descriptor.digest)

        await self._registry.downloads.join(descriptor.digest, ignore, start)
        if await self._store.blob(repository, descriptor.digest) is None:
            await self._take(repository, descriptor.digest)  # another repository's client was first

    async def _take(self, repository: str, digest: Digest) -> None:
        """Copy a blob from the spool into the store and link it."""
        if await self._store.adopt(repository, digest):
            return
        loop = asyncio.get_running_loop()
        upload = str(uuid.uuid4())
        with self._spool.open(digest) as file:

            async def pieces() -> AsyncIterator[bytes]:
                while piece := await loop.run_in_executor(self._threads, file.read, _PIECE):
                    yield piece

            await self._store.driver.upload_append(upload, 0, pieces())
        await self._store.link_upload(repository, upload, digest)
        await self._store.driver.upload_discard(upload)
        await loop.run_in_executor(self._threads, self._tidy)

    def _tidy(self) -> None:
        """Empty the spool of what was taken long enough ago that nobody can be reading it."""
        self._spool.sweep(older_than=24 * 3600.0)
        for blob in self._spool.walk():
            if blob.modified < time.time() - _SPOOL_SECONDS:
                self._spool.delete(blob.digest)

    async def _follow(
        self, digest: Digest, work: Coroutine[None, None, None]
    ) -> AsyncIterator[bytes]:
        """A blob's bytes while ``work`` brings them in; raises what ``work`` does."""
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(work)
        stream = self._spool.follow(digest, timeout=_FOLLOW_SECONDS)
        reading: asyncio.Future[bytes] | None = None
        try:
            while True:
                reading = loop.run_in_executor(self._threads, stream.read, _PIECE)
                both: set[asyncio.Future[bytes] | asyncio.Task[None]] = {reading, task}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if task.done() and not reading.done():
                    task.result()
                piece = await reading
                if not piece:
                    break
                yield piece
            await task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, SampanError):
                await task
            if reading is None or reading.done():
                stream.close()
            else:
                reading.add_done_callback(lambda _: stream.close())
