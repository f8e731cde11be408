"""The build cache as people see it: what it holds, what is pruned, what garbage collection takes.

Three kinds of things: results of steps (records with layers), contexts kept for the next build,
and the directories of cache mounts. What goes frees its bytes at once, or when the last build or
pull that is under way ends.
"""

from __future__ import annotations

import asyncio
import calendar
import os
import shutil
import time
from dataclasses import dataclass, field

from sampan.build.cache import BuildCache, Layer, Record
from sampan.build.gcpolicy import Entry, Policy, Settings, choose, target
from sampan.build.kept import Kept
from sampan.build.mounts import CacheDirectories
from sampan.engine import collecting, imageusage
from sampan.engine.buildcontexts import KeptContexts
from sampan.engine.core import Core, log
from sampan.engine.filters import until
from sampan.engine.options import Filters
from sampan.errors import NotFound, Unsupported
from sampan.wire.image import BuildCache as CacheItem
from sampan.wire.image import BuildPruneReport

CONTEXT, MOUNT = "source.local", "exec.cachemount"


@dataclass(slots=True, kw_only=True)
class CacheUsage:
    """The cache of one engine."""

    core: Core
    cache: BuildCache
    contexts: KeptContexts
    mounts: CacheDirectories
    _collecting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def items(self) -> list[CacheItem]:
        """Everything it holds, least recently used first."""
        return await self.core.threads.run_long(self._items)

    def _items(self) -> list[CacheItem]:
        counted = imageusage.layers(self.core)
        found = []
        for one in self.cache.records():
            chain = str(one.layer.chain_id) if one.layer is not None else ""
            found.append(_step(one, self._room(one), shared=chain in counted))
            counted |= {chain} - {""}
        found += [_kept(one, CONTEXT) for one in self.contexts.list()]
        found += [_kept(one, MOUNT) for one in self.mounts.list()]
        return sorted(found, key=lambda one: (one.last_used_at or "", one.id or ""))

    def _room(self, one: Record) -> int:
        """Bytes a step's result takes on the disk: its blob and what is unpacked of it."""
        if one.layer is None:
            return one.size
        core, chain = self.core, str(one.layer.chain_id)
        room = core.snapshots.usage(chain).size if core.snapshots.exists(chain) else 0
        try:
            return room + core.content.path(one.layer.descriptor.digest).stat().st_blocks * 512
        except (NotFound, FileNotFoundError):
            return room  # no blob was needed yet

    async def prune(
        self,
        filters: Filters | None = None,
        *,
        all: bool = False,
        keep: int = 0,
        max_used: int = 0,
        min_free: int = 0,
    ) -> BuildPruneReport:
        """Drop what nothing uses, least recently used first, until what remains is small enough.

        Bytes: ``keep`` are kept in any case; no more than ``max_used`` remain, and fewer while the
        disk has less than ``min_free`` (with neither: ``keep`` remain). Zero is no such bound.
        Filter ``until`` spares what was used since; the others choose by what :meth:`items` shows.
        Directories of cache mounts go with ``all`` or when a filter names them.
        """
        chosen = {name: values for name, values in (filters or {}).items() if name != "until"}
        latest = until(filters or {}, time.time())
        items = await self.items()
        total = sum(one.size or 0 for one in items)
        policy = Policy(reserved=keep, max_used=max_used, min_free=min_free)
        disk = await self.core.threads.run(shutil.disk_usage, self.core.config.data_root)
        free = disk.free
        dropped: list[CacheItem] = []
        for one in items:
            if policy.limited and total <= target(policy, total, free):
                break
            if one.in_use or not passes(one, chosen):
                continue
            if one.type == MOUNT and not (all or chosen):
                continue
            if latest is not None and (one.last_used_at or "") > _moment(int(latest)):
                continue
            dropped.append(one)
            total -= one.size or 0
            free += one.size or 0
        await self.remove([one.id or "" for one in dropped])
        return BuildPruneReport(
            caches_deleted=[one.id or "" for one in dropped] or None,
            space_reclaimed=sum(one.size or 0 for one in dropped),
        )

    async def remove(self, ids: list[str]) -> None:
        """Remove what has these ids (25 digits suffice) unless a build uses it."""
        if not ids:
            return
        core = self.core
        layers = await core.threads.run_long(self._remove, set(ids))

        async def erase() -> None:
            await core.threads.run_long(
                collecting.erase_of,
                core,
                {layer.descriptor.digest for layer in layers},
                {layer.chain_id for layer in layers},
            )

        await core.ingests.when_idle(erase)

    def _remove(self, ids: set[str]) -> list[Layer]:
        """What had the ids is gone; the layers that may have become useless."""
        gone = [one for one in self.cache.records() if one.key[:25] in ids]
        self.cache.forget([one.key for one in gone])
        for kept in self.contexts.list(sizes=False):
            if kept.id[:25] in ids:
                self.contexts.remove(kept.id)
        for mount in self.mounts.list(sizes=False):
            if mount.id[:25] in ids:
                self.mounts.remove(mount.id)
        return [one.layer for one in gone if one.layer is not None]

    async def collect(self, settings: Settings) -> None:
        """Apply the engine's policies; once at a time."""
        if not settings.enabled or self._collecting.locked():
            return
        async with self._collecting:
            items = await self.items()
            disk, free = await self.core.threads.run(self._disk)
            entries = [
                Entry(
                    id=one.id or "",
                    kind=one.type or "",
                    size=one.size or 0,
                    used=_seconds(one.last_used_at or ""),
                    description=one.description or "",
                    in_use=bool(one.in_use),
                )
                for one in items
            ]
            gone = choose(entries, settings.rules(disk), now=time.time(), free=free)
            if gone:
                freed = sum(one.size for one in gone)
                log.info("build cache: %d entries of %d bytes are dropped", len(gone), freed)
                await self.remove([one.id for one in gone])

    def _disk(self) -> tuple[int, int]:
        """Size and free bytes of the file system the cache lies on."""
        status = os.statvfs(self.core.config.data_root)
        return status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize


