"""Images coming in: load and import; progress as dockerd streams it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import UTC, datetime

from sampan.engine import clock
from sampan.engine.core import Core
from sampan.engine.imagetable import Entry, insert_image, insert_name, update_referrers
from sampan.engine.imageviews import parse_repository
from sampan.engine.ingests import Garbage
from sampan.engine.options import ImportOptions
from sampan.engine.threads import BodyReader
from sampan.errors import Forbidden, InvalidParameter, SampanError
from sampan.image import Image, Saved, import_, load, save
from sampan.image.load import Loaded
from sampan.layer.model import Readable
from sampan.model.descriptor import INDEXES, Descriptor
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.model.reference import Reference
from sampan.wire.base import Json

Progress = dict[str, Json]


def failure(error: SampanError) -> Progress:
    """The object that ends a progress stream with an error."""
    return {"errorDetail": {"message": error.message}, "error": error.message}


async def record(
    core: Core,
    target: Descriptor,
    image_id: Digest,
    names: tuple[Reference, ...],
    referrers: Sequence[Descriptor] = (),
) -> Entry:
    """Make an image and its names known: content first, rows now.

    What refers to it is added to what did before.
    """
    now = clock.now()
    entry = core.images.add(target, image_id, now)
    if entry.id != image_id:  # another platform of an index that was here
        entry.id = (await core.threads.run(core.images.view, entry)).id
    full = [str(name if name.digest else name.with_default_tag()) for name in names]
    statements = [insert_image(entry), *(insert_name(name, entry, now) for name in full)]
    if referrers:
        entry.referrers = tuple(
            {item.digest: item for item in (*entry.referrers, *referrers)}.values()
        )
        statements.append(update_referrers(entry))
    await core.state.write(*statements)
    for name in full:
        core.images.name(name, entry)
    return entry


async def consume(
    core: Core, body: AsyncIterator[bytes], work: Callable[[Readable], object]
) -> object:
    """Run blocking ``work`` over an asynchronous body; whichever fails first decides."""
    reader = BodyReader()

    def run() -> object:
        try:
            return work(reader)
        finally:
            reader.close()

    feeding = asyncio.ensure_future(reader.feed(body))
    try:
        return await core.threads.run_long(run)
    finally:
        feeding.cancel()
        await asyncio.wait([feeding])


def _garbage(target: Descriptor, image: Image | None) -> Garbage:
    """Content of an image that was stored, but whose layers could not be unpacked."""
    image_id = image.id if image is not None else target.digest
    entry = Entry(target=target, id=image_id, created=0, names=set())
    return Garbage(entry=entry, images=(image,) if image is not None else ())


async def _consume_or_drop(
    core: Core,
    body: AsyncIterator[bytes],
    work: Callable[[Readable], object],
    refused: list[Garbage],
) -> object:
    """:func:`consume`; when it fails, nothing of what ``work`` noted as refused is kept."""
    try:
        return await consume(core, body, work)
    except SampanError:
        for garbage in refused:
            await core.ingests.collect(garbage)
        raise


async def save_images(
    core: Core, refs: Sequence[str], platforms: Sequence[Platform], without: Collection[Digest]
) -> AsyncIterator[bytes]:
    """See :meth:`sampan.engine.images.Images.save`."""
    wanted: dict[str, tuple[Entry, Image, list[Reference]]] = {}
    for entry, reference in [pair for ref in refs for pair in core.images.find_all(ref)]:
        images = [
            await core.threads.run(core.images.view, entry, platform)
            for platform in platforms or (None,)
        ]
        known = wanted.setdefault(str(entry.target.digest), (entry, images[0], []))
        if reference is not None and reference.digest is None:
            known[2].append(reference.with_default_tag())
    for entry, _, _ in wanted.values():
        core.events.publish("image", "save", str(entry.id), {"name": str(entry.id)})
    saved = [
        Saved(
            image=image,
            names=tuple(dict.fromkeys(names)),
            all_platforms=len(platforms) != 1 and image.target.media_type in INDEXES,
            platforms=tuple(platforms),
            referrers=entry.referrers,
        )
        for entry, image, names in wanted.values()
    ]
    return core.threads.iterate(save(saved, core.content, without=without))


async def load_images(
    core: Core, body: AsyncIterator[bytes], *, platforms: Sequence[Platform]
) -> AsyncIterator[Progress]:
    """See :meth:`sampan.engine.images.Images.load`."""
    if not core.registry.settings.policy.accepts_archives("docker-archive"):
        raise Forbidden("loading images from archives is rejected by the signature policy")

    refused: list[Garbage] = []

    def work(stream: Readable) -> tuple[Loaded, ...]:
        loaded = load(stream, core.content, platforms=platforms)
        try:
            for item in loaded:
                if item.image is not None:
                    core.unpacker.unpack(item.image)
        except SampanError:
            refused.extend(_garbage(item.target, item.image) for item in loaded)
            raise
        return loaded

    try:
        async with core.ingests:
            loaded = await _consume_or_drop(core, body, work, refused)
            assert isinstance(loaded, tuple)
            for item in loaded:
                image: Image | None = item.image
                image_id = image.id if image is not None else item.target.digest
                for name in item.names:
                    known = core.images.lookup(name.with_default_tag())
                    if known is not None and known.id != image_id:
                        shown = name.with_default_tag().familiar
                        text = f"The image {shown} already exists, renaming the old one with ID "
                        yield {"stream": f"{text}{known.id} to empty string\n"}
                entry = await record(core, item.target, image_id, item.names, item.referrers)
                for name in item.names:
                    shown = name.with_default_tag().familiar
                    yield {"stream": f"Loaded image: {shown}\n"}
                    core.events.publish("image", "load", str(entry.id), {"name": shown})
                if not item.names:
                    yield {"stream": f"Loaded image ID: {entry.id}\n"}
                    core.events.publish("image", "load", str(entry.id), {"name": str(entry.id)})
    except SampanError as error:
        yield failure(error)


async def import_image(
    core: Core, body: AsyncIterator[bytes], options: ImportOptions
) -> AsyncIterator[Progress]:
    """See :meth:`sampan.engine.images.Images.import_`."""
    names = (parse_repository(options.repo, options.tag),) if options.repo else ()
    platform = Platform.parse(options.platform) if options.platform else None

    refused: list[Garbage] = []

    def work(stream: Readable) -> Image:
        image = import_(
            stream,
            core.content,
            changes=options.changes,
            message=options.message,
            platform=platform,
            now=datetime.now(UTC),
        )
        try:
            core.unpacker.unpack(image)
        except SampanError:
            refused.append(_garbage(image.target, image))
            raise
        return image

    async with core.ingests:
        image = await _consume_or_drop(core, body, work, refused)
        assert isinstance(image, Image)
        entry = await record(core, image.target, image.id, names)
    yield {"status": str(entry.id)}
    core.events.publish("image", "import", str(entry.id), {"name": str(entry.id)})


def check_import(options: ImportOptions) -> None:
    """Raise InvalidParameter for a bad name or platform, before the stream begins."""
    if options.repo:
        if Reference.parse(options.repo).digest is not None:
            raise InvalidParameter("cannot import digest reference")
        parse_repository(options.repo, options.tag)
    if options.platform and Platform.parse(options.platform).os != "linux":
        raise InvalidParameter("operating system is not supported")
