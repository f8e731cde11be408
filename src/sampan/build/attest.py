"""Attestations as BuildKit stores them: in-toto statements in a manifest of their own.

Spec: spec/dockerfile/attestation-storage.md; https://in-toto.io/Statement/v1. The manifest's entry
in the index has platform ``unknown/unknown`` and names the image it is about; with OCI types it is
an OCI artifact with a ``subject``, else an image nobody can run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from sampan.content import ContentStore
from sampan.image import config as image_config
from sampan.image import document
from sampan.image.document import ConfigDocument, ManifestDocument
from sampan.model.descriptor import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_MANIFEST,
    Descriptor,
)
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.model.reference import Reference
from sampan.wire.container import ImageConfig

STATEMENT = "application/vnd.in-toto+json"
ARTIFACT = "application/vnd.docker.attestation.manifest.v1+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "in-toto.io/predicate-type"
_UNKNOWN = Platform(os="unknown", architecture="unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """What is said of an image; ``name`` is the file it gets in outputs of files."""

    name: str
    predicate_type: str
    predicate: Any


def subject_name(name: Reference, platform: Platform) -> str:
    """The package URL an image goes by in a statement."""
    where = quote(str(platform), safe="")
    return f"pkg:docker/{name.familiar_name}@{name.tag or 'latest'}?platform={where}"


def statement(attestation: Attestation, subjects: Sequence[tuple[str, Digest]]) -> bytes:
    """The statement about ``subjects`` (names and digests), as JSON."""
    return msgspec.json.encode(
        {
            "_type": _STATEMENT_TYPE,
            "predicateType": attestation.predicate_type,
            "subject": [
                {"name": name, "digest": {digest.algorithm: digest.hex}}
                for name, digest in subjects
            ],
            "predicate": attestation.predicate,
        }
    )


def attach(
    content: ContentStore,
    about: Descriptor,
    statements: Sequence[tuple[str, bytes]],
    *,
    artifact: bool,
    docker: bool,
) -> Descriptor:
    """Store a manifest with ``statements`` (predicate type and bytes) about an image's manifest.

    Returns its entry for the index; blocking.
    """
    layers = [
        Descriptor(
            media_type=STATEMENT,
            digest=content.add(raw),
            size=len(raw),
            annotations={_PREDICATE_TYPE: kind},
        )
        for kind, raw in statements
    ]
    if artifact:
        raw_config, config_type = b"{}", OCI_EMPTY
    else:
        made = image_config.make(
            ConfigDocument(architecture="unknown", os="unknown", config=ImageConfig()),
            [layer.digest for layer in layers],
        )
        raw_config, config_type = made.raw, DOCKER_CONFIG if docker else OCI_CONFIG
    config = Descriptor(
        media_type=config_type, digest=content.add(raw_config), size=len(raw_config)
    )
    plain = Descriptor(media_type=about.media_type, digest=about.digest, size=about.size)
    kind = DOCKER_MANIFEST if docker and not artifact else OCI_MANIFEST
    raw = document.encode(
        ManifestDocument(
            schema_version=2,
            media_type=kind,
            artifact_type=ARTIFACT if artifact else None,
            config=document.wire_descriptor(config),
            layers=[document.wire_descriptor(layer) for layer in layers],
            subject=document.wire_descriptor(plain) if artifact else None,
        )
    )
    return Descriptor(
        media_type=kind,
        digest=content.add(raw),
        size=len(raw),
        platform=_UNKNOWN,
        annotations={
            "vnd.docker.reference.digest": str(about.digest),
            "vnd.docker.reference.type": "attestation-manifest",
        },
    )
