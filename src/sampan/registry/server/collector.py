"""Garbage collection while pushes go on, without locks, from any server of a shared store.

Two levels: a repository's link to a blob that none of its manifests refers to; then a blob that no
repository links. Each goes only when it is older than the grace period, which is how long a client
may take between hearing that a blob is here (or sending it) and pushing the manifest.

Grace alone would leave a race: a claim made between looking and deleting. So, for each batch:

1. **condemn**: write ``condemned/<digest>/<collection>``;
2. **look again** for claims: the link's or lease's time, and manifests that came meanwhile;
3. **delete** what still has none;
4. **absolve**: remove the marks.

Whoever claims a blob does the reverse: claim first, then look for marks, and wait for them to go
(:meth:`Store._outlive_collection`). With a store that reads its own writes, one side sees the
other. The delete of step 3 happens within :data:`PATIENCE` of step 1 or not at all, and marks are
believed for much longer than that, so a collection that died blocks nobody for good and one that
was paused does no harm.

A repository's manifests are marked before its links are listed and looked at again after
condemning, so nothing that an accepted manifest refers to is ever deleted, whatever ``grace`` is.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field

from sampan.errors import InvalidParameter
from sampan.model.digest import Digest
from sampan.registry.server import keys
from sampan.registry.server.driver import Entry
from sampan.registry.server.store import MARK_LIFETIME, Store

#: Seconds after condemning within which a batch deletes, or gives up.
PATIENCE = 30.0
_BATCH = 100


@dataclass(slots=True)
class Report:
    """What one collection did. Sizes in bytes."""

    manifests: int = 0
    links: int = 0
    blobs: int = 0
    bytes: int = 0
    uploads: int = 0
    repositories: int = 0


@dataclass(slots=True)
class _Marked:
    """A repository's manifests seen, and every digest they refer to."""

    manifests: set[Digest] = field(default_factory=set)
    referenced: set[Digest] = field(default_factory=set)


