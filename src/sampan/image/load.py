"""``docker load``: docker-archive and OCI layout tars into the content store."""

from __future__ import annotations

from dataclasses import dataclass

from sampan.content import ContentStore
from sampan.image.image import Image
from sampan.layer.model import DEFAULT_LIMITS, Limits, Readable
from sampan.model.descriptor import Descriptor
from sampan.model.platform import Platform
from sampan.model.reference import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What to record for one image of an archive: ``names`` -> ``target``.

    ``image`` is the one for the wanted platform, or None when an index brings none for it.
    """

    target: Descriptor
    names: tuple[Reference, ...]
    image: Image | None


def load(
    stream: Readable,
    content: ContentStore,
    *,
    platform: Platform | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[Loaded, ...]:
    """Take in an archive (compressed or not) of one or more images; blocking, streaming.

    Blobs are spooled into the store's ingests and become visible only once the whole archive was
    read and verified: a failure keeps nothing. Raises ArchiveRefused, DigestMismatch,
    InvalidParameter, NoSpace.
    """
    raise NotImplementedError
