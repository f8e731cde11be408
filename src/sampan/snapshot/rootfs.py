"""A snapshot's tree for the engine's own reading: a descriptor, never a mount point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sampan.layer.model import Change
from sampan.model.mount import Mount
from sampan.snapshot import Snapshotter


def detached_mount(mounts: Sequence[Mount], *, writable: bool = False) -> int:
    """Perform ``mounts`` on a detached mount tree and return a directory descriptor of its root.

    No mount appears in any mount namespace; closing the descriptor unmounts. The first mount has
    destination "" (the root); further ones (bind mounts of volumes) are attached inside it, their
    destinations resolved within the root and skipped when they do not exist there. Unless
    ``writable`` the tree is read-only and an overlay's upper directory is only read, so this is
    safe beside a running container. Raises OSError; the caller closes the descriptor.
    """
    raise NotImplementedError


def diff(snapshotter: Snapshotter, key: str) -> Iterator[bytes]:
    """What ``key`` changed over its parent, as an uncompressed layer (``docker commit``)."""
    raise NotImplementedError


def changes(snapshotter: Snapshotter, key: str) -> list[Change]:
    """What ``key`` changed over its parent (``docker diff``), sorted by path."""
    raise NotImplementedError


def export(root: int) -> Iterator[bytes]:
    """The whole tree below directory descriptor ``root`` as a tar stream (``docker export``)."""
    raise NotImplementedError