class Collector:
    """Collects garbage of one store.

    ``upload_age`` seconds after their last byte uploads go; ``untagged_age`` (None: never) seconds
    after their push, manifests nothing leads to. ``clock`` is monotonic, in seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        upload_age: float = 86400.0,
        untagged_age: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._driver = store.driver
        self._upload_age = upload_age
        self._untagged_age = untagged_age
        self._clock = clock
        self._name = str(uuid.uuid4())

    async def collect(self) -> Report:
        """One whole collection. May be cancelled or killed at any point."""
        report = Report()
        now = await self._store_time()
        await self._uploads(now, report)
        async for repository in self._repositories():
            if self._untagged_age is not None:
                await self._untagged(repository, now - self._untagged_age, report)
            await self._links(repository, now - self._store.grace, report)
            await self._forget(repository, now - self._store.grace, report)
        await self._blobs(now - self._store.grace, report)
        await self._stale_marks(now)
        return report

    async def _store_time(self) -> float:
        """Now, by the clock that makes the store's modification times."""
        key = f"clock/{self._name}"
        await self._driver.touch(key)
        entry = await self._driver.stat(key)
        await self._driver.delete(key)
        return entry.modified if entry else time.time()

    async def _repositories(self) -> AsyncIterator[str]:
        """Every repository, also one whose first manifest has not come yet."""
        previous = ""
        async for entry in self._driver.list("repositories/"):
            name = entry.key.removeprefix("repositories/").partition("/_")[0]
            if name != previous:
                previous = name
                yield name

    async def _uploads(self, now: float, report: Report) -> None:
        """Drop uploads nobody went on with."""
        oldest = now - self._upload_age
        await self._driver.tidy(oldest)
        async for entry in self._driver.list(keys.SESSIONS):
            upload = entry.key.removeprefix(keys.SESSIONS)
            if entry.modified < oldest:
                await self._driver.upload_discard(upload)
                await self._driver.delete(entry.key)
                report.uploads += 1
        async for entry in self._driver.uploads():
            session = await self._driver.stat(keys.session(entry.key))
            if entry.modified < oldest and session is None:
                await self._driver.upload_discard(entry.key)
                report.uploads += 1

    async def _untagged(self, repository: str, oldest: float, report: Report) -> None:
        """Delete manifests that no tag, kept index or kept subject leads to.

        The policy is asked for in days; the moment between looking and deleting does not matter to
        invariants, since deleting a manifest somebody tags this instant leaves a tag to nothing,
        which reads as absent.
        """
        age = {
            keys.linked_digest(entry.key): entry.modified
            async for entry in self._store.manifests(repository)
        }
        kept = {digest async for _, digest in self._store.tagged(repository)}
        kept |= {digest for digest, modified in age.items() if modified >= oldest}
        children: dict[Digest, set[Digest]] = {}
        for digest in age:
            try:
                view = await self._store.view(repository, digest)
            except InvalidParameter:
                continue
            if view:
                children.setdefault(digest, set()).update(item.digest for item in view.manifests)
                if view.subject:
                    children.setdefault(view.subject.digest, set()).add(digest)
        todo = list(kept)
        while todo:
            new = children.get(todo.pop(), set()) - kept
            kept |= new
            todo += new
        for digest in age.keys() - kept:
            if await self._store.delete_manifest(repository, digest):
                report.manifests += 1

    async def _mark(self, repository: str, marked: _Marked) -> None:
        """Add the repository's manifests not seen before, and what they refer to."""
        async for entry in self._store.manifests(repository):
            digest = keys.linked_digest(entry.key)
            if digest in marked.manifests:
                continue
            view = await self._store.view(repository, digest)
            if view:
                marked.manifests.add(digest)
                marked.referenced.update(item.digest for item in view.blobs + view.manifests)

    async def _links(self, repository: str, oldest: float, report: Report) -> None:
        """First level: links of one repository."""
        marked = _Marked()
        await self._mark(repository, marked)
        batch: list[Entry] = []
        async for entry in self._driver.list(keys.links(repository)):
            if entry.modified < oldest and keys.linked_digest(entry.key) not in marked.referenced:
                batch.append(entry)
            if len(batch) == _BATCH:
                await self._sweep_links(repository, batch, marked, oldest, report)
                batch = []
        await self._sweep_links(repository, batch, marked, oldest, report)

    async def _sweep_links(
        self,
        repository: str,
        batch: list[Entry],
        marked: _Marked,
        oldest: float,
        report: Report,
    ) -> None:
        if not batch:
            return
        digests = {keys.linked_digest(entry.key) for entry in batch}
        began = await self._condemn(digests)
        try:
            await self._mark(repository, marked)
            for digest in digests - marked.referenced:
                link = await self._driver.stat(keys.link(repository, digest))
                if link and link.modified < oldest and self._clock() < began + PATIENCE:
                    await self._driver.delete(link.key)
                    report.links += 1
        finally:
            await self._absolve(digests)

    async def _forget(self, repository: str, oldest: float, report: Report) -> None:
        """Take a repository that holds nothing any more off the catalog."""
        for prefix in (keys.manifests(repository), keys.links(repository)):
            async for _ in self._driver.list(prefix):
                return
        entry = await self._driver.stat(keys.catalog(repository))
        if entry and entry.modified < oldest:
            await self._driver.delete(entry.key)
            report.repositories += 1

    async def _blobs(self, oldest: float, report: Report) -> None:
        """Second level: bytes no repository links."""
        linked: set[Digest] = set()
        async for entry in self._driver.list("repositories/"):
            if "/_blobs/" in entry.key or "/_manifests/" in entry.key:
                linked.add(keys.linked_digest(entry.key))
        batch: list[Entry] = []
        async for entry in self._driver.list(keys.BLOBS):
            if entry.modified < oldest and keys.blob_digest(entry.key) not in linked:
                batch.append(entry)
            if len(batch) == _BATCH:
                await self._sweep_blobs(batch, oldest, report)
                batch = []
        await self._sweep_blobs(batch, oldest, report)

    async def _sweep_blobs(self, batch: list[Entry], oldest: float, report: Report) -> None:
        if not batch:
            return
        began = await self._condemn(keys.blob_digest(entry.key) for entry in batch)
        try:
            for entry in batch:
                digest = keys.blob_digest(entry.key)
                lease = await self._driver.stat(keys.lease(digest))
                if lease and lease.modified >= oldest:
                    continue
                if self._clock() >= began + PATIENCE:
                    return
                await self._driver.delete(entry.key)
                await self._driver.delete(keys.lease(digest))
                report.blobs += 1
                report.bytes += entry.size
        finally:
            await self._absolve(keys.blob_digest(entry.key) for entry in batch)

    async def _condemn(self, digests: Iterable[Digest]) -> float:
        """Mark; returns when the first mark was begun."""
        began = self._clock()
        for digest in digests:
            await self._driver.touch(keys.condemned(digest, self._name))
        return began

    async def _absolve(self, digests: Iterable[Digest]) -> None:
        for digest in digests:
            await self._driver.delete(keys.condemned(digest, self._name))

    async def _stale_marks(self, now: float) -> None:
        """Remove marks of collections that died."""
        async for entry in self._driver.list("condemned/"):
            if entry.modified < now - MARK_LIFETIME:
                await self._driver.delete(entry.key)
