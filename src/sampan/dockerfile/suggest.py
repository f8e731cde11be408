"""What a misspelt name may have meant (pure)."""

from __future__ import annotations

from collections.abc import Iterable

#: Names that differ in as many letters or more are others.
_FAR = 3


def nearest(name: str, names: Iterable[str]) -> str:
    """The first of the names nearest to ``name``; "" when none is near, or it is one of them."""
    best, least = "", _FAR
    for other in names:
        if other == name:
            return ""
        distance = _distance(name, other)
        if distance < least:
            best, least = other, distance
    return best


def hint(name: str, names: Iterable[str], prefix: str = "") -> str:
    """What to add to a message about a name, "" when nothing is near."""
    found = nearest(name, names)
    return f" (did you mean {prefix}{found}?)" if found else ""


def _distance(one: str, other: str) -> int:
    """Insertions, deletions and replacements between two texts (Levenshtein)."""
    if abs(len(one) - len(other)) >= _FAR:
        return _FAR
    row = list(range(len(other) + 1))
    for at, letter in enumerate(one, 1):
        above, row[0] = row[0], at
        for position, found in enumerate(other, 1):
            above, row[position] = (
                row[position],
                min(row[position] + 1, row[position - 1] + 1, above + (letter != found)),
            )
    return row[-1]
