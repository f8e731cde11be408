"""Events: what happened, to whom, when; a bounded history and live subscribers."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sampan.engine.options import Filters
from sampan.wire.system import EventMessage


class Events:
    """The event bus of one engine."""

    async def subscribe(
        self, since: float = 0.0, until: float = 0.0, filters: Filters | None = None
    ) -> AsyncIterator[EventMessage]:
        """History from ``since`` (Unix seconds), then live events up to ``until`` (0: for ever).

        The subscription is in force when this returns. A subscriber that does not read fast
        enough is ended.
        """
        raise NotImplementedError
