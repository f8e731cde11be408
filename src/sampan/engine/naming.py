"""A container's /etc/hosts, /etc/hostname and /etc/resolv.conf, written at every start."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sampan.engine import links
from sampan.engine.fabric import Plug, ResolverPlug
from sampan.engine.table import Container
from sampan.errors import NotFound
from sampan.network import files, ipam
from sampan.network.dns import Zone
from sampan.network.model import IPAddress

if TYPE_CHECKING:
    from sampan.engine.core import Core

HOST_RESOLV_CONF = Path("/etc/resolv.conf")
HOST_HOSTS = Path("/etc/hosts")
#: systemd-resolved's list of real servers, used where /etc/resolv.conf names only its stub
_RESOLVED = Path("/run/systemd/resolve/resolv.conf")


@dataclass(frozen=True, slots=True, kw_only=True)
class NameFiles:
    """The text of each file a container gets over its own in /etc, and its resolver if any."""

    hosts: str
    hostname: str
    resolv_conf: str
    resolver: ResolverPlug | None = None

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


def name_files(core: Core, container: Container, plugs: Sequence[Plug]) -> NameFiles:
    """The files a container gets over its own in /etc.

    On a user-defined network names are resolved by the embedded resolver, on the default bridge
    and the host's network by the servers of the host (resolver settings of the container first).
    """
    record, config = container.record, core.config
    host = record.host_config
    on_host = host.network_mode == "host"
    addresses = [a.ip for plug in plugs for a in plug.endpoint.addresses]
    embedded = any(plug.network.resolved for plug in plugs)
    dns = files.container_dns(
        host_resolver(),
        embedded=embedded,
        servers=host.dns or config.dns,
        search=host.dns_search or config.dns_search,
        options=host.dns_options or config.dns_options,
        ipv6=any(address.version == 6 for address in addresses),
        host_network=on_host,
    )
    extra = [
        pair
        for text in host.extra_hosts or []
        for pair in files.parse_extra_host(text, _host_gateways(core, plugs))
    ]
    extra += link_entries(links.addresses(core, container))
    hosts = (
        host_hosts() + "".join(f"{address}\t{name}\n" for address, name in extra)
        if on_host
        else files.hosts(
            record.hostname,
            domainname=record.config.domainname or "",
            addresses=addresses,
            extra=extra,
        )
    )
    external = any(not plug.network.spec.internal for plug in plugs)
    return NameFiles(
        hosts=hosts,
        hostname=files.hostname(record.hostname),
        resolv_conf=dns.file.render(),
        resolver=ResolverPlug(
            networks=tuple(plug.network.id for plug in plugs if plug.network.resolved),
            upstream=dns.upstream if external else (),
            from_host=dns.from_host,
            own=_own_zone(core, container, plugs),
        )
        if embedded
        else None,
    )


def _host_gateways(core: Core, plugs: Sequence[Plug]) -> tuple[IPAddress, ...]:
    configured = core.config.host_gateway_address
    if configured:
        return tuple(ipam.parse_address(text.strip()) for text in configured.split(","))
    bridge = next((n for n in core.fabric.networks.values() if n.name == "bridge"), None)
    subnets = bridge.spec.subnets if bridge is not None else ()
    found = tuple(subnet.gateway for subnet in subnets if subnet.gateway is not None)
    return found or tuple(g for plug in plugs for g in plug.endpoint.gateways)


def _own_zone(core: Core, container: Container, plugs: Sequence[Plug]) -> Zone | None:
    """Names only this container knows: its endpoints' links (``--link`` on such a network).

    The other container may come later, or come back with another address.
    """
    aliases: dict[str, str] = {}
    for plug in plugs:
        for link in plug.settings.links or []:
            target, _, alias = link.partition(":")
            with suppress(NotFound):
                target = core.containers.find(target).name
            aliases[(alias or target).lower()] = target.lower()
    return Zone(aliases=aliases) if aliases else None
