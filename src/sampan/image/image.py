"""An image: a manifest and its configuration, read from a content store."""

from __future__ import annotations

from dataclasses import dataclass

from sampan.content import ContentStore
from sampan.errors import InvalidParameter
from sampan.image import config as configuration
from sampan.image import manifest as manifests
from sampan.image.config import Config
from sampan.image.manifest import Index, Manifest
from sampan.model.descriptor import DOCKER_CONFIG, OCI_CONFIG, Descriptor
from sampan.model.digest import Digest
from sampan.model.platform import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image for one platform. ``target`` is what its name points to: manifest or index."""

    target: Descriptor
    manifest: Manifest
    config: Config

    @property
    def id(self) -> Digest:
        """The image id: the digest of the configuration, as docker shows it."""
        return self.manifest.config.digest

    @property
    def platform(self) -> Platform:
        """What it runs on."""
        return self.config.platform

    @property
    def chain_ids(self) -> tuple[Digest, ...]:
        """The chain id of every layer, bottom first; the last one names the whole root."""
        return configuration.chain_ids(self.config.diff_ids)

    @property
    def chain_id(self) -> Digest | None:
        """The chain id of the whole root; None for an image without layers."""
        chain = self.chain_ids
        return chain[-1] if chain else None

    @property
    def content_size(self) -> int:
        """Bytes of manifest, configuration and layers as transferred."""
        return len(self.manifest.raw) + sum(blob.size for blob in self.manifest.blobs)


def open_image(
    content: ContentStore, target: Descriptor, platform: Platform | None = None
) -> Image:
    """The image under ``target``, for ``platform`` (default: the host's) when it is an index.

    Raises NotFound (content missing, no matching platform), InvalidParameter (malformed, or an
    artifact that is not an image), Corrupt.
    """
    entry = target
    for _ in range(4):  # an index of indexes is legal, an endless one is not
        parsed = manifests.parse(content.read(entry.digest), entry.media_type)
        if isinstance(parsed, Manifest):
            return assemble(target, parsed, content.read(parsed.config.digest))
        entry = parsed.select(platform or Platform.host())
    raise InvalidParameter(f"malformed image index {target.digest}: indexes nest too deeply")


def assemble(target: Descriptor, manifest: Manifest, raw_config: bytes) -> Image:
    """The image of ``manifest`` with its configuration's bytes; validated against each other."""
    if manifest.config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
        raise InvalidParameter(
            f"{manifest.digest} is not an image but an artifact ({manifest.config.media_type})"
        )
    config = configuration.parse(raw_config)
    announced = manifest.config.digest
    if Digest.of(raw_config, announced.algorithm) != announced:
        raise InvalidParameter(f"the configuration does not have digest {announced}")
    if len(config.diff_ids) != len(manifest.layers):
        raise InvalidParameter(
            f"malformed image {config.digest}: {len(manifest.layers)} layers, "
            f"but {len(config.diff_ids)} diff ids"
        )
    return Image(target=target, manifest=manifest, config=config)


def manifests_below(content: ContentStore, target: Descriptor) -> tuple[Descriptor, ...]:
    """Every manifest and index reachable from ``target`` that is stored, ``target`` first.

    What garbage collection marks, together with each manifest's ``blobs``.
    """
    seen: dict[Digest, Descriptor] = {}
    pending = [target]
    while pending:
        entry = pending.pop()
        if entry.digest in seen or not content.exists(entry.digest):
            continue
        seen[entry.digest] = entry
        parsed = manifests.parse(content.read(entry.digest), entry.media_type)
        if isinstance(parsed, Index):
            pending.extend(parsed.manifests)
    return tuple(seen.values())
