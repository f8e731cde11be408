"""Untagging and deleting images, and collecting what no image needs any more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sampan.engine import imageparents, imageviews
from sampan.engine.core import Core, log
from sampan.engine.imagetable import Entry, delete_image, delete_name
from sampan.engine.ingests import Garbage
from sampan.errors import Conflict, NotFound, SampanError
from sampan.image import Image, manifests_below
from sampan.image import manifest as manifests
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.model.reference import Reference
from sampan.wire.image import ImageDeleteResponseItem


def mount_key(image_id: Digest) -> str:
    """The snapshot that keeps the layers of a mounted image."""
    return f"mount-{image_id.hex}"


def users(core: Core, entry: Entry, *, running: bool | None = None) -> list[str]:
    """Ids of the containers made from an image."""
    return [
        container.id
        for container in core.containers
        if container.record.image_target == str(entry.target.digest)
        and (running is None or container.state.alive == running)
    ]


def holders(core: Core, entry: Entry) -> list[str]:
    """Ids of the containers made from an image, and of those that have it mounted."""
    mounting = [
        container.id
        for container in core.containers
        for mount in container.record.mounts
        if mount.type == "image" and mount.source == str(entry.id)
    ]
    return [*users(core, entry), *mounting]


async def remove(
    core: Core, ref: str, *, force: bool, noprune: bool
) -> list[ImageDeleteResponseItem]:
    """See :meth:`sampan.engine.images.Images.remove`."""
    entry, reference = core.images.find(ref)
    twins = core.images.twins(ref, entry) if reference is None else [entry]
    names = [name for twin in twins for name in imageviews.tags(twin)]
    if reference is not None and (len(names) > 1 or reference.digest is not None):
        return await _untag(core, entry, _with_digests(entry, reference))
    if reference is None and len(names) > 1 and not force:
        raise Conflict(
            f"conflict: unable to delete {entry.id.short} (must be forced) - image is referenced "
            "in multiple repositories"
        )
    for twin in twins:
        _check_unused(core, twin, force=force, name=ref if reference is not None else "")
    removed = []
    for twin in twins:
        removed += await _untag(core, twin, twin.references)
        # Running containers keep the image they were made of, which only loses its names. Those
        # that do not run keep its layers alone, which stay as long as one stands on them.
        if not users(core, twin, running=True):
            parent = None if noprune else await core.threads.run(imageparents.parent_of, core, twin)
            removed += await delete(core, twin)
            removed += await _delete_unneeded_parents(core, parent)
    return removed


async def _delete_unneeded_parents(core: Core, parent: str | None) -> list[ImageDeleteResponseItem]:
    """Delete an image and those it was made from, up to one that anything still needs."""
    removed = []
    while parent:
        try:
            entry, _ = core.images.find(parent)
        except SampanError:
            break
        if (
            any(other.names for other in core.images.alike(entry))
            or holders(core, entry)
            or core.snapshots.exists(mount_key(entry.id))
            or await core.threads.run(imageparents.has_children, core, entry)
        ):
            break
        parent = await core.threads.run(imageparents.parent_of, core, entry)
        removed += await delete(core, entry)
    return removed


async def remove_unneeded(core: Core, target: str) -> None:
    """Remove the image of this digest if it has no name and nobody uses it."""
    entry = core.images.by_target(target)
    if entry is not None and not entry.references and not users(core, entry):
        await delete(core, entry)


async def remove_entry(core: Core, entry: Entry) -> list[ImageDeleteResponseItem]:
    """Remove an image that nobody uses, with all its names."""
    return await _untag(core, entry, entry.references) + await delete(core, entry)


async def untag_all_but_one(core: Core, entry: Entry) -> list[ImageDeleteResponseItem]:
    """Take every tag away but the last, which keeps an image in use from being dangling."""
    removed = []
    tagged = [name for name in entry.references if name.tag and name.digest is None]
    for reference in tagged[:-1]:
        removed += await _untag(core, entry, _with_digests(entry, reference))
    return removed


def _with_digests(entry: Entry, reference: Reference) -> list[Reference]:
    """A name to remove; with the last tag of a repository go the digests it is known by there."""
    others = [
        other
        for other in entry.references
        if other.name == reference.name and other.tag and other.tag != reference.tag
    ]
    if reference.digest is not None or others:
        return [reference]
    same = [r for r in entry.references if r.name == reference.name and r.digest is not None]
    return [reference, *same]


def _check_unused(core: Core, entry: Entry, *, force: bool, name: str) -> None:
    using = users(core, entry)
    held = holders(core, entry)
    if name and held and not force and imageviews.tags(entry):
        raise Conflict(
            f'conflict: unable to remove repository reference "{name}" (must force) - container '
            f"{held[0][:12]} is using its referenced image {entry.id.short}"
        )
    running = users(core, entry, running=True)
    if running and not name:
        raise Conflict(
            f"conflict: unable to delete {entry.id.short} (cannot be forced) - image is being "
            f"used by running container {running[0][:12]}"
        )
    mounted = mount_key(entry.id)
    if core.snapshots.exists(mounted):
        if not force:
            raise Conflict(
                f"conflict: unable to delete {entry.id.short} (must be forced) - image is mounted"
            )
        core.snapshots.remove(mounted)
    if using and not force:
        raise Conflict(
            f"conflict: unable to delete {entry.id.short} (must be forced) - image is being used "
            f"by stopped container {using[0][:12]}"
        )


async def _untag(
    core: Core, entry: Entry, references: Iterable[Reference]
) -> list[ImageDeleteResponseItem]:
    found = []
    for reference in references:
        whole = reference if reference.digest else reference.with_default_tag()
        name = str(whole)
        await core.state.write(delete_name(name))
        core.images.unname(name)
        core.events.publish("image", "untag", str(entry.id), {"name": whole.familiar})
        found.append(ImageDeleteResponseItem(untagged=whole.familiar))
    return found


async def delete(core: Core, entry: Entry) -> list[ImageDeleteResponseItem]:
    """Delete an image without names or users: its row, then its layers and blobs."""
    try:
        images = await core.threads.run(core.images.all_of, entry)
    except SampanError:
        images = []  # damaged content must not keep an image from being deleted
    await core.state.write(delete_image(entry))
    core.images.forget(entry)
    chains = [chain for image in images for chain in await core.threads.run(unshared, core, image)]
    await core.ingests.collect(Garbage(entry=entry, images=images))
    core.events.publish("image", "delete", str(entry.id), {"name": str(entry.id)})
    gone = [str(entry.id), *dict.fromkeys(str(chain) for chain in chains)]
    return [ImageDeleteResponseItem(deleted=name) for name in gone]


def unshared(core: Core, image: Image, leaving: Entry | None = None) -> list[Digest]:
    """The layers that go with an image, topmost first: nobody else stands on them. Blocks.

    ``leaving`` is the entry that is about to be deleted, if it still is among the others.
    """
    others = (
        found for entry in core.images if entry is not leaving for found in _images(core, entry)
    )
    kept = core.pinned() | {chain for other in others for chain in other.chain_ids}
    above: dict[str | None, set[str]] = {}
    for info in core.snapshots.walk():
        above.setdefault(info.parent, set()).add(info.key)
    found: list[Digest] = []
    for chain in reversed(image.chain_ids):
        if chain in kept or above.get(str(chain), set()) - {str(own) for own in found}:
            break
        found.append(chain)
    return found


def erase(core: Core, garbage: Sequence[Garbage]) -> None:
    """Remove layers and blobs only the deleted images used. Blocks; nothing may be coming in."""
    for item in garbage:
        for image in item.images:
            remove_snapshots(core, image)
    collect_content(core, [item.entry for item in garbage])


def remove_snapshots(core: Core, image: Image) -> None:
    """Remove an image's own layers, topmost first."""
    for chain in unshared(core, image):
        try:
            core.snapshots.remove(str(chain))
        except Conflict:
            break  # a container was made on it just now
        except NotFound:
            continue


