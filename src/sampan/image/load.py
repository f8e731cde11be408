"""``docker load``: archives of images into the content store.

Three forms, told apart by what is inside: an OCI layout (``oci-layout``, ``index.json``), a
docker-archive (``manifest.json``), and the one from before Docker 1.10 (``repositories`` and a
directory per layer). Since Docker 25 one archive is the first two at once; its OCI half is read,
because it keeps the manifests' digests, and names come from both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sampan.content import ContentStore
from sampan.errors import ArchiveRefused, NotFound, SampanError
from sampan.image import config as configuration
from sampan.image import legacy, ocilayout
from sampan.image.bundle import Bundle, Found, layer_descriptor
from sampan.image.document import Document, decode
from sampan.image.image import Image, manifests_below, open_image
from sampan.image.manifest import make_manifest
from sampan.image.spool import Spool
from sampan.image.variants import variants
from sampan.layer.model import DEFAULT_LIMITS, Limits, Readable
from sampan.model.descriptor import OCI_CONFIG, Descriptor
from sampan.model.platform import Platform
from sampan.model.reference import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What to record for one image of an archive: ``names`` -> ``target``.

    ``referrers`` are what the archive brings about it. ``image`` is the one for the wanted
    platform, or another when an index brings none for it.
    """

    target: Descriptor
    names: tuple[Reference, ...]
    image: Image | None
    referrers: tuple[Descriptor, ...] = ()


class _Item(Document, kw_only=True, frozen=True, rename="pascal"):
    """One image of ``manifest.json`` (docker-image/spec.md, "Combined Image JSON")."""

    config: str = ""
    repo_tags: list[str] | None = None
    layers: list[str] | None = None


def load(
    stream: Readable,
    content: ContentStore,
    *,
    platforms: Sequence[Platform] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[Loaded, ...]:
    """Take in an archive (compressed or not) of one or more images; blocking, streaming.

    Of an index only what is for one of ``platforms`` is kept, everything without them.

    Blobs are spooled into the store's ingests and become visible only once the whole archive was
    read and verified, layers included: a failure keeps nothing. Raises ArchiveRefused,
    DigestMismatch, InvalidParameter, NoSpace.
    """
    with Spool(content, limits) as spool:
        spool.fill(stream)
        bundle = _read(spool, content, platforms)
        if not bundle.found:
            raise ArchiveRefused("the archive contains no image")
        for file in bundle.files:
            spool.commit(file)
        for document in bundle.documents:
            content.add(document)
    return tuple(
        Loaded(
            target=found.target,
            names=found.names,
            image=_open(content, found, platforms),
            referrers=_about(content, found, bundle),
        )
        for found in bundle.found
    )


def _about(content: ContentStore, found: Found, bundle: Bundle) -> tuple[Descriptor, ...]:
    """What refers to an image, and to that."""
    if not bundle.referrers:
        return ()
    subjects = {item.digest for item in manifests_below(content, found.target)}
    about: list[Descriptor] = []
    for subject, descriptor in bundle.referrers:
        if subject in subjects:
            subjects.add(descriptor.digest)
            about.append(descriptor)
    return tuple(about)


def _open(content: ContentStore, found: Found, platforms: Sequence[Platform]) -> Image | None:
    """The image to unpack: the first platform's that is there, else any."""
    for platform in platforms or (Platform.host(),):
        try:
            return open_image(content, found.target, platform)
        except NotFound:
            continue
    whole = (variant for variant in variants(content, found.target) if variant.whole)
    return next((variant.image for variant in whole if variant.image is not None), None)


def _read(spool: Spool, content: ContentStore, platforms: Sequence[Platform]) -> Bundle:
    archive = _items(spool) if "manifest.json" in spool.files else []
    if spool.has("oci-layout") and spool.has("index.json"):
        names = {item.config: _names(item.repo_tags or ()) for item in archive}
        try:
            return ocilayout.read(spool, content, _by_config_digest(spool, names), platforms)
        except NotFound:
            raise  # nothing for the platforms asked for: the other half has no more
        except SampanError:
            if not archive:
                raise
            # Written by a tool that knows only the older half: that half must do then.
    if archive:
        return _docker_archive(spool, archive, platforms)
    if spool.has("repositories"):
        return legacy.read(spool)
    raise ArchiveRefused(
        "the archive holds no images: it has neither manifest.json, index.json nor repositories"
    )


def _items(spool: Spool) -> list[_Item]:
    return decode(spool.document("manifest.json"), list[_Item], "manifest.json")


def _by_config_digest(
    spool: Spool, names: dict[str, tuple[Reference, ...]]
) -> dict[str, tuple[Reference, ...]]:
    """The names in ``manifest.json`` by the digest of the configuration they point to."""
    return {str(spool.find(path).digest): found for path, found in names.items()}


def _names(tags: Sequence[str]) -> tuple[Reference, ...]:
    return tuple(Reference.parse(tag).with_default_tag() for tag in tags)


def _docker_archive(spool: Spool, items: list[_Item], platforms: Sequence[Platform]) -> Bundle:
    bundle = Bundle()
    for item in items:
        config_file = spool.find(item.config)
        config = configuration.parse(spool.bytes_of(config_file))
        if platforms and not any(wanted.selects(config.platform) for wanted in platforms):
            continue
        files = [spool.find(path) for path in item.layers or ()]
        if len(files) != len(config.diff_ids):
            raise ArchiveRefused(
                f"the archive's image {config.digest} has {len(files)} layers, "
                f"but {len(config.diff_ids)} diff ids"
            )
        for file, diff_id in zip(files, config.diff_ids, strict=True):
            bundle.verify(spool.layer(file), diff_id)
        manifest = make_manifest(
            Descriptor(media_type=OCI_CONFIG, digest=config.digest, size=len(config.raw)),
            [layer_descriptor(file) for file in files],
        )
        bundle.files.extend((config_file, *files))
        bundle.documents.append(manifest.raw)
        bundle.add(Found(target=manifest.descriptor, names=_names(item.repo_tags or ())))
    if not bundle.found and platforms:
        raise NotFound(f"the archive has no image for {', '.join(map(str, platforms))}")
    return bundle
