"""Snapshots of a build: look at what is there, change it, keep the difference as a layer.

Blocking; the solver calls it from worker threads. Whatever fails leaves no snapshot behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from sampan.build.cache import Layer
from sampan.build.rewrite import bound_times
from sampan.content import ContentStore
from sampan.errors import Conflict, NotFound
from sampan.image import Unpacker, chain_ids, store_layer
from sampan.layer import Compression, compress
from sampan.layer.ahead import Ahead
from sampan.model.descriptor import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, Descriptor
from sampan.model.digest import Digest
from sampan.model.mount import Mount
from sampan.snapshot import VOLATILE, Snapshotter
from sampan.snapshot.rootfs import detached_mount, diff

_MEDIA_TYPES = {
    Compression.NONE: OCI_LAYER,
    Compression.GZIP: OCI_LAYER_GZIP,
    Compression.ZSTD: OCI_LAYER_ZSTD,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A snapshot being changed."""

    key: str
    mounts: tuple[Mount, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Where a build's layers are made. ``compression`` and ``level`` are of the layers' blobs."""

    content: ContentStore
    snapshotter: Snapshotter
    compression: Compression = Compression.GZIP
    level: int | None = None

    @contextlib.contextmanager
    def look(self, chain: Digest | None) -> Iterator[int]:
        """A descriptor of the root of ``chain``, read-only, while the block lasts."""
        with self.view(chain) as mounts:
            root = detached_mount(mounts)
            try:
                yield root
            finally:
                os.close(root)

    @contextlib.contextmanager
    def view(self, chain: Digest | None) -> Iterator[tuple[Mount, ...]]:
        """The mounts of ``chain``, read-only, while the block lasts."""
        key = uuid.uuid4().hex + uuid.uuid4().hex
        if chain is None:  # an empty root, thrown away unread
            mounts = self.snapshotter.prepare(key)
        else:
            mounts = self.snapshotter.view(key, str(chain))
        try:
            yield mounts
        finally:
            self.snapshotter.remove(key)

    @contextlib.contextmanager
    def change(self, chain: Digest | None) -> Iterator[Change]:
        """A writable snapshot on ``chain``; :meth:`keep` makes a layer of it, else it is gone."""
        # shaped like a container's, so that what a crash leaves is swept as theirs is
        key = uuid.uuid4().hex + uuid.uuid4().hex
        mounts = self.snapshotter.prepare(key, str(chain) if chain else None, {VOLATILE: ""})
        try:
            yield Change(key=key, mounts=mounts)
        finally:
            with contextlib.suppress(NotFound):  # kept
                self.snapshotter.remove(key)

    @contextlib.contextmanager
    def writable(self, change: Change) -> Iterator[int]:
        """A descriptor of the changed root, for writing, while the block lasts."""
        root = detached_mount(self.snapshotter.mounts(change.key), writable=True)
        try:
            yield root
        finally:
            os.close(root)

    def keep(self, change: Change, below: Digest | None, epoch: int | None) -> Layer:
        """Make a layer of what ``change`` holds, on top of chain ``below``.

        The snapshot is committed under its chain id, rebased there if it was made on another.
        """
        tar = diff(self.snapshotter, change.key)
        if epoch is not None:
            tar = bound_times(tar, epoch)
        hashed = hashlib.sha256()
        with self.content.writer() as writer, Ahead(_through(tar, hashed)) as chunks:
            for chunk in compress(chunks, self.compression, self.level):
                writer.write(chunk)
            size = writer.offset
            blob = writer.commit()
        diff_id = Digest("sha256", hashed.hexdigest())
        chain = chain_ids([below, diff_id])[-1] if below is not None else diff_id
        parent = str(below) if below is not None else None
        made_on = self.snapshotter.stat(change.key).parent
        with contextlib.suppress(Conflict):  # another step made the same layer: use that one
            rebase = parent if made_on is None and parent is not None else None
            self.snapshotter.commit(str(chain), change.key, parent=rebase)
        descriptor = Descriptor(media_type=_MEDIA_TYPES[self.compression], digest=blob, size=size)
        return Layer(diff_id=diff_id, descriptor=descriptor, chain_id=chain)

    def store(self, tar: Iterator[bytes]) -> Layer:
        """Make a layer of its own of a tar that is nobody's changes, its snapshot with it."""
        stored = store_layer(tar, self.content, compression=self.compression, level=self.level)
        layer = Layer(diff_id=stored.diff_id, descriptor=stored.descriptor, chain_id=stored.diff_id)
        self.take_in(iter(()), layer, None)
        return layer

    def take_in(self, chunks: Iterator[bytes], layer: Layer, below: Digest | None) -> None:
        """Store a layer's blob that comes from elsewhere and make its snapshot on ``below``.

        Both are verified. Raises DigestMismatch, ArchiveRefused; then nothing is left.
        """
        digest = layer.descriptor.digest
        if not self.content.exists(digest):
            with self.content.writer(expected=digest) as writer:
                for chunk in chunks:
                    writer.write(chunk)
                writer.commit(digest)
        if not self.snapshotter.exists(str(layer.chain_id)):
            unpacker = Unpacker(self.content, self.snapshotter)
            with self.content.open(digest) as blob:
                parent = str(below) if below is not None else None
                unpacker.layer(blob, layer.diff_id, str(layer.chain_id), parent)

    def present(self, layer: Layer) -> bool:
        """Whether a cached layer's blob and snapshot are still there."""
        return self.snapshotter.exists(str(layer.chain_id)) and self.content.exists(
            layer.descriptor.digest
        )


def _through(chunks: Iterator[bytes], hashed: hashlib._Hash) -> Iterator[bytes]:
    for chunk in chunks:
        hashed.update(chunk)
        yield chunk
