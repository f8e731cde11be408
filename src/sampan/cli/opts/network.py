"""``--network`` and the endpoint options beside it.

network ::= name | CSV of name= alias= ip= ip6= mac-address= link-local-ip= driver-opt= gw-priority=
"""

from __future__ import annotations

from typing import NamedTuple

from sampan.cli.command import Kind
from sampan.cli.fault import CliError
from sampan.cli.kinds import parse_int, parse_ip, split_csv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.client.document import Document

_SYSTEM_MODES = ("default", "bridge", "host", "none")


class Attachment(NamedTuple):
    """One network a container is connected to."""

    target: str
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    ip: str = ""
    ip6: str = ""
    link_local: tuple[str, ...] = ()
    mac: str = ""
    driver_options: tuple[tuple[str, str], ...] = ()
    priority: int = 0

    @property
    def user_defined(self) -> bool:
        """Whether the target is a network somebody made."""
        return self.target not in _SYSTEM_MODES and not self.target.startswith("container:")

    def endpoint(self) -> Document:
        """The API's EndpointSettings. Raises :class:`CliError`."""
        if self.aliases and not self.user_defined:
            raise CliError("network-scoped aliases are only supported for user-defined networks")
        if self.links and not self.user_defined:
            raise CliError("links are only supported for user-defined networks")
        endpoint: Document = {}
        addresses: Document = {}
        if self.ip:
            addresses["IPv4Address"] = self.ip
        if self.ip6:
            addresses["IPv6Address"] = self.ip6
        if self.link_local:
            addresses["LinkLocalIPs"] = list(self.link_local)
        if addresses:
            endpoint["IPAMConfig"] = addresses
        if self.aliases:
            endpoint["Aliases"] = list(self.aliases)
        if self.links:
            endpoint["Links"] = list(self.links)
        if self.mac:
            endpoint["MacAddress"] = self.mac
        if self.driver_options:
            endpoint["DriverOpts"] = dict(self.driver_options)
        if self.priority:
            endpoint["GwPriority"] = self.priority
        return endpoint


def parse_network(text: str) -> Attachment:
    """One ``--network``. Raises ``ValueError``."""
    if "=" not in text:
        return Attachment(text)
    single: dict[str, str] = {}
    lists: dict[str, list[str]] = {"alias": [], "link-local-ip": []}
    options: dict[str, str] = {}
    for field in split_csv(text):
        key, equals, value = field.lower().partition("=")
        if not equals:
            raise ValueError(f"invalid field {field}")
        key, value = key.strip(), field.partition("=")[2].strip()
        if key == "driver-opt":
            name, mark, content = value.partition("=")
            if not mark:
                raise ValueError("invalid key value pair format in driver options")
            options[name.strip()] = content.strip()
        elif key in lists:
            lists[key].append(value)
        elif key in ("name", "ip", "ip6", "mac-address", "gw-priority"):
            single[key] = value
        else:
            raise ValueError(f"invalid field key {key}")
    if not single.get("name"):
        raise ValueError("network name/id is not specified")
    return Attachment(
        target=single["name"],
        aliases=tuple(lists["alias"]),
        ip=parse_ip(single["ip"]) if "ip" in single else "",
        ip6=parse_ip(single["ip6"]) if "ip6" in single else "",
        link_local=tuple(lists["link-local-ip"]),
        mac=single.get("mac-address", ""),
        driver_options=tuple(options.items()),
        priority=_priority(single.get("gw-priority", "0")),
    )


def _priority(text: str) -> int:
    try:
        return parse_int(text)
    except ValueError as error:
        raise ValueError(f"invalid gw-priority ({text}): {error}") from error


class EndpointFlags(NamedTuple):
    """The flags that belong to the first network."""

    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    ip: str = ""
    ip6: str = ""
    link_local: tuple[str, ...] = ()
    mac: str = ""
    driver_options: tuple[tuple[str, str], ...] = ()


def interface_options(pairs: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """``--network-opt``: our own options by their short names, a driver's by theirs."""
    return tuple(
        (f"sampan.network.{key}" if key in ("egress", "ingress") else key, value)
        for key, value in pairs.items()
    )


def endpoints(attachments: list[Attachment], flags: EndpointFlags) -> tuple[str, Document]:
    """The network mode and the endpoint settings by network. Raises :class:`CliError`."""
    chosen = attachments or [Attachment("default")]
    if any(a.user_defined for a in chosen) and not all(a.user_defined for a in chosen):
        raise CliError(
            "conflicting options: cannot attach both user-defined and non-user-defined "
            "network-modes"
        )
    settings: Document = {}
    for place, attachment in enumerate(chosen):
        merged = _apply(attachment, flags) if place == 0 else attachment
        if merged.target in settings:
            raise CliError(f'network "{merged.target}" is specified multiple times')
        endpoint = merged.endpoint()
        if endpoint or len(chosen) > 1:
            settings[merged.target] = endpoint
    return chosen[0].target, settings


def _apply(network: Attachment, flags: EndpointFlags) -> Attachment:
    """The first network with the separate flags added; giving a thing twice is an error."""
    pairs = (
        (network.aliases, flags.aliases, "--network-alias", "alias"),
        (network.links, flags.links, "--link", "links"),
        (network.ip, flags.ip, "--ip", "IPv4 address"),
        (network.ip6, flags.ip6, "--ip6", "IPv6 address"),
        (network.mac, flags.mac, "--mac-address", "MAC address"),
        (network.link_local, flags.link_local, "--link-local-ip", "link-local IP addresses"),
        (network.driver_options, flags.driver_options, "--network-opt", "driver options"),
    )
    for inner, outer, flag, name in pairs:
        if inner and outer:
            message = f"conflicting options: cannot specify both {flag} and per-network {name}"
            raise CliError(message)
    return network._replace(
        aliases=network.aliases or flags.aliases,
        links=network.links or (flags.links if network.user_defined else ()),
        ip=network.ip or flags.ip,
        ip6=network.ip6 or flags.ip6,
        mac=network.mac or flags.mac,
        link_local=network.link_local or flags.link_local,
        driver_options=network.driver_options or flags.driver_options,
    )


NETWORK = Kind("network", parse_network, many=True)
