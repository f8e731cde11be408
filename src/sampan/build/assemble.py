"""Built images become what an output asks for: compressed, annotated, indexed, attested (blocking).

The images themselves stay as they are in the store; everything here adds documents and blobs
beside them. Deterministic: the same images and output give the same digests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from sampan.build.attest import Attestation, attach, statement, subject_name
from sampan.build.cache import Record
from sampan.build.cachefile import inline
from sampan.build.outputs import Annotation, Output, Scope
from sampan.build.request import Built
from sampan.content import ContentStore
from sampan.errors import InvalidParameter
from sampan.image import Image, assemble, make_index, make_manifest, store_layer
from sampan.image import config as image_config
from sampan.image.media import layer_type
from sampan.layer import Compression
from sampan.layer.source import Incoming, decompress
from sampan.model.descriptor import DOCKER_CONFIG, OCI_CONFIG, Descriptor

_PIECE = 1 << 20
_CREATED = "org.opencontainers.image.created"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One platform of a build, with what is said of it and the steps its configuration carries."""

    built: Built
    attestations: tuple[Attestation, ...] = ()
    inline_records: tuple[Record, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """What an output comes to: its root (manifest or index) and the images below.

    ``annotations`` belong on the descriptor of the root in an OCI layout.
    """

    target: Descriptor
    images: tuple[Image, ...]
    annotations: Mapping[str, str]


def assemble_output(
    content: ContentStore,
    results: Sequence[Result],
    wanted: Output,
    *,
    multi_platform: bool | None = None,
    created: str = "",
) -> Assembled:
    """Make the documents of ``wanted``; an index where there are several platforms, attestations,
    or ``multi_platform`` says so. ``created`` is the time an index is annotated with.

    Raises :class:`InvalidParameter` for annotations of an index that is not made.
    """
    images = tuple(_image(content, result, wanted) for result in results)
    attested = wanted.inline_attestations and any(result.attestations for result in results)
    indexed = len(images) > 1 or attested if multi_platform is None else multi_platform or attested
    if not indexed:
        for annotation in wanted.annotations:
            if annotation.scope in (Scope.INDEX, Scope.INDEX_DESCRIPTOR):
                raise InvalidParameter("index annotations not supported for single platform export")
        (image,) = images
        return Assembled(
            target=image.target,
            images=images,
            annotations=_chosen(wanted.annotations, Scope.MANIFEST_DESCRIPTOR, image),
        )
    entries: list[Descriptor] = []
    for image in images:
        own = _chosen(wanted.annotations, Scope.MANIFEST_DESCRIPTOR, image)
        described = image.manifest.descriptor
        entries.append(replace(described, platform=image.platform, annotations=own))
    if attested:
        for image, result in zip(images, results, strict=True):
            entries.append(_attestations(content, image, result, wanted))
    annotations = _chosen(wanted.annotations, Scope.INDEX, None)
    if created and wanted.oci_types:
        annotations = {_CREATED: created, **annotations}
    index = make_index(entries, annotations=annotations, docker=not wanted.oci_types)
    content.add(index.raw)
    return Assembled(
        target=index.descriptor,
        images=tuple(replace(image, target=index.descriptor) for image in images),
        annotations=_chosen(wanted.annotations, Scope.INDEX_DESCRIPTOR, None),
    )


def statements(result: Result, image: Image, wanted: Output) -> list[tuple[str, str, bytes]]:
    """Name, predicate type and bytes of each statement about one image."""
    digest = image.manifest.digest
    subjects = [(subject_name(name, image.platform), digest) for name in wanted.names]
    return [
        (one.name, one.predicate_type, statement(one, subjects or [("_", digest)]))
        for one in result.attestations
    ]


def _attestations(
    content: ContentStore, image: Image, result: Result, wanted: Output
) -> Descriptor:
    made = [(kind, raw) for _, kind, raw in statements(result, image, wanted)]
    return attach(
        content,
        image.manifest.descriptor,
        made,
        artifact=wanted.oci_artifact,
        docker=not wanted.oci_types,
    )


def _chosen(annotations: Sequence[Annotation], scope: Scope, image: Image | None) -> dict[str, str]:
    """The annotations of one place, those for a platform winning over those for all."""
    fitting = [
        one
        for one in annotations
        if one.scope is scope
        and (not one.platform or (image is not None and one.platform == str(image.platform)))
    ]
    return {one.key: one.value for one in sorted(fitting, key=lambda one: bool(one.platform))}


def _image(content: ContentStore, result: Result, wanted: Output) -> Image:
    image = result.built.image
    layers = [
        _layer(content, descriptor, wanted, made=position >= result.built.inherited)
        for position, descriptor in enumerate(image.manifest.layers)
    ]
    raw = image.config.raw
    if result.inline_records and wanted.inline_cache:
        carried = inline(
            result.inline_records, dict(zip(image.config.diff_ids, layers, strict=True))
        )
        document = msgspec.structs.replace(image.config.document, inline_cache=carried)
        raw = image_config.make(document, image.config.diff_ids).raw
    annotations = {
        **image.manifest.annotations,
        **_chosen(wanted.annotations, Scope.MANIFEST, image),
    }
    config = Descriptor(
        media_type=OCI_CONFIG if wanted.oci_types else DOCKER_CONFIG,
        digest=content.add(raw),
        size=len(raw),
    )
    manifest = make_manifest(config, layers, annotations=annotations, docker=not wanted.oci_types)
    content.add(manifest.raw)
    return assemble(manifest.descriptor, manifest, raw)


def _layer(
    content: ContentStore, descriptor: Descriptor, wanted: Output, *, made: bool
) -> Descriptor:
    """The layer as the output wants it; ``made`` tells that this build made it."""
    now = compression_of(descriptor)
    compression = now
    if wanted.compression is not None and (made or wanted.force_compression):
        compression = wanted.compression
    kind = layer_type(compression, docker=not wanted.oci_types)
    if compression is now and (wanted.level is None or not made):
        return replace(descriptor, media_type=kind)
    return convert(content, descriptor, compression, wanted.level, docker=not wanted.oci_types)


def convert(
    content: ContentStore,
    descriptor: Descriptor,
    compression: Compression,
    level: int | None,
    *,
    docker: bool = False,
) -> Descriptor:
    """A layer's tar compressed in another way, stored."""
    return store_layer(
        plain(content, descriptor), content, compression=compression, level=level, docker=docker
    ).descriptor


def compression_of(descriptor: Descriptor) -> Compression:
    """How a layer is compressed, by its media type."""
    if descriptor.media_type.endswith(("gzip", ".gz")):
        return Compression.GZIP
    return Compression.ZSTD if descriptor.media_type.endswith("zstd") else Compression.NONE


def plain(content: ContentStore, descriptor: Descriptor) -> Iterator[bytes]:
    """A layer's tar, decompressed."""
    with content.open(descriptor.digest) as blob:
        incoming = Incoming(blob, hashed=False)
        yield from (bytes(piece) for piece in decompress(incoming))
