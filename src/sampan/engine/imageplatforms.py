"""Removing some platforms of an image and keeping the others (API 1.50, ``platforms``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sampan.engine import imageremoval
from sampan.engine.core import Core
from sampan.engine.imagetable import Entry, insert_image
from sampan.errors import Conflict, InvalidParameter, NotFound
from sampan.image import Variant
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.wire.image import ImageDeleteResponseItem


async def remove(
    core: Core, ref: str, platforms: Sequence[Platform], *, force: bool
) -> list[ImageDeleteResponseItem]:
    """See :meth:`sampan.engine.images.Images.remove`: the image keeps its names and the rest.

    The last platforms that are here go with the whole image.
    """
    if not force:
        raise InvalidParameter(
            "Content will be removed from all images referencing this variant. Use --force to "
            "force delete."
        )
    entry, _ = core.images.find(ref)
    listed = await core.threads.run(core.images.variants, entry)
    chosen = [variant for platform in platforms for variant in _of(listed, platform, ref)]
    digests = {str(variant.descriptor.digest) for variant in chosen}
    _check_unused(core, entry, digests)
    for other in core.images:
        if other is not entry and str(other.target.digest) in digests:
            raise Conflict(
                f"conflict: unable to delete {entry.id.short} (cannot be forced) - the platform is "
                f"also the image {other.id.short}"
            )
    rest = [
        variant
        for variant in listed
        if variant.image is not None and str(variant.descriptor.digest) not in digests
    ]
    if not rest:
        return await imageremoval.remove(core, str(entry.id), force=True, noprune=False)
    chosen += [variant for variant in listed if variant.subject in digests]

    async def erase() -> None:
        await core.threads.run_long(_erase, core, chosen)

    await core.ingests.when_idle(erase)
    await _identify(core, entry, [variant.image.id for variant in rest if variant.image])
    return [
        ImageDeleteResponseItem(deleted=str(variant.descriptor.digest))
        for variant in chosen
        if variant.manifest is not None
    ]


def _of(listed: Sequence[Variant], platform: Platform, ref: str) -> list[Variant]:
    wanted = str(platform.normalized())
    found = [
        variant
        for variant in listed
        if variant.image is not None
        and variant.platform is not None
        and str(variant.platform.normalized()) == wanted
    ]
    if not found:
        raise NotFound(
            f"image with reference {ref} was found but does not provide the specified platform "
            f"({platform})"
        )
    return found


def _check_unused(core: Core, entry: Entry, digests: set[str]) -> None:
    for container in core.containers:
        manifest = container.record.image_manifest
        if manifest is not None and manifest.digest in digests:
            state = "running" if container.state.alive else "stopped"
            raise Conflict(
                f"conflict: unable to delete {entry.id.short} (cannot be forced) - image is "
                f"being used by {state} container {container.id[:12]}"
            )


def _erase(core: Core, chosen: Sequence[Variant]) -> None:
    """The manifests first, so that nothing is found by them; then what only they led to. Blocks."""
    for variant in chosen:
        core.content.delete(variant.descriptor.digest)
    for entry in core.images:
        core.images.reread(entry)
    needed: set[Digest] = core.pinned()
    for entry in core.images:
        needed |= imageremoval.blobs_of(core, entry)
    for variant in chosen:
        if variant.image is not None:
            imageremoval.remove_snapshots(core, variant.image)
        for blob in variant.manifest.blobs if variant.manifest is not None else ():
            if blob.digest not in needed:
                core.content.delete(blob.digest)


async def _identify(core: Core, entry: Entry, ids: Sequence[Digest]) -> None:
    """An image whose id was that of a platform that went is known by one that stayed."""
    if entry.id not in ids:
        await core.state.write(insert_image(replace(entry, id=ids[0])))
        entry.id = ids[0]
