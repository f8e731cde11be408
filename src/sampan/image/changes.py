"""``--change``: Dockerfile instructions applied to an image's defaults (commit, import)."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.wire.container import ImageConfig


def apply_changes(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    """``config`` after CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL,
    STOPSIGNAL, USER, VOLUME, WORKDIR; raises InvalidParameter for anything else.
    """
    raise NotImplementedError
