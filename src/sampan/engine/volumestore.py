"""Volumes in containers: made, filled, mounted while used, pinned where only a part is wanted."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from sampan.engine import clock
from sampan.engine.record import MountRecord
from sampan.engine.table import Container
from sampan.errors import NotFound, SampanError
from sampan.model.mount import Mount
from sampan.snapshot.rootfs import detached_mount
from sampan.volume.local import LocalVolumes, unpin
from sampan.volume.model import ANONYMOUS_LABEL, Volume


class VolumeStore:
    """All volumes; methods block and may be called from any thread."""

    def __init__(self, root: Path) -> None:
        self.local = LocalVolumes(root)

    def ensure(
        self,
        name: str,
        driver: str,
        options: Mapping[str, str],
        labels: Mapping[str, str],
        *,
        anonymous: bool = False,
    ) -> tuple[Volume, bool]:
        """The volume of that name, made if need be; and whether it was.

        Raises NotFound for a driver that is not there.
        """
        if driver not in ("", "local"):
            raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
        try:
            return self.local.get(name), False
        except NotFound:
            made = self.local.create(
                name,
                created_at=clock.rfc3339(clock.now() // 1_000_000_000 * 1_000_000_000),
                options=options,
                labels={**labels, **({ANONYMOUS_LABEL: ""} if anonymous else {})},
            )
            return made, True

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume nobody refers to; ``force`` ignores one that does not exist."""
        try:
            self.local.unmount(name)
            self.local.remove(name)
        except NotFound:
            if not force:
                raise

    @staticmethod
    def references(containers: Iterable[Container], name: str) -> list[str]:
        """Ids of the containers that mount the volume."""
        return [
            container.id
            for container in containers
            if any(m.type == "volume" and m.name == name for m in container.record.mounts)
        ]

    def copy_up(self, volume: Volume, root: Sequence[Mount], destination: str) -> None:
        """Fill an empty volume with what the image has at ``destination``, owners and modes too."""
        if os.listdir(volume.mountpoint):
            return
        tree = detached_mount(root)
        try:
            self.local.copy_up(volume.name, tree, destination)
        finally:
            os.close(tree)

    def prepare(self, mounts: Sequence[MountRecord], directory: Path, undo: ExitStack) -> None:
        """Make what the mounts of a container about to start name as their sources.

        Volumes with options are mounted, missing ``-v`` directories made, parts of volumes pinned
        below ``directory`` so that nobody can exchange them meanwhile.
        """
        for number, mount in enumerate(mounts):
            if mount.type == "bind" and mount.create_source:
                make_bind_source(mount.source)
            elif mount.type == "volume":
                self.local.mount(mount.name)
                if mount.subpath:
                    pin = directory / f"volume-{number}"
                    self.local.pin_subpath(mount.name, mount.subpath, pin)
                    undo.callback(unpin, pin)

    def release(self, container: Container, directory: Path, others: Iterable[Container]) -> None:
        """A container has stopped: unpin its parts, unmount volumes no running one uses."""
        used = {
            mount.name
            for other in others
            if other.run is not None and other is not container
            for mount in other.record.mounts
            if mount.type == "volume"
        }
        for number, mount in enumerate(container.record.mounts):
            if mount.type != "volume":
                continue
            if mount.subpath:
                unpin(directory / f"volume-{number}")
            if mount.name not in used:
                self.local.unmount(mount.name)


def with_sources(mounts: Sequence[MountRecord], directory: Path) -> list[MountRecord]:
    """The mounts with the sources :meth:`VolumeStore.prepare` will have made (pure)."""
    return [
        msgspec.structs.replace(mount, source=str(directory / f"volume-{number}"))
        if mount.type == "volume" and mount.subpath
        else mount
        for number, mount in enumerate(mounts)
    ]


def make_bind_source(path: str) -> None:
    """Make a missing directory to bind, as ``-v`` promises; raises SampanError when it cannot."""
    try:
        if not os.path.lexists(path):
            os.makedirs(path, 0o755, exist_ok=True)
    except OSError as error:
        raise SampanError(
            f"error while creating mount source path '{path}': {error.strerror}"
        ) from error
