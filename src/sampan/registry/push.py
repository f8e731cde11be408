"""One push: blobs in parallel, then manifests from the leaves to the root, then the tag.

Only what the registry lacks travels: a blob is asked for first, then mounted from a repository
known to hold it, then sent. A manifest goes after everything it refers to.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from sampan.content import ContentStore
from sampan.errors import Corrupt, InvalidParameter, NotFound, Unauthorized
from sampan.model import attachment
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.model.reference import Reference
from sampan.registry.concurrent import all_of
from sampan.registry.cosign import Signer
from sampan.registry.credentials import Credentials
from sampan.registry.manifest import MAX_MANIFEST, Manifest, is_foreign, parse
from sampan.registry.progress import Completed, LayerProgress, Listener, Message, Step
from sampan.registry.registries import Endpoint
from sampan.registry.repository import Repository
from sampan.registry.signatures import sign
from sampan.registry.upload import Upload, push

if TYPE_CHECKING:
    from sampan.registry.client import Registry

_T = TypeVar("_T")
_PIECE = 1 << 20
_REPORT_SECONDS = 0.1
_MAX_MANIFESTS = 1000
Sources = Callable[[Digest], Iterable[Reference]]


class Push:
    """The state of one push. ``registry`` has the connections and limits."""

    def __init__(
        self,
        registry: Registry,
        reference: Reference,
        endpoint: Endpoint,
        content: ContentStore,
        *,
        credentials: Credentials,
        listener: Listener,
    ) -> None:
        self._registry = registry
        self._reference = reference
        self._endpoint = endpoint
        self._content = content
        self._credentials = credentials
        self._listener = listener

    async def run(
        self,
        root: Digest,
        sources: Sources | None,
        signer: Signer | None = None,
        referrers: Iterable[Descriptor] = (),
    ) -> Completed:
        """Push everything, signed by ``signer``; returns what the tag then points to.

        ``referrers`` are in an order in which each follows what it refers to.
        """
        manifests = await self._manifests(await self._complete(root))
        about = await self._about(manifests, referrers)
        blobs = {
            blob.digest: blob
            for manifest in (*manifests, *(item for item, _ in about))
            for blob in manifest.blobs
            if not is_foreign(blob)
        }
        for digest in blobs:
            self._listener(LayerProgress(digest=digest, step=Step.PREPARING))
        try:
            await all_of(
                self._blob(blob, self._source(blob.digest, sources)) for blob in blobs.values()
            )
            return await self._finish(manifests, about, signer)
        except Unauthorized as error:
            raise Unauthorized(
                f"push access denied for {self._reference.familiar_name}, repository does not "
                f"exist or may require authorization: {error.message}"
            ) from error

    async def _thread(self, function: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._registry.threads, function)

    async def _manifests(self, root: Digest) -> list[Manifest]:
        """The manifests to push, each after those it lists."""
        found: dict[Digest, Manifest] = {}

        async def visit(digest: Digest) -> None:
            if digest in found:
                return
            if len(found) > _MAX_MANIFESTS:
                raise InvalidParameter(f"{root} lists more than {_MAX_MANIFESTS} manifests")
            manifest = await self._read_manifest(digest)
            for child in manifest.manifests:
                await visit(child.digest)
            found[digest] = manifest

        await visit(root)
        return list(found.values())

    async def _about(
        self, manifests: Iterable[Manifest], referrers: Iterable[Descriptor]
    ) -> list[tuple[Manifest, str]]:
        """The referrers whose subjects are pushed, with the tags they are attached by."""
        pushed = {manifest.digest for manifest in manifests}
        found: list[tuple[Manifest, str]] = []
        for item in referrers:
            manifest = await self._read_manifest(item.digest)
            subject = manifest.subject.digest if manifest.subject else None
            if (subject or attachment.subject(item.annotations)) in pushed:
                pushed.add(manifest.digest)
                found.append((manifest, "" if subject else attachment.tag(item.annotations)))
        return found

    async def _read_manifest(self, digest: Digest) -> Manifest:
        raw = await self._thread(lambda: self._content.read(digest, limit=MAX_MANIFEST))
        return parse(raw, digest=digest)

    async def _complete(self, root: Digest) -> Digest:
        """What of ``root`` can be pushed: itself, or the one image of an index that is here.

        An image pulled for one platform leaves the index without the others; dockerd then pushes
        that one image, and says so.
        """
        manifest = await self._read_manifest(root)
        exists = self._content.exists
        here = await self._thread(
            lambda: [item for item in manifest.manifests if exists(item.digest)]
        )
        if len(here) == len(manifest.manifests):
            return root
        if len(here) != 1:
            raise NotFound(
                f"{self._reference.familiar}: only {len(here)} of the "
                f"{len(manifest.manifests)} manifests of its index are here"
            )
        self._listener(
            Message(
                text="Not all multiplatform-content is present and only the available "
                f"single-platform image was pushed: {root} -> {here[0].digest}"
            )
        )
        return await self._complete(here[0].digest)

    def _source(self, digest: Digest, sources: Sources | None) -> str:
        """A repository of the same registry to mount a blob from."""
        for reference in sources(digest) if sources else ():
            same = reference.domain == self._reference.domain
            if same and reference.path != self._reference.path:
                return reference.path
        return ""

    async def _blob(self, blob: Descriptor, source: str) -> None:
        also = f"repository:{source}:pull" if source else ""
        async with (
            self._registry.upload_slots,
            self._registry.connect(
                self._endpoint,
                self._credentials,
                actions="pull,push",
                also=also,
                listener=self._listener,
            ) as repository,
        ):
            if await repository.has_blob(blob.digest) is not None:
                self._tell(blob.digest, Step.THERE)
                return
            upload = Upload(
                base=repository.url("").rstrip("/"),
                digest=blob.digest,
                size=blob.size,
                read=lambda start, end: self._read(blob, start, end),
                chunk=self._registry.settings.chunk,
                source=source,
            )
            mounted = await repository.session.converse(push(upload), repository.scope)
            if mounted:
                self._tell(blob.digest, Step.MOUNTED, detail=mounted)
            else:
                self._tell(blob.digest, Step.PUSHED)

    async def _read(self, blob: Descriptor, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes of a blob, read ahead of the network by one piece."""
        fd = await self._thread(
            lambda: os.open(self._content.path(blob.digest), os.O_RDONLY | os.O_CLOEXEC)
        )
        reported = 0.0
        try:
            while start < end:
                piece = await self._thread(
                    lambda: os.pread(fd, min(_PIECE, end - start), start)  # noqa: B023  # awaited
                )
                if not piece:
                    raise Corrupt(f"stored content {blob.digest} is shorter than its manifest says")
                start += len(piece)
                yield piece
                if time.monotonic() - reported >= _REPORT_SECONDS:
                    reported = time.monotonic()
                    self._tell(blob.digest, Step.PUSHING, start, blob.size)
        finally:
            os.close(fd)

    def _tell(
        self, digest: Digest, step: Step, current: int = 0, total: int = 0, detail: str = ""
    ) -> None:
        self._listener(
            LayerProgress(digest=digest, step=step, current=current, total=total, detail=detail)
        )

    async def _finish(
        self,
        manifests: list[Manifest],
        about: list[tuple[Manifest, str]],
        signer: Signer | None,
    ) -> Completed:
        """Push the manifests, the last one, the root, under the tag once ``about`` it is there."""
        *others, root = manifests
        tag = self._reference.tag
        async with self._registry.connect(
            self._endpoint, self._credentials, actions="pull,push", listener=self._listener
        ) as repository:
            for manifest in others:
                await self._manifest(repository, manifest, "")
            if signer or about:
                await self._manifest(repository, root, "")
            for manifest, name in about:
                # Others' signatures that are there stay: one tag has them all.
                if not (name and await self._is_there(repository, name)):
                    await self._manifest(repository, manifest, name)
            if signer:
                await sign(signer, repository, self._reference, root.digest)
            await self._manifest(repository, root, tag)
        completed = Completed(tag=tag, digest=root.digest, size=len(root.raw))
        self._listener(
            Message(text=f"{tag or root.digest}: digest: {root.digest} size: {completed.size}")
        )
        self._listener(completed)
        return completed

    @staticmethod
    async def _is_there(repository: Repository, tag: str) -> bool:
        try:
            await repository.resolve(tag)
        except NotFound:
            return False
        return True

    @staticmethod
    async def _manifest(repository: Repository, manifest: Manifest, tag: str) -> None:
        noted = await repository.put_manifest(manifest, tag)
        if manifest.subject and not noted:
            await repository.add_to_referrers_tag(manifest)
