"""How much room images take on the disk: what they share counts once."""

from __future__ import annotations

from collections.abc import Iterator

from sampan.engine import imageremoval
from sampan.engine.core import Core
from sampan.engine.imagetable import Entry
from sampan.errors import NotFound, SampanError


def measure(core: Core) -> tuple[int, int]:
    """Bytes (as du(1) counts blocks) of all images, and of those that containers use. Blocks.

    Both the unpacked layers and what came from the registry, which is kept for pushes and saves.
    """
    total: dict[str, int] = {}
    needed: dict[str, int] = {}
    for entry in core.images:
        try:
            parts = dict(_parts(core, entry, total))
        except SampanError:
            continue  # damaged content takes room, but which is not known
        total |= parts
        if imageremoval.users(core, entry):
            needed |= parts
    return sum(total.values()), sum(needed.values())


def layers(core: Core) -> set[str]:
    """The chain ids of every image's layers."""
    found: set[str] = set()
    for entry in core.images:
        try:
            for image in core.images.all_of(entry):
                found.update(map(str, image.chain_ids))
        except SampanError:
            continue  # damaged content: what it had is not known
    return found


def _parts(core: Core, entry: Entry, known: dict[str, int]) -> Iterator[tuple[str, int]]:
    for digest in imageremoval.blobs_of(core, entry):
        key = f"blob {digest}"
        try:
            yield key, known.get(key) or core.content.path(digest).stat().st_blocks * 512
        except (NotFound, FileNotFoundError):
            continue  # another platform's
    for image in core.images.all_of(entry):
        for chain in map(str, image.chain_ids):
            if core.snapshots.exists(chain):
                yield f"layer {chain}", core.snapshots.usage(chain).size
