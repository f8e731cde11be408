"""Mounts of images in containers: further snapshots, mounted whole beside the root, or a part.

A whole one is performed with the container's root. A part (``image-subpath``) is looked up inside
the image here and pinned (:mod:`sampan.engine.volumestore`), to be bound like a part of a volume.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack

from sampan.engine.core import Core
from sampan.engine.record import MountRecord
from sampan.engine.table import Container
from sampan.engine.volumestore import pin_name
from sampan.errors import InvalidParameter, NotFound
from sampan.kernel import mount as kernel
from sampan.kernel.openat import beneath
from sampan.model.mount import Mount
from sampan.snapshot.rootfs import detached_mount
from sampan.volume.local import pin, unpin


def snapshot_key(container_id: str, number: int) -> str:
    """The snapshot behind a container's mount of that number."""
    return f"{container_id}-image-{number}"


def whole(core: Core, container: Container) -> tuple[Mount, ...]:
    """Mounts of whole images, to be performed beside the container's root."""
    found: list[Mount] = []
    for number, mount in enumerate(container.record.mounts):
        if mount.type == "image" and not mount.subpath:
            for layer in core.snapshots.mounts(snapshot_key(container.id, number)):
                found.append(
                    Mount(
                        type=layer.type,
                        source=layer.source,
                        destination=mount.destination.lstrip("/"),
                        options=layer.options,
                    )
                )
    return tuple(found)


def pin_parts(
    core: Core, container_id: str, mounts: Sequence[MountRecord], undo: ExitStack
) -> None:
    """Pin the parts of images a container about to start names. Blocks.

    Raises NotFound when an image has nothing at such a path, InvalidParameter when a link there
    leads out of it.
    """
    for number, mount in enumerate(mounts):
        if mount.type != "image" or not mount.subpath:
            continue
        target = core.config.pins / pin_name(container_id, number)
        layers = core.snapshots.mounts(snapshot_key(container_id, number))
        tree = detached_mount(layers, writable=mount.writable)
        try:
            # Attached for a moment: the kernel clones parts of attached trees alone.
            staging = target.with_name(f"{target.name}.whole")
            undo.callback(unpin, staging)
            staging.mkdir(mode=0o700, parents=True, exist_ok=True)
            kernel.move_mount(tree, kernel.AT_FDCWD, str(staging))
            undo.callback(unpin, target)
            part = beneath(tree, mount.subpath)
            try:
                pin(part, target)
            finally:
                os.close(part)
                unpin(staging)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise InvalidParameter(
                    f"path concatenation escapes the base directory, subpath: {mount.subpath}"
                ) from error
            raise NotFound(
                f"cannot access path {mount.subpath} in image {mount.name}: "
                f"{os.strerror(error.errno or 0).lower()}"
            ) from error
        finally:
            os.close(tree)
