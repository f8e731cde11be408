"""Volumes in containers: made, filled, mounted while used, pinned where a path could change.

What a container binds as a volume of a plugin, or as a part of a volume, is mounted for it at
``<exec root>/pins/<container>-<number>``: nobody can exchange it meanwhile, and nothing is ever
deleted below that directory but empty mount points.
"""

from __future__ import annotations

import builtins
import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import msgspec

from sampan.engine import clock, idmapspec
from sampan.engine.record import MountRecord
from sampan.engine.table import Container
from sampan.errors import Conflict, NotFound, SampanError
from sampan.kernel.openat import in_root
from sampan.model.idmap import IdMap
from sampan.model.mount import Mount
from sampan.plugin.client import Plugins
from sampan.snapshot.rootfs import detached_mount
from sampan.volume.local import LocalVolumes, pin, subpath_of, unpin
from sampan.volume.model import ANONYMOUS_LABEL, Volume
from sampan.volume.remote import INTERFACE, RemoteVolumes


class VolumeStore:
    """All volumes; methods block and may be called from any thread."""

    def __init__(self, root: Path, pins: Path, plugins: Plugins) -> None:
        """``root`` keeps volumes, ``pins`` (on a tmpfs) what running containers have of them."""
        self.local = LocalVolumes(root)
        self._pins = pins
        self._plugins = plugins
        self._remotes: dict[str, RemoteVolumes] = {}

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

        ``driver`` "" means the one the volume has, ``local`` for a new one. Raises NotFound for a
        driver that is not there, Conflict when the name is another driver's volume's.
        """
        with contextlib.suppress(NotFound):
            found = self.local.get(name)
            if driver and found.driver != driver:
                raise Conflict(
                    f"create {name}: conflict: volume name must be unique "
                    f"(it is of driver {found.driver})"
                )
            return found, False
        created = clock.rfc3339(clock.now() // 1_000_000_000 * 1_000_000_000)
        all_labels = {**labels, **({ANONYMOUS_LABEL: ""} if anonymous else {})}
        if driver in ("", "local"):
            made = self.local.create(name, created_at=created, options=options, labels=all_labels)
            return made, True
        remote = self._remote(driver, patient=True)
        # The plugin's own, perhaps of another host: not ours to make, but to be used.
        with contextlib.suppress(NotFound):
            return remote.get(name), False
        remote.create(name, options)
        try:
            made = self.local.record(
                name, driver, created_at=created, options=options, labels=all_labels
            )
        except SampanError:
            remote.remove(name)
            raise
        return replace(made, scope=remote.scope()), True

    def _remote(self, driver: str, *, patient: bool = False) -> RemoteVolumes:
        try:
            plugin = self._plugins.find(driver, INTERFACE, patient=patient)
        except NotFound as error:
            raise NotFound(f"error looking up volume plugin {driver}: {error.message}") from None
        known = self._remotes.get(driver)
        if known is None or known.plugin is not plugin:
            known = self._remotes[driver] = RemoteVolumes(plugin)
        return known

    def get(self, name: str) -> Volume:
        """The volume ``name``, a plugin's with what the plugin says of it now; NotFound."""
        try:
            found = self.local.get(name)
        except NotFound:
            for driver in self._plugins.names(INTERFACE):
                with contextlib.suppress(SampanError):
                    return self._remote(driver).get(name)
            raise
        if found.driver == "local":
            return found
        remote = self._remote(found.driver)
        return _merged(found, remote.get(name), remote.scope())

    def list(self) -> tuple[tuple[Volume, ...], tuple[str, ...]]:
        """Every volume, by name, and a warning for every plugin that does not tell its own."""
        found = {volume.name: volume for volume in self.local.list()}
        warnings = []
        drivers = {v.driver for v in found.values()} | set(self._plugins.names(INTERFACE))
        for driver in sorted(drivers - {"local"}):
            try:
                remote = self._remote(driver)
                scope = remote.scope()
                for volume in remote.list():
                    known = found.get(volume.name)
                    if known is None or known.driver == driver:
                        found[volume.name] = _merged(known or volume, volume, scope)
            except SampanError as error:
                warnings.append(error.message)
        return tuple(found[name] for name in sorted(found)), tuple(warnings)

    def remove(self, name: str, *, force: bool = False) -> str:
        """Remove a volume nobody refers to; ``force`` ignores one that does not exist, and
        forgets a plugin's although the plugin cannot be asked. Returns its driver, or ""."""
        try:
            volume = self.get(name) if not force else self._found(name)
        except NotFound:
            if force:
                return ""
            raise
        if volume.driver == "local":
            self.local.unmount(name)
            self.local.remove(name)
            return volume.driver
        try:
            self._remote(volume.driver).remove(name)
        except SampanError:
            if not force:
                raise
        self.local.forget(name)
        return volume.driver

    def _found(self, name: str) -> Volume:
        """As :meth:`get`, but a recorded volume needs no plugin that answers."""
        try:
            return self.local.get(name)
        except NotFound:
            return self.get(name)

    @contextlib.contextmanager
    def opened(self, name: str, user: str) -> Iterator[int]:
        """A descriptor of the directory a volume's data is in, mounted meanwhile if need be."""
        volume = self.get(name)
        with ExitStack() as undo:
            if volume.driver == "local":
                directory = self.local.mount(name)
            else:
                remote = self._remote(volume.driver)
                directory = remote.mount(name, user)
                undo.callback(remote.unmount, name, user)
            root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            undo.callback(os.close, root)
            yield root

    def usage(self, volume: Volume) -> int:
        """Bytes a volume takes on disk; -1 where only its plugin could know."""
        return self.local.usage(volume.name) if volume.driver == "local" else -1

    @staticmethod
    def references(containers: Iterable[Container], name: str) -> builtins.list[str]:
        """Ids of the containers that mount the volume."""
        return [
            container.id
            for container in containers
            if any(m.type == "volume" and m.name == name for m in container.record.mounts)
        ]

    def copy_up(self, volume: Volume, root: Sequence[Mount], mount: MountRecord, user: str) -> None:
        """Fill an empty volume, or part of one, with what the image has where it is mounted.

        Owners and modes too. A plugin's volume is mounted meanwhile for ``user``, the container.
        """
        with ExitStack() as undo:
            tree = detached_mount(root)
            undo.callback(os.close, tree)
            if not _has_directory(tree, mount.destination):
                return
            directory = volume.mountpoint
            if volume.driver != "local":
                remote = self._remote(volume.driver)
                directory = remote.mount(volume.name, user)
                undo.callback(remote.unmount, volume.name, user)
            elif volume.options:
                directory = self.local.mount(volume.name)
            if not mount.subpath and os.listdir(directory):
                return
            self.local.copy_up(volume.name, tree, mount.destination, directory, mount.subpath)

    def prepare(
        self,
        container_id: str,
        mounts: Sequence[MountRecord],
        undo: ExitStack,
        ids: IdMap | None = None,
    ) -> None:
        """Make what the mounts of a container about to start name as their sources.

        Volumes with options are mounted, missing ``-v`` directories made, parts of volumes and
        plugins' volumes pinned. ``ids``: those of the container's user namespace.
        """
        root = (ids.root if ids is not None else None) or (0, 0)
        for number, mount in enumerate(mounts):
            if mount.type == "bind" and mount.create_source:
                make_bind_source(mount.source, (0, 0) if mount.idmap else root)
            elif mount.type == "volume" and _pinned(mount):
                self._pin(container_id, number, mount, undo)
            elif mount.type == "volume":
                self.local.mount(mount.name)

    def _pin(self, container_id: str, number: int, mount: MountRecord, undo: ExitStack) -> None:
        if mount.driver == "local":
            directory = self.local.mount(mount.name)
        else:
            remote = self._remote(mount.driver, patient=True)
            directory = remote.mount(mount.name, container_id)
            undo.callback(remote.unmount, mount.name, container_id)
        target = self._pins / pin_name(container_id, number)
        part = subpath_of(directory, mount.name, mount.subpath)
        try:
            unpin(target)
            undo.callback(unpin, target)
            pin(part, target)
        finally:
            os.close(part)

    def release(self, container: Container, others: Iterable[Container]) -> None:
        """A container has stopped: unpin its parts, unmount volumes no running one uses.

        Raises the first error, after having tried everything.
        """
        used = {
            mount.name
            for other in others
            if other.live is not None and other is not container
            for mount in other.record.mounts
            if mount.type == "volume"
        }
        failed: SampanError | None = None
        for number, mount in enumerate(container.record.mounts):
            if _pinned(mount):
                unpin(self._pins / pin_name(container.id, number))
            if mount.type != "volume":
                continue
            try:
                if mount.driver not in ("", "local"):
                    self._remote(mount.driver).unmount(mount.name, container.id)
                elif mount.name not in used:
                    self.local.unmount(mount.name)
            except SampanError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def sweep(self, running: Sequence[Container]) -> None:
        """Undo what is left of containers that ended while no engine watched."""
        kept = {container.id for container in running}
        if self._pins.is_dir():
            for entry in os.listdir(self._pins):
                if entry.rpartition("-")[0] not in kept:
                    unpin(self._pins / entry)
        used = {mount.name for container in running for mount in container.record.mounts}
        for volume in self.local.list():
            if volume.options and volume.driver == "local" and volume.name not in used:
                self.local.unmount(volume.name)


