"""Manifests and indexes: views that keep the bytes they were parsed from.

The bytes are the identity (their digest names the image everywhere); the view is only a reading
of them. OCI image spec 1.1 manifest.md and image-index.md; Docker manifest v2 schema 2 and
manifest lists, which have the same fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sampan.errors import InvalidParameter, NotFound, Unsupported
from sampan.image import document
from sampan.image.document import ManifestDocument
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

#: More layers than any kernel stacks, entries than any publisher lists: malformed beyond.
MAX_LAYERS = 1024
MAX_MANIFESTS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image (or artifact): its configuration and layers, bottom first."""

    raw: bytes = field(repr=False)
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> Digest:
        """The digest of the bytes."""
        return Digest.of(self.raw)

    @property
    def descriptor(self) -> Descriptor:
        """A descriptor of this manifest."""
        return Descriptor(media_type=self.media_type, digest=self.digest, size=len(self.raw))

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Everything a transfer must bring besides the manifest: configuration, then layers."""
        return (self.config, *self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Several images under one name, usually one for each platform."""

    raw: bytes = field(repr=False)
    media_type: str
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> Digest:
        """The digest of the bytes."""
        return Digest.of(self.raw)

    @property
    def descriptor(self) -> Descriptor:
        """A descriptor of this index."""
        return Descriptor(media_type=self.media_type, digest=self.digest, size=len(self.raw))

    def select(self, platform: Platform) -> Descriptor:
        """The entry that best runs on ``platform``; raises NotFound naming what there is.

        An entry for exactly the platform wins, then the highest variant that runs on it, then an
        entry that names no platform. Attestations (platform ``unknown``) never match.
        """
        found = select(self.manifests, platform)
        if found is None:
            offered = ", ".join(str(entry.platform) for entry in self.manifests if entry.platform)
            raise NotFound(
                f"no matching manifest for {platform} in the manifest list entries"
                + (f" (there are {offered[:300]})" if offered else "")
            )
        return found


def select(entries: Sequence[Descriptor], platform: Platform) -> Descriptor | None:
    """The entry of ``entries`` that best runs on ``platform``, or None (see Index.select)."""
    wanted = platform.normalized()
    best: Descriptor | None = None
    best_rank: tuple[int, str] = (0, "")
    for entry in entries:
        if entry.platform is None:
            rank = (1, "")
        elif not wanted.runs(entry.platform):
            continue
        else:
            offered = entry.platform.normalized()
            same = offered.architecture == wanted.architecture
            rank = (
                4 if same and offered.variant == wanted.variant else 3 if same else 2,
                offered.variant,
            )
        if rank > best_rank:
            best, best_rank = entry, rank
    return best


def parse(raw: bytes, media_type: str = "") -> Manifest | Index:
    """The manifest or index in ``raw``.

    ``media_type`` is what the transport said; it must agree with the document, which may not be
    readable as both (CVE-2021-41190). Raises InvalidParameter; Unsupported for schema 1.
    """
    parsed = document.decode(raw, ManifestDocument, "image manifest")
    if parsed.schema_version == 1:
        raise Unsupported("image manifests of schema version 1 are no longer supported by anyone")
    if parsed.schema_version != 2:
        raise InvalidParameter(f"malformed image manifest: schemaVersion {parsed.schema_version}")
    if parsed.manifests is not None and (parsed.layers is not None or parsed.config is not None):
        raise InvalidParameter("malformed image manifest: it is both a manifest and an index")
    kind = _media_type(parsed, media_type)
    subject = document.descriptor(parsed.subject, "subject") if parsed.subject else None
    if kind in INDEXES:
        if len(parsed.manifests or ()) > MAX_MANIFESTS:
            raise InvalidParameter(f"malformed image index: more than {MAX_MANIFESTS} entries")
        return Index(
            raw=raw,
            media_type=kind,
            manifests=tuple(
                document.descriptor(entry, "image index") for entry in parsed.manifests or ()
            ),
            subject=subject,
            artifact_type=parsed.artifact_type or "",
            annotations=parsed.annotations or {},
        )
    if parsed.config is None:
        raise InvalidParameter("malformed image manifest: it has no config")
    if len(parsed.layers or ()) > MAX_LAYERS:
        raise InvalidParameter(f"malformed image manifest: more than {MAX_LAYERS} layers")
    return Manifest(
        raw=raw,
        media_type=kind,
        config=document.descriptor(parsed.config, "image manifest"),
        layers=tuple(document.descriptor(layer, "image manifest") for layer in parsed.layers or ()),
        subject=subject,
        artifact_type=parsed.artifact_type or "",
        annotations=parsed.annotations or {},
    )


def _media_type(parsed: ManifestDocument, announced: str) -> str:
    """The document's kind: what it says itself, else what was announced, else by its fields."""
    kind = parsed.media_type or announced
    if parsed.media_type and announced and parsed.media_type != announced:
        raise InvalidParameter(
            f"malformed image manifest: announced as {announced}, but says {parsed.media_type}"
        )
    if not kind:
        return OCI_INDEX if parsed.manifests is not None else OCI_MANIFEST
    if kind not in INDEXES | MANIFESTS:
        raise InvalidParameter(f"unsupported media type of an image manifest: {kind[:100]}")
    if kind in INDEXES and (parsed.manifests is None or parsed.config is not None):
        raise InvalidParameter(f"malformed image index: {kind} without manifests")
    if kind in MANIFESTS and parsed.manifests is not None:
        raise InvalidParameter(f"malformed image manifest: {kind} with manifests")
    return kind


def make_manifest(
    config: Descriptor,
    layers: Sequence[Descriptor],
    *,
    annotations: Mapping[str, str] | None = None,
    docker: bool = False,
) -> Manifest:
    """A new OCI manifest (or Docker's schema 2) of these parts."""
    kind = DOCKER_MANIFEST if docker else OCI_MANIFEST
    raw = document.encode(
        ManifestDocument(
            schema_version=2,
            media_type=kind,
            config=document.wire_descriptor(config),
            layers=[document.wire_descriptor(layer) for layer in layers],
            annotations=dict(annotations) if annotations else None,
        )
    )
    return Manifest(
        raw=raw,
        media_type=kind,
        config=config,
        layers=tuple(layers),
        annotations=annotations or {},
    )


def make_index(
    manifests: Sequence[Descriptor],
    *,
    annotations: Mapping[str, str] | None = None,
    docker: bool = False,
) -> Index:
    """A new OCI index (or Docker manifest list) of these entries."""
    kind = DOCKER_LIST if docker else OCI_INDEX
    raw = document.encode(
        ManifestDocument(
            schema_version=2,
            media_type=kind,
            manifests=[document.wire_descriptor(entry) for entry in manifests],
            annotations=dict(annotations) if annotations else None,
        )
    )
    return Index(
        raw=raw, media_type=kind, manifests=tuple(manifests), annotations=annotations or {}
    )
