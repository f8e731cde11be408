"""A mount namespace with nothing in it, made while nobody waits.

To copy the host's mounts and take them all off again is a good part of a start: the copy takes
longer the more there are, and unmounting waits for an RCU grace period. A container whose mounts
can all be made before they are attached needs no copy. They are made among the host's, detached;
then its first process moves here and puts its root on top of what is here.

As an initramfs is below the root of a system: an empty tmpfs stays below the container's, with the
null device that masked files are covered with.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence

from sampan.kernel import mount as m
from sampan.kernel import namespaces
from sampan.runtime.operation import Operation

_ATTRIBUTES = m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NOEXEC
#: Who runs programs of the host's, or has them run, before the root is changed.
_HOOKS = frozenset({"hook", "runtime_hooks"})
_SOURCES = frozenset({"clone_tree", "overlay"})
#: and what they come after in any case
_FIRST = _SOURCES | {"enter", "host_propagation", "await_cgroups"}


def make() -> int:
    """A descriptor of a new one; we stay where we are. Raises :class:`OSError`."""
    with m.descriptor(namespaces.own("mnt")) as home:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        try:
            made = namespaces.own("mnt")
            try:
                _empty()
            except OSError:
                os.close(made)
                raise
        finally:
            namespaces.setns(home, namespaces.CLONE_NEWNS)
    return made


def _empty() -> None:
    """Replace all mounts of our copy of the host's."""
    m.mount("", "/", "", m.MS_PRIVATE | m.MS_REC)
    with m.descriptor(m.new_filesystem("tmpfs", "blank", [("mode", "755")])) as root:
        os.mkdir("dev", 0o755, dir_fd=root)
        os.mknod("dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3), dir_fd=root)
        os.chmod("dev/null", 0o666, dir_fd=root)  # whatever our umask is
        m.mount_setattr(root, "", set_=_ATTRIBUTES)
        m.move_mount(root, m.AT_FDCWD, "/")
        os.fchdir(root)
        m.pivot_root(".", ".")
        m.umount2(".", m.MNT_DETACH)


def suits(setup: Iterable[Operation]) -> bool:
    """Whether a plan's operations, once :func:`arranged`, need no copy of the host's mounts."""
    attached = False
    for name, arguments in setup:
        if name in _HOOKS:
            return False
        if name == "host_propagation" and arguments["kind"] != m.MS_SLAVE:
            return False  # the container's are to be one with the host's
        if name == "overlay" and not arguments["layers"]:
            return False  # made by mounting it somewhere
        attached = attached or name == "attach_root"
    return attached


def arranged(setup: Sequence[Operation]) -> list[Operation]:
    """``setup`` with those operations first that make mounts of what the host has."""
    end = 1 + max(index for index, step in enumerate(setup) if step.name in _SOURCES)
    first = [step for step in setup[:end] if step.name in _FIRST]
    return [*first, *(step for step in setup[:end] if step.name not in _FIRST), *setup[end:]]
