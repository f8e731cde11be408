"""Operations that build the container's file system tree.

Destinations belong to the image or to a container that may be changing them: they are opened once
below the new root (openat2, RESOLVE_IN_ROOT) and mounted on by descriptor, so no second look-up can
be led elsewhere (CVE-2021-30465). Sources are the host's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Sequence

from sampan.kernel import mount as m
from sampan.kernel import namespaces, openat, tty
from sampan.kernel.fsids import file_system_ids
from sampan.runtime import channel
from sampan.runtime.context import Context, Source
from sampan.runtime.copy_up import copy_tree
from sampan.runtime.userns import mapped_namespace

_STRING_LIMIT = 255  # fsconfig(2): longest string value
_PAGE_DATA = 4095  # mount(2): longest option string


def host_propagation(context: Context, *, kind: int) -> None:
    """Cut our copy of the host's mounts off it as wished; "/" itself so that nothing mounted on
    it can travel back. There is no copy where we are to move to a blank namespace."""
    if context.blank >= 0:
        return
    m.mount("", "/", "", kind | m.MS_REC)
    if kind != m.MS_SLAVE:
        m.mount("", "/", "", m.MS_PRIVATE)


def overlay(
    context: Context,
    *,
    slot: str,
    source: str,
    lower: Sequence[str],
    upper: str | None,
    work: str | None,
    options: Sequence[tuple[str, str | None]],
    attributes: int,
    layers: bool,
    layer_fds: bool,
    idmapped: bool,
    owner: tuple[int, int] | None = None,
) -> None:
    """A detached overlay. ``layers``: as ``lowerdir+``, one each (Linux 6.5).

    ``idmapped``: all layers, the upper one too, are seen through the container's id map, so files
    on disk have the ids of an unmapped container. ``owner``: the host's ids of its root.
    """
    if not layers:
        context.store(slot, _overlay_by_string(source, lower, upper, work, options, attributes))
        return
    with contextlib.ExitStack() as opened:
        found = _Layers(context.userns if idmapped else -1, layer_fds, opened)
        data: list[tuple[str, str | int | None]] = [
            ("lowerdir+", found.lower(path)) for path in lower
        ]
        if upper is not None and work is not None:
            upper_layer, work_layer = found.pair(upper, work)
            data += [("upperdir", upper_layer), ("workdir", work_layer)]
        data += [(key, value) for key, value in options]
        if owner is not None:
            # An overlay works on its layers with the credentials of whoever mounted it.
            opened.enter_context(file_system_ids(*owner))
        context.store(slot, m.new_filesystem("overlay", source or "overlay", data, attributes))


class _Layers:
    """How to name the layers of an overlay to fsconfig: by path when it may be, else by descriptor.

    ``userns``: whose ids they are seen through, -1 for none. ``opened`` closes the descriptors.
    """

    def __init__(self, userns: int, fds: bool, opened: contextlib.ExitStack) -> None:
        self._userns = userns
        self._fds = fds
        self._opened = opened
        self._bases: dict[str, int] = {}

    def lower(self, path: str) -> str | int:
        """An idmapped layer is found in the clone of its parent, unless it is a mount itself."""
        if self._userns < 0:
            return self._name(m.AT_FDCWD, path)
        parent, name = posixpath.split(posixpath.normpath(path))
        if name:
            seen, there = os.stat(name, dir_fd=self._base(parent)), os.stat(path)
            if (seen.st_dev, seen.st_ino) == (there.st_dev, there.st_ino):
                return self._name(self._base(parent), name)
        return self._name(self._base(path), ".")

    def pair(self, upper: str, work: str) -> tuple[str | int, str | int]:
        """Both must be on one mount, so a clone is of what holds them."""
        if self._userns < 0:
            return self._name(m.AT_FDCWD, upper), self._name(m.AT_FDCWD, work)
        common = posixpath.commonpath((upper, work))
        base = self._base(common)
        first, second = (
            self._name(base, posixpath.relpath(path, common)) for path in (upper, work)
        )
        return first, second

    def _base(self, path: str) -> int:
        """Where what is below ``path`` is seen idmapped: one clone serves all layers."""
        if path not in self._bases:
            clone = m.clone_tree(m.AT_FDCWD, path, recursive=False)
            self._bases[path] = self._opened.enter_context(m.descriptor(clone))
            m.mount_setattr(clone, "", set_=m.MOUNT_ATTR_IDMAP, userns=self._userns)
        return self._bases[path]

    def _name(self, directory: int, path: str) -> str | int:
        if directory == m.AT_FDCWD and len(os.fsencode(path)) <= _STRING_LIMIT:
            return path
        fd = self._opened.enter_context(m.descriptor(_open_directory(directory, path)))
        return fd if self._fds else f"/proc/self/fd/{fd}"


def _open_directory(directory: int, path: str) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)


def _overlay_by_string(
    source: str,
    lower: Sequence[str],
    upper: str | None,
    work: str | None,
    options: Sequence[tuple[str, str | None]],
    attributes: int,
) -> int:
    """mount(2) with one option string, for kernels before 6.5; paths relative when it is long.

    Runs in our private mount namespace: the mount is made on its own lowest layer, cloned and
    taken off again.
    """
    paths = [*lower, *([upper, work] if upper and work else [])]
    common = posixpath.commonpath(paths)
    os.chdir(common)
    try:
        names = [posixpath.relpath(path, common) for path in lower]
        parts = ["lowerdir=" + ":".join(names)]
        if upper and work:
            parts += [f"upperdir={upper}", f"workdir={work}"]
        parts += [key if value is None else f"{key}={value}" for key, value in options]
        data = ",".join(parts)
        if len(os.fsencode(data)) > _PAGE_DATA:
            raise OSError(errno.E2BIG, "too many layers for this kernel", lower[0])
        m.mount(source, lower[-1], "overlay", 0, data)
        try:
            fd = m.clone_tree(m.AT_FDCWD, lower[-1], recursive=False)
        finally:
            m.umount2(lower[-1], m.MNT_DETACH)
    finally:
        os.chdir("/")
    m.mount_setattr(fd, "", set_=attributes)
    return fd


def filesystem(
    context: Context,
    *,
    slot: str,
    kind: str,
    source: str,
    options: Sequence[tuple[str, str | None]],
    attributes: int,
) -> None:
    """A detached mount of a new file system instance; one that is premade, if there is."""
    wanted = file_system(
        slot=slot, kind=kind, source=source, options=options, attributes=attributes
    )
    fd = context.premade.pop(wanted, -1)
    if fd < 0:
        try:
            fd = m.new_filesystem(*wanted)
        except OSError as error:
            what = f"{kind} option {error.filename}" if options else kind
            raise OSError(error.errno, error.strerror, what) from error
    context.store(slot, fd)


def file_system(
    *,
    slot: str,
    kind: str,
    source: str,
    options: Sequence[tuple[str, str | None]],
    attributes: int,
) -> Source:
    """What :func:`filesystem` makes, as a value to tell it by."""
    return kind, source, tuple([(key, value) for key, value in options]), attributes


def clone_tree(
    context: Context,
    *,
    slot: str,
    source: str,
    recursive: bool,
    device: tuple[str, int, int] | None = None,
) -> None:
    """A detached bind mount of a path of the host. ``device``: type and numbers it must have."""
    fd = m.clone_tree(m.AT_FDCWD, source, recursive=recursive)
    context.store(slot, fd)
    if context.blank >= 0:  # it was made of the host's own mount, not of a copy that was cut off
        m.mount_setattr(fd, "", propagation=m.MS_SLAVE, recursive=True)
    if device is not None:
        kind, major, minor = device
        is_kind = stat.S_ISBLK if kind == "b" else stat.S_ISCHR
        status = os.fstat(fd)
        if not is_kind(status.st_mode) or status.st_rdev != os.makedev(major, minor):
            raise OSError(errno.ENODEV, "the host has another device there", source)


def clone_within(context: Context, *, slot: str, within: str, name: str) -> None:
    """A detached bind mount of a file in another, still detached, mount of ours."""
    context.store(slot, m.clone_tree(context.take(within), name, recursive=False))


def attributes(context: Context, *, slot: str, set_: int, clear: int, recursive: bool) -> None:
    """Set and clear MOUNT_ATTR_* flags."""
    m.mount_setattr(context.take(slot), "", set_=set_, clear=clear, recursive=recursive)


def idmap(
    context: Context,
    *,
    slot: str,
    mappings: tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]] | None,
    recursive: bool,
    optional: bool,
    source: str,
) -> None:
    """Shift ownership of a mount of ``source`` by ``mappings``, or by the container's own.

    ``optional``: not all file systems can, and then it is left.
    """
    if mappings is None:
        fd, own = context.userns, False
    else:
        fd, own = mapped_namespace(*mappings), True
    try:
        m.mount_setattr(
            context.take(slot), "", set_=m.MOUNT_ATTR_IDMAP, userns=fd, recursive=recursive
        )
    except OSError as error:
        if not optional or error.errno not in (errno.EINVAL, errno.EPERM):
            what = "this kernel cannot idmap its file system for us"
            raise OSError(error.errno, f"{what} ({error.strerror})", source) from error
        context.warnings.append("the owners of a volume are not mapped: its file system cannot")
    finally:
        if own:
            os.close(fd)


def propagation(context: Context, *, slot: str, kind: int, recursive: bool) -> None:
    """Set the propagation type (mount_namespaces(7)) of an attached mount."""
    m.mount_setattr(context.take(slot), "", propagation=kind, recursive=recursive)


def attach_root(context: Context, *, slot: str, path: str, kind: int) -> None:
    """Put the root file system on top of "/", which a later pivot_root(2) takes away.

    ``kind``: its propagation, MS_PRIVATE or MS_SLAVE: a shared one could not become the root.

    Absolute paths keep leading to the host's files: look-ups start at our old root directory, below
    the new mount. In a blank namespace there are none.
    """
    fd = context.take(slot)
    if context.blank >= 0:
        namespaces.setns(context.blank, namespaces.CLONE_NEWNS)
        os.close(context.blank)
        context.blank, context.bare = -1, True
    if context.remapped:
        _park(context, slot, path)
    m.mount_setattr(fd, "", propagation=kind, recursive=True)
    m.move_mount(fd, m.AT_FDCWD, path)
    context.root = fd


def _park(context: Context, root: str, path: str) -> None:
    """Put what the other side has made below where the root comes, out of sight.

    Since Linux 6.8 mountinfo lists mounts in the order they were made, and these were made first.
    What is attached in their turn are clones, made then; a mount of another mount namespace cannot
    be cloned before it is one of ours. :func:`pivot` takes these away with the old root.
    """
    handed = {slot: fd for slot, fd in context.slots.items() if slot.startswith("mount")}
    handed.pop(root, None)
    if not handed:
        return
    with m.descriptor(m.new_filesystem("tmpfs", "parked")) as place:
        m.move_mount(place, m.AT_FDCWD, path)
        context.parking = True
        for slot, fd in handed.items():
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                os.mkdir(slot, dir_fd=place)
            else:
                os.mknod(slot, dir_fd=place)
            m.move_mount(fd, place, slot)
            context.parked.add(slot)


def _renew(context: Context, slot: str) -> None:
    if slot in context.parked:
        context.parked.remove(slot)
        context.store(slot, m.clone_tree(context.take(slot), "", recursive=True))


def attach(
    context: Context, *, slot: str, destination: str, ordinary: bool, proc_file: bool
) -> None:
    """Attach a detached mount at ``destination`` inside the root, which is made if missing.

    ``ordinary``: symbolic links on the way are refused, not followed: where procfs and sysfs are
    is security relevant (CVE-2019-19921, CVE-2023-27561).
    """
    _renew(context, slot)
    fd = context.take(slot)
    if destination == "/proc" and openat.filesystem_magic(fd) != openat.PROC_SUPER_MAGIC:
        raise OSError(errno.EPERM, "only a procfs may be mounted there", destination)
    is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
    if is_directory:
        target = openat.make_directories(context.root, destination)
    else:
        target = openat.make_file(context.root, destination)
    with m.descriptor(target):
        if ordinary:
            _check_ordinary(context.root, destination, target)
        if not proc_file and openat.filesystem_magic(target) == openat.PROC_SUPER_MAGIC:
            raise OSError(errno.EPERM, "inside a procfs", destination)
        m.move_mount(fd, target)


def attach_within(context: Context, *, slot: str, within: str, name: str) -> None:
    """Attach a detached mount at a new directory of another mount of ours, still empty."""
    _renew(context, slot)
    directory = context.take(within)
    os.mkdir(name, 0o755, dir_fd=directory)
    m.move_mount(context.take(slot), directory, name)


def _check_ordinary(root: int, destination: str, target: int) -> None:
    flags, resolve = os.O_PATH, openat.RESOLVE_IN_ROOT | openat.RESOLVE_NO_SYMLINKS
    with m.descriptor(openat.openat2(root, destination, flags, resolve)) as plain:
        if not os.path.sameopenfile(plain, target):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), destination)


def tmpfs_over(
    context: Context,
    *,
    slot: str,
    source: str,
    options: Sequence[tuple[str, str | None]],
    attributes: int,
    path: str,
) -> None:
    """A detached tmpfs with the mode of the directory that it is going to cover, as runc does."""
    mode: list[tuple[str, str | None]] = []
    with (
        contextlib.suppress(FileNotFoundError, NotADirectoryError),
        m.descriptor(openat.in_root(context.root, path)) as covered,
    ):
        mode.append(("mode", f"{stat.S_IMODE(os.fstat(covered).st_mode):o}"))
    wanted = [*options, *mode]
    filesystem(
        context, slot=slot, kind="tmpfs", source=source, options=wanted, attributes=attributes
    )


def copy_up(context: Context, *, slot: str, path: str) -> None:
    """Copy what the image has at ``path`` into the detached (tmpfs) mount."""
    try:
        source = openat.in_root(context.root, path, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    # A mount's own descriptor is O_PATH, and nothing can be changed through such.
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    with (
        m.descriptor(source),
        m.descriptor(os.open(".", flags, dir_fd=context.take(slot))) as target,
    ):
        copy_tree(source, target)


def remount(context: Context, *, destination: str, set_: int, clear: int) -> None:
    """Change the attributes of a mount that is already there."""
    with m.descriptor(openat.in_root(context.root, destination)) as fd:
        m.mount_setattr(fd, "", set_=set_, clear=clear)


def console(context: Context, *, devpts: str | None, height: int, width: int, bind: bool) -> None:
    """Make the terminal, hand its manager to the other side, and show it as /dev/console."""
    if devpts is not None:
        manager, terminal = tty.open_pair(context.take(devpts))
    else:
        with m.descriptor(os.open("/dev/pts", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
            manager, terminal = tty.open_pair(fd)
    context.terminal = terminal
    with m.descriptor(manager):
        if height and width:
            tty.set_window_size(manager, height, width)
        channel.send(context.channel, {"kind": "terminal"}, [manager])
    if bind:
        with (
            m.descriptor(m.clone_tree(terminal, "", recursive=False)) as clone,
            m.descriptor(openat.make_file(context.root, "/dev/console", 0o600)) as target,
        ):
            _check_ordinary(context.root, "/dev/console", target)
            m.move_mount(clone, target)


def make_directory(context: Context, *, path: str) -> None:
    """mkdir -p inside the root (the working directory)."""
    os.close(openat.make_directories(context.root, path))


def readonly_root(context: Context) -> None:
    """Make the root mount read-only; mounts inside keep their own say."""
    m.mount_setattr(context.root, "", set_=m.MOUNT_ATTR_RDONLY)


def pivot(context: Context, *, move: bool) -> None:
    """Make the new root "/" and leave nothing of the old one.

    The old tree is cut off before it is unmounted, so that unmounting it here does not unmount
    anything of the host. ``move`` (``--no-pivot``): for a root on an initramfs, which cannot be
    pivoted. Nor need it be in a blank namespace, where the root is put on top of nothing.
    """
    with m.descriptor(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as old:
        os.fchdir(context.root)
        if move or context.bare:
            os.chroot(".")
        else:
            m.pivot_root(".", ".")
            os.fchdir(old)
            m.mount("", ".", "", m.MS_SLAVE | m.MS_REC)
            m.umount2(".", m.MNT_DETACH)
            if context.parking:  # that was the topmost: what is parked on the old root
                m.umount2(".", m.MNT_DETACH)
            # ".." of a root leads to what is mounted on it, where whoever joins would start.
            if not os.path.samestat(os.stat("/.."), os.fstat(context.root)):
                raise OSError(errno.EBUSY, "something is left on the new root", "/")
    os.chdir("/")


def change_root(context: Context, *, path: str) -> None:
    """chroot(2): into a container that has no mount namespace of its own."""
    os.chroot(path)
    os.chdir("/")


def root_propagation(context: Context, *, kind: int, recursive: bool) -> None:
    """``linux.rootfsPropagation``, once "/" is the container's."""
    m.mount("", "/", "", kind | (m.MS_REC if recursive else 0))
