"""Directories that builds keep from one to the next, and the note beside each of what it is.

A note is a small JSON object; its time is that of the directory's last use. Losing one loses no
more than what people are shown.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One kept directory as people see it; size in bytes, times in seconds since the epoch."""

    id: str
    description: str
    size: int
    created: int
    used: int
    uses: int
    in_use: bool

    @classmethod
    def noted(
        cls,
        path: Path,
        note: Mapping[str, Any],
        *,
        identity: str,
        description: str,
        size: int,
        in_use: bool,
    ) -> Kept:
        """The one whose ``note`` lies at ``path``. Raises FileNotFoundError when that is gone."""
        return cls(
            id=identity,
            description=description,
            size=size,
            created=int(str(note.get("created", 0))),
            used=int(path.stat().st_mtime),
            uses=int(str(note.get("uses", 0))),
            in_use=in_use,
        )


def read_note(path: Path) -> dict[str, Any]:
    """The note at ``path``; empty when there is none that can be read."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def note_use(path: Path, about: Mapping[str, str]) -> None:
    """Count one more use in the note at ``path``, which says ``about`` as well."""
    before = read_note(path)
    note = {
        **about,
        "created": before.get("created", int(time.time())),
        "uses": int(str(before.get("uses", 0))) + 1,
    }
    temporary = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
    temporary.write_text(json.dumps(note))
    temporary.replace(path)
