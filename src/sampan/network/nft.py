"""The firewall and address translation of bridge networks, as nft(8) scripts (pure).

One table of our own, ``inet <table>``; nothing else is ever named. Its shape, and why:

- Published ports are elements of maps (``dnat4``, ``dnat4_at``, ...), never rules, so a packet
  costs one look-up however many ports are published.
- Each network has a chain for what enters it (``into-ID``), one for what it sends out when it is
  internal (``outof-ID``) and one for source translation (``leaving-ID``), found by the bridge's
  name in verdict maps.
- What is published on 127.0.0.1 is translated in the output hook only: a neighbour's packet to
  that address is never let in (``route_localnet`` is on for our bridges alone, and ``raw`` drops
  their packets to 127.0.0.0/8).
- A chain of ours only ever decides about our bridges; everything else runs through to the host's
  own rules, whose drops hold for our packets too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from sampan.errors import InvalidParameter
from sampan.network.model import EndpointSpec, IPAddress, NetworkSpec, PortBinding

_NAME = re.compile(r"[A-Za-z0-9_.:@+-]{1,15}")
_ID = re.compile(r"[A-Za-z0-9]+")
_TABLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

_BASE = """\
table inet {table} {{
  set bridges {{ type ifname; }}
  set masquerade4 {{ type ipv4_addr; flags interval; }}
  set masquerade6 {{ type ipv6_addr; flags interval; }}
  set open4 {{ type ipv4_addr . inet_proto . inet_service; }}
  set open6 {{ type ipv6_addr . inet_proto . inet_service; }}
  map source4 {{ type ipv4_addr : ipv4_addr; flags interval; }}
  map source6 {{ type ipv6_addr : ipv6_addr; flags interval; }}
  map dnat4 {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map dnat6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
  map dnat4_at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  map dnat6_at {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
  map into {{ type ifname : verdict; }}
  map outof {{ type ifname : verdict; }}
  map leaving {{ type ifname : verdict; }}
  chain publish {{
    dnat ip to ip daddr . meta l4proto . th dport map @dnat4_at
    dnat ip to meta l4proto . th dport map @dnat4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @dnat6_at
    dnat ip6 to meta l4proto . th dport map @dnat6
  }}
  chain raw {{
    type filter hook prerouting priority raw; policy accept;
    iifname @bridges ip daddr 127.0.0.0/8 drop
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr 127.0.0.0/8 return
    ip6 daddr ::1 return
    fib daddr type local jump publish
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
{loopback6}    fib daddr type local jump publish
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname vmap @outof
    oifname vmap @into
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname vmap @leaving
    snat ip to ip saddr map @source4
    snat ip6 to ip6 saddr map @source6
    ip saddr @masquerade4 masquerade
    ip6 saddr @masquerade6 masquerade
  }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One element of a port map: packets for ``host_address`` (``None``: any address of
    ``address``'s family) and ``host_port`` go to ``address``, ``port``. With ``host_port`` 0
    nothing is translated; the container's own port is opened (routed networks)."""

    protocol: str
    host_address: IPAddress | None
    host_port: int
    address: IPAddress
    port: int


def published(
    spec: NetworkSpec, endpoint: EndpointSpec, ports: Iterable[PortBinding]
) -> tuple[Published, ...]:
    """The map elements that publish ``ports`` of ``endpoint``.

    One at an IPv6 address of a container without IPv6 has none: it is relayed
    (:mod:`sampan.network.relay`). Raises :class:`InvalidParameter` for the other way round and
    for what cannot be relayed.
    """
    rows: list[Published] = []
    targets: list[tuple[IPAddress, str]] = []
    if endpoint.ipv4 is not None:
        targets.append((endpoint.ipv4.ip, spec.gateway_mode_ipv4))
    if endpoint.ipv6 is not None:
        targets.append((endpoint.ipv6.ip, spec.gateway_mode_ipv6))
    for binding in ports:
        host = binding.host_address
        chosen = [t for t in targets if host is None or host.version == t[0].version]
        if not chosen and is_relayed(endpoint, binding):
            continue
        if not chosen:
            raise InvalidParameter(
                f"cannot publish port {binding.container_port}/{binding.protocol} on {host}: "
                f"the container has no IPv{host.version if host else 4} address"
            )
        for address, mode in chosen:
            rows.append(
                Published(
                    protocol=binding.protocol,
                    host_address=None if host is None or host.is_unspecified else host,
                    host_port=0 if mode == "routed" else binding.host_port,
                    address=address,
                    port=binding.container_port,
                )
            )
    return tuple(rows)


def is_relayed(endpoint: EndpointSpec, binding: PortBinding) -> bool:
    """Whether a port is at IPv6 addresses of the host, perhaps among others, and the container
    has but IPv4: no rule translates from one to the other. SCTP is not relayed."""
    host = binding.host_address
    return (
        (host is None or host.version == 6)
        and endpoint.ipv6 is None
        and endpoint.ipv4 is not None
        and binding.protocol != "sctp"
    )


def base(table: str, *, loopback6: bool = True) -> str:
    """The empty table, replacing whatever a table of that name held.

    ``loopback6`` False leaves connections to ``::1`` alone: where bridged packets pass the IP
    hooks (br_netfilter), answers to them are translated back before the kernel checks that
    nobody on the wire says ``::1``, and are dropped.
    """
    _check(_TABLE, table, "table")
    text = _BASE.format(table=table, loopback6="" if loopback6 else "    ip6 daddr ::1 return\n")
    return f"add table inet {table}\ndelete table inet {table}\n" + text


def everything(
    table: str,
    networks: Iterable[NetworkSpec],
    rows: Sequence[Published],
    *,
    loopback6: bool = True,
) -> str:
    """The whole table for these networks and ports: one transaction, so that no packet meets a
    state in between."""
    parts = [base(table, loopback6=loopback6), *(network_up(table, spec) for spec in networks)]
    parts.append(publish(table, rows))
    return "".join(parts)


def network_up(table: str, spec: NetworkSpec) -> str:
    """Add one network's chains and elements."""
    key, bridge = _chain_key(spec), _quoted(spec.bridge)
    lines = [f"add element inet {table} bridges {{ {bridge} }}"]
    for kind, rules in (
        ("into", _into(spec, bridge)),
        ("outof", _outof(spec, bridge)),
        ("leaving", _leaving(spec)),
    ):
        if not rules:
            continue
        chain = f"{kind}-{key}"
        lines.append(f"add chain inet {table} {chain}")
        lines.append(f"flush chain inet {table} {chain}")
        lines.extend(f"add rule inet {table} {chain} {rule}" for rule in rules)
        lines.append(f"add element inet {table} {kind} {{ {bridge} : jump {chain} }}")
    lines.extend(f"add element inet {table} {element}" for element in _sources(spec))
    return "".join(f"{line}\n" for line in lines)


def network_down(table: str, spec: NetworkSpec) -> str:
    """Take back what :func:`network_up` added."""
    key, bridge = _chain_key(spec), _quoted(spec.bridge)
    lines = [f"delete element inet {table} bridges {{ {bridge} }}"]
    for kind, rules in (
        ("into", _into(spec, bridge)),
        ("outof", _outof(spec, bridge)),
        ("leaving", _leaving(spec)),
    ):
        if rules:
            lines.append(f"delete element inet {table} {kind} {{ {bridge} }}")
            lines.append(f"flush chain inet {table} {kind}-{key}")
            lines.append(f"delete chain inet {table} {kind}-{key}")
    lines.extend(
        f"delete element inet {table} {element.partition(' : ')[0].removesuffix(' }')} }}"
        for element in _sources(spec)
    )
    return "".join(f"{line}\n" for line in lines)


def _into(spec: NetworkSpec, bridge: str) -> list[str]:
    """Rules for packets forwarded into the network."""
    if spec.internal:
        return [f"iifname {bridge} {'accept' if spec.icc else 'drop'}", "drop"]
    rules = ["ct state established,related accept", "ct status dnat accept"]
    rules.append(f"iifname {bridge} {'accept' if spec.icc else 'drop'}")
    rules.extend(f"iifname {_quoted(name)} accept" for name in spec.trusted_interfaces)
    for family, version, icmp, mode in (
        ("ipv4", 4, "icmp", spec.gateway_mode_ipv4),
        ("ipv6", 6, "ipv6-icmp", spec.gateway_mode_ipv6),
    ):
        if mode == "routed":
            ip = "ip" if version == 4 else "ip6"
            rules.append(f"meta nfproto {family} meta l4proto {icmp} accept")
            rules.append(f"{ip} daddr . meta l4proto . th dport @open{version} accept")
        elif mode == "nat-unprotected":
            rules.append(f"meta nfproto {family} iifname != @bridges accept")
    rules.append("drop")
    return rules


def _outof(spec: NetworkSpec, bridge: str) -> list[str]:
    """Rules for packets forwarded from the network; only internal ones have any."""
    return [f"oifname {bridge} return", "drop"] if spec.internal else []


def _leaving(spec: NetworkSpec) -> list[str]:
    """Rules for the source address of packets leaving through the bridge.

    From the host's loopback: the bridge's address, or the container could not answer. From the
    network itself after translation (a container using a published port of a neighbour): as
    well, or the neighbour would answer directly, past the translation.
    """
    rules = []
    if spec.ipv4:
        rules.append("ip saddr 127.0.0.0/8 masquerade")
    if spec.ipv6:
        rules.append("ip6 saddr ::1 masquerade")
    for subnet in spec.subnets:
        ip = "ip" if subnet.prefix.version == 4 else "ip6"
        rules.append(f"{ip} saddr {subnet.prefix} ct status dnat masquerade")
        rules.append(f"{ip} saddr {subnet.prefix} accept")
    return rules


def _sources(spec: NetworkSpec) -> list[str]:
    """Set and map elements about addresses of packets that leave the host."""
    if spec.internal:
        return []
    elements = []
    for subnet in spec.subnets:
        version = subnet.prefix.version
        mode = spec.gateway_mode_ipv4 if version == 4 else spec.gateway_mode_ipv6
        source: IPv4Address | IPv6Address | None = (
            spec.snat_ipv4 if version == 4 else spec.snat_ipv6
        )
        if mode == "routed":
            continue
        if source is not None:
            elements.append(f"source{version} {{ {subnet.prefix} : {source} }}")
        elif spec.masquerade:
            elements.append(f"masquerade{version} {{ {subnet.prefix} }}")
    return elements


def publish(table: str, rows: Sequence[Published]) -> str:
    """Add map elements for published ports."""
    return _elements("add", table, rows, values=True)


def unpublish(table: str, rows: Sequence[Published]) -> str:
    """Take map elements away; refused as a whole when one is not there."""
    return _elements("delete", table, rows, values=False)


def _elements(verb: str, table: str, rows: Sequence[Published], *, values: bool) -> str:
    groups: dict[str, list[str]] = {}
    texts: dict[IPAddress, str] = {}  # writing an IPv6 address takes longer than all the rest
    for row in rows:
        version = row.address.version
        if (address := texts.get(row.address)) is None:
            address = texts[row.address] = str(row.address)
        if row.host_port == 0:
            groups.setdefault(f"open{version}", []).append(
                f"{address} . {row.protocol} . {row.port}"
            )
            continue
        key, name = f"{row.protocol} . {row.host_port}", f"dnat{version}"
        if row.host_address is not None:
            key, name = f"{row.host_address} . {key}", f"{name}_at"
        if values:
            key = f"{key} : {address} . {row.port}"
        groups.setdefault(name, []).append(key)
    return "".join(
        f"{verb} element inet {table} {name} {{ {', '.join(keys)} }}\n"
        for name, keys in groups.items()
    )


def _chain_key(spec: NetworkSpec) -> str:
    return _check(_ID, spec.id[:12], "network id")


def _quoted(interface: str) -> str:
    return f'"{_check(_NAME, interface, "interface name")}"'


def _check(pattern: re.Pattern[str], text: str, what: str) -> str:
    """Names go into a script: refuse what could be more than a name."""
    if not pattern.fullmatch(text):
        raise InvalidParameter(f"invalid {what}: {text!r}")
    return text
