"""Mounting what a volume's options name: tmpfs, bind, network file systems, disks and images."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from ipaddress import ip_address
from pathlib import Path

from sampan.errors import StartFailed
from sampan.kernel import loopdevice, mount
from sampan.runtime.mount_options import MountOptions
from sampan.volume.options import VolumeMount

_AT_FDCWD = -100


def perform(wanted: VolumeMount, name: str, directory: Path) -> None:
    """Mount what the options of the volume ``name`` say on its ``directory``.

    Raises :class:`StartFailed` with the kernel's words.
    """
    try:
        with contextlib.ExitStack() as opened:
            tree = opened.enter_context(mount.descriptor(_tree(wanted, opened)))
            _set_attributes(tree, wanted.options)
            mount.move_mount(tree, _AT_FDCWD, str(directory))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        if error.errno == errno.ENODEV and not wanted.options.bind:
            reason = f"this kernel has no file system {wanted.type}"
        raise StartFailed(
            f"failed to mount local volume {name}: mount {wanted.device}: {reason}"
        ) from error


def _tree(wanted: VolumeMount, opened: contextlib.ExitStack) -> int:
    """A descriptor of what is to be mounted. A file that holds a file system becomes a loop
    device, as with mount(8), which ``opened`` keeps until it is mounted."""
    options = wanted.options
    if options.bind:
        return mount.clone_tree(_AT_FDCWD, wanted.device, recursive=options.recursive_bind)
    device, data = wanted.device, mount_data(wanted)
    if _is_image(device):
        read_only = bool(options.set_ & mount.MOUNT_ATTR_RDONLY)
        device = opened.enter_context(loopdevice.attached(device, read_only=read_only))
        data = [pair for pair in data if pair[0] != "loop"]
        if read_only:
            data.append(("ro", None))
    return mount.new_filesystem(wanted.type, device, data, options.set_)


def _is_image(device: str) -> bool:
    return device.startswith("/") and os.path.isfile(device)


def _set_attributes(tree: int, options: MountOptions) -> None:
    if options.bind and (options.set_ or options.clear):
        mount.mount_setattr(tree, "", set_=options.set_, clear=options.clear)
    if options.recursive_set or options.recursive_clear:
        mount.mount_setattr(
            tree, "", set_=options.recursive_set, clear=options.recursive_clear, recursive=True
        )
    for kind, recursive in options.propagation:
        mount.mount_setattr(tree, "", propagation=kind, recursive=recursive)


def mount_data(wanted: VolumeMount) -> list[tuple[str, str | int | None]]:
    """The file system's own options; the kernel wants addresses where people write names."""
    data: list[tuple[str, str | int | None]] = list(wanted.options.data)
    host = wanted.network_address
    if not host:
        return data
    named = any(key in ("addr", "ip") for key, _ in data)
    with contextlib.suppress(ValueError):
        ip_address(host)
        return data if named else [*data, ("addr", host)]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        raise StartFailed(f"cannot resolve {host} of a volume's addr option") from error
    if not named:
        return [*data, ("addr", str(found))]
    return [(key, str(found) if key in ("addr", "ip") else value) for key, value in data]
