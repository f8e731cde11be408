"""New images: of a root file system (``docker import``), of a container (``docker commit``)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sampan.content import ContentStore, ContentWriter
from sampan.image import config as configuration
from sampan.image.changes import apply_changes
from sampan.image.config import rfc3339
from sampan.image.document import ConfigDocument, History
from sampan.image.image import Image
from sampan.image.manifest import make_manifest
from sampan.image.media import layer_type
from sampan.layer.check import check
from sampan.layer.compression import Compression, compress
from sampan.layer.model import DEFAULT_LIMITS, Limits, Readable
from sampan.layer.source import Incoming, decompress
from sampan.model.descriptor import DOCKER_CONFIG, DOCKER_MANIFEST, OCI_CONFIG, Descriptor
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.wire.container import ImageConfig

#: The archive of no changes at all: two blocks of zeros. Docker adds no layer for it.
EMPTY_DIFF_ID = Digest("sha256", hashlib.sha256(bytes(1024)).hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer in the store."""

    descriptor: Descriptor
    diff_id: Digest


def store_layer(
    chunks: Iterable[bytes],
    content: ContentStore,
    *,
    compression: Compression = Compression.GZIP,
    level: int | None = None,
    docker: bool = False,
) -> Layer:
    """Compress an uncompressed layer into the store; blocking. Raises NoSpace."""
    inner = hashlib.sha256()

    def counted() -> Iterator[bytes]:
        for chunk in chunks:
            inner.update(chunk)
            yield chunk

    with content.writer() as writer:
        for data in compress(counted(), compression, level):
            writer.write(data)
        digest, size = writer.commit(), writer.offset
    return Layer(
        descriptor=Descriptor(
            media_type=layer_type(compression, docker=docker), digest=digest, size=size
        ),
        diff_id=Digest("sha256", inner.hexdigest()),
    )


class _Tee:
    """A stream whose bytes are also written to the store."""

    def __init__(self, stream: Readable, writer: ContentWriter) -> None:
        self._stream = stream
        self._writer = writer

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._writer.write(data)
        return data


def import_(
    stream: Readable,
    content: ContentStore,
    *,
    changes: Sequence[str] = (),
    message: str = "",
    platform: Platform | None = None,
    now: datetime,
    limits: Limits = DEFAULT_LIMITS,
) -> Image:
    """An image of one layer from a root file system tar, compressed or not.

    The stream is checked to be a tar within ``limits``; gzip and zstd are stored as they come,
    anything else compressed with gzip. ``changes`` are Dockerfile instructions. Raises
    ArchiveRefused, InvalidParameter, NoSpace; keeps nothing then. Blocking.
    """
    config = apply_changes(ImageConfig(), changes)
    layer = _import_layer(stream, content, limits)
    return append(
        None,
        content,
        layer=layer,
        config=config,
        created_by="",
        message=message or "Imported from -",
        platform=platform,
        now=now,
    )


def _import_layer(stream: Readable, content: ContentStore, limits: Limits) -> Layer:
    with content.writer() as writer:
        checked = check(_Tee(stream, writer), limits=limits)
        if checked.compression in (Compression.GZIP, Compression.ZSTD):
            descriptor = Descriptor(
                media_type=layer_type(checked.compression),
                digest=writer.digest,
                size=writer.offset,
            )
            diff_id = checked.diff_id or writer.digest
            writer.commit()
            return Layer(descriptor=descriptor, diff_id=diff_id)
        original = writer.commit()
    try:
        with content.open(original) as again:
            return store_layer(decompress(Incoming(again, hashed=False)), content)
    finally:
        content.delete(original)


def commit(
    layer: Iterable[bytes],
    content: ContentStore,
    *,
    parent: Image | None,
    config: ImageConfig,
    changes: Sequence[str] = (),
    author: str = "",
    message: str = "",
    created_by: str = "",
    container: str = "",
    platform: Platform | None = None,
    compression: Compression = Compression.GZIP,
    now: datetime,
) -> Image:
    """``parent`` plus one layer: a new image; blocking.

    ``layer`` is the uncompressed tar of :func:`sampan.snapshot.rootfs.diff`; one without changes
    adds no layer. ``config`` is the container's configuration, which the image's defaults become
    after ``changes``. Raises InvalidParameter, NoSpace.
    """
    defaults = apply_changes(config, changes)
    stored: Layer | None = store_layer(
        layer, content, compression=compression, docker=_is_docker(parent)
    )
    if stored is not None and stored.diff_id == EMPTY_DIFF_ID:
        stored = None
    return append(
        parent,
        content,
        layer=stored,
        config=defaults,
        created_by=created_by,
        author=author,
        message=message,
        container=container,
        platform=platform,
        now=now,
    )


def append(
    parent: Image | None,
    content: ContentStore,
    *,
    layer: Layer | None,
    config: ImageConfig,
    created_by: str,
    author: str = "",
    message: str = "",
    container: str = "",
    platform: Platform | None = None,
    now: datetime,
) -> Image:
    """One history entry on top of ``parent``, with ``layer`` or (None) without one.

    The new image has ``config`` as its defaults, and the parent's platform unless told.
    """
    before = parent.config.document if parent else ConfigDocument()
    where = (parent.platform if parent else None) or platform or Platform.host()
    created = rfc3339(now)
    entry = History(
        created=created,
        author=author or None,
        created_by=created_by or None,
        comment=message or None,
        empty_layer=True if layer is None else None,
    )
    document = ConfigDocument(
        architecture=where.architecture,
        os=where.os,
        variant=where.variant or None,
        os_version=where.os_version or None,
        os_features=list(where.os_features) or None,
        created=created,
        author=author or before.author,
        comment=message or None,
        parent=str(parent.id) if parent and container else None,
        container=container or None,
        config=config,
        history=[*(before.history or ()), entry],
    )
    diff_ids = list(parent.config.diff_ids) if parent else []
    layers = list(parent.manifest.layers) if parent else []
    if layer is not None:
        diff_ids.append(layer.diff_id)
        layers.append(layer.descriptor)
    return assemble_new(content, document, diff_ids, layers, docker=_is_docker(parent))


def assemble_new(
    content: ContentStore,
    document: ConfigDocument,
    diff_ids: Sequence[Digest],
    layers: Sequence[Descriptor],
    *,
    docker: bool = False,
) -> Image:
    """Store configuration and manifest of an image whose layers are stored already."""
    config = configuration.make(document, diff_ids)
    descriptor = Descriptor(
        media_type=DOCKER_CONFIG if docker else OCI_CONFIG,
        digest=content.add(config.raw),
        size=len(config.raw),
    )
    manifest = make_manifest(descriptor, layers, docker=docker)
    content.add(manifest.raw)
    return Image(target=manifest.descriptor, manifest=manifest, config=config)


def _is_docker(parent: Image | None) -> bool:
    """Whether to go on in Docker's media types: one manifest does not mix the families."""
    return parent is not None and parent.manifest.media_type == DOCKER_MANIFEST