def _images(core: Core, entry: Entry) -> list[Image]:
    try:
        return core.images.all_of(entry)
    except SampanError:
        return []


def blobs_of(core: Core, entry: Entry) -> set[Digest]:
    """Every blob an image's target leads to, as far as it is stored. Blocks."""
    found: set[Digest] = set()
    below = [*manifests_below(core.content, entry.target)]
    if entry.pushed and core.content.exists(entry.pushed):
        size = core.content.size(entry.pushed)
        below.append(Descriptor(media_type="", digest=entry.pushed, size=size))
    below += [item for item in entry.referrers if core.content.exists(item.digest)]
    for descriptor in below:
        found.add(descriptor.digest)
        parsed = manifests.parse(core.content.read(descriptor.digest), descriptor.media_type)
        if isinstance(parsed, manifests.Manifest):
            found.update(blob.digest for blob in parsed.blobs)
    return found


def collect_content(core: Core, gone: Iterable[Entry]) -> int:
    """Delete the blobs only the ``gone`` images used; returns the bytes freed. Blocks."""
    candidates: set[Digest] = set()
    for entry in gone:
        try:
            candidates |= blobs_of(core, entry)
        except SampanError as error:
            log.warning("content of image %s cannot be read: %s", entry.id.short, error.message)
            candidates.add(entry.target.digest)
    for entry in core.images:
        candidates -= blobs_of(core, entry)
    freed = 0
    for digest in candidates - core.pinned():
        try:
            size = core.content.size(digest)
        except NotFound:
            continue
        if core.content.delete(digest):
            freed += size
    return freed
