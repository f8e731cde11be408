"""Places on the host where a step finds other trees: roots mounted below the build's directory."""

from __future__ import annotations

import contextlib
import os
import posixpath
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from sampan.build.workspace import Workspace
from sampan.errors import NotFound
from sampan.kernel.mount import MNT_DETACH, descriptor, move_mount, umount2
from sampan.kernel.openat import in_root
from sampan.model.digest import Digest
from sampan.model.mount import Mount
from sampan.snapshot.rootfs import detached_mount


@contextlib.contextmanager
def mounted(mounts: Sequence[Mount], directory: Path, *, writable: bool) -> Iterator[str]:
    """A snapshot mounted below ``directory`` while the block lasts; the path of its root."""
    with ExitStack() as stack:
        path = tempfile.mkdtemp(prefix="from-", dir=directory)
        stack.callback(os.rmdir, path)
        with descriptor(detached_mount(mounts, writable=writable)) as tree:
            with descriptor(os.open(path, os.O_PATH | os.O_DIRECTORY)) as place:
                move_mount(tree, place)
            stack.callback(umount2, path, MNT_DETACH)
        yield path


@contextlib.contextmanager
def looked_at(
    workspace: Workspace, chain: Digest | None, directory: Path, *, writable: bool
) -> Iterator[str]:
    """The root of ``chain`` mounted below ``directory``; what is written to it is not kept."""
    with ExitStack() as stack:
        if writable:
            mounts = stack.enter_context(workspace.change(chain)).mounts
        else:
            mounts = stack.enter_context(workspace.view(chain))
        yield stack.enter_context(mounted(mounts, directory, writable=writable))


def inside(root: str, path: str) -> str:
    """The host path of ``path`` below ``root``, links resolved as inside it. Raises NotFound."""
    top = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        fd = in_root(top, path or ".")
    except OSError as error:
        raise NotFound(f'"/{path.strip("/")}": not found') from error
    finally:
        os.close(top)
    try:
        return posixpath.normpath(os.readlink(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)
