"""New images: of a root file system (``docker import``), of a container (``docker commit``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sampan.content import ContentStore
from sampan.image.image import Image
from sampan.layer.compression import Compression
from sampan.layer.model import DEFAULT_LIMITS, Limits, Readable
from sampan.model.platform import Platform
from sampan.wire.container import ImageConfig


def import_(
    stream: Readable,
    content: ContentStore,
    *,
    changes: Sequence[str] = (),
    message: str = "",
    platform: Platform | None = None,
    now: datetime,
    limits: Limits = DEFAULT_LIMITS,
) -> Image:
    """An image of one layer from a root file system tar, compressed or not.

    The stream is stored as it comes and checked to be a tar within ``limits``. ``changes`` are
    Dockerfile instructions. Raises ArchiveRefused, InvalidParameter, NoSpace; keeps nothing then.
    """
    raise NotImplementedError


def commit(
    layer: Iterable[bytes],
    content: ContentStore,
    *,
    parent: Image | None,
    config: ImageConfig,
    changes: Sequence[str] = (),
    author: str = "",
    message: str = "",
    created_by: str = "",
    container: str = "",
    compression: Compression = Compression.GZIP,
    now: datetime,
) -> Image:
    """``parent`` plus one layer: a new image.

    ``layer`` is the uncompressed tar of :func:`sampan.snapshot.rootfs.diff`; ``config`` the
    container's configuration the image's defaults become, before ``changes``.
    """
    raise NotImplementedError


def append(
    parent: Image | None,
    content: ContentStore,
    *,
    layer: Iterable[bytes] | None,
    config: ImageConfig,
    created_by: str,
    author: str = "",
    message: str = "",
    container: str = "",
    platform: Platform | None = None,
    compression: Compression = Compression.GZIP,
    now: datetime,
) -> Image:
    """One history entry on top of ``parent``, with ``layer`` or (None) without one."""
    raise NotImplementedError
