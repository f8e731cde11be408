"""Caches in a directory: an OCI layout whose index names one cache manifest a tag."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sampan.build import cachefile
from sampan.build.export import layout
from sampan.content import ContentStore
from sampan.errors import InvalidParameter, NotFound
from sampan.image import manifest as manifests
from sampan.image.manifest import Index
from sampan.kernel.openat import in_root
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest

_LIMIT = 64 << 20
_PIECE = 1 << 20
_TAG = "org.opencontainers.image.ref.name"


class DirectoryCache:
    """An exported cache below ``root``, to read from."""

    def __init__(self, root: Path, *, tag: str = "latest", digest: str = "") -> None:
        self._root = root
        self._tag = tag
        self._digest = Digest.parse(digest) if digest else None

    def load(self) -> bytes | None:
        """See :class:`sampan.build.caches.Backend`."""
        digest = self._digest
        if digest is None:
            try:
                index = manifests.parse(self._read("index.json"))
            except NotFound:
                return None
            if not isinstance(index, Index):
                raise InvalidParameter("the cache directory's index.json is no index")
            entries = [one for one in index.manifests if one.annotations.get(_TAG) == self._tag]
            if not entries:
                return None
            digest = entries[-1].digest
        raw = self._verified(digest)
        parsed = manifests.parse(raw)
        if isinstance(parsed, Index):  # image-manifest=false: blobs listed as manifests
            configs = [one for one in parsed.manifests if one.media_type == cachefile.CONFIG]
            return self._verified(configs[0].digest) if configs else None
        return self._verified(parsed.config.digest)

    def fetch(self, blob: Descriptor) -> Iterator[bytes]:
        """See :class:`sampan.build.caches.Backend`."""
        with self._open(_path(blob.digest)) as file:
            while piece := file.read(_PIECE):
                yield piece

    def save(self, config: bytes, blobs: object, content: ContentStore) -> None:
        """A directory is the client's; :func:`archive` makes what is put there."""
        raise InvalidParameter("a cache directory is written by its client")

    def _verified(self, digest: Digest) -> bytes:
        data = self._read(_path(digest))
        if Digest.of(data, digest.algorithm) != digest:
            raise InvalidParameter(f"the cache directory's {digest} does not have that digest")
        return data

    def _read(self, path: str) -> bytes:
        with self._open(path) as file:
            return file.read(_LIMIT)

    def _open(self, path: str) -> BinaryIO:
        top = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return os.fdopen(in_root(top, path, os.O_RDONLY), "rb")
        except FileNotFoundError:
            raise NotFound(f"the cache directory has no {path}") from None
        finally:
            os.close(top)


def _path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def archive(
    config: bytes, blobs: list[Descriptor], content: ContentStore, *, tag: str = "latest"
) -> Iterator[bytes]:
    """The cache as a tar of an OCI layout, for the client to unpack into its directory."""
    described = Descriptor(
        media_type=cachefile.CONFIG, digest=content.add(config), size=len(config)
    )
    made = cachefile.manifest(described, blobs)
    content.add(made.raw)
    sizes = {blob.digest: blob.size for blob in (made.descriptor, *made.blobs)}
    return layout(content, made.descriptor, sizes, [{_TAG: tag}])
