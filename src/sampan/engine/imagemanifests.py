"""The manifests under an image's name, one for each platform, as the API lists them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sampan.engine.core import Core
from sampan.engine.imagetable import Entry
from sampan.errors import SampanError
from sampan.image import Image, Variant
from sampan.image.document import wire_descriptor, wire_platform
from sampan.wire.image import (
    ImageManifestSummary,
    ImageManifestSummaryAttestationData,
    ImageManifestSummaryImageData,
    ImageManifestSummaryImageDataSize,
    ImageManifestSummarySize,
)


def users(core: Core) -> dict[str, list[str]]:
    """Ids of the containers of each manifest."""
    found: dict[str, list[str]] = {}
    for container in core.containers:
        manifest = container.record.image_manifest
        if manifest is not None and manifest.digest:
            found.setdefault(manifest.digest, []).append(container.id)
    return found


def summaries(
    core: Core, entry: Entry, containers: Mapping[str, Sequence[str]]
) -> list[ImageManifestSummary]:
    """One object for every manifest; ``containers`` is what :func:`users` found. Blocks."""
    try:
        variants = core.images.variants(entry)
    except SampanError:
        return []  # damaged content: the image itself is shown as far as it can be
    return [
        _summary(core, variant, containers.get(str(variant.descriptor.digest), ()))
        for variant in variants
    ]


def _summary(core: Core, variant: Variant, containers: Sequence[str]) -> ImageManifestSummary:
    unpacked = unpacked_size(core, variant.image) if variant.image is not None else 0
    image_data = attestation = None
    if variant.subject:
        kind = "attestation"
        attestation = ImageManifestSummaryAttestationData(for_=variant.subject)
    elif variant.platform is not None:
        kind = "image"
        image_data = ImageManifestSummaryImageData(
            platform=wire_platform(variant.platform),
            containers=list(containers),
            size=ImageManifestSummaryImageDataSize(unpacked=unpacked),
        )
    else:
        kind = "unknown"
    return ImageManifestSummary(
        id=str(variant.descriptor.digest),
        descriptor=wire_descriptor(variant.descriptor),
        available=variant.whole,
        size=ImageManifestSummarySize(total=variant.held + unpacked, content=variant.held),
        kind=kind,
        image_data=image_data,
        attestation_data=attestation,
    )


def unpacked_size(core: Core, image: Image) -> int:
    """Bytes of the layers of an image that are unpacked. Blocks."""
    chains = [str(chain) for chain in image.chain_ids]
    return sum(core.snapshots.usage(chain).size for chain in chains if core.snapshots.exists(chain))
