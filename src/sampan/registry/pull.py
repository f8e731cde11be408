"""One pull: reference → index → manifest → configuration and layers, into a content store.

Order matters for whoever follows: manifest and configuration first, so that unpacking can be
planned while layers arrive; layers in parallel, the lowest first. Each document is stored under
its digest as received; nothing is stored that does not verify.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from sampan.content import ContentStore
from sampan.errors import DigestMismatch, InvalidParameter, NotFound, SampanError, Unauthorized
from sampan.model import attachment
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.model.reference import Reference
from sampan.registry.concurrent import all_of
from sampan.registry.credentials import Credentials
from sampan.registry.download import Download
from sampan.registry.manifest import MAX_MANIFEST, Manifest, parse
from sampan.registry.progress import LayerProgress, Listener, Message, Step, Warned
from sampan.registry.registries import Endpoint
from sampan.registry.repository import Repository
from sampan.registry.signatures import enforce

if TYPE_CHECKING:
    from sampan.registry.client import Registry

_T = TypeVar("_T")
#: An image configuration larger than this is refused, in bytes.
MAX_CONFIG = 8 << 20
_MAX_DEPTH = 4
#: Referrers beyond these stay where they are: whoever may attach one decides how many there are.
_MAX_REFERRERS = 100
_MAX_REFERRER_BYTES = 512 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What was pulled: the ``root`` the tag points to, and the ``manifest`` for the platform.

    They are the same when the tag points to a manifest. Both, the configuration and, at the end of
    the pull, all layers are in the content store.
    """

    reference: Reference
    root: Manifest
    manifest: Manifest
    #: what refers to them, and to that, as far as it was asked for
    referrers: tuple[Descriptor, ...] = ()

    @property
    def config(self) -> Descriptor:
        """The image's configuration, whose digest is the image's id."""
        if self.manifest.config is None:
            raise InvalidParameter(f"{self.reference.familiar} is not an image")
        return self.manifest.config

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """The layers, lowest first."""
        return self.manifest.layers


