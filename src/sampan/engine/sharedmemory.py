"""The tmpfs behind /dev/shm that containers can share (``--ipc shareable``, ``container:``)."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress

from sampan.engine.core import Core
from sampan.engine.table import Container
from sampan.engine.usernamespaces import donor
from sampan.kernel import mount as kernel_mount
from sampan.model.idmap import IdMap


def place(core: Core, container: Container) -> str:
    """The host path bound over /dev/shm, "" for a tmpfs of the container's own.

    Raises NotFound, Conflict.
    """
    mode = container.record.host_config.ipc_mode or ""
    if mode == "host":
        return "/dev/shm"
    if mode == "shareable":
        return str(core.exec_directory(container.id) / "shm")
    if mode.startswith("container:"):
        return str(core.exec_directory(donor(core, mode, "ipc").id) / "shm")
    return ""


def mount(path: str, size: int, ids: IdMap | None) -> None:
    """A tmpfs several containers can bind over their /dev/shm, their root's."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    flags = kernel_mount.MS_NOSUID | kernel_mount.MS_NOEXEC | kernel_mount.MS_NODEV
    uid, gid = (ids.root if ids is not None else None) or (0, 0)
    data = f"mode=1777,size={size},uid={uid},gid={gid}"
    kernel_mount.mount("shm", path, "tmpfs", flags, data)


def unmount(path: str) -> None:
    """Undo the mount, if it is there; lazily, since a joined container may still hold it."""
    with suppress(OSError):
        kernel_mount.umount2(path, kernel_mount.MNT_DETACH)
    shutil.rmtree(path, ignore_errors=True)
