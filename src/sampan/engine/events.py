"""Events: what happened, to whom, when; a bounded history and live subscribers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping

from sampan.engine import clock
from sampan.engine.filters import check_filters, match_labels
from sampan.engine.options import Filters
from sampan.wire.system import EventActor, EventMessage

_KEYS = frozenset(
    {
        "config",
        "container",
        "daemon",
        "event",
        "image",
        "label",
        "label!",
        "network",
        "node",
        "plugin",
        "scope",
        "secret",
        "service",
        "type",
        "volume",
    }
)
#: events a subscriber may be behind before it is ended
_BEHIND = 4096


class Events:
    """The event bus of one engine. Publishing never waits."""

    def __init__(self, history: int, now: Callable[[], int] = clock.now) -> None:
        self._history: deque[EventMessage] = deque(maxlen=history)
        self._subscribers: set[asyncio.Queue[EventMessage | None]] = set()
        self._now = now
        #: how many there were since the engine began
        self.published = 0

    @property
    def listeners(self) -> int:
        """How many subscribers there are."""
        return len(self._subscribers)

    def publish(
        self, kind: str, action: str, actor: str, attributes: Mapping[str, str] | None = None
    ) -> None:
        """Record one event and pass it to all subscribers; call from the loop's thread."""
        at = self._now()
        message = EventMessage(
            type=kind,
            action=action,
            actor=EventActor(id=actor, attributes=dict(attributes or {})),
            scope="local",
            time=at // 1_000_000_000,
            time_nano=at,
        )
        self.published += 1
        self._history.append(message)
        for subscriber in list(self._subscribers):
            if subscriber.qsize() >= _BEHIND:
                self._subscribers.discard(subscriber)
                subscriber.put_nowait(None)
            else:
                subscriber.put_nowait(message)

    async def subscribe(
        self,
        since: float | None = None,
        until: float | None = None,
        filters: Filters | None = None,
    ) -> AsyncIterator[EventMessage]:
        """History from ``since`` on, then live events up to ``until``, both in Unix seconds.

        With neither there is no history; with ``until`` alone it is all that was until then.
        Without ``until`` it never ends.

        The subscription is in force when this returns. A subscriber that does not read fast
        enough is ended.
        """
        checked = check_filters(filters, _KEYS)
        backlog = []
        if since is not None or until is not None:
            backlog = [m for m in self._history if _at(m) >= (since or 0)]
        inbox: asyncio.Queue[EventMessage | None] = asyncio.Queue()
        live = until is None or until * 1e9 > self._now()
        if live:
            self._subscribers.add(inbox)
        return self._stream(backlog, inbox if live else None, until, checked)

    async def _stream(
        self,
        backlog: list[EventMessage],
        inbox: asyncio.Queue[EventMessage | None] | None,
        until: float | None,
        filters: Filters,
    ) -> AsyncIterator[EventMessage]:
        try:
            for message in backlog:
                if not _late(message, until) and matches(message, filters):
                    yield message
            while inbox is not None:
                received = await self._next(inbox, until)
                if received is None:
                    return
                if matches(received, filters):
                    yield received
        finally:
            if inbox is not None:
                self._subscribers.discard(inbox)

    async def _next(
        self, inbox: asyncio.Queue[EventMessage | None], until: float | None
    ) -> EventMessage | None:
        """What comes next; None once it is past ``until``, or over.

        What came at the last moment is still told: the clock is looked at when nothing is waiting.
        """
        if inbox.empty():
            left = None if until is None else max(until - self._now() / 1e9, 0)
            try:
                async with asyncio.timeout(left):
                    received = await inbox.get()
            except TimeoutError:
                received = None if inbox.empty() else inbox.get_nowait()
        else:
            received = inbox.get_nowait()
        return None if received is None or _late(received, until) else received

    def close(self) -> None:
        """End all subscribers."""
        for subscriber in self._subscribers:
            subscriber.put_nowait(None)
        self._subscribers.clear()


def _at(message: EventMessage) -> float:
    """When it happened, in Unix seconds."""
    return (message.time_nano or 0) / 1e9


def _late(message: EventMessage, until: float | None) -> bool:
    return until is not None and 0 < until < _at(message)


def matches(message: EventMessage, filters: Filters) -> bool:
    """Whether an event passes the filters (dockerd's daemon/events/filter.go rules)."""
    if not filters:
        return True
    actor = message.actor or EventActor()
    attributes = actor.attributes or {}
    action = message.action or ""
    kind = message.type or ""
    tests = {
        "event": lambda value: action == value or action.partition(":")[0] == value,
        "type": lambda value: kind == value,
        "scope": lambda value: message.scope == value,
    }
    for key, values in filters.items():
        if key in ("label", "label!") or not values:
            continue
        if key in tests:
            if not any(tests[key](value) for value in values):
                return False
        elif not any(_names(kind, key, value, actor.id or "", attributes) for value in values):
            return False
    return match_labels(attributes, filters)


def _names(kind: str, key: str, value: str, actor: str, attributes: Mapping[str, str]) -> bool:
    """Whether the object filter ``key=value`` means the event's actor."""
    if key == "image":
        image = attributes.get("image", "") if kind == "container" else ""
        names = {actor, attributes.get("name", "")} if kind == "image" else {image}
        return any(
            name in (value, f"{value}:latest") or _repository(name) == value for name in names
        )
    return kind == key and (
        actor == value
        or attributes.get("name") == value
        or (key in ("container", "network") and len(value) >= 4 and actor.startswith(value))
    )


def _repository(name: str) -> str:
    head, colon, tail = name.rpartition(":")
    return head if colon and "/" not in tail else name
