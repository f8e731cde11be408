"""``docker save``: images as one tar that is a docker-archive and an OCI layout at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sampan.content import ContentStore
from sampan.image.image import Image
from sampan.model.reference import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """One image to save and the names (with tags) it goes by; all platforms stored if ``all``."""

    image: Image
    names: tuple[Reference, ...] = ()
    all_platforms: bool = False


def save(images: Sequence[Saved], content: ContentStore) -> Iterator[bytes]:
    """The archive in chunks; what ``docker load``, ``podman load`` and skopeo read.

    Each blob is written once; the result is deterministic. Raises NotFound, before the first
    chunk, when content is missing.
    """
    raise NotImplementedError
