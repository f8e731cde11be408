"""A base image from a distribution's package archive, for machines without a registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from sampan.content import ContentStore
from sampan.image.image import Image
from sampan.model.platform import Platform


def bootstrap(
    name: str,
    content: ContentStore,
    *,
    packages: Sequence[str] = (),
    variant: str = "minbase",
    platform: Platform | None = None,
    report: Callable[[str], None] | None = None,
    now: datetime,
) -> Image:
    """Build ``debian:SUITE`` or ``ubuntu:SUITE`` with mmdebstrap and the host's apt sources.

    ``report`` gets mmdebstrap's progress lines. Blocking (minutes). Raises InvalidParameter for
    a name that is neither, Unavailable when mmdebstrap is missing or fails; keeps nothing then.
    """
    raise NotImplementedError
