"""The volumes service: rows of volumes over the local volume driver."""

from __future__ import annotations

from sampan.engine.options import Filters
from sampan.wire.volume import Volume, VolumeCreateRequest, VolumeListResponse, VolumesPruneReport


class Volumes:
    """Volumes of one engine."""

    async def list(self, filters: Filters | None = None) -> VolumeListResponse:
        """Volumes that match."""
        raise NotImplementedError

    async def inspect(self, name: str) -> Volume:
        """One volume; NotFound ``get x: no such volume``."""
        raise NotImplementedError

    async def create(self, body: VolumeCreateRequest) -> Volume:
        """Create a volume, or return the one of that name."""
        raise NotImplementedError

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume; Conflict when a container refers to it."""
        raise NotImplementedError

    async def prune(self, filters: Filters | None = None) -> VolumesPruneReport:
        """Remove unused anonymous volumes (all unused with filter ``all=true``)."""
        raise NotImplementedError
