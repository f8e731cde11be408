"""How long records of builds are kept (pure): BuildKit's ``[history]``, daemon.json's
``builder.history``.

A record goes once it is both older than ``max_age`` and not among the ``max_entries`` newest;
pinned ones stay and do not count. BuildKit keeps any number of young ones: here an engine that
builds all day keeps :data:`MOST` at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from sampan.build.gcpolicy import duration
from sampan.errors import InvalidParameter

#: Records an engine keeps at most, pinned ones besides.
MOST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """The bounds. ``max_age`` in seconds; no ``max_entries``: no records are kept."""

    max_age: float = 48 * 3600
    max_entries: int = 50

    @property
    def enabled(self) -> bool:
        """Whether builds are recorded at all."""
        return self.max_entries > 0


def expired(records: Iterable[tuple[str, float]], bounds: Retention, *, now: float) -> list[str]:
    """Which of the unpinned ``records`` (ref and seconds since the epoch of its end) go."""
    newest = sorted(records, key=lambda one: (-one[1], one[0]))
    return [
        ref
        for number, (ref, ended) in enumerate(newest)
        if number >= MOST or (number >= bounds.max_entries and ended < now - bounds.max_age)
    ]


def parse(document: Mapping[str, object]) -> Retention:
    """daemon.json's object (``maxAge``, ``maxEntries``; case does not matter).

    Raises InvalidParameter.
    """
    found = Retention()
    for name, value in document.items():
        match name.lower():
            case "maxage":
                found = replace(found, max_age=duration(value, "builder.history: maxAge"))
            case "maxentries":
                if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                    raise InvalidParameter(f"builder.history: maxEntries: invalid number {value!r}")
                found = replace(found, max_entries=value)
            case _:
                raise InvalidParameter(f"builder.history: unknown key {name!r}")
    return found
