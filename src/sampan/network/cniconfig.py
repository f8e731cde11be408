"""CNI network configurations and results (pure; CNI specification 1.0, sections 1, 2 and 5).

    list ::= {"cniVersion", "name", "plugins": [configuration...], "disableCheck"?}

A single configuration (``*.conf``) is a list of one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from typing import TypeAlias

from sampan.errors import InvalidParameter, StartFailed
from sampan.network.model import IPAddress, IPInterface, PortBinding

#: A JSON object of a configuration or result.
Object: TypeAlias = Mapping[str, object]

_DEFAULT_VERSION = "0.2.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkList:
    """What to run for one network, in this order (backwards for DEL)."""

    name: str
    version: str
    plugins: tuple[Object, ...]

    def has(self, capability: str) -> bool:
        """Whether a plugin of the list takes ``capability`` from the runtime."""
        return any(_capabilities(plugin).get(capability) for plugin in self.plugins)

    def request(
        self, plugin: Object, runtime: Object, previous: Object | None
    ) -> dict[str, object]:
        """The configuration a plugin gets on standard input (section 3, "Deriving")."""
        wanted = _capabilities(plugin)
        given = {key: value for key, value in runtime.items() if wanted.get(key) and value}
        derived = {key: value for key, value in plugin.items() if key != "capabilities"}
        derived |= {"name": self.name, "cniVersion": self.version}
        if given:
            derived["runtimeConfig"] = given
        if previous is not None:
            derived["prevResult"] = previous
        return derived

    def document(self) -> dict[str, object]:
        """The list as JSON has it."""
        return {"name": self.name, "cniVersion": self.version, "plugins": list(self.plugins)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the plugins made of the container's interface."""

    mac: str
    addresses: tuple[IPInterface, ...]
    gateways: tuple[IPAddress, ...]


def parse_list(text: str | bytes, where: str) -> NetworkList:
    """A configuration or list; raises :class:`InvalidParameter` naming ``where``."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InvalidParameter(f"CNI configuration {where} is no JSON: {error}") from error
    return list_of(document, where)


def list_of(document: object, where: str) -> NetworkList:
    """As :func:`parse_list`, from JSON already parsed."""
    if not isinstance(document, dict):
        raise InvalidParameter(f"CNI configuration {where} is not an object")
    plugins = document.get("plugins", [document])
    name = document.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidParameter(f"CNI configuration {where} has no name")
    if not isinstance(plugins, list) or not plugins:
        raise InvalidParameter(f"CNI configuration {where} has no plugins")
    for plugin in plugins:
        kind = plugin.get("type") if isinstance(plugin, dict) else None
        if not isinstance(kind, str) or not kind or "/" in kind or kind in (".", ".."):
            raise InvalidParameter(f"CNI configuration {where} has a plugin without a valid type")
    return NetworkList(
        name=name,
        version=str(document.get("cniVersion") or _DEFAULT_VERSION),
        plugins=tuple(plugins),
    )


def _capabilities(plugin: Object) -> Object:
    found = plugin.get("capabilities")
    return found if isinstance(found, dict) else {}


def port_mappings(ports: Sequence[PortBinding]) -> list[dict[str, object]]:
    """Published ports for the ``portMappings`` capability (CNI conventions, CONVENTIONS.md)."""
    return [
        {
            "hostPort": port.host_port,
            "containerPort": port.container_port,
            "protocol": port.protocol,
            **({"hostIP": str(port.host_address)} if port.host_address is not None else {}),
        }
        for port in ports
    ]


def parse_result(document: Object, interface: str, sandbox: str) -> Result:
    """A result (of version 0.2.0 on) for the container's ``interface``.

    Raises :class:`StartFailed` when an address cannot be understood.
    """
    entries = document.get("ips")
    links = document.get("interfaces")
    own = _own_interface(links if isinstance(links, list) else [], interface, sandbox)
    addresses: list[IPInterface] = []
    gateways: list[IPAddress] = []
    try:
        for entry in entries if isinstance(entries, list) else _old_entries(document):
            if entry.get("interface") not in (None, own[0]):
                continue
            addresses.append(ip_interface(str(entry["address"])))
            if entry.get("gateway"):
                gateways.append(ip_address(str(entry["gateway"])))
    except (ValueError, KeyError, AttributeError) as error:
        raise StartFailed(f"a CNI plugin told an invalid address: {error}") from error
    return Result(mac=own[1], addresses=tuple(addresses), gateways=tuple(gateways))


def _own_interface(links: Sequence[object], name: str, sandbox: str) -> tuple[int | None, str]:
    """Number and MAC address of the container's own interface in a result."""
    for number, link in enumerate(links):
        if isinstance(link, dict) and link.get("name") == name and link.get("sandbox"):
            return number, str(link.get("mac") or "")
    return None, ""


def _old_entries(document: Object) -> list[dict[str, object]]:
    """Addresses as version 0.2.0 writes them."""
    found = []
    for key in ("ip4", "ip6"):
        entry = document.get(key)
        if isinstance(entry, dict):
            found.append({"address": entry.get("ip"), "gateway": entry.get("gateway")})
    return found


def failure(output: bytes, status: int) -> str:
    """What a plugin says went wrong (section 5, "Error")."""
    try:
        document = json.loads(output)
        message = str(document["msg"])
        details = document.get("details")
        return f"{message}: {details}" if details else message
    except (ValueError, KeyError, TypeError):
        text = output.decode(errors="replace").strip()
        return text.splitlines()[-1] if text else f"exit status {status}"
