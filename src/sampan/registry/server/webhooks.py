"""Events for the outside world, in the envelope of Docker's registry, so that its consumers work.

Every endpoint has a bounded queue and one task that delivers in order, with exponential back-off.
A full queue drops events, counted, rather than slowing the registry; what is queued when the
server ends is given a moment to be delivered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import aiohttp
import msgspec

from sampan.registry.server.config import Webhook
from sampan.registry.server.metrics import Metrics

_log = logging.getLogger(__name__)
_MEDIA_TYPE = "application/vnd.docker.distribution.events.v1+json"
_LONGEST_PAUSE = 60.0


class Target(msgspec.Struct, kw_only=True, omit_defaults=True, rename="camel"):
    """What an event is about."""

    media_type: str = ""
    digest: str = ""
    size: int = 0
    repository: str
    from_repository: str = ""
    url: str = ""
    tag: str = ""


class Event(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One event: ``timestamp`` is RFC 3339; ``actor`` and ``request`` say who, from where."""

    id: str
    timestamp: str
    action: str
    target: Target
    request: dict[str, str]
    actor: dict[str, str]


class Webhooks:
    """Delivers events to the configured endpoints from :meth:`run` on."""

    def __init__(self, hooks: Sequence[Webhook], metrics: Metrics, pause: float = 1.0) -> None:
        self._metrics = metrics
        self._pause = pause
        self._queues: list[tuple[Webhook, asyncio.Queue[Event]]] = [
            (hook, asyncio.Queue(hook.queue)) for hook in hooks
        ]

    @property
    def wanted(self) -> bool:
        """Whether anybody listens."""
        return bool(self._queues)

    def emit(self, event: Event) -> None:
        """Queue an event for everybody who wants its action; never waits."""
        for hook, queue in self._queues:
            if event.action in hook.actions:
                try:
                    queue.put_nowait(event)
                except asyncio.QueueFull:
                    self._metrics.add("webhook_dropped_total")

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            for hook, queue in self._queues:
                group.create_task(self._deliver(session, hook, queue))

    async def _deliver(
        self, session: aiohttp.ClientSession, hook: Webhook, queue: asyncio.Queue[Event]
    ) -> None:
        while True:
            event = await queue.get()
            try:
                await self._send(session, hook, event)
            finally:
                queue.task_done()

    async def _send(self, session: aiohttp.ClientSession, hook: Webhook, event: Event) -> None:
        body = msgspec.json.encode({"events": [event]})
        headers = {"Content-Type": _MEDIA_TYPE, **hook.headers}
        timeout = aiohttp.ClientTimeout(total=hook.timeout_seconds)
        for attempt in range(hook.attempts):
            if attempt:
                await asyncio.sleep(min(self._pause * 2 ** (attempt - 1), _LONGEST_PAUSE))
            try:
                async with session.post(
                    hook.url, data=body, headers=headers, timeout=timeout, allow_redirects=False
                ) as response:
                    if response.status < 400:
                        self._metrics.add("webhook_delivered_total")
                        return
                    _log.warning("webhook answered %d", response.status)
            except (aiohttp.ClientError, TimeoutError) as error:
                _log.warning("webhook failed: %s", type(error).__name__)
        self._metrics.add("webhook_failed_total")

    async def drain(self, seconds: float) -> None:
        """Wait until everything queued was tried, at most so long."""
        waits = [asyncio.create_task(queue.join()) for _, queue in self._queues]
        if waits:
            _, pending = await asyncio.wait(waits, timeout=seconds)
            for task in pending:
                task.cancel()
