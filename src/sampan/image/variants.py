"""What an image's name leads to: a manifest for each platform, of which some may not be here."""

from __future__ import annotations

from dataclasses import dataclass

from sampan.content import ContentStore
from sampan.errors import InvalidParameter, NotFound
from sampan.image import manifest as manifests
from sampan.image.image import Image, assemble
from sampan.image.manifest import Index, Manifest
from sampan.model.descriptor import DOCKER_CONFIG, OCI_CONFIG, Descriptor
from sampan.model.platform import Platform

#: BuildKit's mark on manifests that are no images but say something about one.
ATTESTATION_FOR = "vnd.docker.reference.digest"
_MAX_DEPTH = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One manifest: as listed, as stored (``manifest``), as an image if it is one (``image``).

    ``whole`` tells that all its blobs are stored, ``held`` how many bytes of them are.
    """

    descriptor: Descriptor
    manifest: Manifest | None = None
    image: Image | None = None
    whole: bool = False
    held: int = 0

    @property
    def subject(self) -> str:
        """The digest of the manifest this attests something of, or empty."""
        return self.descriptor.annotations.get(ATTESTATION_FOR, "")

    @property
    def platform(self) -> Platform | None:
        """What it runs on, as the image says or else the index that lists it."""
        return self.image.platform if self.image is not None else self.descriptor.platform


def variants(content: ContentStore, target: Descriptor) -> tuple[Variant, ...]:
    """Every manifest ``target`` leads to, in the order of its index; itself if it is one.

    Blocking. What is not stored is listed without ``manifest``. Raises InvalidParameter for
    malformed documents, NotFound when ``target`` itself is missing.
    """
    parsed = manifests.parse(content.read(target.digest), target.media_type)
    if isinstance(parsed, Manifest):
        return (_variant(content, target, parsed),)
    return tuple(_listed(content, parsed, 0))


def _listed(content: ContentStore, index: Index, depth: int) -> list[Variant]:
    if depth > _MAX_DEPTH:
        raise InvalidParameter(f"malformed image index {index.digest}: indexes nest too deeply")
    found: list[Variant] = []
    for entry in index.manifests:
        if not content.exists(entry.digest):
            found.append(Variant(descriptor=entry))
            continue
        parsed = manifests.parse(content.read(entry.digest), entry.media_type)
        if isinstance(parsed, Index):
            found += _listed(content, parsed, depth + 1)
        else:
            found.append(_variant(content, entry, parsed))
    return found


def _variant(content: ContentStore, descriptor: Descriptor, manifest: Manifest) -> Variant:
    stored = [blob for blob in manifest.blobs if content.exists(blob.digest)]
    image: Image | None = None
    if manifest.config.media_type in (OCI_CONFIG, DOCKER_CONFIG):
        try:
            raw = content.read(manifest.config.digest)
            image = assemble(manifest.descriptor, manifest, raw)
        except (NotFound, InvalidParameter):
            image = None  # never pulled; or an attestation in an image's clothes
    return Variant(
        descriptor=descriptor,
        manifest=manifest,
        image=image,
        whole=len(stored) == len(manifest.blobs),
        held=len(manifest.raw) + sum(blob.size for blob in stored),
    )
