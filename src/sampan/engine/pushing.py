"""Images to registries.

Registries are given compressed layers, as dockerd does: an image that came with plain ones
(``docker load``) is pushed by another manifest, with the same configuration and so the same id.
That manifest and its blobs stay with the image, so that the next push finds everything there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from sampan.engine import imageflows
from sampan.engine.core import Core
from sampan.engine.imageflows import Progress
from sampan.engine.imagetable import Entry, update_pushed
from sampan.engine.imageviews import parse_repository
from sampan.engine.options import RegistryAuth
from sampan.engine.transfer import by_digest, credentials, stream
from sampan.errors import InvalidParameter, NotFound
from sampan.image import compress_layers
from sampan.image import manifest as manifests
from sampan.model.descriptor import INDEXES
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.model.reference import Reference
from sampan.registry.credentials import Credentials
from sampan.registry.progress import Event, Message


async def push(
    core: Core, ref: str, *, tag: str, platform: str | None, auth: RegistryAuth | None
) -> AsyncIterator[Progress]:
    """See :meth:`sampan.engine.images.Images.push`."""
    repository = Reference.parse(ref)
    wanted = Platform.parse(platform) if platform else None
    account = credentials(auth)

    async def work(report: Callable[[Event], None]) -> None:
        # Told before names are looked for, as dockerd does: clients read of a missing image in
        # the stream.
        report(Message(text=f"The push refers to repository [{repository.name}]"))
        for name in _names_to_push(core, repository, tag):
            await _push_one(core, name, wanted, account, report)

    return stream(work)


async def _push_one(
    core: Core,
    name: Reference,
    platform: Platform | None,
    account: Credentials,
    report: Callable[[Event], None],
) -> None:
    entry, _ = core.images.find(str(name))
    async with core.ingests:
        root = await _root(core, entry, platform)
        sources = await core.threads.run(_sources, core)
        await core.registry.push(
            name,
            root,
            content=core.content,
            credentials=account,
            listener=report,
            sources=lambda digest: sources.get(digest, ()),
            referrers=entry.referrers,
        )
    if root in (entry.target.digest, entry.pushed):
        await imageflows.record(core, entry.target, entry.id, (by_digest(name, root),))
    core.events.publish("image", "push", name.familiar, {"name": name.familiar_name})


async def _root(core: Core, entry: Entry, platform: Platform | None) -> Digest:
    """The manifest or index to push, with compressed layers if it is of one image."""
    target = entry.target
    if platform is None and target.media_type in INDEXES:
        return target.digest
    image = await core.threads.run(core.images.view, entry, platform)
    own = image.manifest.digest == target.digest
    if own and entry.pushed and await core.threads.run(_is_whole, core, entry.pushed):
        return entry.pushed
    packed = await core.threads.run_long(compress_layers, image, core.content)
    root = packed.manifest.digest
    if own and root != target.digest:
        entry.pushed = root
        await core.state.write(update_pushed(entry))
    return root


def _is_whole(core: Core, digest: Digest) -> bool:
    """Whether a manifest and its blobs are stored."""
    try:
        parsed = manifests.parse(core.content.read(digest))
    except (NotFound, InvalidParameter):
        return False
    return isinstance(parsed, manifests.Manifest) and all(
        core.content.exists(blob.digest) for blob in parsed.blobs
    )


def _names_to_push(core: Core, repository: Reference, tag: str) -> list[Reference]:
    if tag or repository.tag:
        name = parse_repository(repository.name, tag or repository.tag)
        if core.images.lookup(name) is None:
            raise NotFound(f"An image does not exist locally with the tag: {name.familiar_name}")
        return [name]
    names = [
        reference
        for entry in core.images
        for reference in entry.references
        if reference.name == repository.name and reference.tag
    ]
    if not names:
        raise NotFound(f"An image does not exist locally with the tag: {repository.familiar_name}")
    return names


def _sources(core: Core) -> dict[Digest, list[Reference]]:
    """Repositories that may hold a blob: those of every image that has it. Blocks."""
    found: dict[Digest, list[Reference]] = {}
    for entry in core.images:
        names = entry.references
        # What was pulled or pushed is surely there; a mere tag may never have been pushed.
        names.sort(key=lambda name: name.digest is None)
        for digest in _blobs(core, entry):
            found.setdefault(digest, []).extend(names)
    return found


def _blobs(core: Core, entry: Entry) -> set[Digest]:
    view = core.images.cached(entry)
    found = {blob.digest for blob in view.manifest.blobs} if view is not None else set()
    if entry.pushed and core.content.exists(entry.pushed):
        parsed = manifests.parse(core.content.read(entry.pushed))
        if isinstance(parsed, manifests.Manifest):
            found.update(blob.digest for blob in parsed.blobs)
    return found
