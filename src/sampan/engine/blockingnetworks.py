"""Networks without ``await``, as :mod:`sampan.engine.blocking` has everything else."""

from __future__ import annotations

from sampan.engine import asynchronous as aio
from sampan.engine.loop import Loop
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

    def __init__(self, service: aio.Networks, loop: Loop) -> None:
        self._service = service
        self._loop = loop

    def list(self, filters: Filters | None = None) -> list[NetworkSummary]:
        """Networks that match."""
        return self._loop.call(self._service.list(filters))

    def inspect(self, ref: str, *, verbose: bool = False, scope: str = "") -> NetworkInspect:
        """A network and the containers on it."""
        return self._loop.call(self._service.inspect(ref, verbose=verbose, scope=scope))

    def create(self, body: NetworkCreateRequest) -> NetworkCreateResponse:
        """Create a network; Conflict when the name is taken, Forbidden on overlapping pools."""
        return self._loop.call(self._service.create(body))

    def remove(self, ref: str) -> None:
        """Remove a network; Forbidden when predefined or in use."""
        self._loop.call(self._service.remove(ref))

    def connect(self, ref: str, body: NetworkConnectRequest) -> None:
        """Connect a container, live when it runs."""
        self._loop.call(self._service.connect(ref, body))

    def disconnect(self, ref: str, body: NetworkDisconnectRequest) -> None:
        """Disconnect a container, live when it runs."""
        self._loop.call(self._service.disconnect(ref, body))

    def prune(self, filters: Filters | None = None) -> NetworksPruneReport:
        """Remove networks no container uses."""
        return self._loop.call(self._service.prune(filters))
