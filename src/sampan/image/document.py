"""The JSON documents of images as msgspec structs, for decoding and encoding only.

OCI image spec manifest.md, image-index.md, config.md; Docker image spec v1.3 (docker-image).
Everything optional on the wire is optional here; the views in :mod:`sampan.image.manifest` and
:mod:`sampan.image.config` validate.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from sampan.errors import InvalidParameter
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.wire.container import ImageConfig, OCIDescriptor, OCIPlatform

T = TypeVar("T")


class Document(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Base: unknown fields are ignored, absent ones stay absent."""


class ManifestDocument(Document, kw_only=True, frozen=True, omit_defaults=True):
    """An image manifest or index; which one is told by the fields present."""

    schema_version: int = msgspec.field(default=0, name="schemaVersion")
    media_type: str | None = msgspec.field(default=None, name="mediaType")
    artifact_type: str | None = msgspec.field(default=None, name="artifactType")
    config: OCIDescriptor | None = None
    layers: list[OCIDescriptor] | None = None
    manifests: list[OCIDescriptor] | None = None
    subject: OCIDescriptor | None = None
    annotations: dict[str, str] | None = None


class RootFS(Document, kw_only=True, frozen=True, omit_defaults=False):
    """The layers by the digests of their uncompressed tars, bottom first; always written."""

    type: str = "layers"
    diff_ids: list[str] | None = None


class History(Document, kw_only=True, frozen=True, omit_defaults=True):
    """How one layer came about."""

    created: str | None = None
    author: str | None = None
    created_by: str | None = None
    comment: str | None = None
    empty_layer: bool | None = None


class ConfigDocument(Document, kw_only=True, frozen=True, omit_defaults=True):
    """An image configuration; the image's id is the digest of its bytes."""

    architecture: str = ""
    os: str = ""
    variant: str | None = None
    os_version: str | None = msgspec.field(default=None, name="os.version")
    os_features: list[str] | None = msgspec.field(default=None, name="os.features")
    created: str | None = None
    author: str | None = None
    comment: str | None = None
    #: the image it was made from, where it was made (Docker's images have it)
    parent: str | None = None
    container: str | None = None
    docker_version: str | None = None
    config: ImageConfig | None = None
    rootfs: RootFS | None = None
    history: list[History] | None = None
    #: what a build can be resumed from (BuildKit's inline cache)
    inline_cache: str | None = msgspec.field(default=None, name="moby.buildkit.cache.v0")


def decode(raw: bytes, kind: type[T], what: str) -> T:
    """``raw`` as ``kind``; raises InvalidParameter naming ``what`` and the field at fault."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidParameter(f"malformed {what}: {error}") from error


def encode(document: msgspec.Struct) -> bytes:
    """The canonical bytes of a document we make: absent fields left out, order fixed."""
    return msgspec.json.encode(document)


def descriptor(wire: OCIDescriptor, what: str) -> Descriptor:
    """A descriptor from the wire, validated; raises InvalidParameter naming ``what``."""
    if not wire.digest or wire.size is None or wire.size < 0:
        raise InvalidParameter(f"malformed {what}: a descriptor lacks digest or size")
    return Descriptor(
        media_type=wire.media_type or "",
        digest=Digest.parse(wire.digest),
        size=wire.size,
        platform=platform(wire.platform) if wire.platform else None,
        annotations=wire.annotations or {},
        urls=tuple(wire.urls or ()),
        artifact_type=wire.artifact_type or "",
    )


def wire_descriptor(value: Descriptor) -> OCIDescriptor:
    """A descriptor for the wire."""
    return OCIDescriptor(
        media_type=value.media_type,
        digest=str(value.digest),
        size=value.size,
        platform=wire_platform(value.platform) if value.platform else None,
        annotations=dict(value.annotations) or None,
        urls=list(value.urls) or None,
        artifact_type=value.artifact_type or None,
    )


def platform(wire: OCIPlatform) -> Platform:
    """A platform from the wire."""
    return Platform(
        os=wire.os or "",
        architecture=wire.architecture or "",
        variant=wire.variant or "",
        os_version=wire.os_version or "",
        os_features=tuple(wire.os_features or ()),
    )


def wire_platform(value: Platform) -> OCIPlatform:
    """A platform for the wire."""
    return OCIPlatform(
        os=value.os,
        architecture=value.architecture,
        variant=value.variant or None,
        os_version=value.os_version or None,
        os_features=list(value.os_features) or None,
    )
