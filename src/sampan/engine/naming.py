"""A container's /etc/hosts, /etc/hostname and /etc/resolv.conf, written at every start."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sampan.network import files

HOST_RESOLV_CONF = Path("/etc/resolv.conf")
HOST_HOSTS = Path("/etc/hosts")
#: systemd-resolved's list of real servers, used where /etc/resolv.conf names only its stub
_RESOLVED = Path("/run/systemd/resolve/resolv.conf")


@dataclass(frozen=True, slots=True, kw_only=True)
class NameFiles:
    """The text of each file a container gets over its own in /etc."""

    hosts: str
    hostname: str
    resolv_conf: str

    def write(self, directory: Path) -> None:
        """Write them; not atomically, since nothing reads them before the container starts.

        Existing files are rewritten in place: a running container's bind mounts keep seeing them.
        """
        for name, text in (
            ("hosts", self.hosts),
            ("hostname", self.hostname),
            ("resolv.conf", self.resolv_conf),
        ):
            rewrite(directory / name, text)


def rewrite(path: Path, text: str) -> None:
    """Replace a file's text, keeping its inode."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        data = text.encode()
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)


def bindings(directory: Path) -> dict[str, str]:
    """Which host file goes over which path of the container."""
    return {
        "/etc/hosts": str(directory / "hosts"),
        "/etc/hostname": str(directory / "hostname"),
        "/etc/resolv.conf": str(directory / "resolv.conf"),
    }


def host_resolver() -> files.ResolvConf:
    """The host's resolver configuration, behind systemd-resolved's stub if need be."""
    found = files.parse_resolv_conf(_text(HOST_RESOLV_CONF))
    if found.nameservers == ("127.0.0.53",) and _RESOLVED.exists():
        return files.parse_resolv_conf(_text(_RESOLVED))
    return found


def host_hosts() -> str:
    """The host's /etc/hosts."""
    return _text(HOST_HOSTS)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def link_entries(
    links: Mapping[str, tuple[str, Sequence[str]]],
) -> list[tuple[str, str]]:
    """hosts(5) lines of legacy links: alias -> (address, further names)."""
    return [
        (address, " ".join(dict.fromkeys((alias, *names))))
        for alias, (address, names) in links.items()
        if address
    ]
