"""The common base of all wire objects."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

#: JSON whose shape the API leaves open. The one place where ``Any`` is allowed.
Json: TypeAlias = Any


class Object(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """An object of the Docker Engine API; unknown fields are ignored, as dockerd does."""
