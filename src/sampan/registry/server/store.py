"""Repositories, blobs, manifests, tags and referrers over a :class:`Driver`: the registry's truth.

Invariants: a blob key holds bytes of that digest; a manifest is visible only while everything it
refers to is held by the same repository; a tag points to a manifest of its repository. Order does
it: bytes, then links, then manifests, then tags; removal goes the other way. No truth is kept in
memory (manifests are cached by digest, which cannot go stale), so servers can share a store.

Against the collector (:mod:`sampan.registry.server.collector`), every method that lets a client
rely on a blob first makes its claim visible (touches a link or lease, writes a manifest) and then
looks whether the blob is condemned; the collector condemns first and then looks for claims. One of
the two always sees the other.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable

import msgspec

from sampan.errors import InvalidParameter, Unavailable
from sampan.model.digest import Digest
from sampan.registry import manifest as manifests
from sampan.registry.manifest import Manifest
from sampan.registry.server import keys
from sampan.registry.server.driver import Driver, Entry
from sampan.registry.server.errors import Code, ProtocolError

#: Seconds after which a mark of a collection that died is no longer believed; a collection gives
#: up deleting long before (:data:`sampan.registry.server.collector.PATIENCE`).
MARK_LIFETIME = 600.0
_WAIT = 60.0
_CACHE_BYTES = 64 << 20


class ManifestCache:
    """The most recently used manifests by digest, at most :data:`_CACHE_BYTES` of them."""

    def __init__(self, limit: int = _CACHE_BYTES) -> None:
        self._limit = limit
        self._used = 0
        self._items: OrderedDict[Digest, bytes] = OrderedDict()

    def get(self, digest: Digest) -> bytes | None:
        """The bytes, now the most recently used."""
        raw = self._items.get(digest)
        if raw is not None:
            self._items.move_to_end(digest)
        return raw

    def put(self, digest: Digest, raw: bytes) -> None:
        """Remember ``raw``, whose digest the caller knows to be ``digest``."""
        if digest in self._items or len(raw) > self._limit:
            return
        self._items[digest] = raw
        self._used += len(raw)
        while self._used > self._limit:
            _, oldest = self._items.popitem(last=False)
            self._used -= len(oldest)


class Store:
    """The registry's data. ``grace`` is how many seconds an unreferenced blob is kept.

    ``clock`` gives seconds since the epoch; it is compared with the store's modification times.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        grace: float = 3600.0,
        sparse_indexes: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.driver = driver
        self.grace = grace
        self._sparse = sparse_indexes
        self._clock = clock
        self._cache = ManifestCache()

    # -- blobs

    async def blob(self, repository: str, digest: Digest) -> Entry | None:
        """The stored object of a blob the repository holds; the caller may not rely on it."""
        if await self.driver.stat(keys.link(repository, digest)) is None:
            return None
        return await self.driver.stat(keys.blob(digest))

    async def claim_blob(self, repository: str, digest: Digest) -> Entry | None:
        """Like :meth:`blob`, and the blob stays for the grace period at least."""
        key = keys.link(repository, digest)
        link = await self.driver.stat(key)
        if link is None:
            return None
        if link.modified < self._clock() - self.grace / 4:
            # The lease too: this may bring a link back that a collection deletes this moment.
            await self.driver.touch(keys.lease(digest))
            await self.driver.touch(key)
        await self._outlive_collection(digest)
        return await self.blob(repository, digest)

    async def _outlive_collection(self, digest: Digest) -> None:
        """Return once no collection is about to delete ``digest``; Unavailable after a minute."""
        deadline = time.monotonic() + _WAIT
        pause = 0.01
        while await self._condemned(digest):
            if time.monotonic() > deadline:
                raise Unavailable(f"{digest} is being collected; try again later")
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)

    async def _condemned(self, digest: Digest) -> bool:
        oldest = self._clock() - MARK_LIFETIME
        async for mark in self.driver.list(keys.condemned(digest)):
            if mark.modified > oldest:
                return True
        return False

    async def link_upload(self, repository: str, upload: str, digest: Digest) -> None:
        """Make an upload, whose bytes the caller has verified, a blob of the repository."""
        while True:
            await self.driver.touch(keys.lease(digest))
            await self.driver.upload_store(upload, keys.blob(digest))
            if await self._link(repository, digest):
                return

    async def mount(self, source: str, repository: str, digest: Digest) -> bool:
        """Give ``repository`` a blob that ``source`` holds; whether ``source`` does."""
        if await self.claim_blob(source, digest) is None:
            return False
        await self.driver.touch(keys.lease(digest))
        return await self._link(repository, digest)

    async def adopt(self, repository: str, digest: Digest) -> bool:
        """Give ``repository`` a blob that is in the store; whether it is.

        For callers that know the repository to be entitled to it.
        """
        if await self.driver.stat(keys.blob(digest)) is None:
            return False
        await self.driver.touch(keys.lease(digest))
        return await self._link(repository, digest)

    async def _link(self, repository: str, digest: Digest) -> bool:
        await self.driver.put(keys.link(repository, digest), b"")
        await self._outlive_collection(digest)
        return await self.blob(repository, digest) is not None

    async def unlink(self, repository: str, digest: Digest) -> bool:
        """Take a blob from the repository; whether it held it. Idempotent."""
        return await self.driver.delete(keys.link(repository, digest))

    # -- manifests

    async def manifest(self, repository: str, digest: Digest) -> tuple[str, bytes] | None:
        """Media type and bytes of a manifest the repository holds."""
        media_type = await self.driver.get(keys.manifest(repository, digest))
        if media_type is None:
            return None
        raw = self._cache.get(digest)
        if raw is None:
            raw = await self.driver.get(keys.blob(digest))
            if raw is None:
                return None
            self._cache.put(digest, raw)
        return media_type.decode(), raw

    async def view(self, repository: str, digest: Digest) -> Manifest | None:
        """A manifest the repository holds, parsed."""
        found = await self.manifest(repository, digest)
        if found is None:
            return None
        media_type, raw = found
        return manifests.parse(raw, media_type, digest)

    async def put_manifest(
        self, repository: str, manifest: Manifest, *, complete: bool = True
    ) -> None:
        """Store a manifest. Raises MANIFEST_BLOB_UNKNOWN naming what the repository lacks.

        Without ``complete`` it may lack anything: a cache gets that when it is asked for.
        """
        if complete:
            await self._require(repository, manifest)
        while True:
            await self.driver.touch(keys.lease(manifest.digest))
            await self.driver.put(keys.blob(manifest.digest), manifest.raw)
            await self.driver.put(
                keys.manifest(repository, manifest.digest), manifest.media_type.encode()
            )
            await self._outlive_collection(manifest.digest)
            if await self.driver.stat(keys.blob(manifest.digest)):
                break
        try:
            if complete:
                await self._require(repository, manifest, settle=True)
        except ProtocolError:
            await self.driver.delete(keys.manifest(repository, manifest.digest))
            raise
        if manifest.subject:
            await self.driver.put(
                keys.referrer(repository, manifest.subject.digest, manifest.digest),
                _referrer(manifest),
            )
        await self.driver.touch(keys.catalog(repository))

    async def _require(self, repository: str, manifest: Manifest, *, settle: bool = False) -> None:
        """That all the manifest refers to is here, and, with ``settle``, will stay."""

        async def absent_blob(digest: Digest) -> bool:
            if settle:
                await self._outlive_collection(digest)
            return await self.blob(repository, digest) is None

        async def absent_manifest(digest: Digest) -> bool:
            if settle:
                await self._outlive_collection(digest)
            return await self.driver.stat(keys.manifest(repository, digest)) is None

        wanted = {item.digest for item in manifest.blobs if not manifests.is_foreign(item)}
        children = set() if self._sparse else {item.digest for item in manifest.manifests}
        for digest in sorted(wanted):
            if await absent_blob(digest):
                raise _unknown(digest)
        for digest in sorted(children):
            # An index may list blobs that are no manifests (OCI image spec, "Image Index").
            if await absent_manifest(digest) and await absent_blob(digest):
                raise _unknown(digest)

    async def delete_manifest(self, repository: str, digest: Digest) -> bool:
        """Remove a manifest, its tags and its entry among the referrers; whether it was there."""
        media_type = await self.driver.get(keys.manifest(repository, digest))
        if media_type is None:
            return False
        async for name, target in self.tagged(repository):
            if target == digest:
                await self.driver.delete(keys.tag(repository, name))
        try:
            view = await self.view(repository, digest)
        except InvalidParameter:
            view = None  # unreadable, all the more reason to remove it
        if view and view.subject:
            await self.driver.delete(keys.referrer(repository, view.subject.digest, digest))
        await self.driver.delete(keys.manifest(repository, digest))
        return True

    async def manifests(self, repository: str) -> AsyncIterator[Entry]:
        """The manifests of a repository, as entries of :func:`keys.manifest` keys."""
        async for entry in self.driver.list(keys.manifests(repository)):
            yield entry

    # -- tags

    async def tag(self, repository: str, name: str) -> Digest | None:
        """What a tag points to, None when the tag or the manifest is not there."""
        content = await self.driver.get(keys.tag(repository, name))
        return Digest.parse(content.decode()) if content else None

    async def set_tag(self, repository: str, name: str, digest: Digest) -> None:
        """Point a tag to a manifest of the repository."""
        await self.driver.put(keys.tag(repository, name), str(digest).encode())

    async def delete_tag(self, repository: str, name: str) -> bool:
        """Remove a tag, not its manifest; whether it was there."""
        return await self.driver.delete(keys.tag(repository, name))

    async def tags(self, repository: str, last: str = "") -> AsyncIterator[str]:
        """Tags after ``last``, in byte order."""
        prefix = keys.tags(repository)
        async for entry in self.driver.list(prefix, prefix + last if last else ""):
            yield entry.key.removeprefix(prefix)

    async def tagged(self, repository: str) -> AsyncIterator[tuple[str, Digest]]:
        """Every tag and what it points to."""
        async for name in self.tags(repository):
            digest = await self.tag(repository, name)
            if digest:
                yield name, digest

    # -- referrers and repositories

    async def referrers(
        self, repository: str, subject: Digest, last: str = ""
    ) -> AsyncIterator[tuple[str, dict[str, object]]]:
        """Name (for ``last``) and descriptor of every manifest with this subject."""
        prefix = keys.referrers(repository, subject)
        async for entry in self.driver.list(prefix, prefix + last if last else ""):
            content = await self.driver.get(entry.key)
            if content:
                yield entry.key.removeprefix(prefix), msgspec.json.decode(content)

    async def exists(self, repository: str) -> bool:
        """Whether a manifest was ever pushed to the repository, and it was not removed since."""
        return await self.driver.stat(keys.catalog(repository)) is not None

    async def repositories(self, last: str = "") -> AsyncIterator[str]:
        """Repositories after ``last``, in byte order of :func:`keys.catalog`."""
        async for entry in self.driver.list(keys.CATALOG, keys.catalog(last) if last else ""):
            yield keys.catalog_name(entry.key)

    async def usage(self, repository: str) -> int:
        """Bytes of the blobs and manifests a repository holds."""
        total = 0
        for prefix in (keys.links(repository), keys.manifests(repository)):
            async for entry in self.driver.list(prefix):
                blob = await self.driver.stat(keys.blob(keys.linked_digest(entry.key)))
                total += blob.size if blob else 0
        return total


def _unknown(digest: Digest) -> ProtocolError:
    return ProtocolError(
        Code.MANIFEST_BLOB_UNKNOWN,
        f"manifest refers to {digest}, which is not in the repository",
        detail={"digest": str(digest)},
    )


def _referrer(manifest: Manifest) -> bytes:
    """The descriptor the referrers API shows (OCI distribution spec, "Listing Referrers")."""
    document = manifests.encode_descriptor(manifest.descriptor)
    if manifest.artifact_type:
        document["artifactType"] = manifest.artifact_type
    if manifest.annotations:
        document["annotations"] = dict(manifest.annotations)
    return msgspec.json.encode(document)
