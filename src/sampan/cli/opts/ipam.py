"""The address management flags of ``network create``, matched to each other by subnet."""

from __future__ import annotations

import ipaddress

from sampan.cli.fault import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.client.document import Document, Json


def ipam_configs(arguments: Arguments) -> list[Json]:
    """The API's IPAM Config list. Raises :class:`CliError`."""
    subnets = arguments.texts("subnet")
    ranges = arguments.texts("ip-range")
    gateways = arguments.texts("gateway")
    if len(subnets) < len(ranges) or len(subnets) < len(gateways):
        raise CliError("every ip-range or gateway must have a corresponding subnet")
    configs: dict[str, Document] = {}
    parsed: dict[str, ipaddress.IPv4Network | ipaddress.IPv6Network] = {}
    for subnet in subnets:
        try:
            network = ipaddress.ip_network(subnet, strict=False)
        except ValueError:
            configs[subnet] = {"Subnet": subnet}  # the daemon names what is wrong with it
            continue
        for other in parsed.values():
            if network.version == other.version and network.overlaps(other):
                raise CliError("multiple overlapping subnet configuration is not supported")
        parsed[subnet] = network
        configs[subnet] = {"Subnet": subnet, "AuxiliaryAddresses": {}}
    for text in ranges:
        _place(configs, parsed, "IPRange", text, text.partition("/")[0])
    for text in gateways:
        _place(configs, parsed, "Gateway", text, text)
    for name, text in arguments.pairs("aux-address").items():
        _place_auxiliary(configs, parsed, name, text)
    return [config for config in configs.values()]


def _matching(
    parsed: dict[str, ipaddress.IPv4Network | ipaddress.IPv6Network], address: str
) -> str | None:
    try:
        wanted = ipaddress.ip_address(address)
    except ValueError:
        return None
    return next((subnet for subnet, network in parsed.items() if wanted in network), None)


def _place(
    configs: dict[str, Document],
    parsed: dict[str, ipaddress.IPv4Network | ipaddress.IPv6Network],
    member: str,
    text: str,
    address: str,
) -> None:
    subnet = _matching(parsed, address)
    name = {"IPRange": "range", "Gateway": "gateway"}[member]
    if subnet is None:
        raise CliError(f"no matching subnet for {name} {text}")
    if member in configs[subnet]:
        many = {"IPRange": "multiple ranges", "Gateway": "multiple gateways"}[member]
        former = configs[subnet][member]
        raise CliError(f"cannot configure {many} ({text}, {former}) on the same subnet ({subnet})")
    configs[subnet][member] = text


def _place_auxiliary(
    configs: dict[str, Document],
    parsed: dict[str, ipaddress.IPv4Network | ipaddress.IPv6Network],
    name: str,
    text: str,
) -> None:
    subnet = _matching(parsed, text)
    if subnet is None:
        raise CliError(f"no matching subnet for aux-address {text}")
    addresses = configs[subnet]["AuxiliaryAddresses"]
    assert isinstance(addresses, dict)
    addresses[name] = text
