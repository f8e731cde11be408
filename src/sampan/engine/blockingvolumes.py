"""The volumes service without ``await`` (:mod:`sampan.engine.blocking`)."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Mapping

from sampan.engine import asynchronous as aio
from sampan.engine.loop import Loop, iterate
from sampan.engine.options import Filters
from sampan.wire.volume import Volume, VolumeCreateRequest, VolumeListResponse, VolumesPruneReport


class Volumes:
    """Volumes of one engine."""

    def __init__(self, service: aio.Volumes, loop: Loop) -> None:
        self._service = service
        self._loop = loop

    def list(self, filters: Filters | None = None) -> VolumeListResponse:
        """Volumes that match."""
        return self._loop.call(self._service.list(filters))

    def inspect(self, name: str) -> Volume:
        """One volume; NotFound ``get x: no such volume``."""
        return self._loop.call(self._service.inspect(name))

    def create(self, body: VolumeCreateRequest) -> Volume:
        """Create a volume, or return the one of that name."""
        return self._loop.call(self._service.create(body))

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume; Conflict when a container refers to it."""
        self._loop.call(self._service.remove(name, force=force))

    def prune(self, filters: Filters | None = None) -> VolumesPruneReport:
        """Remove unused anonymous volumes (all unused with filter ``all=true``)."""
        return self._loop.call(self._service.prune(filters))

    def usage(self) -> builtins.list[Volume]:
        """Every volume with its size (bytes) and reference count, for ``df``."""
        return self._loop.call(self._service.usage())

    def rename(self, name: str, new: str) -> Volume:
        """Give an unused local volume another name; Conflict when either is in use."""
        return self._loop.call(self._service.rename(name, new))

    def snapshot(self, name: str, new: str, labels: Mapping[str, str] | None = None) -> Volume:
        """A new volume with what a local one holds now; ``labels`` None takes the original's.

        Programs that write meanwhile should be paused: files are copied one after the other.
        """
        return self._loop.call(self._service.snapshot(name, new, labels))

    def export(self, name: str) -> Iterator[bytes]:
        """What a volume holds as a tar stream."""
        return self._loop.iterate(self._loop.call(self._service.export(name)))

    def import_(self, name: str, body: Iterable[bytes]) -> None:
        """Extract a tar (plain or compressed) into a volume, over what it holds."""
        self._loop.call(self._service.import_(name, iterate(body)))
