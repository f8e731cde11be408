"""Images in OCI layouts of the client's, as bases and sources of files (``oci-layout://``).

A layout's blobs come from a store by digest; only what is not here already is read. The image has
no name here and lasts as long as the build.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sampan.build.executor import Executor, FindingExecutor
from sampan.engine.cachestores import BlobStore, document
from sampan.engine.core import Core
from sampan.engine.imageflows import consume
from sampan.engine.threads import Threads
from sampan.errors import InvalidParameter, NotFound
from sampan.image import Image, open_image
from sampan.image import manifest as manifests
from sampan.image.manifest import Manifest
from sampan.kernel.openat import in_root
from sampan.layer.model import Readable
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.model.platform import Platform

#: How the solver names such an image: this, the store's name, ``@`` and the digest.
LAYOUT = "sampan-layout/"
_DEEPEST = 4
_PIECE = 1 << 20


def layout_reference(store: str, digest: Digest) -> str:
    """The reference that stands for an image of the store with a name."""
    return f"{LAYOUT}{store}@{digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layouts:
    """Images of layouts, unpacked on one engine; ``stores`` finds a layout by its name."""

    core: Core
    stores: Callable[[str], BlobStore]

    async def image(self, reference: str, platform: Platform) -> Image:
        """The image of a :func:`layout_reference`, fetched and unpacked."""
        name, _, text = reference.removeprefix(LAYOUT).rpartition("@")
        store = self.stores(name)
        core, digest = self.core, Digest.parse(text)
        for _ in range(_DEEPEST):
            raw = await document(store, digest)
            await core.threads.run(core.content.add, raw)
            parsed = manifests.parse(raw)
            if isinstance(parsed, Manifest):
                break
            digest = parsed.select(platform).digest
        else:
            raise InvalidParameter(f"malformed image index {text}: indexes nest too deeply")
        for blob in parsed.blobs:
            await self._fetch(store, blob)
        image = await core.threads.run(open_image, core.content, parsed.descriptor, platform)
        await core.threads.run_long(core.unpacker.unpack, image)
        return image

    def beside(self, inner: Executor) -> Executor:
        """An executor that finds these images too."""
        return FindingExecutor(inner, LAYOUT, self.image)

    async def _fetch(self, store: BlobStore, blob: Descriptor) -> None:
        content = self.core.content
        if await self.core.threads.run(content.exists, blob.digest):
            return

        def ingest(stream: Readable) -> None:
            with content.writer(expected=blob.digest) as writer:
                while piece := stream.read(_PIECE):
                    writer.write(piece)
                writer.commit(blob.digest)

        await consume(self.core, store.read(blob), ingest)


@dataclass(frozen=True, slots=True)
class DirectoryStore:
    """A layout in a directory of this host. Links in it lead nowhere outside it."""

    directory: Path
    threads: Threads

    async def read(self, blob: Descriptor) -> AsyncIterator[bytes]:
        """See :class:`sampan.engine.cachestores.BlobStore`."""
        path = f"blobs/{blob.digest.algorithm}/{blob.digest.hex}"
        file = await self.threads.run(_opened, self.directory, path)
        with closing(file):
            while piece := await self.threads.run_long(file.read, _PIECE):
                yield piece


class _File(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


def _opened(directory: Path, path: str) -> _File:
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return os.fdopen(in_root(root, path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    except FileNotFoundError:
        raise NotFound(f"the OCI layout has no {path}") from None
    finally:
        os.close(root)
