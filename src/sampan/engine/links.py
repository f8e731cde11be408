"""Legacy links (``--link container:alias``): names in /etc/hosts and variables (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from sampan.engine.validate import parse_port
from sampan.errors import Conflict, NotFound
from sampan.wire.container import HostConfig

if TYPE_CHECKING:
    from sampan.engine.core import Core
    from sampan.engine.table import Container, ContainerTable


#: variables that say nothing to another container
_OWN_VARIABLES = ("HOME", "PATH")


def addresses(core: Core, container: Container) -> dict[str, tuple[str, Sequence[str]]]:
    """Legacy links: alias -> (address on a shared network, host name and name)."""
    found: dict[str, tuple[str, Sequence[str]]] = {}
    for other, alias in targets(core.containers, container):
        if other.run is None:
            raise Conflict(
                f"Cannot link to a non running container: /{other.name} AS "
                f"/{container.name}/{alias}"
            )
        address = first_address(other)
        found[alias] = (address, (other.record.hostname, other.name))
    return found


def environment(core: Core, container: Container) -> list[str]:
    """The variables of legacy links (docker run --link)."""
    found: list[str] = []
    for other, alias in targets(core.containers, container):
        prefix = alias.upper().replace("-", "_").replace(".", "_")
        address = first_address(other)
        exposed = [parse_port(port) for port in other.record.config.exposed_ports or {}]
        for index, (port, _, protocol) in enumerate(sorted(exposed)):
            url = f"{protocol}://{address}:{port}"
            name = f"{prefix}_PORT_{port}_{protocol.upper()}"
            if index == 0:
                found.append(f"{prefix}_PORT={url}")
            found += [
                f"{name}={url}",
                f"{name}_ADDR={address}",
                f"{name}_PORT={port}",
                f"{name}_PROTO={protocol}",
            ]
        found.append(f"{prefix}_NAME=/{container.name}/{alias}")
        found += [
            f"{prefix}_ENV_{entry}"
            for entry in other.record.config.env or []
            if entry.partition("=")[0] not in _OWN_VARIABLES
        ]
    return found


def resolved(table: ContainerTable, host: HostConfig) -> list[str] | None:
    """The links of a new container with what they lead to as ids, which renaming leaves alone.

    Raises NotFound. A container on a network of the user's own keeps them as they were given:
    there the links of its endpoints count.
    """
    if not legacy(host):
        return host.links
    return [f"{table.find(target).id}:{alias}" for target, alias in pairs(host)]


def legacy(host: HostConfig) -> bool:
    """Whether links are those of the default bridge, to containers there are.

    On a network of the user's own a link is one more name, for whoever may be there one day.
    """
    return bool(host.links) and host.network_mode in ("bridge", "default", "none")


def targets(table: ContainerTable, container: Container) -> list[tuple[Container, str]]:
    """(container, alias) of each link; one whose container was removed has gone with it."""
    found: list[tuple[Container, str]] = []
    if not legacy(container.record.host_config):
        return found
    for target, alias in pairs(container.record.host_config):
        with suppress(NotFound):
            found.append((table.find(target), alias))
    return found


def shown(table: ContainerTable, container: Container) -> list[str] | None:
    """The links as inspect tells them: ``/target:/name/alias``, None without any."""
    found = [
        f"/{other.name}:/{container.name}/{alias}" for other, alias in targets(table, container)
    ]
    return found or None


def further_names(table: ContainerTable) -> dict[str, list[str]]:
    """What containers are called through links of others, by id: ``/other/alias``."""
    found: dict[str, list[str]] = {}
    for container in table:
        if container.record.host_config.links:
            for other, alias in targets(table, container):
                found.setdefault(other.id, []).append(f"/{container.name}/{alias}")
    return found


def pairs(host: HostConfig) -> list[tuple[str, str]]:
    """(target, alias) of each legacy link."""
    found = []
    for link in host.links or []:
        target, colon, alias = link.partition(":")
        found.append((target, alias.rpartition("/")[2] if colon else target))
    return found


def first_address(container: Container) -> str:
    """A running container's first IPv4 address, "" when it has none."""
    for plug in container.endpoints.values():
        if plug.endpoint.ipv4 is not None:
            return str(plug.endpoint.ipv4.ip)
    return ""
