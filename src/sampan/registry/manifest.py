"""Manifests and indexes as views over their bytes (OCI image spec; Docker schema 2).

The bytes are the identity and are kept as received; a view is what a registry or its client needs
to know of them: what they refer to. Unknown fields are ignored, missing ones are an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from sampan.errors import InvalidParameter
from sampan.model.descriptor import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEXES,
    MANIFESTS,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
)
from sampan.model.digest import Digest
from sampan.model.platform import Platform

#: The short-lived artifact manifest of image-spec 1.1-rc; registries still hold some.
OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
#: What a client says it understands, best first.
ACCEPT = ", ".join((OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST, OCI_ARTIFACT))
#: OCI distribution spec, "Pushing Manifests": at least four megabytes must be possible.
MAX_MANIFEST = 4 << 20


class _Platform(msgspec.Struct, frozen=True):
    os: str = ""
    architecture: str = ""
    variant: str = ""
    os_version: str = msgspec.field(name="os.version", default="")
    os_features: tuple[str, ...] = msgspec.field(name="os.features", default=())

    def value(self) -> Platform:
        return Platform(
            os=self.os,
            architecture=self.architecture,
            variant=self.variant,
            os_version=self.os_version,
            os_features=self.os_features,
        )


class _Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str
    digest: str
    size: int
    platform: _Platform | None = None
    annotations: dict[str, str] | None = None
    urls: list[str] | None = None
    artifact_type: str | None = None

    def value(self) -> Descriptor:
        if self.size < 0:
            raise InvalidParameter(f"invalid manifest: negative size of {self.digest}")
        return Descriptor(
            media_type=self.media_type,
            digest=Digest.parse(self.digest),
            size=self.size,
            platform=self.platform.value() if self.platform else None,
            annotations=self.annotations or {},
            urls=tuple(self.urls or ()),
            artifact_type=self.artifact_type or "",
        )


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    schema_version: int | None = None
    media_type: str | None = None
    config: _Descriptor | None = None
    layers: list[_Descriptor] | None = None
    blobs: list[_Descriptor] | None = None
    manifests: list[_Descriptor] | None = None
    subject: _Descriptor | None = None
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None


_DECODER = msgspec.json.Decoder(_Document)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A manifest or index: media type, exact bytes, and what they refer to.

    An image manifest has ``config`` and ``layers``; an index has ``manifests``; either may have a
    ``subject``. ``artifact_type`` is the one the referrers API shows.
    """

    media_type: str
    raw: bytes = field(repr=False)
    digest: Digest
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_index(self) -> bool:
        """Whether this lists manifests rather than layers."""
        return self.media_type in INDEXES

    @property
    def descriptor(self) -> Descriptor:
        """A pointer to this document."""
        return Descriptor(media_type=self.media_type, digest=self.digest, size=len(self.raw))

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers: what must be in the repository for this to be pullable."""
        return ((self.config,) if self.config else ()) + self.layers


def parse(raw: bytes, media_type: str = "", digest: Digest | None = None) -> Manifest:
    """The manifest in ``raw``.

    ``media_type`` is the Content-Type it came with, parameters allowed; empty means what the
    document says. ``digest`` is taken as verified. Raises :class:`InvalidParameter` when the
    document is no manifest, or says another media type.
    """
    media_type = media_type.partition(";")[0].strip()
    try:
        document = _DECODER.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidParameter(f"invalid manifest: {error}") from error
    declared = document.media_type or ""
    if media_type in ("", "application/json", "application/octet-stream", "text/plain"):
        media_type = declared or (OCI_INDEX if document.manifests is not None else OCI_MANIFEST)
    elif declared and declared != media_type:
        raise InvalidParameter(
            f"invalid manifest: mediaType is {declared!r}, Content-Type {media_type!r}"
        )
    _check(document, media_type)
    config = document.config.value() if document.config else None
    return Manifest(
        media_type=media_type,
        raw=raw,
        digest=digest or Digest.of(raw),
        config=config,
        layers=tuple(item.value() for item in document.layers or document.blobs or ()),
        manifests=tuple(item.value() for item in document.manifests or ()),
        subject=document.subject.value() if document.subject else None,
        artifact_type=document.artifact_type or (config.media_type if config else ""),
        annotations=document.annotations or {},
    )


def _check(document: _Document, media_type: str) -> None:
    """That the document has the fields its type needs, and not those of another type.

    The latter because a document both manifest and index means different things to different
    readers (CVE-2021-41190).
    """
    if media_type == OCI_ARTIFACT:
        return
    if media_type not in INDEXES | MANIFESTS:
        raise InvalidParameter(f"unsupported manifest media type: {media_type[:100]!r}")
    if document.schema_version != 2:
        raise InvalidParameter("invalid manifest: schemaVersion is not 2")
    if media_type in INDEXES:
        if document.manifests is None:
            raise InvalidParameter("invalid index: no manifests")
        if document.config is not None or document.layers is not None:
            raise InvalidParameter("invalid index: has the config or layers of a manifest")
    else:
        if document.config is None or document.layers is None:
            raise InvalidParameter("invalid manifest: no config or no layers")
        if document.manifests is not None:
            raise InvalidParameter("invalid manifest: has the manifests of an index")


def is_foreign(descriptor: Descriptor) -> bool:
    """Whether a layer is kept elsewhere on purpose (non-distributable) and need not be here."""
    return ".nondistributable." in descriptor.media_type or ".foreign." in descriptor.media_type


def encode_descriptor(descriptor: Descriptor) -> dict[str, object]:
    """``descriptor`` as the JSON object of the OCI image spec."""
    document: dict[str, object] = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }
    if descriptor.artifact_type:
        document["artifactType"] = descriptor.artifact_type
    if descriptor.annotations:
        document["annotations"] = dict(descriptor.annotations)
    if descriptor.urls:
        document["urls"] = list(descriptor.urls)
    if descriptor.platform:
        platform = {"os": descriptor.platform.os, "architecture": descriptor.platform.architecture}
        if descriptor.platform.variant:
            platform["variant"] = descriptor.platform.variant
        if descriptor.platform.os_version:
            platform["os.version"] = descriptor.platform.os_version
        document["platform"] = platform
    return document


def encode_index(descriptors: list[dict[str, object]]) -> bytes:
    """An OCI index of ``descriptors``, for referrers lists."""
    return msgspec.json.encode(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}
    )
