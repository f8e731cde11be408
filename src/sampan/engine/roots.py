"""A container's root as a directory descriptor: running or stopped, never a path."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import NamedTuple

from sampan.engine import naming
from sampan.engine.core import Core
from sampan.engine.table import Container
from sampan.errors import SampanError
from sampan.kernel.fsids import file_system_ids
from sampan.kernel.openat import in_root, make_directories, make_file
from sampan.layer.lowers import Lowers
from sampan.model.idmap import IdMap
from sampan.model.mount import Mount
from sampan.snapshot.rootfs import detached_mount, layer_destination

#: what every container's root has beside its image, as dockerd's init layer has: a file programs
#: look for to learn that they run in a container, and mount points; paths are relative
MOUNT_POINTS = frozenset(
    {
        b".dockerenv",
        b"dev",
        b"etc/hostname",
        b"etc/hosts",
        b"etc/resolv.conf",
        b"proc",
        b"sys",
    }
)

_ETC = sorted(path for path in MOUNT_POINTS if path.startswith(b"etc/"))
_FILE_MODE = 0o644


def mark(core: Core, container_id: str) -> None:
    """Put into a new container's root what its image lacks of :data:`MOUNT_POINTS` below /etc.

    A start would make them; made here, beside the overlay, they are in no start's way.
    """
    destination = layer_destination(core.snapshots.mounts(container_id))
    (destination.root / ".dockerenv").touch(0o755)
    if not destination.lowers:
        return
    with Lowers(destination.lowers) as image:
        etc = image.directory(b"etc")
        wanted = [path for path in _ETC if image.lookup(path) is None]
    if etc is None or not wanted:
        return
    # The overlay shows the upper directory's attributes where both have one.
    directory = destination.root / "etc"
    directory.mkdir(mode=stat.S_IMODE(etc.st_mode))
    for path in wanted:
        (destination.root / os.fsdecode(path)).touch(_FILE_MODE)
    directory.chmod(stat.S_IMODE(etc.st_mode))
    os.chown(directory, etc.st_uid, etc.st_gid)
    os.utime(directory, ns=(etc.st_atime_ns, etc.st_mtime_ns))


def make_working_directory(core: Core, container_id: str, path: str) -> None:
    """Make the directory a new container's program starts in, unless it is there. Blocks.

    Raises SampanError when something else is in its place.
    """
    root = detached_mount(core.snapshots.mounts(container_id), writable=True)
    try:
        os.close(make_directories(root, path))
    except NotADirectoryError as error:
        raise SampanError(f"Cannot mkdir: {path} is not a directory") from error
    finally:
        os.close(root)


class Root(NamedTuple):
    """A root directory; ``ids`` when its owners are seen from outside its user namespace."""

    fd: int
    ids: IdMap | None


@contextmanager
def root(core: Core, container: Container, *, writable: bool = False) -> Iterator[Root]:
    """The root directory with the container's volumes and binds in it. Blocks.

    A running container's is reached through its first process, so what is mounted inside is seen
    as the program sees it; a stopped one's is mounted detached, on no mount point, by one at a
    time: a second overlay that writes to an upper directory takes the first one's work directory.
    """
    opened = _live(container)
    with ExitStack() as held:
        if opened is None:
            held.enter_context(container.mounting)
            opened = _mounted(core, container, writable=writable)
            if not writable:
                held.close()
        try:
            yield opened
        finally:
            os.close(opened.fd)


@contextmanager
def acting_inside(root: Root) -> Iterator[None]:
    """While inside, this thread makes files in ``root`` as the container's root does."""
    ids = root.ids.root if root.ids is not None else None
    with file_system_ids(*ids) if ids is not None else nullcontext():
        yield


def _make_mount_points(mounts: Sequence[Mount], own: Sequence[Mount]) -> None:
    """What a container that never ran has no mount points for gets them, as its start would."""
    root = detached_mount(mounts, writable=True)
    try:
        for mount in own:
            try:
                os.close(in_root(root, mount.destination))
                continue
            except FileNotFoundError:
                make = make_directories if os.path.isdir(mount.source) else make_file
            os.close(make(root, mount.destination))
    finally:
        os.close(root)


def _name_files(core: Core, container: Container) -> list[Mount]:
    """The files of its last run over those in /etc, unless a mount of its own is there."""
    taken = {mount.destination for mount in container.record.mounts}
    return [
        Mount(type="bind", source=source, destination=target.lstrip("/"), options=("bind", "rw"))
        for target, source in naming.bindings(core.directory(container.id)).items()
        if target not in taken and os.path.exists(source)
    ]


def bare(core: Core, container: Container) -> int:
    """The root directory, read-only, nothing mounted in it; the caller closes it. Blocks."""
    try:
        return detached_mount(core.snapshots.mounts(container.id))
    except OSError as error:
        raise _cannot_open(container, error) from error


def _live(container: Container) -> Root | None:
    """The root of a container that runs, through its first process."""
    run = container.live
    if run is None:
        return None
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return Root(os.open(f"/proc/{container.state.pid}/root", flags), run.id_map)
    except FileNotFoundError:
        return None  # it has just ended: what it left counts
    except OSError as error:
        raise _cannot_open(container, error) from error


def _mounted(core: Core, container: Container, *, writable: bool) -> Root:
    """The root of a container that does not run."""
    try:
        own = [
            Mount(
                type="bind",
                source=mount.source,
                destination=mount.destination.lstrip("/"),
                options=("rbind", "rw" if mount.writable else "ro"),
            )
            for mount in container.record.mounts
            if mount.type in ("bind", "volume") and mount.source
        ]
        own += _name_files(core, container)
        if own:
            _make_mount_points(core.snapshots.mounts(container.id), own)
        # Asked for once more: each answer is good for one mount of a volatile snapshot.
        mounts = [*core.snapshots.mounts(container.id), *own]
        return Root(detached_mount(mounts, writable=writable), None)
    except OSError as error:
        raise _cannot_open(container, error) from error


def _cannot_open(container: Container, error: OSError) -> SampanError:
    return SampanError(f"cannot open the root of container {container.id}: {error.strerror}")
