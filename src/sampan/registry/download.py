"""Fetching blobs into a content store: streamed, verified, resumed, shared.

The bytes of a blob go from the socket through a writer of the content store, which hashes and
counts, in pieces of a mebibyte handled by a thread while the next arrives: memory per download is
a few mebibytes whatever its size. A broken connection continues with ``Range``; so does a later
pull after a crash. Two pulls that need one blob share one transfer (:class:`Transfers`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Executor
from urllib.parse import urlsplit

from sampan.content import ContentStore, ContentWriter
from sampan.errors import SampanError
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.registry.http import Reply, failure
from sampan.registry.progress import Event, LayerProgress, Listener, Step
from sampan.registry.repository import Repository
from sampan.registry.session import (
    FAILURES,
    RETRIABLE,
    Answer,
    retry_after,
    unreachable,
)

_PIECE = 1 << 20
_REPORT_SECONDS = 0.1


class Download:
    """One blob on its way from ``repository`` into ``content``.

    ``threads`` does the writing; ``clock`` (monotonic, seconds) paces the reports.
    """

    def __init__(
        self,
        repository: Repository,
        descriptor: Descriptor,
        content: ContentStore,
        *,
        threads: Executor,
        report: Listener,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repository = repository
        self._descriptor = descriptor
        self._content = content
        self._threads = threads
        self._report = report
        self._clock = clock
        self._reported = 0.0

    async def run(self) -> None:
        """Fetch; returns when the blob is stored. What was received survives a failure.

        Raises :class:`DigestMismatch` when the bytes are not the blob's, and what the registry's
        refusal means.
        """
        loop = asyncio.get_running_loop()
        digest = self._descriptor.digest
        writer = await loop.run_in_executor(
            self._threads,
            lambda: self._content.writer(
                expected=digest, size=self._descriptor.size, ref=f"registry {digest}"
            ),
        )
        try:
            await self._fill(writer)
            self._tell(Step.VERIFYING)
            await loop.run_in_executor(self._threads, writer.commit)
        finally:
            await asyncio.shield(loop.run_in_executor(self._threads, writer.close))
        self._tell(Step.DOWNLOADED)

    async def _fill(self, writer: ContentWriter) -> None:
        """Get the missing bytes, however many connections it takes."""
        session = self._repository.session
        size = self._descriptor.size
        attempt = 1
        urls = ["", *(url for url in self._descriptor.urls if urlsplit(url).scheme == "https")]
        while writer.offset < size:
            before = writer.offset
            wait: float | None = None
            try:
                refused = await self._attempt(writer, urls[0])
            except FAILURES as error:
                if writer.offset > before:
                    attempt = 1  # it moves: go on as long as it does
                if attempt >= session.patience.attempts or not session.passes(error):
                    raise unreachable(session.host, error) from error
            else:
                if refused is None:
                    continue
                if refused.status == 404 and len(urls) > 1:
                    urls.pop(0)  # a foreign layer: its own addresses
                    continue
                if refused.status not in RETRIABLE or attempt >= session.patience.attempts:
                    raise failure(refused, f"{self._repository.name}: {self._descriptor.digest}")
                wait = retry_after(refused.headers, time.time())
            delay = session.patience.delay(attempt, wait)
            attempt += 1
            self._tell(Step.RETRYING, detail=f"{max(delay, 1):.0f}")
            await session.patience.sleep(delay)

    async def _attempt(self, writer: ContentWriter, url: str) -> Reply | None:
        """One exchange; the refusal, or None when its body ended well."""
        async with self._repository.blob(self._descriptor, writer.offset, url) as answer:
            if answer.status == 416:
                await self._restart(writer)
                return None
            if answer.status not in (200, 206):
                return await answer.reply()
            if writer.offset and not _continues(answer, writer.offset):
                await self._restart(writer)
                if answer.status == 206:
                    return None
            await self._copy(answer.content, writer)
        if writer.offset < self._descriptor.size:
            raise Truncated(
                f"{self._descriptor.digest} ended after {writer.offset} of "
                f"{self._descriptor.size} bytes"
            )
        return None

    async def _restart(self, writer: ContentWriter) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, writer.truncate)

    async def _copy(self, content: AsyncIterator[bytes], writer: ContentWriter) -> None:
        """Write what arrives; the next piece is received while the last is written."""
        loop = asyncio.get_running_loop()
        batch: list[bytes] = []
        pending = 0
        writing: asyncio.Future[int] | None = None
        try:
            async for piece in content:
                batch.append(piece)
                pending += len(piece)
                if pending >= _PIECE:
                    if writing:
                        await writing
                    data = b"".join(batch)
                    writing = loop.run_in_executor(self._threads, writer.write, data)
                    batch, pending = [], 0
                    self._progress(writer.offset)
        finally:
            # What arrived before a break counts too: the next attempt goes on from there.
            if writing:
                await writing
            if batch:
                await loop.run_in_executor(self._threads, writer.write, b"".join(batch))
        self._progress(writer.offset)

    def _progress(self, offset: int) -> None:
        now = self._clock()
        if now - self._reported >= _REPORT_SECONDS:
            self._reported = now
            self._tell(Step.DOWNLOADING, offset)

    def _tell(self, step: Step, current: int = 0, detail: str = "") -> None:
        self._report(
            LayerProgress(
                digest=self._descriptor.digest,
                step=step,
                current=current,
                total=self._descriptor.size if step is Step.DOWNLOADING else 0,
                detail=detail,
            )
        )


class Truncated(ConnectionError):
    """A body ended before its announced end; another request may get the rest."""


def _continues(answer: Answer, offset: int) -> bool:
    """Whether an answer begins at ``offset``, as was asked."""
    content_range = answer.headers.get("content-range", "")
    return answer.status == 206 and content_range.startswith(f"bytes {offset}-")


class Transfers:
    """Transfers under way by digest, so that everybody who wants a blob shares one.

    A transfer ends when nobody waits for it any more.
    """

    def __init__(self, limit: int) -> None:
        self._slots = asyncio.Semaphore(limit)
        self._running: dict[Digest, _Transfer] = {}

    async def join(
        self,
        digest: Digest,
        listener: Listener,
        start: Callable[[Listener], Coroutine[None, None, None]],
    ) -> None:
        """Have ``digest`` transferred: by ``start``, or by joining who does so already.

        When another's transfer fails (for want of rights, say), it is tried by ``start`` as well.
        """
        while True:
            transfer = self._running.get(digest)
            own = transfer is None
            if transfer is None:
                transfer = self._running[digest] = _Transfer()
                transfer.task = asyncio.create_task(self._run(digest, transfer, start))
            try:
                await transfer.wait(listener)
            except SampanError:
                if own:
                    raise
                continue
            return

    async def _run(
        self,
        digest: Digest,
        transfer: _Transfer,
        start: Callable[[Listener], Coroutine[None, None, None]],
    ) -> None:
        try:
            async with self._slots:
                await start(transfer.tell)
        finally:
            if self._running.get(digest) is transfer:
                del self._running[digest]


class _Transfer:
    """A task, and who listens to it."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self._listeners: list[Listener] = []

    def tell(self, event: Event) -> None:
        for listener in tuple(self._listeners):
            listener(event)

    async def wait(self, listener: Listener) -> None:
        """Until the task ends; cancels it when the last one waiting is cancelled."""
        task = self.task
        assert task is not None  # set where this was made
        self._listeners.append(listener)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if len(self._listeners) == 1 and not task.done():
                task.cancel()
                await asyncio.wait([task])
            raise
        finally:
            self._listeners.remove(listener)