def _has_directory(root: int, path: str) -> bool:
    try:
        os.close(in_root(root, path, os.O_PATH | os.O_DIRECTORY))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def pin_name(container_id: str, number: int) -> str:
    """The name of the pin of a container's mount."""
    return f"{container_id}-{number}"


def _pinned(mount: MountRecord) -> bool:
    if mount.type == "image":
        return bool(mount.subpath)
    return mount.type == "volume" and (bool(mount.subpath) or mount.driver not in ("", "local"))


def _merged(known: Volume, told: Volume, scope: str) -> Volume:
    """A plugin's volume: our labels and options, the plugin's place and status."""
    return Volume(
        name=known.name,
        mountpoint=told.mountpoint,
        created_at=told.created_at or known.created_at,
        driver=known.driver,
        scope=scope,
        labels=known.labels,
        options=known.options,
        status=told.status,
    )


def with_sources(mounts: Sequence[MountRecord], container_id: str, pins: Path) -> list[MountRecord]:
    """The mounts with the sources that will have been made by the time they are performed (pure).

    A part of an image is bound like any directory.
    """
    found = []
    for number, mount in enumerate(mounts):
        if _pinned(mount):
            source = str(pins / pin_name(container_id, number))
            mount = msgspec.structs.replace(mount, source=source)
            if mount.type == "image":
                mount = msgspec.structs.replace(
                    mount, type="bind", propagation="rprivate", idmap=idmapspec.TRY
                )
        found.append(mount)
    return found


def make_bind_source(path: str, owner: tuple[int, int] = (0, 0)) -> None:
    """Make a missing directory to bind, as ``-v`` promises; raises SampanError when it cannot."""
    try:
        if not os.path.lexists(path):
            os.makedirs(path, 0o755, exist_ok=True)
            if owner != (0, 0):
                os.chown(path, *owner)
    except OSError as error:
        raise SampanError(
            f"error while creating mount source path '{path}': {error.strerror}"
        ) from error
