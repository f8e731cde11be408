"""What a user asks of one endpoint: addresses, checked against the network they are for (pure)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from sampan.errors import InvalidParameter
from sampan.network import ipam
from sampan.network.model import IPAddress, IPInterface
from sampan.network.options import interface_name
from sampan.wire.container import EndpointSettings

if TYPE_CHECKING:
    from sampan.engine.fabric import Network


def check_settings(network: Network, settings: EndpointSettings) -> None:
    """Addresses are chosen in subnets of the user's; the default bridge has no names either."""
    wanted = settings.ipam_config
    chosen = [
        text for text in (wanted and (wanted.ipv4_address, wanted.ipv6_address)) or () if text
    ]
    if network.name != "bridge":
        ours = not network.ipam_driver and network.record.driver != "cni"
        if chosen and ours and not network.record.subnets_given:
            raise InvalidParameter(
                "invalid endpoint settings: user specified IP address is supported only when "
                "connecting to networks with user configured subnets"
            )
        return
    if chosen:
        raise InvalidParameter(
            "invalid config for network bridge: invalid endpoint settings: user specified IP "
            "address is supported on user defined networks only"
        )
    if settings.aliases:
        raise InvalidParameter(
            "invalid config for network bridge: invalid endpoint settings: network-scoped alias "
            "is supported only for containers in user defined networks"
        )


def _address(text: str) -> IPAddress | None:
    try:
        return ipam.parse_address(text)
    except InvalidParameter:
        return None


def free_name(prefix: str, used: Collection[str]) -> str:
    """The first name of an interface with this prefix and a number that nobody has."""
    return next(name for n in range(len(used) + 1) if (name := f"{prefix}{n}") not in used)


def chosen_names(wanted: Iterable[EndpointSettings]) -> Iterator[str]:
    """The names of interfaces that users gave."""
    for settings in wanted:
        if name := interface_name(settings.driver_opts or {}):
            yield name


def requested_addresses(network: Network, settings: EndpointSettings) -> dict[int, IPAddress]:
    """The addresses a user asked for, by IP version; InvalidParameter for one that cannot be."""
    wanted = settings.ipam_config
    found: dict[int, IPAddress] = {}
    for version in (4, 6) if wanted is not None else ():
        text = wanted and (wanted.ipv4_address if version == 4 else wanted.ipv6_address)
        if not text:
            continue
        address = _address(text)
        if address is None or address.version != version:
            raise InvalidParameter(f"invalid IPv{version} address: {text}")
        chosen_elsewhere = network.record.driver == "cni"
        if not chosen_elsewhere and not any(address in s.prefix for s in network.spec.subnets):
            raise InvalidParameter(
                f"invalid endpoint settings: no configured subnet contains IP address {text}"
            )
        found[version] = address
    return found


def pool_wishes(network: Network, settings: EndpointSettings) -> list[tuple[str, str]]:
    """Of which pools (a plugin's ids) an endpoint wants an address, and which ("" any)."""
    wishes = requested_addresses(network, settings)
    found: dict[int, tuple[str, str]] = {}
    for subnet in network.spec.subnets:
        version = subnet.prefix.version
        wish = wishes.get(version)
        if version not in found and (wish is None or wish in subnet.prefix):
            pool = network.record.pools.get(str(subnet.prefix), "")
            found[version] = (pool, str(wish or ""))
    return list(found.values())


def link_local(settings: EndpointSettings) -> tuple[IPInterface, ...]:
    """The link-local addresses asked for besides the leased ones, with dockerd's prefixes."""
    found: list[IPInterface] = []
    for text in (settings.ipam_config and settings.ipam_config.link_local_ips) or ():
        address = ipam.parse_address(text)
        if not address.is_link_local:
            raise InvalidParameter(f"invalid link-local IP address: {text}")
        found.append(ip_interface(f"{address}/{16 if address.version == 4 else 64}"))
    return tuple(found)
