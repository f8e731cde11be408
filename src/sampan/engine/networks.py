"""The networks service: rows of networks and endpoints, performed by network drivers."""

from __future__ import annotations

from sampan.engine.options import Filters
from sampan.wire.network import (
    NetworkConnectRequest,
    NetworkCreateRequest,
    NetworkCreateResponse,
    NetworkDisconnectRequest,
    NetworkInspect,
    NetworksPruneReport,
    NetworkSummary,
)


class Networks:
    """Networks of one engine. ``ref`` is a name, an id or a unique id prefix."""

    async def list(self, filters: Filters | None = None) -> list[NetworkSummary]:
        """Networks that match."""
        raise NotImplementedError

    async def inspect(self, ref: str, *, verbose: bool = False, scope: str = "") -> NetworkInspect:
        """A network and the containers on it."""
        raise NotImplementedError

    async def create(self, body: NetworkCreateRequest) -> NetworkCreateResponse:
        """Create a network; Conflict when the name is taken, Forbidden on overlapping pools."""
        raise NotImplementedError

    async def remove(self, ref: str) -> None:
        """Remove a network; Forbidden when predefined or in use."""
        raise NotImplementedError

    async def connect(self, ref: str, body: NetworkConnectRequest) -> None:
        """Connect a container, live when it runs."""
        raise NotImplementedError

    async def disconnect(self, ref: str, body: NetworkDisconnectRequest) -> None:
        """Disconnect a container, live when it runs."""
        raise NotImplementedError

    async def prune(self, filters: Filters | None = None) -> NetworksPruneReport:
        """Remove networks no container uses."""
        raise NotImplementedError
