"""Volumes as values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sampan.errors import InvalidParameter

#: Docker's rule for names of volumes (and containers).
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")

#: Marks volumes whose name the engine made up; ``docker volume prune`` takes only these.
ANONYMOUS_LABEL = "com.docker.volume.anonymous"


def check_name(name: str) -> None:
    """Raise :class:`InvalidParameter` unless ``name`` may name a volume."""
    if not _NAME.fullmatch(name):
        raise InvalidParameter(
            f'create {name[:80]}: "{name[:80]}" includes invalid characters for a local volume '
            'name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host '
            "directory, use absolute path"
        )
    if len(name) > 255:
        raise InvalidParameter(f"volume name is longer than 255 characters: {name[:80]}...")


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One volume: where its data is and what was said about it.

    ``created_at`` is RFC 3339 as the API shows it; ``mountpoint`` the directory a container
    gets (``<root>/<name>/_data``), of a plugin's volume where the plugin says it is (empty while
    it is nowhere); ``status`` is what a plugin tells besides.
    """

    name: str
    mountpoint: Path
    created_at: str
    driver: str = "local"
    scope: str = "local"
    status: Mapping[str, object] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def anonymous(self) -> bool:
        """Whether the engine made up the name."""
        return ANONYMOUS_LABEL in self.labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Bytes on disk (``-1`` when unknown) and how many containers refer to the volume."""

    size: int
    references: int