class Pull:
    """The state of one pull. ``registry`` has the connections and limits."""

    def __init__(
        self,
        registry: Registry,
        reference: Reference,
        content: ContentStore,
        *,
        platform: Platform,
        credentials: Credentials,
        listener: Listener,
        wanted: Callable[[Descriptor], bool] | None,
    ) -> None:
        self._registry = registry
        self._reference = reference
        self._content = content
        self._platform = platform
        self._credentials = credentials
        self._listener = listener
        self._wanted = wanted or (lambda descriptor: True)

    async def run(self, resolved: Callable[[Pulled], Awaitable[None]] | None) -> Pulled:
        """Pull from the first endpoint that works; a mirror that fails is passed over."""
        name = self._reference
        endpoints = self._registry.settings.registries.endpoints(name)
        for endpoint in endpoints:
            try:
                pulled = await self._resolve(endpoint)
            except SampanError as error:
                if endpoint.mirror:
                    continue
                raise self._explained(error) from error
            # Not before: what goes wrong until here is an error of its own, with its own status.
            self._listener(
                Message(text=f"Pulling from {name.path}", id=name.tag or str(name.digest))
            )
            work = [self._layers(endpoint, endpoints[-1], pulled.layers)]
            if resolved:
                work.append(_awaited(resolved(pulled)))
            await all_of(work)
            if self._registry.settings.referrers:
                found: dict[Digest, Descriptor] = {}
                try:
                    await self._referrers(endpoint, endpoints[-1], pulled, found)
                except SampanError as error:  # the image itself is here
                    self._listener(Warned(text=f"not all that refers to it: {error.message}"))
                return replace(pulled, referrers=tuple(found.values()))
            return pulled
        raise NotFound(f"no endpoint for {name.familiar_name}")

    def _explained(self, error: SampanError) -> SampanError:
        """The error as dockerd words it, which scripts look for."""
        name = self._reference
        said = error.quoted or error.message
        if isinstance(error, NotFound):
            return NotFound(f"manifest for {name.familiar} not found: {said}")
        if isinstance(error, Unauthorized):
            return NotFound(
                f"pull access denied for {name.familiar_name}, repository does not exist or may "
                f"require 'docker login': {said}"
            )
        return error

    async def _resolve(self, endpoint: Endpoint) -> Pulled:
        async with self._registry.connect(
            endpoint, self._credentials, listener=self._listener
        ) as repository:
            root = await self._root(repository)
            manifest = root
            for _ in range(_MAX_DEPTH):
                if not manifest.is_index:
                    break
                manifest = await self._manifest(
                    repository, choose(manifest.manifests, self._platform, self._reference).digest
                )
            else:
                raise InvalidParameter(f"{self._reference.familiar}: indexes nested too deeply")
            candidates = tuple({root.digest: 0, manifest.digest: 0})
            settings = self._registry.settings
            await enforce(
                settings.policy, settings.lookaside, repository, self._reference, candidates
            )
            if manifest.config:
                await self._document(repository, manifest.config)
            return Pulled(reference=self._reference, root=root, manifest=manifest)

    async def _root(self, repository: Repository) -> Manifest:
        """What the reference points to; bytes that are here already are not sent again.

        The registry is asked also for a digest that is here: it decides who may have it.
        """
        descriptor = await repository.resolve(self._reference.digest or self._reference.tag)
        if self._reference.digest and descriptor.digest != self._reference.digest:
            raise DigestMismatch(
                f"the registry has {descriptor.digest} as {self._reference.digest}"
            )
        return await self._manifest(repository, descriptor.digest, descriptor.media_type)

    async def _manifest(
        self, repository: Repository, digest: Digest, media_type: str = ""
    ) -> Manifest:
        if await self._has(digest):
            raw = await self._thread(lambda: self._content.read(digest, limit=MAX_MANIFEST))
            return parse(raw, media_type, digest)
        manifest = await repository.manifest(digest)
        await self._thread(lambda: self._content.add(manifest.raw, expected=digest))
        return manifest

    async def _document(self, repository: Repository, descriptor: Descriptor) -> None:
        digest = descriptor.digest
        if await self._has(digest):
            return
        raw = await repository.read_blob(descriptor, MAX_CONFIG)
        await self._thread(lambda: self._content.add(raw, expected=digest))

    async def _has(self, digest: Digest) -> bool:
        return await self._thread(lambda: self._content.exists(digest))

    async def _thread(self, function: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._registry.threads, function)

    async def _referrers(
        self,
        endpoint: Endpoint,
        origin: Endpoint,
        pulled: Pulled,
        found: dict[Digest, Descriptor],
    ) -> None:
        """Fetch what refers to the image, each with its blobs, and what refers to that."""
        subjects = list({pulled.root.digest: 0, pulled.manifest.digest: 0})
        tags = [tag for subject in subjects for tag in attachment.tags(subject)]
        room = _MAX_REFERRER_BYTES
        async with self._registry.connect(
            endpoint, self._credentials, listener=self._listener
        ) as repository:
            while subjects:
                subject = subjects.pop(0)
                for item in await repository.referrers(subject):
                    if item.digest in found or len(found) >= _MAX_REFERRERS:
                        continue
                    manifest = await self._manifest(repository, item.digest, item.media_type)
                    size = sum(blob.size for blob in manifest.blobs)
                    about = manifest.subject and manifest.subject.digest
                    if about != subject or manifest.is_index or size > room:
                        continue  # only the list says so; or there is no room for it
                    room -= size
                    await self._layers(endpoint, origin, manifest.blobs)
                    found[item.digest] = replace(
                        manifest.descriptor, artifact_type=manifest.artifact_type
                    )
                    subjects.append(item.digest)
            for tag in tags:
                try:
                    manifest = await repository.manifest(tag)
                except NotFound:
                    continue
                size = sum(blob.size for blob in manifest.blobs)
                if manifest.is_index or size > room:
                    continue
                room -= size
                await self._thread(partial(self._content.add, manifest.raw))
                await self._layers(endpoint, origin, manifest.blobs)
                found[manifest.digest] = replace(
                    manifest.descriptor, annotations={attachment.REF_NAME: tag}
                )

    async def _layers(
        self, endpoint: Endpoint, origin: Endpoint, layers: Iterable[Descriptor]
    ) -> None:
        """Fetch every layer that is wanted and missing, in parallel."""
        missing: list[Descriptor] = []
        for layer in {layer.digest: layer for layer in layers}.values():
            if await self._has(layer.digest) or not self._wanted(layer):
                self._listener(LayerProgress(digest=layer.digest, step=Step.PRESENT))
            else:
                missing.append(layer)
                self._listener(LayerProgress(digest=layer.digest, step=Step.PULLING))
        for layer in missing[self._registry.settings.downloads :]:
            self._listener(LayerProgress(digest=layer.digest, step=Step.WAITING))
        await all_of(self._layer(endpoint, origin, layer) for layer in missing)

    async def _layer(self, endpoint: Endpoint, origin: Endpoint, layer: Descriptor) -> None:
        async def fetch(source: Endpoint, listener: Listener) -> None:
            # Its own use of the session: the transfer may outlive this pull, if others wait for it.
            async with self._registry.connect(
                source, self._credentials, listener=listener
            ) as repository:
                await Download(
                    repository,
                    layer,
                    self._content,
                    threads=self._registry.threads,
                    report=listener,
                ).run()

        async def start(listener: Listener) -> None:
            try:
                await fetch(endpoint, listener)
            except SampanError:
                if not endpoint.mirror:
                    raise
                await fetch(origin, listener)

        await self._registry.downloads.join(layer.digest, self._listener, start)


async def _awaited(work: Awaitable[None]) -> None:
    await work


def choose(manifests: Iterable[Descriptor], platform: Platform, reference: Reference) -> Descriptor:
    """The manifest of an index to run on ``platform``; raises :class:`NotFound`.

    An exact match comes before one that also runs; without any platform, the first is taken.
    """
    candidates = [item for item in manifests if not item.artifact_type]
    known = [item for item in candidates if item.platform and item.platform.os != "unknown"]
    wanted = platform.normalized()
    exact = [
        item for item in known if item.platform and str(item.platform.normalized()) == str(wanted)
    ]
    running = [item for item in known if item.platform and wanted.runs(item.platform)]
    running.sort(key=lambda item: item.platform.variant if item.platform else "", reverse=True)
    unnamed = [item for item in candidates if item.platform is None]
    for choice in (exact, running, [] if known else unnamed):
        if choice:
            return choice[0]
    raise NotFound(
        f"no matching manifest for {platform} in the manifest list entries of {reference.familiar}"
    )
