"""Networks, endpoints and published ports as values.

A *network* is what containers are connected to; an *endpoint* is one container's connection. The
engine keeps both as rows and passes them to a :class:`sampan.network.driver.Driver`; nothing here
has an effect. Terms and option names are Docker's (libnetwork).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import TypeAlias

from sampan.errors import InvalidParameter

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPInterface: TypeAlias = IPv4Interface | IPv6Interface
IPNetwork: TypeAlias = IPv4Network | IPv6Network

PROTOCOLS = ("tcp", "udp", "sctp")

#: Drivers this package offers; anything else is a plugin or unknown.
DRIVERS = ("bridge", "host", "none", "macvlan", "ipvlan", "overlay", "ns", "cni")

#: How packets reach containers from outside (docker's ``gateway_mode_ipv4``/``_ipv6``).
GATEWAY_MODES = ("nat", "nat-unprotected", "routed", "isolated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """One address pool of a network.

    ``prefix`` is the subnet; ``gateway`` the bridge's address in it (``None``: the network has
    no gateway); ``ip_range`` the part addresses are handed out from; ``auxiliary`` addresses
    that are never handed out, by name.
    """

    prefix: IPNetwork
    gateway: IPAddress | None = None
    ip_range: IPNetwork | None = None
    auxiliary: Mapping[str, IPAddress] = field(default_factory=dict)

    def __post_init__(self) -> None:
        version = self.prefix.version
        for what, address in (("gateway", self.gateway), *self.auxiliary.items()):
            if address is not None and (address.version != version or address not in self.prefix):
                raise InvalidParameter(f"{what} {address} is not in subnet {self.prefix}")
        if self.ip_range is not None and (
            self.ip_range.version != version
            or self.ip_range[0] not in self.prefix
            or self.ip_range[-1] not in self.prefix
        ):
            raise InvalidParameter(f"ip-range {self.ip_range} is not in subnet {self.prefix}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """A network, completely decided: what a driver needs to make it.

    Made from the API's options by :func:`sampan.network.options.network_spec`.
    ``bridge`` is the bridge's interface name; ``parent`` the host interface of macvlan, ipvlan
    and overlay networks; ``mtu`` 0 means the kernel's default; ``masquerade`` whether outgoing
    packets take the host's address; ``host_address`` the address published ports bind to when
    the publication names none (``None``: all); ``inhibit_ipv4`` keeps the bridge from having the
    IPv4 gateway address; ``trusted_interfaces`` are host interfaces whose neighbours may reach
    ports that are not published; ``snat_*`` the source address outgoing packets
    take instead of the outgoing interface's.
    """

    id: str
    name: str
    driver: str = "bridge"
    subnets: tuple[Subnet, ...] = ()
    bridge: str = ""
    internal: bool = False
    icc: bool = True
    mtu: int = 0
    masquerade: bool = True
    gateway_mode_ipv4: str = "nat"
    gateway_mode_ipv6: str = "nat"
    inhibit_ipv4: bool = False
    trusted_interfaces: tuple[str, ...] = ()
    host_address: IPAddress | None = None
    snat_ipv4: IPv4Address | None = None
    snat_ipv6: IPv6Address | None = None
    parent: str = ""
    mode: str = ""
    vxlan_id: int = 0
    peers: tuple[IPAddress, ...] = ()
    path: str = ""
    container_interface_prefix: str = "eth"
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def ipv4(self) -> bool:
        """Whether the network has an IPv4 subnet."""
        return any(subnet.prefix.version == 4 for subnet in self.subnets)

    @property
    def ipv6(self) -> bool:
        """Whether the network has an IPv6 subnet."""
        return any(subnet.prefix.version == 6 for subnet in self.subnets)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortBinding:
    """One published port.

    ``host_address`` ``None`` means every address of the host, IPv4 and IPv6. ``host_port`` 0 asks
    for a free one of the ephemeral range; ``host_port_end`` above ``host_port`` asks for the
    first free one of that range. What a driver returns has one definite ``host_port``.
    """

    container_port: int
    protocol: str = "tcp"
    host_address: IPAddress | None = None
    host_port: int = 0
    host_port_end: int = 0

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise InvalidParameter(f"invalid protocol {self.protocol!r}: expected tcp, udp or sctp")
        if not 0 < self.container_port < 65536:
            raise InvalidParameter(f"invalid container port {self.container_port}")
        if not 0 <= self.host_port < 65536 or not 0 <= self.host_port_end < 65536:
            raise InvalidParameter(f"invalid host port {self.host_port}")
        if self.host_port_end and self.host_port_end < self.host_port:
            raise InvalidParameter(f"invalid port range {self.host_port}-{self.host_port_end}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """Limits of one interface seen from the container, bytes a second; 0 means none."""

    egress: int = 0
    ingress: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSpec:
    """One container's connection to one network, completely decided.

    ``addresses`` carry the subnet's prefix length; ``gateways`` (at most one of each family) are
    empty when this endpoint does not provide the container's default route: choose it with
    :func:`sampan.network.priority.gateway_endpoint`. ``mac`` "" lets the driver choose (from the
    IPv4 address, as Docker did, so that neighbours' ARP caches stay right). ``sysctls`` are full
    names with ``IFNAME`` for the interface, as Docker's endpoint option. ``sandbox`` is a path of
    the container's network namespace, for drivers that are programs of others.
    """

    endpoint_id: str
    container_id: str
    network_id: str
    container_name: str = ""
    interface: str = "eth0"
    mac: str = ""
    addresses: tuple[IPInterface, ...] = ()
    gateways: tuple[IPAddress, ...] = ()
    link_local: tuple[IPInterface, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[PortBinding, ...] = ()
    priority: int = 0
    limits: RateLimit = RateLimit()
    sandbox: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def ipv4(self) -> IPv4Interface | None:
        """The first IPv4 address, if any."""
        return next((a for a in self.addresses if isinstance(a, IPv4Interface)), None)

    @property
    def ipv6(self) -> IPv6Interface | None:
        """The first IPv6 address, if any."""
        return next((a for a in self.addresses if isinstance(a, IPv6Interface)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStatus:
    """What a driver made of an endpoint.

    Store ``mac`` and ``ports`` (every ``host_port`` is definite now) with the endpoint, and pass
    them back to :meth:`Driver.detach` and :meth:`Driver.converge`. ``addresses`` and ``gateways``
    are those of a driver that chooses them itself, ``None`` where they are as asked for.
    """

    interface: str
    mac: str
    host_interface: str = ""
    ports: tuple[PortBinding, ...] = ()
    addresses: tuple[IPInterface, ...] | None = None
    gateways: tuple[IPAddress, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPolicy:
    """What drivers may do to the host: ``rules`` whether they set firewall rules at all
    (``--iptables``), ``respect`` whether a host that drops by default is obeyed
    (``--firewall=respect-host``), ``forwarding`` whether they switch forwarding on
    (``--ip-forward``), ``system_bus`` the D-Bus socket where a firewalld may be found."""

    rules: bool = True
    respect: bool = False
    forwarding: bool = True
    system_bus: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the kernel has of a driver's doing (for reconcile).

    ``networks`` are bridge (or overlay) interface names; ``endpoints`` host-side interface names.
    """

    networks: frozenset[str] = frozenset()
    endpoints: frozenset[str] = frozenset()
    ports: frozenset[tuple[str, str, int]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceStatistics:
    """Counters of one interface as the container sees it (``rtnl_link_stats64``)."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int
