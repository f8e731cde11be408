"""``docker save``: images as one tar that is a docker-archive and an OCI layout at once.

As Docker writes since version 25: ``blobs/`` with everything by digest, ``index.json`` and
``oci-layout`` for readers of OCI layouts, ``manifest.json`` for those of docker-archives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

from sampan.content import ContentStore
from sampan.errors import NotFound
from sampan.image import manifest as manifests
from sampan.image.document import Document
from sampan.image.image import Image, manifests_below
from sampan.image.manifest import Index, Manifest, make_index
from sampan.image.variants import Variant, variants
from sampan.layer.writer import TarWriter
from sampan.model import attachment
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.model.reference import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """One image to save and the names (with tags) it goes by.

    With ``all_platforms`` the index it is from is saved, with every platform of it that is
    stored, or those of ``platforms`` alone. Of the ``referrers`` those go along whose subjects do.
    """

    image: Image
    names: tuple[Reference, ...] = ()
    all_platforms: bool = False
    platforms: tuple[Platform, ...] = ()
    referrers: tuple[Descriptor, ...] = ()


class _Item(Document, kw_only=True, frozen=True, rename="pascal"):
    """An image in ``manifest.json``: written even where empty, as Docker does."""

    config: str
    repo_tags: list[str] | None
    layers: list[str]


def save(
    images: Sequence[Saved], content: ContentStore, *, without: Collection[Digest] = ()
) -> Iterator[bytes]:
    """The archive in chunks; what ``docker load``, ``podman load`` and skopeo read.

    Each blob is written once, those of ``without`` not at all, because who loads the archive has
    them; the result is deterministic. Raises NotFound, before the first
    chunk, when content is missing. Blocking.
    """
    blobs: dict[Digest, int] = {}
    entries: list[Descriptor] = []
    items: dict[Digest, _Item] = {}
    for saved in images:
        for descriptor in _needed(saved, content):
            blobs[descriptor.digest] = descriptor.size
        entries.extend(_entries(saved))
        _merge(items, saved)
    entries.extend(_about(images, content, blobs))
    for digest, size in blobs.items():
        if content.size(digest) != size:
            raise NotFound(f"content {digest} is not stored whole")
    written = sorted(item for item in blobs.items() if item[0] not in without)
    return _write(content, written, make_index(entries), list(items.values()))


def _about(
    images: Sequence[Saved], content: ContentStore, blobs: dict[Digest, int]
) -> list[Descriptor]:
    """The referrers of what ``blobs`` has, which gets what they need."""
    found: dict[Digest, Descriptor] = {}
    for referrer in (item for saved in images for item in saved.referrers):
        parsed = manifests.parse(content.read(referrer.digest), referrer.media_type)
        subject = parsed.subject.digest if parsed.subject else None
        if (subject or attachment.subject(referrer.annotations)) in blobs:
            found[referrer.digest] = referrer
            needed = parsed.blobs if isinstance(parsed, Manifest) else ()
            blobs.update((item.digest, item.size) for item in (referrer, *needed))
    return list(found.values())


def _write(
    content: ContentStore,
    blobs: Sequence[tuple[Digest, int]],
    index: Index,
    items: Sequence[_Item],
) -> Iterator[bytes]:
    writer = TarWriter()
    yield from writer.directory(b"blobs/")
    algorithm = ""
    for digest, size in blobs:
        if digest.algorithm != algorithm:
            algorithm = digest.algorithm
            yield from writer.directory(f"blobs/{algorithm}/".encode())
        with content.open(digest) as blob:
            yield from writer.file(_path(digest).encode(), blob.fileno(), size)
    yield from writer.document(b"index.json", index.raw)
    yield from writer.document(b"manifest.json", msgspec.json.encode(items))
    yield from writer.document(b"oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    yield from writer.finish()


def _path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _needed(saved: Saved, content: ContentStore) -> Iterator[Descriptor]:
    """Descriptors of everything one image consists of."""
    image = saved.image
    yield image.manifest.descriptor
    yield from image.manifest.blobs
    if not saved.all_platforms:
        return
    left_out = {
        variant.descriptor.digest
        for variant in variants(content, image.target)
        if not variant.whole or not _wanted(variant, saved.platforms)
    }
    for descriptor in manifests_below(content, image.target):
        if descriptor.digest in left_out:
            continue  # a platform that was never pulled, or is not asked for
        parsed = manifests.parse(content.read(descriptor.digest), descriptor.media_type)
        if isinstance(parsed, Manifest):
            yield from parsed.blobs
        yield descriptor


def _wanted(variant: Variant, platforms: Sequence[Platform]) -> bool:
    """Whether a manifest is for one of ``platforms``; what is for none goes only with all."""
    if not platforms:
        return True
    own = variant.platform
    return own is not None and any(wanted.selects(own) for wanted in platforms)


def _entries(saved: Saved) -> Iterator[Descriptor]:
    """The image's lines in ``index.json``: one for each name."""
    image = saved.image
    if saved.all_platforms:
        target = replace(image.target, annotations={}, platform=None)
    else:
        target = replace(image.manifest.descriptor, platform=image.platform)
    if not saved.names:
        yield target
    for name in saved.names:
        annotations = {"io.containerd.image.name": str(name)}
        if name.tag:
            annotations["org.opencontainers.image.ref.name"] = name.tag
        yield replace(target, annotations=annotations)


def _merge(items: dict[Digest, _Item], saved: Saved) -> None:
    """The image's line in ``manifest.json``: one for each image, with all its names."""
    image = saved.image
    tags = [name.familiar for name in saved.names if name.tag and not name.digest]
    present = items.get(image.id)
    if present is not None:
        tags = list(dict.fromkeys((*(present.repo_tags or ()), *tags)))
    items[image.id] = _Item(
        config=_path(image.id),
        repo_tags=tags or None,
        layers=[_path(layer.digest) for layer in image.manifest.layers],
    )
