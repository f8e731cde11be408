"""An image's layers looked at singly: what they hold, what they changed, and as a mount."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from sampan.engine.core import Core
from sampan.engine.creation import find_image
from sampan.engine.imageremoval import mount_key
from sampan.errors import Conflict, InvalidParameter, NotFound
from sampan.image import Image
from sampan.layer.diff import changes_trees
from sampan.layer.model import Change
from sampan.layer.tree import DIRECTORY_FLAGS
from sampan.model.digest import Digest
from sampan.snapshot.rootfs import detached_mount
from sampan.wire.container import FilesystemChange
from sampan.wire.image import ImageLayer, ImageMount


async def layers(core: Core, ref: str, platform: str | None) -> list[ImageLayer]:
    """See :meth:`sampan.engine.images.Images.layers`."""
    _, image = await find_image(core, ref, platform)
    return await core.threads.run(_layers, core, image)


def _layers(core: Core, image: Image) -> list[ImageLayer]:
    found = []
    parts = zip(image.manifest.layers, image.config.diff_ids, image.chain_ids, strict=True)
    for layer, diff_id, chain_id in parts:
        key = str(chain_id)
        unpacked = core.snapshots.usage(key).size if core.snapshots.exists(key) else None
        found.append(
            ImageLayer(
                digest=str(layer.digest),
                diff_id=str(diff_id),
                chain_id=key,
                media_type=layer.media_type,
                content_size=layer.size,
                size=unpacked,
            )
        )
    return found


async def changes(core: Core, ref: str, since: str) -> list[FilesystemChange]:
    """See :meth:`sampan.engine.images.Images.changes`."""
    _, image = await find_image(core, ref, None)
    base: Digest | None = image.chain_ids[-2] if len(image.chain_ids) > 1 else None
    needed = [image]
    if since:
        _, other = await find_image(core, since, None)
        base = other.chain_id
        needed.append(other)

    def compare() -> list[Change]:
        for each in needed:
            core.unpacker.unpack(each)
        with ExitStack() as stack:
            if image.chain_id is None:
                return []
            upper = stack.enter_context(_root(core, image.chain_id))
            below = _root(core, base) if base is not None else _nothing()
            return changes_trees(stack.enter_context(below), upper)

    found = await core.threads.run_long(compare)
    return [
        FilesystemChange(path=change.path.decode(errors="replace"), kind=int(change.kind))
        for change in found
    ]


@contextmanager
def _nothing() -> Iterator[int]:
    """A descriptor of an empty directory: what the first layer stands on."""
    with tempfile.TemporaryDirectory(prefix="sampan-empty-") as directory:
        root = os.open(directory, DIRECTORY_FLAGS)
        try:
            yield root
        finally:
            os.close(root)


@contextmanager
def _root(core: Core, chain: Digest) -> Iterator[int]:
    """A descriptor of the root that ends with ``chain``, for reading."""
    key = f"look-{secrets.token_hex(8)}"
    mounts = core.snapshots.view(key, str(chain))
    try:
        tree = detached_mount(mounts)
        try:
            yield tree
        finally:
            os.close(tree)
    finally:
        core.snapshots.remove(key)


async def mount(core: Core, ref: str) -> ImageMount:
    """See :meth:`sampan.engine.images.Images.mount`."""
    _, image = await find_image(core, ref, None)
    if image.chain_id is None:
        raise InvalidParameter(f"image {ref} has no layers to mount")

    def prepare() -> ImageMount:
        core.unpacker.unpack(image)
        key = mount_key(image.id)
        try:
            mounts = core.snapshots.view(key, str(image.chain_id))
        except Conflict:
            mounts = core.snapshots.mounts(key)
        return ImageMount(
            id=str(image.id),
            type=mounts[0].type,
            source=mounts[0].source,
            options=list(mounts[0].options),
        )

    return await core.threads.run_long(prepare)


async def unmount(core: Core, ref: str) -> None:
    """See :meth:`sampan.engine.images.Images.unmount`."""
    _, image = await find_image(core, ref, None)
    try:
        await core.threads.run(core.snapshots.remove, mount_key(image.id))
    except NotFound:
        raise NotFound(f"image {ref} is not mounted") from None


async def missing(core: Core, digests: Sequence[str]) -> list[str]:
    """See :meth:`sampan.engine.images.Images.missing`."""
    parsed = [Digest.parse(text) for text in digests]

    def look() -> list[str]:
        return [str(digest) for digest in parsed if not core.content.exists(digest)]

    return await core.threads.run(look)
