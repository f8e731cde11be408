"""Caches of builds exported to and imported from elsewhere, in the engine.

``--cache-from`` and ``--cache-to`` as maps of keys (reference/build.md section 9). A cache that
cannot be read is told of and ignored, as BuildKit does; one that cannot be written fails the build
unless it says ``ignore-error``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sampan.build import cachefile
from sampan.build.assemble import convert
from sampan.build.cache import Record
from sampan.build.caches import Backend, gha, s3
from sampan.build.caches.directory import DirectoryCache, archive
from sampan.build.imports import Imported
from sampan.build.outputs import Output, output
from sampan.build.progress import Progress, Vertex
from sampan.build.request import Built
from sampan.engine.buildsteps import Credentials
from sampan.engine.core import Core
from sampan.engine.threads import BodyReader
from sampan.engine.transfer import credentials as account_of
from sampan.errors import InvalidParameter, NotFound, SampanError, Unsupported
from sampan.image.config import parse as parse_config
from sampan.model.descriptor import Descriptor
from sampan.model.platform import Platform
from sampan.model.reference import Reference
from sampan.registry import Credentials as Account
from sampan.registry.manifest import Manifest
from sampan.registry.repository import Repository

_LIMIT = 64 << 20
_COMMON = frozenset(("type", "mode", "ignore-error", "compression", "compression-level"))
_MEDIA = frozenset(("image-manifest", "oci-mediatypes", "force-compression"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Registry:
    """A cache in a registry; its methods block and may only be called from worker threads."""

    core: Core
    loop: asyncio.AbstractEventLoop
    reference: Reference
    account: Account

    def fetch(self, blob: Descriptor) -> Iterator[bytes]:
        """See :class:`sampan.build.caches.Backend`."""

        async def begin() -> tuple[BodyReader, asyncio.Task[None]]:
            body = BodyReader()

            async def ask(repository: Repository) -> None:
                async with repository.blob(blob) as answer:
                    if answer.status != 200:
                        raise NotFound(f"blob {blob.digest} is not in {self.reference.familiar}")
                    await body.feed(answer.content)

            return body, asyncio.ensure_future(
                self.core.registry.first(self.reference, self.account, ask)
            )

        body, task = asyncio.run_coroutine_threadsafe(begin(), self.loop).result()
        try:
            while data := body.read(1 << 20):
                yield data
        finally:
            body.close()
            self.loop.call_soon_threadsafe(task.cancel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caches:
    """Imports and exports of one build on one engine."""

    core: Core
    credentials: Credentials
    progress: Progress

    async def imports(
        self, given: Sequence[Mapping[str, str]], directories: Mapping[int, Path]
    ) -> tuple[Imported, ...]:
        """The caches to ask; those that cannot be read are left out.

        ``directories`` are those of the client's local caches, by their place in ``given``.
        """
        found = []
        for number, values in enumerate(given):
            title = values.get("ref") or values.get("type", "")
            vertex = Vertex(id=f"import/{number}", name=f"importing cache manifest from {title}")
            self.progress.started(vertex)
            try:
                one = await self._import(values, directories.get(number))
            except SampanError as error:
                self.progress.completed(vertex, error=error.message)
                continue
            self.progress.completed(vertex)
            if one is not None:
                found.append(one)
        return tuple(found)

    async def _import(self, values: Mapping[str, str], directory: Path | None) -> Imported | None:
        kind = values.get("type", "")
        if kind == "registry":
            return await self._from_registry(values)
        if kind == "local":
            if directory is None:
                return None
            _only(values, {"src", "tag", "digest", "missing"})
            backend: Backend = DirectoryCache(
                directory, tag=values.get("tag", "latest"), digest=values.get("digest", "")
            )
        else:
            backend = _backend(values)
        config = await self.core.threads.run_long(backend.load)
        if config is None:
            return None
        return Imported(name=kind, steps=cachefile.decode(config), fetch=backend.fetch)

    async def _from_registry(self, values: Mapping[str, str]) -> Imported | None:
        _only(values, {"ref", "registry.insecure"})
        text = values.get("ref", "")
        if not text:
            raise InvalidParameter("ref is required for a registry cache")
        reference = Reference.parse(text).with_default_tag()
        account = account_of(await self.credentials(reference.domain))
        try:
            manifest = await self.core.registry.resolve(reference, account)
        except SampanError:
            local = await self._from_image(reference)
            if local is None:
                raise
            return local
        source = _Registry(
            core=self.core,
            loop=asyncio.get_running_loop(),
            reference=reference,
            account=account,
        )
        config = await self._config(reference, account, manifest)
        if config is None:
            return None
        steps = (
            cachefile.decode(config[1]) if config[0] else cachefile.from_inline(_carried(config[1]))
        )
        return Imported(name=text, steps=steps, fetch=source.fetch)

    async def _config(
        self, reference: Reference, account: Account, manifest: Manifest
    ) -> tuple[bool, bytes] | None:
        """Whether it is a cache's configuration, and its bytes, else an image's."""
        if manifest.is_index:
            own = [one for one in manifest.manifests if one.media_type == cachefile.CONFIG]
            if own:
                return True, await self._blob(reference, account, own[0])
            host = Platform.host()
            fitting = [one for one in manifest.manifests if one.platform == host]
            if not fitting:
                return None
            digest = fitting[0].digest

            async def ask(repository: Repository) -> Manifest:
                return await repository.manifest(digest)

            manifest = await self.core.registry.first(reference, account, ask)
        if manifest.config is None:
            return None
        raw = await self._blob(reference, account, manifest.config)
        return manifest.config.media_type == cachefile.CONFIG, raw

    async def _blob(self, reference: Reference, account: Account, blob: Descriptor) -> bytes:
        async def ask(repository: Repository) -> bytes:
            return await repository.read_blob(blob, _LIMIT)

        return await self.core.registry.first(reference, account, ask)

    async def _from_image(self, reference: Reference) -> Imported | None:
        """The cache that an image of ours carries."""
        entry = self.core.images.lookup(reference)
        if entry is None:
            return None
        image = await self.core.threads.run(self.core.images.view, entry)
        carried = image.config.document.inline_cache
        if not carried:
            return None
        content = self.core.content

        def fetch(blob: Descriptor) -> Iterator[bytes]:
            with content.open(blob.digest) as file:
                while piece := file.read(1 << 20):
                    yield piece

        return Imported(name=str(reference), steps=cachefile.from_inline(carried), fetch=fetch)

    async def export(
        self, given: Sequence[Mapping[str, str]], built: Sequence[Built]
    ) -> list[AsyncIterator[bytes]]:
        """Write every cache; the archives of those that are directories of the client's."""
        archives: list[AsyncIterator[bytes]] = []
        for number, values in enumerate(given):
            if values.get("type") == "inline":
                continue
            title = values.get("ref") or values.get("type", "")
            vertex = Vertex(id=f"export/{number}", name=f"exporting cache to {title}")
            self.progress.started(vertex)
            try:
                made = await self._export(values, _records(built, values.get("mode", "min")))
            except SampanError as error:
                self.progress.completed(vertex, error=error.message)
                if values.get("ignore-error", "").lower() in ("true", "1"):
                    continue
                raise
            self.progress.completed(vertex)
            if made is not None:
                archives.append(made)
        return archives

    async def _export(
        self, values: Mapping[str, str], records: Sequence[Record]
    ) -> AsyncIterator[bytes] | None:
        threads, content = self.core.threads, self.core.content
        kind = values.get("type", "")
        config, blobs = await threads.run_long(self._blobs, values, records)
        if kind == "local":
            _only(values, {"dest", "tag", "reset", *_COMMON, *_MEDIA})
            _image_form(values)
            chunks = archive(config, blobs, content, tag=values.get("tag", "latest"))
            return threads.iterate(chunks)
        if kind == "registry":
            _only(values, {"ref", "registry.insecure", *_COMMON, *_MEDIA})
            _image_form(values)
            await self._to_registry(values, config, blobs)
            return None
        own = {key: value for key, value in values.items() if key not in _COMMON}
        backend = _backend({"type": kind, **own})
        await threads.run_long(backend.save, config, blobs, content)
        return None

    def _blobs(
        self, values: Mapping[str, str], records: Sequence[Record]
    ) -> tuple[bytes, list[Descriptor]]:
        """The configuration and the blobs it names, compressed as asked. Blocking."""
        form: Output = output(
            "oci",
            {
                key: values[key]
                for key in ("compression", "compression-level", "force-compression")
                if key in values
            },
        )
        layers = {one.layer.diff_id: one.layer.descriptor for one in records if one.layer}
        if form.compression is not None:
            layers = {
                diff_id: convert(self.core.content, blob, form.compression, form.level)
                for diff_id, blob in layers.items()
            }
        config = cachefile.encode(records, blobs=layers)
        return config, list({blob.digest: blob for blob in layers.values()}.values())

    async def _to_registry(
        self, values: Mapping[str, str], config: bytes, blobs: list[Descriptor]
    ) -> None:
        core = self.core
        reference = Reference.parse(values.get("ref", "")).with_default_tag()
        account = account_of(await self.credentials(reference.domain))

        def store() -> Descriptor:
            described = Descriptor(
                media_type=cachefile.CONFIG, digest=core.content.add(config), size=len(config)
            )
            made = cachefile.manifest(described, blobs)
            core.content.add(made.raw)
            return made.descriptor

        root = await core.threads.run(store)
        await core.registry.push(reference, root.digest, content=core.content, credentials=account)


