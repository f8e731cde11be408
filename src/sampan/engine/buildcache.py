"""Caches of builds exported to and imported from elsewhere, in the engine.

``--cache-from`` and ``--cache-to`` as maps of keys (reference/build.md section 9). A cache that
cannot be read is told of and ignored, as BuildKit does; one that cannot be written fails the build
unless it says ``ignore-error``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
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
from sampan.engine.cachestores import Blobs, ClientStore, document
from sampan.engine.core import Core
from sampan.engine.threads import BodyReader
from sampan.engine.transfer import credentials as account_of
from sampan.errors import InvalidParameter, NotFound, SampanError, Unsupported
from sampan.image import manifest as manifests
from sampan.image.config import parse as parse_config
from sampan.image.manifest import Index, Manifest
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.model.reference import Reference
from sampan.registry import Credentials as Account
from sampan.registry.manifest import Manifest as Listed
from sampan.registry.repository import Repository

_LIMIT = 64 << 20
_PIECE = 1 << 20
_COMMON = frozenset(("type", "mode", "ignore-error", "compression", "compression-level"))
_MEDIA = frozenset(("image-manifest", "oci-mediatypes", "force-compression"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What became of the caches to write.

    ``archives`` are those of directories that a client unpacks itself; ``manifest`` is the one
    last written to a store or a registry.
    """

    archives: tuple[AsyncIterator[bytes], ...] = ()
    manifest: Descriptor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caches:
    """Imports and exports of one build on one engine.

    ``stores`` finds the store that is a directory of the client's, where clients offer such;
    others send directories along and unpack archives.
    """

    core: Core
    credentials: Credentials
    progress: Progress
    stores: Callable[[str], ClientStore] | None = None

    async def imports(
        self, given: Sequence[Mapping[str, str]], directories: Mapping[int, Path]
    ) -> tuple[Imported, ...]:
        """The caches to ask; those that cannot be read are left out. Raises Unsupported.

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
                if isinstance(error, Unsupported):  # asked for in vain, whatever is in the cache
                    raise
                continue
            self.progress.completed(vertex)
            if one is not None:
                found.append(one)
        return tuple(found)

    async def _import(self, values: Mapping[str, str], directory: Path | None) -> Imported | None:
        kind = values.get("type", "")
        if kind == "registry":
            return await self._from_registry(values)
        if kind == "local" and self.stores is not None:
            return await self._from_store(values, self.stores)
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

        async def feed(blob: Descriptor, body: BodyReader) -> None:
            async def ask(repository: Repository) -> None:
                async with repository.blob(blob) as answer:
                    if answer.status != 200:
                        raise NotFound(f"blob {blob.digest} is not in {reference.familiar}")
                    await body.feed(answer.content)

            await self.core.registry.first(reference, account, ask)

        source = Blobs(loop=asyncio.get_running_loop(), feed=feed)
        config = await self._config(reference, account, manifest)
        if config is None:
            return None
        steps = (
            cachefile.decode(config[1]) if config[0] else cachefile.from_inline(_carried(config[1]))
        )
        return Imported(name=text, steps=steps, fetch=source.fetch)

    async def _config(
        self, reference: Reference, account: Account, manifest: Listed
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

            async def ask(repository: Repository) -> Listed:
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

    async def _from_store(
        self, values: Mapping[str, str], stores: Callable[[str], ClientStore]
    ) -> Imported | None:
        """A cache in a directory of the client's, who has looked its manifest's digest up."""
        _only(values, {"src", "tag", "digest"})
        if not values.get("src"):
            raise InvalidParameter("local cache importer requires src")
        if not values.get("digest"):
            raise InvalidParameter("local cache importer requires explicit digest")
        store = stores(values["src"])
        raw = await document(store, Digest.parse(values["digest"]))
        parsed = manifests.parse(raw)
        if isinstance(parsed, Index):
            configs = [one for one in parsed.manifests if one.media_type == cachefile.CONFIG]
            if not configs:
                return None
            config = configs[0]
        else:
            config = parsed.config

        async def feed(blob: Descriptor, body: BodyReader) -> None:
            await body.feed(store.read(blob))

        return Imported(
            name=values["src"],
            steps=cachefile.decode(await document(store, config.digest)),
            fetch=Blobs(loop=asyncio.get_running_loop(), feed=feed).fetch,
        )

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

    async def export(self, given: Sequence[Mapping[str, str]], built: Sequence[Built]) -> Exported:
        """Write every cache. Raises SampanError unless the one that fails may."""
        archives: list[AsyncIterator[bytes]] = []
        written: Descriptor | None = None
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
            if isinstance(made, Descriptor):
                if written is None or values.get("type") == "local":
                    written = made  # a store's: its client notes it in the directory's index
            elif made is not None:
                archives.append(made)
        return Exported(archives=tuple(archives), manifest=written)

    async def _export(
        self, values: Mapping[str, str], records: Sequence[Record]
    ) -> AsyncIterator[bytes] | Descriptor | None:
        """Write one cache: its manifest, or the archive that is still to be unpacked."""
        threads, content = self.core.threads, self.core.content
        kind = values.get("type", "")
        config, blobs = await threads.run_long(self._blobs, values, records)
        if kind == "local":
            _only(values, {"dest", "tag", "reset", *_COMMON, *_MEDIA})
            _image_form(values)
            if self.stores is not None:
                return await self._to_store(values, config, blobs, self.stores)
            chunks = archive(config, blobs, content, tag=values.get("tag", "latest"))
            return threads.iterate(chunks)
        if kind == "registry":
            _only(values, {"ref", "registry.insecure", *_COMMON, *_MEDIA})
            _image_form(values)
            return await self._to_registry(values, config, blobs)
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
    ) -> Descriptor:
        core = self.core
        reference = Reference.parse(values.get("ref", "")).with_default_tag()
        account = account_of(await self.credentials(reference.domain))
        made = await core.threads.run(self._manifest, config, blobs)
        root = made.descriptor
        await core.registry.push(reference, root.digest, content=core.content, credentials=account)
        return root

    async def _to_store(
        self,
        values: Mapping[str, str],
        config: bytes,
        blobs: list[Descriptor],
        stores: Callable[[str], ClientStore],
    ) -> Descriptor:
        """Write to a directory of the client's, who notes the manifest in its index."""
        if not values.get("dest"):
            raise InvalidParameter("local cache exporter requires dest")
        store = stores(values["dest"])
        made = await self.core.threads.run(self._manifest, config, blobs)
        for blob in (*made.blobs, made.descriptor):  # the manifest once all it names is there
            await store.write(blob, self._chunks(blob))
        return made.descriptor

    async def _chunks(self, blob: Descriptor) -> AsyncIterator[bytes]:
        content = self.core.content

        def pieces() -> Iterator[bytes]:
            with content.open(blob.digest) as file:
                while piece := file.read(_PIECE):
                    yield piece

        async for piece in self.core.threads.iterate(pieces()):
            yield piece

    def _manifest(self, config: bytes, blobs: list[Descriptor]) -> Manifest:
        """The cache's manifest, stored with its configuration. Blocking."""
        content = self.core.content
        described = Descriptor(
            media_type=cachefile.CONFIG, digest=content.add(config), size=len(config)
        )
        made = cachefile.manifest(described, blobs)
        content.add(made.raw)
        return made


def everything(given: Sequence[Mapping[str, str]]) -> bool:
    """Whether a cache of every stage is to be exported."""
    return any(one.get("mode") == "max" for one in given)


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
