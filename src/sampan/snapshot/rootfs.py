"""A snapshot's tree for the engine's own reading: a descriptor, never a mount point."""

from __future__ import annotations

import errno
import os
import secrets
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from sampan.errors import InvalidParameter
from sampan.kernel import mount as kernel
from sampan.kernel.namespaces import CLONE_NEWNS, unshare
from sampan.kernel.openat import in_root
from sampan.layer.diff import changes_overlay, changes_trees, diff_overlay, diff_trees
from sampan.layer.model import Change, Destination, Whiteouts
from sampan.layer.tree import DIRECTORY_FLAGS
from sampan.model.mount import Mount
from sampan.snapshot import Snapshotter

#: FSCONFIG_SET_STRING takes 255 bytes at most (fs/fsopen.c), one path each from Linux 6.5 on.
_STRING_LIMIT = 255


def detached_mount(mounts: Sequence[Mount], *, writable: bool = False) -> int:
    """Perform ``mounts`` on a detached mount tree and return a directory descriptor of its root.

    No mount appears in any mount namespace that outlives the call; closing the descriptor
    unmounts. The first mount has destination "" (the root); further ones (volumes) are attached
    inside it, their destinations resolved within the root and skipped where there is nothing to
    mount on. Unless ``writable`` the tree is read-only and an overlay's upper directory is only
    read, so this is safe beside a running container. The descriptor is an O_PATH one, for openat(2)
    and the like. Raises OSError; the caller closes it.
    """
    if not mounts or mounts[0].destination.strip("/"):
        raise InvalidParameter("the first mount of a root has the destination ''")
    if len(mounts) == 1:
        return _one(mounts[0], writable=writable)
    return _in_own_namespace(lambda: _several(mounts, writable=writable))


def _one(mount: Mount, *, writable: bool) -> int:
    """One mount, detached, as the descriptor of its root."""
    if mount.type == "bind":
        tree = kernel.clone_tree(kernel.AT_FDCWD, mount.source, recursive="rbind" in mount.options)
        if not writable or "ro" in mount.options:
            _make_read_only(tree)
        return tree
    if mount.type != "overlay":
        raise InvalidParameter(f"a {mount.type} mount cannot be the root of a snapshot")
    options = _overlay_options(mount, writable=writable)
    attributes = 0 if writable and "ro" not in mount.options else kernel.MOUNT_ATTR_RDONLY
    lowers = (options.pop("lowerdir") or "").split(":")
    pairs: list[tuple[str, str | None]]
    try:
        pairs = [*(("lowerdir+", lower) for lower in lowers), *options.items()]
        return kernel.new_filesystem("overlay", "overlay", pairs, attributes)
    except OSError as error:
        # A kernel that does not know the key says so only when it mounts (None: no key's fault).
        if error.errno != errno.EINVAL or error.filename not in ("lowerdir+", None):
            raise
    # Before Linux 6.5 all lower directories come in one string: short ones directly, long ones
    # by mount(2), whose options may fill a page.
    joined = ":".join(lowers)
    if len(joined) <= _STRING_LIMIT:
        pairs = [("lowerdir", joined), *options.items()]
        return kernel.new_filesystem("overlay", "overlay", pairs, attributes)
    return _in_own_namespace(lambda: _mounted_overlay(joined, options, attributes))


def _overlay_options(mount: Mount, *, writable: bool) -> dict[str, str | None]:
    """Overlay's options by key; for reading, the upper directory is the topmost lower one."""
    options: dict[str, str | None] = {}
    for option in mount.options:
        key, equals, value = option.partition("=")
        if equals:
            options[key] = value
    if not writable and "upperdir" in options:
        options["lowerdir"] = f"{options.pop('upperdir')}:{options['lowerdir']}"
        options.pop("workdir", None)
    elif "volatile" in mount.options:
        options["volatile"] = None
    return options


def _mounted_overlay(lowers: str, options: dict[str, str | None], attributes: int) -> int:
    """Overlay through mount(2), in a namespace of this thread's own."""
    flags_and_values = (
        key if value is None else f"{key}={value}" for key, value in options.items()
    )
    data = ",".join([f"lowerdir={lowers}", *flags_and_values])
    flags = kernel.MS_RDONLY if attributes & kernel.MOUNT_ATTR_RDONLY else 0
    kernel.mount("overlay", "/proc", "overlay", flags, data)
    return kernel.clone_tree(kernel.AT_FDCWD, "/proc", recursive=False)


def _make_read_only(tree: int) -> None:
    kernel.mount_setattr(tree, "", set_=kernel.MOUNT_ATTR_RDONLY, recursive=True)


