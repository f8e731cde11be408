"""Which images here were made from which: a commit keeps the id of what it was made on.

An image without a name that others were made from is intermediate. It is theirs, not the user's:
listed only when all are asked for, never dangling, and gone with the last one made from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sampan.engine.core import Core
from sampan.engine.imagetable import Entry
from sampan.errors import SampanError
from sampan.image import Image


def children(images: Iterable[Image]) -> Counter[str]:
    """How many of the images were made from each id."""
    return Counter(image.config.document.parent for image in images if image.config.document.parent)


def intermediate(core: Core, entry: Entry, made: Counter[str]) -> bool:
    """Whether an image has no name and some of ``made`` (see :func:`children`) stand on it."""
    return made[str(entry.id)] > 0 and not any(other.names for other in core.images.alike(entry))


def parent_of(core: Core, entry: Entry) -> str | None:
    """The id of what an image was made from; None when it tells none. Blocks."""
    try:
        return core.images.view(entry).config.document.parent
    except SampanError:
        return None  # damaged, or for other platforms


def has_children(core: Core, entry: Entry) -> bool:
    """Whether an image here was made from this one. Blocks."""
    return any(parent_of(core, other) == str(entry.id) for other in core.images)


def ancestors(core: Core, image: Image) -> list[Entry]:
    """The images here that one was made from, nearest first. Blocks."""
    found: list[Entry] = []
    parent = image.config.document.parent
    while parent:
        try:
            entry, _ = core.images.find(parent)
        except SampanError:
            break  # it was made elsewhere, or its parent is gone
        if entry in found:
            break  # documents of strangers may claim a circle
        found.append(entry)
        parent = parent_of(core, entry)
    return found