def _records(built: Sequence[Built], mode: str) -> list[Record]:
    """The steps to export, each once, after the one it stands on."""
    if mode not in ("min", "max"):
        raise InvalidParameter(f"invalid cache mode {mode!r}: min or max")
    found: dict[str, Record] = {}
    for one in built:
        for record in one.records if mode == "min" else one.all_records:
            found.setdefault(record.key, record)
    return list(found.values())


def _backend(values: Mapping[str, str]) -> Backend:
    kind = values.get("type", "")
    own = {
        key: value for key, value in values.items() if key not in ("type", "mode", "ignore-error")
    }
    if kind == "s3":
        return s3.make(own)
    if kind == "gha":
        return gha.make(own)
    raise Unsupported(f"cache type {kind!r} is not supported")


def _only(values: Mapping[str, str], known: set[str]) -> None:
    for key in values:
        if key not in known | {"type"}:
            raise Unsupported(f"key {key!r} of a {values.get('type')} cache is not supported")


def _image_form(values: Mapping[str, str]) -> None:
    for key in ("image-manifest", "oci-mediatypes"):
        if values.get(key, "true").lower() not in ("true", "1"):
            raise Unsupported(f"cache key {key}=false is not supported")


def _carried(raw: bytes) -> str:
    """The cache in an image's configuration; NotFound when there is none."""
    found = parse_config(raw).document.inline_cache
    if not found:
        raise NotFound("the image carries no build cache")
    return found
