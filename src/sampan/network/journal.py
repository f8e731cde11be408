"""What other programs hold for endpoints, written before they are asked for it.

A plugin's endpoint or a CNI lease outlives us, a reboot too. An entry, one file, says what to
give back; it is there from before the first call until after the last.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from sampan.content.atomic import atomic_write
from sampan.errors import storage_error

_SUFFIX = ".json"


class Journal:
    """One directory of entries, by endpoint id."""

    def __init__(self, directory: Path) -> None:
        """``directory`` is made when there is something to write."""
        self._directory = directory

    def write(self, endpoint_id: str, entry: Mapping[str, object]) -> None:
        """Write or replace an entry; durable when this returns. Raises NoSpace, SampanError."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic_write(self._path(endpoint_id), json.dumps(entry).encode())
        except OSError as error:
            raise storage_error(error, "noting a network endpoint") from error

    def read(self, endpoint_id: str) -> dict[str, object] | None:
        """An entry, ``None`` when there is none (or it cannot be understood)."""
        try:
            found = json.loads(self._path(endpoint_id).read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def remove(self, endpoint_id: str) -> None:
        """Forget an entry. Idempotent."""
        with contextlib.suppress(FileNotFoundError):
            self._path(endpoint_id).unlink()

    def list(self) -> tuple[str, ...]:
        """Endpoint ids of all entries, sorted."""
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return ()
        ids = (name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))
        return tuple(sorted(i for i in ids if i.isalnum()))

    def _path(self, endpoint_id: str) -> Path:
        return self._directory / f"{endpoint_id}{_SUFFIX}"
