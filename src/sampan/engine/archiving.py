"""``docker cp``, ``export`` and ``diff``: reading and writing a container's files from outside."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence

from sampan.engine import clock, imageflows, roots
from sampan.engine.core import Core
from sampan.engine.options import PathStat
from sampan.engine.roots import MOUNT_POINTS
from sampan.engine.table import Container
from sampan.engine.users import lookup
from sampan.errors import Forbidden, InvalidParameter
from sampan.kernel.mount import mount_id_of
from sampan.kernel.openat import in_root
from sampan.layer import archive_get, archive_put, archive_stat
from sampan.layer.model import Change, ChangeKind, Readable
from sampan.layer.model import PathStat as LayerStat
from sampan.snapshot import rootfs
from sampan.wire.container import FilesystemChange


def wire_stat(stat: LayerStat) -> PathStat:
    """A stat as the engine's interface has it."""
    return PathStat(
        name=stat.name,
        size=stat.size,
        mode=stat.mode,
        mtime=clock.rfc3339(stat.mtime_ns),
        link_target=stat.link_target,
    )


async def stat(core: Core, container: Container, path: str, *, ref: str) -> PathStat:
    """See :meth:`sampan.engine.containers.Containers.archive_stat`."""
    _check(path)

    def work() -> LayerStat:
        with roots.root(core, container) as root:
            return archive_stat(root.fd, path, container=ref)

    return wire_stat(await core.threads.run(work))


def _check(path: str) -> None:
    if not path:
        raise InvalidParameter("bad parameter: path cannot be empty")


async def get(
    core: Core, container: Container, path: str, *, ref: str
) -> tuple[PathStat, AsyncIterator[bytes]]:
    """See :meth:`sampan.engine.containers.Containers.archive_get`."""
    _check(path)
    source = _reading(core, container, path, ref)
    first = await core.threads.run(next, source)
    assert isinstance(first, LayerStat)
    core.publish(container, "archive-path", path=path)
    return wire_stat(first), core.threads.iterate(_chunks(source))


def _reading(core: Core, container: Container, path: str, ref: str) -> Iterator[LayerStat | bytes]:
    """The stat, then the tar; the root stays open meanwhile."""
    with roots.root(core, container) as root:
        found, chunks = archive_get(root.fd, path, container=ref, ids=root.ids)
        yield found
        yield from chunks


def _chunks(source: Iterator[LayerStat | bytes]) -> Iterator[bytes]:
    for item in source:
        if isinstance(item, bytes | bytearray | memoryview):
            yield bytes(item)


async def put(
    core: Core,
    container: Container,
    path: str,
    body: AsyncIterator[bytes],
    *,
    no_overwrite_dir_non_dir: bool,
    copy_uid_gid: bool,
    ref: str,
) -> None:
    """See :meth:`sampan.engine.containers.Containers.archive_put`."""
    _check(path)
    frozen = bool(container.record.host_config.readonly_rootfs)
    # as dockerd: owners are as sent, unless the container's program has a user, who gets all
    user = container.record.config.user if copy_uid_gid else ""

    def work(stream: Readable) -> None:
        with roots.root(core, container, writable=True) as root, roots.acting_inside(root):
            _check_writable(root.fd, path, frozen=frozen)
            archive_put(
                root.fd,
                path,
                stream,
                container=ref,
                no_overwrite_dir_non_dir=no_overwrite_dir_non_dir,
                owner=lookup(root.fd, user) if user else None,
                ids=root.ids,
            )

    await imageflows.consume(core, body, work)
    core.publish(container, "extract-to-dir", path=path)


def _check_writable(root: int, path: str, *, frozen: bool) -> None:
    """Raise Forbidden unless files may be put into ``path``, wherever its links lead: the root may
    be ``frozen`` (``--read-only``), a mount in it read-only."""
    try:
        directory = in_root(root, path, os.O_PATH)
    except OSError:
        return  # the extraction says what is wrong with it
    try:
        if mount_id_of(directory) == mount_id_of(root):
            if frozen:
                raise Forbidden("container rootfs is marked read-only")
        elif os.fstatvfs(directory).f_flag & os.ST_RDONLY:
            raise Forbidden("mounted volume is marked read-only")
    finally:
        os.close(directory)


async def changes(core: Core, container: Container) -> list[FilesystemChange]:
    """See :meth:`sampan.engine.containers.Containers.changes`."""
    found = await core.threads.run_long(rootfs.changes, core.snapshots, container.id)
    return [
        FilesystemChange(path=change.path.decode(errors="replace"), kind=int(change.kind))
        for change in without_mount_points(found)
    ]


def without_mount_points(found: Sequence[Change]) -> list[Change]:
    """The changes a user made: not mount points of ours, nor what only they changed."""
    own = {
        change.path
        for change in found
        if change.path[1:] in MOUNT_POINTS and change.kind is ChangeKind.ADDED
    }
    kept = [change for change in found if change.path not in own]
    parents = {path.rpartition(b"/")[0] for path in own} - {b""}
    used = {parent for parent in parents if any(c.path.startswith(parent + b"/") for c in kept)}
    return [
        change
        for change in kept
        if change.path not in parents - used or change.kind is ChangeKind.DELETED
    ]


async def export(core: Core, container: Container) -> AsyncIterator[bytes]:
    """See :meth:`sampan.engine.containers.Containers.export`."""

    def chunks() -> Iterator[bytes]:
        # The root alone, as dockerd exports it: not what is mounted in it (/proc, volumes).
        root = roots.bare(core, container)
        try:
            yield from rootfs.export(root)
        finally:
            os.close(root)

    core.publish(container, "export")
    return core.threads.iterate(chunks())