def _kept(one: Kept, kind: str) -> CacheItem:
    return CacheItem(
        id=one.id[:25],
        type=kind,
        description=one.description,
        in_use=one.in_use,
        shared=False,
        size=one.size,
        created_at=_moment(one.created),
        last_used_at=_moment(one.used),
        usage_count=one.uses,
    )


def _moment(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _seconds(moment: str) -> int:
    return calendar.timegm(time.strptime(moment, "%Y-%m-%dT%H:%M:%SZ"))


def _step(one: Record, size: int, *, shared: bool) -> CacheItem:
    return CacheItem(
        id=one.key[:25],
        parents=[one.parent[:25]] if one.parent else None,
        type=one.kind,
        description=one.description,
        in_use=False,
        shared=shared,
        size=size,
        created_at=_moment(one.created),
        last_used_at=_moment(one.used),
        usage_count=one.uses,
    )


def passes(item: CacheItem, filters: Filters) -> bool:
    """Whether an item passes every filter; ids may be cut short, flags need no value."""
    for name, values in filters.items():
        match name:
            case "id":
                fits = any((item.id or "").startswith(value[:25]) for value in values)
            case "parent":
                fits = any(value[:25] in (item.parents or ()) for value in values)
            case "type":
                fits = item.type in values
            case "description":
                fits = any(value in (item.description or "") for value in values)
            case "inuse" | "shared":
                state = bool(item.in_use if name == "inuse" else item.shared)
                fits = any((value.lower() not in ("0", "false")) == state for value in values)
            case "private":
                fits = any(
                    (value.lower() in ("0", "false")) == bool(item.shared) for value in values
                )
            case _:
                raise Unsupported(f"filter {name!r} of the build cache is not supported")
        if not fits:
            return False
    return True
