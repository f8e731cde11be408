"""Garbage a crash left: blobs and layers that no image, build cache or transfer needs.

Ordinary removal erases what it makes useless; this finds what an engine that was killed could not.
Only what has lain untouched for a day goes, so that an interrupted pull can be gone on with.
"""

from __future__ import annotations

import time

from sampan.engine.core import Core, log
from sampan.engine.imageremoval import blobs_of
from sampan.errors import Conflict, NotFound, SampanError
from sampan.model.digest import Digest
from sampan.snapshot import Kind

#: seconds
UNTOUCHED = 24 * 60 * 60.0


async def collect(core: Core, older_than: float = UNTOUCHED) -> None:
    """Erase garbage older than ``older_than`` seconds, if nothing is coming in meanwhile."""

    async def work() -> None:
        freed = await core.threads.run_long(erase, core, older_than)
        if freed:
            log.info("erased %d bytes of content nothing needs", freed)

    await core.ingests.alone(work)


def erase(core: Core, older_than: float) -> int:
    """Erase unneeded blobs and layers; returns the bytes of the blobs. Blocks.

    Raises nothing for content that cannot be read: then its image keeps everything it may need.
    """
    limit = time.time() - older_than
    blobs, chains = core.pinned(), core.pinned()
    for entry in core.images:
        try:
            blobs |= blobs_of(core, entry)
            for image in core.images.all_of(entry):
                chains.update(image.chain_ids)
        except SampanError as error:
            log.warning("content of image %s cannot be read: %s", entry.id.short, error.message)
            return 0
    freed = core.content.sweep(older_than=older_than)
    for blob in list(core.content.walk()):
        if blob.digest not in blobs and blob.modified < limit and core.content.delete(blob.digest):
            freed += blob.size
    _erase_layers(core, chains, limit)
    return freed


def _erase_layers(core: Core, needed: set[Digest], limit: float) -> None:
    """Remove layers children first; one that something stands on stays."""
    for info in reversed(list(core.snapshots.walk())):
        if info.kind is not Kind.COMMITTED or info.created >= limit:
            continue
        if not info.key.startswith("sha256:") or Digest.parse(info.key) in needed:
            continue
        try:
            core.snapshots.remove(info.key)
        except (Conflict, NotFound):
            continue
