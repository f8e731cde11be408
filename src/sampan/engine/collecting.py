"""Garbage a crash left: blobs and layers that no image, build cache or transfer needs.

Ordinary removal erases what it makes useless; this finds what an engine that was killed could not.
Only what has lain untouched for a day goes, so that an interrupted pull can be gone on with.
"""

from __future__ import annotations

import contextlib
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


def needed(core: Core) -> tuple[set[Digest], set[Digest]] | None:
    """The blobs and layers (by chain id) that images and caches need. Blocks.

    None for content that cannot be read: then its image keeps everything it may need.
    """
    blobs, chains = core.pinned(), core.pinned()
    for entry in core.images:
        try:
            blobs |= blobs_of(core, entry)
            for image in core.images.all_of(entry):
                chains.update(image.chain_ids)
        except SampanError as error:
            log.warning("content of image %s cannot be read: %s", entry.id.short, error.message)
            return None
    return blobs, chains


def erase_of(core: Core, blobs: set[Digest], chains: set[Digest]) -> int:
    """Erase what of these blobs and layers nothing needs; returns the bytes of the blobs. Blocks.

    Nothing may be coming in meanwhile.
    """
    kept = needed(core)
    if kept is None:
        return 0
    freed = 0
    for digest in blobs - kept[0]:
        try:
            size = core.content.size(digest)
        except NotFound:
            continue
        freed += size if core.content.delete(digest) else 0
    gone = {str(chain) for chain in chains - kept[1]}
    for info in reversed(list(core.snapshots.walk())):
        if info.key in gone:
            with contextlib.suppress(Conflict, NotFound):
                core.snapshots.remove(info.key)
    return freed


async def collect_below(core: Core, parent: str | None) -> None:
    """Erase the layers from ``parent`` down that nothing needs any more.

    For a container that outlived its image; now, or when nothing is coming in any more.
    """
    chains: set[Digest] = set()
    while parent is not None and parent.startswith("sha256:"):
        chains.add(Digest.parse(parent))
        parent = core.snapshots.stat(parent).parent

    async def work() -> None:
        await core.threads.run_long(erase_of, core, set(), chains)

    await core.ingests.when_idle(work)


def erase(core: Core, older_than: float) -> int:
    """Erase unneeded blobs and layers; returns the bytes of the blobs. Blocks."""
    limit = time.time() - older_than
    kept = needed(core)
    if kept is None:
        return 0
    blobs, chains = kept
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
