"""Everything one server process answers requests with, put together from its configuration."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import msgspec

from sampan.errors import SampanError
from sampan.model.digest import Digest
from sampan.registry.server.call import Call, base_url
from sampan.registry.server.collector import Collector
from sampan.registry.server.config import ServerConfig
from sampan.registry.server.driver import Driver
from sampan.registry.server.filesystem import FileDriver
from sampan.registry.server.gate import Gate
from sampan.registry.server.metrics import Metrics
from sampan.registry.server.quotas import Quotas
from sampan.registry.server.s3 import S3Driver
from sampan.registry.server.store import Store
from sampan.registry.server.uploads import Uploads
from sampan.registry.server.upstream import Upstreams
from sampan.registry.server.webhooks import Event, Target, Webhooks

_log = logging.getLogger(__name__)
_DRAIN_SECONDS = 5.0


def open_driver(config: ServerConfig) -> Driver:
    """The store the configuration names."""
    s3 = config.storage.s3
    if s3:
        # Clients that came by HTTPS are right to refuse being sent on without.
        plain = (s3.public_endpoint or s3.endpoint).lower().startswith("http://")
        if config.tls and plain:
            s3 = msgspec.structs.replace(s3, redirect=False)
        return S3Driver(s3)
    return FileDriver(Path(config.storage.root))


def open_store(config: ServerConfig, driver: Driver) -> Store:
    """The registry's data in ``driver``."""
    return Store(
        driver, grace=config.collection.grace_seconds, sparse_indexes=config.sparse_indexes
    )


def open_collector(config: ServerConfig, store: Store) -> Collector:
    """A collector with the configured policy."""
    return Collector(
        store,
        upload_age=config.collection.upload_seconds,
        untagged_age=config.collection.untagged_seconds,
    )


class Services:
    """The parts of a server, opened by ``async with``: background work runs inside."""

    def __init__(self, config: ServerConfig, metrics: Metrics, *, collects: bool = True) -> None:
        self.config = config
        self.metrics = metrics
        self.gate = Gate(config)
        self.store = open_store(config, open_driver(config))
        self.quotas = Quotas(config.quotas, self.store)
        self.uploads = Uploads()
        self.upstreams = Upstreams(
            config.upstreams, self.store, metrics, Path(config.storage.root) / "_spool"
        )
        self._webhooks = Webhooks(config.webhooks, metrics)
        self._collects = collects and config.collection.interval_seconds > 0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Services:
        self._stack.callback(self.gate.close)
        self._stack.push_async_callback(self.store.driver.close)
        self._stack.callback(self.uploads.close)
        await self._stack.enter_async_context(self.upstreams)
        background = [asyncio.create_task(self._webhooks.run())]
        if self._collects:
            background.append(asyncio.create_task(self._collect_forever()))
        self._stack.push_async_callback(_cancelled, background)
        self._stack.push_async_callback(self._webhooks.drain, _DRAIN_SECONDS)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _collect_forever(self) -> None:
        while True:
            await asyncio.sleep(self.config.collection.interval_seconds)
            started = time.monotonic()
            try:
                report = await open_collector(self.config, self.store).collect()
            except SampanError as error:
                _log.error("garbage collection failed: %s", error)
                continue
            self.metrics.add("collected_blobs_total", report.blobs)
            self.metrics.add("collected_bytes_total", report.bytes)
            _log.info("garbage collection: %s in %.1f s", report, time.monotonic() - started)

    def notify(
        self,
        action: str,
        call: Call,
        digest: Digest | None,
        *,
        media_type: str = "application/octet-stream",
        size: int = 0,
        tag: str = "",
        source: str = "",
    ) -> None:
        """Tell the webhooks what happened."""
        if not self._webhooks.wanted:
            return
        request = call.request
        url = ""
        if digest:
            kind = "blobs" if media_type == "application/octet-stream" else "manifests"
            url = f"{base_url(request)}/v2/{call.repository}/{kind}/{digest}"
        self._webhooks.emit(
            Event(
                id=str(uuid.uuid4()),
                timestamp=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
                action=action,
                target=Target(
                    media_type=media_type,
                    digest=str(digest or ""),
                    size=size,
                    repository=call.repository,
                    from_repository=source,
                    url=url,
                    tag=tag,
                ),
                request={
                    "addr": request.remote or "",
                    "host": request.host,
                    "method": request.method,
                    "useragent": request.headers.get("User-Agent", ""),
                },
                actor={"name": call.identity.user},
            )
        )


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
