"""Removing images nobody uses by policy: too long unused, or too much in all.

Off unless configured (``image-gc``). What any container, mount or build stands on is never
removed, nor are the newest ``keep_last`` images of each repository.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sampan.engine import clock, imageremoval, imageusage
from sampan.engine.config import ImageGarbage
from sampan.engine.core import Core, log
from sampan.engine.imagetable import Entry, update_used
from sampan.errors import SampanError
from sampan.snapshot import Kind

#: seconds an image that was just pulled or used is safe from being too much
GRACE = 600.0
#: seconds between two looks when no image comes
_PAUSE = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An image as policy sees it; ``used`` is when it last was, in seconds since the epoch."""

    key: str
    repositories: tuple[str, ...]
    came: float
    used: float
    busy: bool


def removable(policy: ImageGarbage, candidates: Sequence[Candidate]) -> list[Candidate]:
    """What may go at all, the least recently used first."""
    kept: set[str] = set()
    by_repository: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        for repository in candidate.repositories:
            by_repository.setdefault(repository, []).append(candidate)
    for group in by_repository.values():
        group.sort(key=lambda candidate: candidate.came, reverse=True)
        kept.update(candidate.key for candidate in group[: policy.keep_last])
    free = [item for item in candidates if not item.busy and item.key not in kept]
    return sorted(free, key=lambda candidate: candidate.used)


def too_old(policy: ImageGarbage, candidate: Candidate, now: float) -> bool:
    """Whether age alone is a reason to remove an image."""
    return policy.max_age is not None and now - candidate.used > policy.max_age


async def keep(core: Core) -> None:
    """Apply the policy at once, whenever images came, and every hour, until the engine closes."""
    while not core.closing.is_set():
        core.images.changed.clear()
        try:
            await apply(core)
            await _store_uses(core)
        except SampanError as error:
            log.warning("image garbage collection: %s", error.message)
        with suppress(TimeoutError):
            await asyncio.wait_for(core.images.changed.wait(), _PAUSE)


async def apply(core: Core) -> list[str]:
    """Remove what the policy says; the ids of the images that went."""
    policy = core.config.image_gc
    if policy.max_age is None and policy.max_size is None:
        return []
    now = clock.now() / 1e9
    found = await core.threads.run_long(_candidates, core)
    gone: list[str] = []
    for candidate in removable(policy, list(found)):
        if not too_old(policy, candidate, now):
            if policy.max_size is None or now - candidate.used < GRACE:
                break  # the rest was used later
            total, _ = await core.threads.run_long(imageusage.measure, core)
            if total <= policy.max_size:
                break
        entry = found[candidate]
        # Looked at again: a container may have been made of it while we were measuring.
        busy = await core.threads.run(_is_busy, core, entry, _stood_on(core))
        if busy or entry.used / 1e9 > candidate.used:
            continue
        log.info("removing image %s by policy", ", ".join(sorted(entry.names)) or entry.id.short)
        await imageremoval.remove_entry(core, entry)
        gone.append(str(entry.id))
    return gone


def _candidates(core: Core) -> dict[Candidate, Entry]:
    standing = _stood_on(core)
    found = {}
    for entry in core.images:
        candidate = Candidate(
            key=str(entry.target.digest),
            repositories=tuple(sorted({name.name for name in entry.references})),
            came=entry.created / 1e9,
            used=max(entry.created, entry.used) / 1e9,
            busy=_is_busy(core, entry, standing),
        )
        found[candidate] = entry
    return found


def _is_busy(core: Core, entry: Entry, standing: set[str]) -> bool:
    """Whether containers are made of an image, or anything stands on its layers."""
    if imageremoval.users(core, entry):
        return True
    return not standing.isdisjoint(_tops(core, entry))


def _stood_on(core: Core) -> set[str]:
    """The layers that containers, mounts and builds stand on."""
    return {
        info.parent
        for info in core.snapshots.walk()
        if info.kind is not Kind.COMMITTED and info.parent is not None
    }


def _tops(core: Core, entry: Entry) -> Iterator[str]:
    try:
        yield from (str(image.chain_id) for image in core.images.all_of(entry) if image.chain_id)
    except SampanError:
        return  # damaged content is nobody's


async def _store_uses(core: Core) -> None:
    """Write down when images were last used: seldom, since starts should not wait for it."""
    fresh = [entry for entry in core.images if entry.used > entry.used_stored]
    if fresh:
        await core.state.write(*(update_used(entry) for entry in fresh))
        for entry in fresh:
            entry.used_stored = entry.used
