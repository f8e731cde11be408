"""Layers, configuration and history become an image: documents in the content store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from sampan.build.cache import Layer
from sampan.content import ContentStore
from sampan.dockerfile.config import Config, table
from sampan.image import Image, assemble, make_manifest, rfc3339
from sampan.image import config as image_config
from sampan.image.document import ConfigDocument, History
from sampan.model.descriptor import OCI_CONFIG, Descriptor
from sampan.model.platform import Platform
from sampan.wire.container import ImageConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a target stage came to."""

    layers: Sequence[Layer]
    config: Config
    history: Sequence[History]
    platform: Platform
    author: str


def finish(
    content: ContentStore, outcome: Outcome, *, labels: Mapping[str, str], created: str
) -> Image:
    """The image, its documents stored; ``created`` is an RFC 3339 time."""
    config = dict(outcome.config)
    if labels:
        config["Labels"] = {**table(config, "Labels"), **labels}
    present = {key: value for key, value in config.items() if value is not None}
    document = ConfigDocument(
        architecture=outcome.platform.architecture,
        os=outcome.platform.os,
        variant=outcome.platform.variant or None,
        created=created or None,
        author=outcome.author or None,
        config=msgspec.convert(present, ImageConfig),
        history=[
            entry if entry.created else msgspec.structs.replace(entry, created=created or None)
            for entry in outcome.history
        ],
    )
    return stored(content, document, outcome.layers)


def stored(content: ContentStore, document: ConfigDocument, layers: Sequence[Layer]) -> Image:
    """The image of a configuration and layers, its documents stored."""
    made = image_config.make(document, [layer.diff_id for layer in layers])
    digest = content.add(made.raw)
    manifest = make_manifest(
        Descriptor(media_type=OCI_CONFIG, digest=digest, size=len(made.raw)),
        [layer.descriptor for layer in layers],
    )
    content.add(manifest.raw)
    return assemble(manifest.descriptor, manifest, made.raw)


def moment(time: float) -> str:
    """Seconds since the epoch as image documents write them."""
    return rfc3339(datetime.fromtimestamp(time, UTC))
