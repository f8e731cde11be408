"""The volumes service: volumes by name over the volume drivers."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Iterator, Mapping

from sampan.engine import clock, imageflows
from sampan.engine.core import Core
from sampan.engine.filters import boolean, check_filters, match_labels
from sampan.engine.options import Filters
from sampan.errors import Conflict, InvalidParameter, NotFound, Unsupported
from sampan.layer import archive_put
from sampan.layer.model import Readable
from sampan.snapshot import rootfs
from sampan.volume.model import Volume as LocalVolume
from sampan.volume.prune import prunable
from sampan.wire.volume import (
    Volume,
    VolumeCreateRequest,
    VolumeListResponse,
    VolumesPruneReport,
    VolumeUsageData,
)


class Volumes:
    """Volumes of one engine."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def list(self, filters: Filters | None = None) -> VolumeListResponse:
        """Volumes that match."""
        checked = check_filters(filters, ("dangling", "driver", "label", "label!", "name"))
        dangling = boolean(checked, "dangling")
        names = checked.get("name", ())
        drivers = checked.get("driver", ())
        used = self._used()
        found, warnings = await self._core.threads.run(self._core.volumes.list)
        return VolumeListResponse(
            volumes=[
                wire_volume(volume)
                for volume in found
                if (not names or any(name in volume.name for name in names))
                and (not drivers or volume.driver in drivers)
                and (dangling is None or dangling == (volume.name not in used))
                and match_labels(volume.labels, checked)
            ],
            warnings=list(warnings),
        )

    async def inspect(self, name: str) -> Volume:
        """One volume; NotFound ``get x: no such volume``."""
        return wire_volume(await self._core.threads.run(self._core.volumes.get, name))

    async def create(self, body: VolumeCreateRequest) -> Volume:
        """Create a volume, or return the one of that name."""
        if body.cluster_volume_spec is not None:
            raise Unsupported("cluster volumes need swarm mode, which this engine does not have")
        if body.name is not None and len(body.name) == 1:
            raise InvalidParameter(
                "volume name is too short, names should be at least two alphanumeric characters"
            )
        volume, made = await self._core.threads.run(
            self._core.volumes.ensure,
            body.name or self._core.new_id(),
            body.driver or "",
            body.driver_opts or {},
            body.labels or {},
            anonymous=not body.name,
        )
        if made:
            self._core.events.publish("volume", "create", volume.name, {"driver": volume.driver})
        return wire_volume(volume)

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume; Conflict when a container refers to it."""
        self._check_unused("remove", name)
        driver = await self._core.threads.run(self._core.volumes.remove, name, force=force)
        if driver:
            self._core.events.publish("volume", "destroy", name, {"driver": driver})

    async def rename(self, name: str, new: str) -> Volume:
        """Give an unused local volume another name; Conflict when either is in use."""
        self._check_unused("rename", name)
        volume = await self._core.threads.run(self._core.volumes.local.rename, name, new)
        self._publish(volume, "rename", oldName=name)
        return wire_volume(volume)

    async def snapshot(
        self, name: str, new: str, labels: Mapping[str, str] | None = None
    ) -> Volume:
        """A new volume with what a local one holds now; ``labels`` None takes the original's.

        Programs that write meanwhile should be paused: files are copied one after the other.
        """
        created = clock.rfc3339(clock.now() // 1_000_000_000 * 1_000_000_000)

        def copy() -> LocalVolume:
            local = self._core.volumes.local
            local.mount(name)
            return local.snapshot(name, new, created_at=created, labels=labels)

        volume = await self._core.threads.run_long(copy)
        self._publish(volume, "create", snapshotOf=name)
        return wire_volume(volume)

    async def export(self, name: str) -> AsyncIterator[bytes]:
        """What a volume holds as a tar stream."""
        volume = await self._core.threads.run(self._core.volumes.get, name)
        user = self._core.new_id()

        def chunks() -> Iterator[bytes]:
            with self._core.volumes.opened(name, user) as root:
                yield from rootfs.export(root)

        self._publish(volume, "export")
        return self._core.threads.iterate(chunks())

    async def import_(self, name: str, body: AsyncIterator[bytes]) -> None:
        """Extract a tar (plain or compressed) into a volume, over what it holds."""
        volume = await self._core.threads.run(self._core.volumes.get, name)
        user = self._core.new_id()

        def extract(stream: Readable) -> None:
            with self._core.volumes.opened(name, user) as root:
                archive_put(root, "/", stream)

        await imageflows.consume(self._core, body, extract)
        self._publish(volume, "import")

    def _publish(self, volume: LocalVolume, action: str, **attributes: str) -> None:
        shown = {"driver": volume.driver, **attributes}
        self._core.events.publish("volume", action, volume.name, shown)

    def _check_unused(self, doing: str, name: str) -> None:
        used = self._core.volumes.references(self._core.containers, name)
        if used:
            raise Conflict(f"{doing} {name}: volume is in use - [{', '.join(used)}]")

    async def prune(self, filters: Filters | None = None) -> VolumesPruneReport:
        """Remove unused anonymous volumes (all unused with filter ``all=true``)."""
        checked = check_filters(filters, ("label", "label!", "all"))
        volumes = await self._core.threads.run(self._core.volumes.local.list)
        doomed = prunable(
            volumes,
            self._used(),
            everything=bool(boolean(checked, "all")),
            labels=checked.get("label", ()),
            without_labels=checked.get("label!", ()),
        )
        deleted, freed = [], 0
        for volume in doomed:
            if self._core.volumes.references(self._core.containers, volume.name):
                continue  # taken into use since
            freed += await self._core.threads.run(self._erase, volume.name)
            deleted.append(volume.name)
            self._core.events.publish("volume", "destroy", volume.name, {"driver": volume.driver})
        self._core.events.publish("volume", "prune", "", {"reclaimed": str(freed)})
        return VolumesPruneReport(volumes_deleted=deleted, space_reclaimed=freed)

    def _erase(self, name: str) -> int:
        """Remove a volume; returns the bytes it took."""
        try:
            size = self._core.volumes.local.usage(name)
        except NotFound:
            return 0
        self._core.volumes.remove(name, force=True)
        return size

    def _used(self) -> set[str]:
        return {
            mount.name
            for container in self._core.containers
            for mount in container.record.mounts
            if mount.type == "volume"
        }

    async def usage(self) -> builtins.list[Volume]:
        """Every volume with its size (bytes) and reference count, for ``df``."""
        found, _ = await self._core.threads.run(self._core.volumes.list)
        measured = []
        for volume in found:
            size = await self._core.threads.run_long(self._core.volumes.usage, volume)
            references = len(self._core.volumes.references(self._core.containers, volume.name))
            usage = VolumeUsageData(size=size, ref_count=references)
            measured.append(wire_volume(volume, usage))
        return measured


def wire_volume(volume: LocalVolume, usage: VolumeUsageData | None = None) -> Volume:
    """A volume as the API shows it."""
    return Volume(
        name=volume.name,
        driver=volume.driver,
        mountpoint=str(volume.mountpoint),
        created_at=volume.created_at,
        labels=dict(volume.labels),
        scope=volume.scope,
        status=dict(volume.status) or None,
        options=dict(volume.options),
        usage_data=usage,
    )
