"""Networks, volumes, events and system of a remote engine, under the embedded one's names."""

from __future__ import annotations

import builtins
import time
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from sampan.client.encoding import filters as encoded
from sampan.client.transport import Transport
from sampan.wire.image import AuthConfig, AuthResponse
from sampan.wire.network import (
    NetworkConnectRequest,
    NetworkCreateRequest,
    NetworkCreateResponse,
    NetworkDisconnectRequest,
    NetworkInspect,
    NetworksPruneReport,
    NetworkSummary,
)
from sampan.wire.options import Filters
from sampan.wire.system import EventMessage, SystemDataUsage, SystemInfo, SystemVersion
from sampan.wire.volume import Volume, VolumeCreateRequest, VolumeListResponse, VolumesPruneReport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.client.api import Query


class Networks:
    """Networks of a remote engine. ``ref`` is a name, an id or a unique id prefix."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, filters: Filters | None = None) -> builtins.list[NetworkSummary]:
        """Networks that match."""
        query: Query = {"filters": encoded(filters)}
        return self._transport.call(builtins.list[NetworkSummary], "GET", "/networks", query)

    def inspect(self, ref: str, *, verbose: bool = False, scope: str = "") -> NetworkInspect:
        """A network and the containers on it."""
        query: Query = {"verbose": verbose, "scope": scope}
        return self._transport.call(NetworkInspect, "GET", f"/networks/{ref}", query)

    def create(self, body: NetworkCreateRequest) -> NetworkCreateResponse:
        """Create a network; Conflict when the name is taken, Forbidden on overlapping pools."""
        return self._transport.call(NetworkCreateResponse, "POST", "/networks/create", None, body)

    def remove(self, ref: str) -> None:
        """Remove a network; Forbidden when predefined or in use."""
        self._transport.do("DELETE", f"/networks/{ref}")

    def connect(self, ref: str, body: NetworkConnectRequest) -> None:
        """Connect a container, live when it runs."""
        self._transport.do("POST", f"/networks/{ref}/connect", None, body)

    def disconnect(self, ref: str, body: NetworkDisconnectRequest) -> None:
        """Disconnect a container, live when it runs."""
        self._transport.do("POST", f"/networks/{ref}/disconnect", None, body)

    def prune(self, filters: Filters | None = None) -> NetworksPruneReport:
        """Remove networks no container uses."""
        query: Query = {"filters": encoded(filters)}
        return self._transport.call(NetworksPruneReport, "POST", "/networks/prune", query)


class Volumes:
    """Volumes of a remote engine."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, filters: Filters | None = None) -> VolumeListResponse:
        """Volumes that match."""
        query: Query = {"filters": encoded(filters)}
        return self._transport.call(VolumeListResponse, "GET", "/volumes", query)

    def inspect(self, name: str) -> Volume:
        """One volume; NotFound ``get x: no such volume``."""
        return self._transport.call(Volume, "GET", f"/volumes/{name}")

    def create(self, body: VolumeCreateRequest) -> Volume:
        """Create a volume, or return the one of that name."""
        return self._transport.call(Volume, "POST", "/volumes/create", None, body)

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume; Conflict when a container refers to it."""
        self._transport.do("DELETE", f"/volumes/{name}", {"force": force})

    def prune(self, filters: Filters | None = None) -> VolumesPruneReport:
        """Remove unused anonymous volumes (all unused with filter ``all=true``)."""
        query: Query = {"filters": encoded(filters)}
        return self._transport.call(VolumesPruneReport, "POST", "/volumes/prune", query)

    def rename(self, name: str, new: str) -> Volume:
        """Give an unused local volume another name; Conflict when either is in use."""
        return self._transport.call(Volume, "POST", f"/volumes/{name}/rename", {"name": new})

    def snapshot(self, name: str, new: str, labels: Mapping[str, str] | None = None) -> Volume:
        """A new volume with what a local one holds now; ``labels`` None takes the original's."""
        body = VolumeCreateRequest(name=new, labels=None if labels is None else dict(labels))
        return self._transport.call(Volume, "POST", f"/volumes/{name}/snapshot", None, body)

    def export(self, name: str) -> Iterator[bytes]:
        """What a volume holds as a tar stream."""
        return self._transport.pieces("GET", f"/volumes/{name}/export")

    def import_(self, name: str, body: Iterable[bytes]) -> None:
        """Extract a tar (plain or compressed) into a volume, over what it holds."""
        headers = {"Content-Type": "application/x-tar"}
        where = f"/volumes/{name}/import"
        with self._transport.opened("POST", where, None, body, headers) as response:
            response.read()

    def usage(self) -> builtins.list[Volume]:
        """Every volume with its size (bytes) and reference count, for ``df``."""
        answer = System(self._transport).df(["volume"])
        items = (answer.volume_usage.items if answer.volume_usage else None) or []
        return msgspec.convert(items, builtins.list[Volume], strict=False)


class Events:
    """The events of a remote engine."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def subscribe(
        self,
        since: float | None = None,
        until: float | None = None,
        filters: Filters | None = None,
    ) -> Iterator[EventMessage]:
        """History from ``since`` on, then live events up to ``until``, both in Unix seconds.

        With neither there is no history; with ``until`` alone it is all that was until then.
        Without ``until`` it never ends.
        """
        query: Query = {
            "since": "" if since is None else f"{since:.9f}",
            "until": "" if until is None else f"{until:.9f}",
            "filters": encoded(filters),
        }
        return self._transport.objects(EventMessage, "GET", "/events", query)


class System:
    """Information about a remote engine."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def info(self) -> SystemInfo:
        """Counts, limits and features."""
        return self._transport.call(SystemInfo, "GET", "/info")

    def version(self) -> SystemVersion:
        """Versions of the engine, its API and the kernel."""
        return self._transport.call(SystemVersion, "GET", "/version")

    def df(
        self, types: builtins.list[str] | None = None, *, verbose: bool = True
    ) -> SystemDataUsage:
        """Disk usage of images, containers, volumes and build cache, in bytes."""
        query: Query = {"type": types or [], "verbose": verbose}
        return self._transport.call(SystemDataUsage, "GET", "/system/df", query)

    def ping(self) -> float:
        """Seconds since the Unix epoch at which the daemon answered."""
        self._transport.do("GET", "/_ping")
        return time.time()

    def auth(self, body: AuthConfig) -> AuthResponse:
        """Check credentials with a registry; Unauthorized when refused."""
        return self._transport.call(AuthResponse, "POST", "/auth", None, body)
