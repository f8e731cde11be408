"""Unpack images: apply their layers to snapshots named by chain id."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from sampan.content import ContentStore
from sampan.errors import Conflict
from sampan.image.image import Image
from sampan.layer.apply import apply
from sampan.layer.model import DEFAULT_LIMITS, Limits, Readable
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.snapshot import Snapshotter
from sampan.snapshot.rootfs import layer_destination


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProgress:
    """How far a layer is: ``current`` of ``total`` compressed bytes; ``done`` at its end."""

    digest: Digest
    current: int
    total: int
    done: bool = False


Progress = Callable[[LayerProgress], None]


class Unpacker:
    """Unpacks images of one content store into one snapshotter.

    Safe from many threads: a layer wanted by several at once is unpacked once, the others wait.
    """

    def __init__(
        self, content: ContentStore, snapshotter: Snapshotter, *, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self.content = content
        self.snapshotter = snapshotter
        self.limits = limits
        self._gates = _Gates()

    def unpack(
        self, image: Image, *, progress: Progress | None = None, follow: float | None = None
    ) -> Digest | None:
        """Make the image's snapshots, bottom first; returns its chain id (None without layers).

        Idempotent: layers already there are left alone. With ``follow`` (seconds) layers may
        still be downloading (:meth:`ContentStore.follow`). Blocking. Raises NotFound (layer
        missing), DigestMismatch, ArchiveRefused, NoSpace; a failed layer leaves nothing.
        """
        parent: str | None = None
        layers = zip(image.manifest.layers, image.config.diff_ids, image.chain_ids, strict=True)
        for layer, diff_id, chain_id in layers:
            key = str(chain_id)
            with self._gates.enter(key):
                if not self.snapshotter.exists(key):
                    with self._open(layer, follow) as stream:
                        reading = _Reading(stream, layer, progress)
                        self.layer(reading, diff_id, key, parent)
            if progress is not None:
                progress(
                    LayerProgress(
                        digest=layer.digest, current=layer.size, total=layer.size, done=True
                    )
                )
            parent = key
        return image.chain_id

    def _open(self, layer: Descriptor, follow: float | None) -> BinaryIO:
        if follow is None:
            return self.content.open(layer.digest)
        return self.content.follow(layer.digest, timeout=follow)

    def layer(self, stream: Readable, diff_id: Digest, name: str, parent: str | None) -> None:
        """Apply one layer (compressed or not) on top of ``parent`` as committed ``name``.

        Errors as :meth:`unpack`; harmless when somebody else committed it meanwhile.
        """
        key = f"unpack-{secrets.token_hex(8)}"
        mounts = self.snapshotter.prepare(key, parent)
        try:
            destination = layer_destination(mounts)
            apply(stream, destination, diff_id=diff_id, limits=self.limits)
            self.snapshotter.commit(name, key)
        except Conflict:
            self.snapshotter.remove(key)
            if not self.snapshotter.exists(name):
                raise
        except BaseException:
            self.snapshotter.remove(key)
            raise


class _Reading:
    """A layer's stream that reports how far it was read."""

    def __init__(self, stream: BinaryIO, layer: Descriptor, progress: Progress | None) -> None:
        self._stream = stream
        self._layer = layer
        self._progress = progress
        self._count = 0

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._count += len(data)
        if self._progress is not None:
            self._progress(
                LayerProgress(
                    digest=self._layer.digest, current=self._count, total=self._layer.size
                )
            )
        return data


class _Gates:
    """One lock for each key in use, made and thrown away as needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gates: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def enter(self, key: str) -> Iterator[None]:
        """Hold the lock of ``key``."""
        with self._lock:
            gate, users = self._gates.get(key, (threading.Lock(), 0))
            self._gates[key] = (gate, users + 1)
        try:
            with gate:
                yield
        finally:
            with self._lock:
                gate, users = self._gates.pop(key)
                if users > 1:
                    self._gates[key] = (gate, users - 1)
