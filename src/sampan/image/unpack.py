"""Unpack images: apply their layers to snapshots named by chain id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sampan.content import ContentStore
from sampan.image.image import Image
from sampan.layer.model import DEFAULT_LIMITS, Limits
from sampan.model.digest import Digest
from sampan.snapshot import Snapshotter


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

    def unpack(
        self, image: Image, *, progress: Progress | None = None, follow: float | None = None
    ) -> Digest | None:
        """Make the image's snapshots, bottom first; returns its chain id.

        Idempotent: layers already there are left alone. With ``follow`` (seconds) layers may
        still be downloading (:meth:`ContentStore.follow`). Blocking. Raises NotFound (layer
        missing), DigestMismatch, ArchiveRefused, NoSpace; a failed layer leaves nothing.
        """
        raise NotImplementedError
