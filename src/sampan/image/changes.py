"""``--change``: Dockerfile instructions applied to an image's defaults (commit, import)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sampan.dockerfile.config import Config, Stage, apply
from sampan.dockerfile.instructions import interpret
from sampan.dockerfile.parser import parse
from sampan.errors import InvalidParameter
from sampan.wire.container import ImageConfig

_ALLOWED = frozenset(
    {"cmd", "entrypoint", "env", "expose", "healthcheck", "label", "onbuild", "shell"}
    | {"stopsignal", "user", "volume", "workdir"}
)


def apply_changes(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    """``config`` after CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL,
    STOPSIGNAL, USER, VOLUME, WORKDIR; raises InvalidParameter for anything else.
    """
    if not changes:
        return config
    document: Config = msgspec.to_builtins(config)
    stage = Stage(config=document)
    # As dockerd does: several instructions may come as one text, and go on in its next line.
    for node in parse("\n".join(changes)).nodes:
        if node.keyword not in _ALLOWED:
            raise InvalidParameter(f"{node.keyword} is not a valid change command")
        stage = apply(stage, interpret(node))
    present = {key: value for key, value in stage.config.items() if value is not None}
    return msgspec.convert(present, ImageConfig)