def _several(mounts: Sequence[Mount], *, writable: bool) -> int:
    """A root with volumes: put together in this thread's namespace, then cloned out of it."""
    with ExitStack() as stack:
        root = _one(mounts[0], writable=writable)
        stack.callback(os.close, root)
        pieces = []
        for mount in mounts[1:]:
            piece = _one(mount, writable=writable)
            stack.callback(os.close, piece)
            pieces.append((mount.destination, piece))
        # Sources are opened; now the root may cover a directory of this namespace. /proc is one
        # that is always there and that nothing here needs afterwards.
        kernel.move_mount(root, kernel.AT_FDCWD, "/proc")
        for destination, piece in pieces:
            try:
                target = in_root(root, destination)
            except OSError:  # the image has nothing there and the volume was never mounted
                continue
            try:
                kernel.move_mount(piece, target)
            finally:
                os.close(target)
        return kernel.clone_tree(root, "", recursive=True)


def _in_own_namespace(action: Callable[[], int]) -> int:
    """Run ``action`` in a thread with a mount namespace that ends with it."""
    results: list[int | BaseException] = []

    def run() -> None:
        try:
            # Per thread, like everything unshare(2) does; the other threads stay where they are.
            unshare(CLONE_NEWNS)
            kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
            results.append(action())
        except BaseException as error:  # belongs to the thread that waits for us
            results.append(error)

    thread = threading.Thread(target=run, name="sampan-mounts")
    thread.start()
    thread.join()
    result = results[0]
    if isinstance(result, BaseException):
        raise result
    return result


def layer_destination(mounts: Sequence[Mount]) -> Destination:
    """Where a layer is applied so that it appears in ``mounts`` of an active snapshot.

    An overlay's layer goes straight into its upper directory, whiteouts as overlay's own marks;
    into any other tree it is applied in place.
    """
    mount = mounts[0]
    if mount.type == "overlay":
        options = dict(option.split("=", 1) for option in mount.options if "=" in option)
        return Destination(
            root=Path(options["upperdir"]),
            whiteouts=Whiteouts.OVERLAY,
            lowers=tuple(map(Path, options["lowerdir"].split(":"))),
        )
    return Destination(root=Path(mount.source), whiteouts=Whiteouts.REMOVE)


def lower_directories(mounts: Sequence[Mount]) -> tuple[Path, ...]:
    """The directories of committed layers that a view's ``mounts`` show, topmost first."""
    mount = mounts[0]
    if mount.type != "overlay":
        return (Path(mount.source),)
    options = dict(option.split("=", 1) for option in mount.options if "=" in option)
    return tuple(map(Path, options["lowerdir"].split(":")))


def diff(snapshotter: Snapshotter, key: str, *, without: Container[bytes] = ()) -> Iterator[bytes]:
    """What active ``key`` changed over its parent, as an uncompressed layer (``docker commit``).

    ``without`` are paths (relative) to leave out, where the driver can. Blocking; raises NotFound
    at the first chunk.
    """
    mounts = snapshotter.mounts(key)
    destination = layer_destination(mounts)
    if destination.whiteouts is Whiteouts.OVERLAY:
        yield from diff_overlay(destination.root, destination.lowers, without=without)
        return
    with ExitStack() as stack:
        upper, lower = _both(stack, snapshotter, key, destination.root)
        yield from diff_trees(lower, upper)


def changes(snapshotter: Snapshotter, key: str) -> list[Change]:
    """What active ``key`` changed over its parent (``docker diff``), sorted by path."""
    mounts = snapshotter.mounts(key)
    destination = layer_destination(mounts)
    if destination.whiteouts is Whiteouts.OVERLAY:
        return changes_overlay(destination.root, destination.lowers)
    with ExitStack() as stack:
        upper, lower = _both(stack, snapshotter, key, destination.root)
        if lower is None:
            return changes_overlay(destination.root, ())
        return changes_trees(lower, upper)


def _both(
    stack: ExitStack, snapshotter: Snapshotter, key: str, root: Path
) -> tuple[int, int | None]:
    """Descriptors of a whole tree and of its parent's, which a view shows."""
    upper = os.open(root, DIRECTORY_FLAGS)
    stack.callback(os.close, upper)
    parent = snapshotter.stat(key).parent
    if parent is None:
        return upper, None
    name = f"diff-{secrets.token_hex(8)}"
    mounts = snapshotter.view(name, parent)
    stack.callback(snapshotter.remove, name)
    lower = detached_mount(mounts)
    stack.callback(os.close, lower)
    return upper, lower


def export(root: int) -> Iterator[bytes]:
    """The whole tree below directory descriptor ``root`` as a tar stream (``docker export``)."""
    return diff_trees(None, root)
