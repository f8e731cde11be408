"""Address management: pure decisions about subnets and addresses.

The engine stores subnets and leases as rows and passes the taken ones in; nothing here
remembers anything, so no address can be handed out twice as long as the engine inserts the lease
in the transaction it asked in (a UNIQUE constraint on network and address backs that).
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from sampan.errors import Conflict, InvalidParameter, NoSpace
from sampan.network.model import IPAddress, IPNetwork, Subnet


@dataclass(frozen=True, slots=True)
class Pool:
    """Subnets of prefix length ``size`` are cut from ``base`` (``--default-address-pool``)."""

    base: IPNetwork
    size: int

    def __post_init__(self) -> None:
        if not self.base.prefixlen <= self.size <= self.base.max_prefixlen:
            raise InvalidParameter(
                f"invalid default address pool: size {self.size} does not fit base {self.base}"
            )

    @classmethod
    def parse(cls, text: str) -> Pool:
        """``base=172.30.0.0/16,size=24`` as the daemon's flag; raises :class:`InvalidParameter`."""
        fields = dict(part.partition("=")[::2] for part in text.split(","))
        if set(fields) != {"base", "size"} or not fields["size"].isdecimal():
            raise InvalidParameter(
                f"invalid default address pool {text!r}: expected base=CIDR,size=LENGTH"
            )
        return cls(parse_network(fields["base"]), int(fields["size"]))


#: Docker's default pools (daemon documentation, "default-address-pools").
DEFAULT_POOLS: tuple[Pool, ...] = (
    *(Pool(IPv4Network(f"172.{second}.0.0/16"), 16) for second in range(17, 20)),
    Pool(IPv4Network("172.20.0.0/14"), 16),
    Pool(IPv4Network("172.24.0.0/14"), 16),
    Pool(IPv4Network("172.28.0.0/14"), 16),
    Pool(IPv4Network("192.168.0.0/16"), 20),
)


def ula_pool(host_id: bytes) -> Pool:
    """The IPv6 pool of this host: a unique local /48 (RFC 4193) derived from ``host_id``
    (for example the machine id), cut into /64 subnets."""
    global_id = hashlib.sha256(b"sampan ula\0" + host_id).digest()[:5]
    return Pool(IPv6Network((b"\xfd" + global_id + bytes(10), 48)), 64)


def parse_network(text: str) -> IPNetwork:
    """A subnet in CIDR notation; host bits are dropped, as Docker does."""
    try:
        return ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidParameter(f"invalid CIDR address: {text}") from error


def parse_address(text: str) -> IPAddress:
    """An IPv4 or IPv6 address; raises :class:`InvalidParameter`."""
    try:
        return ip_address(text)
    except ValueError as error:
        raise InvalidParameter(f"invalid IP address: {text}") from error


def _overlaps(one: IPNetwork, other: IPNetwork) -> bool:
    return (
        one.version == other.version
        and int(one[0]) <= int(other[-1])
        and int(other[0]) <= int(one[-1])
    )


def choose_subnet(pools: Sequence[Pool], taken: Iterable[IPNetwork], version: int) -> IPNetwork:
    """The first subnet of ``pools`` (of IP ``version`` 4 or 6) that overlaps nothing taken.

    ``taken`` are the subnets of all networks and the host's routes
    (:func:`sampan.network.hostroutes.routes`). Raises :class:`NoSpace`.
    """
    held = sorted(
        (int(network[0]), int(network[-1])) for network in taken if network.version == version
    )
    for pool in pools:
        if pool.base.version == version and (found := _first_gap(pool, held)) is not None:
            return found
    raise NoSpace("all predefined address pools have been fully subnetted")


def _first_gap(pool: Pool, held: Sequence[tuple[int, int]]) -> IPNetwork | None:
    """First aligned block of the pool beside every held (first, last) interval, sorted."""
    step = 1 << (pool.base.max_prefixlen - pool.size)
    start, end = int(pool.base[0]), int(pool.base[-1])
    for first, last in held:
        if last < start:
            continue
        if first > start + step - 1:
            break
        start = -(-(last + 1) // step) * step  # next multiple of step after the interval
    if start + step - 1 > end:
        return None
    return type(pool.base)((start, pool.size))


def make_subnet(
    prefix: IPNetwork,
    *,
    gateway: IPAddress | None = None,
    ip_range: IPNetwork | None = None,
    auxiliary: Mapping[str, IPAddress] | None = None,
    with_gateway: bool = True,
) -> Subnet:
    """A subnet with Docker's default gateway: the lowest address of ``ip_range`` (else of the
    subnet) that is not auxiliary. ``with_gateway`` False leaves it without."""
    held = dict(auxiliary or {})
    if gateway is None and with_gateway:
        bare = Subnet(prefix=prefix, ip_range=ip_range, auxiliary=held)
        gateway = allocate(bare, ())
    return Subnet(prefix=prefix, gateway=gateway, ip_range=ip_range, auxiliary=held)


def check_free(subnets: Iterable[Subnet], taken: Iterable[IPNetwork]) -> None:
    """Raise :class:`Conflict` when a subnet overlaps another of the same network or a taken one
    (subnets of other networks)."""
    held = list(taken)
    for subnet in subnets:
        for other in held:
            if _overlaps(subnet.prefix, other):
                raise Conflict(
                    "invalid pool request: Pool overlaps with other one on this address space: "
                    f"{subnet.prefix} and {other}"
                )
        held.append(subnet.prefix)


def allocate(
    subnet: Subnet, used: Container[IPAddress], requested: IPAddress | None = None
) -> IPAddress:
    """The lowest free address of ``subnet``, or ``requested`` when it is free.

    ``used`` are the addresses already leased in this subnet. Network, broadcast, gateway and
    auxiliary addresses are never handed out; a requested one may lie outside ``ip_range``.
    Raises :class:`Conflict` when the requested one is taken, :class:`InvalidParameter` when it
    is not of the subnet, :class:`NoSpace` when none is left.
    """
    reserved = {subnet.gateway, *subnet.auxiliary.values()}
    if requested is not None:
        if requested.version != subnet.prefix.version or requested not in subnet.prefix:
            raise InvalidParameter(f"invalid address {requested}: not in subnet {subnet.prefix}")
        if _unusable(subnet.prefix, int(requested)):
            raise InvalidParameter(f"invalid address {requested}: it names the network itself")
        if requested in reserved or requested in used:
            raise Conflict(f"Address already in use: {requested}")
        return requested
    for candidate in _candidates(subnet):
        if candidate not in reserved and candidate not in used:
            return candidate
    raise NoSpace(f"no available IP addresses on this network's address pool {subnet.prefix}")


def _unusable(prefix: IPNetwork, number: int) -> bool:
    """Whether the address names the network or all of it."""
    return number in _edges(prefix)


def _edges(prefix: IPNetwork) -> frozenset[int]:
    """The addresses that name the network or all of it; RFC 3021 and 6164 exempt pairs."""
    if prefix.max_prefixlen - prefix.prefixlen <= 1:
        return frozenset()
    lowest = int(prefix.network_address)
    return frozenset({lowest, int(prefix[-1])} if prefix.version == 4 else {lowest})


def _candidates(subnet: Subnet) -> Iterator[IPAddress]:
    area = subnet.ip_range or subnet.prefix
    make = type(area[0])
    edges = _edges(subnet.prefix)  # once: a subnet may hold hundreds of containers
    for number in range(int(area[0]), int(area[-1]) + 1):
        if number not in edges:
            yield make(number)


def usable(subnet: Subnet) -> int:
    """How many addresses containers can get from ``subnet`` in all (for the API's IPAM status)."""
    area = subnet.ip_range or subnet.prefix
    total = area.num_addresses
    pair = subnet.prefix.max_prefixlen - subnet.prefix.prefixlen <= 1
    edges = [] if pair else [subnet.prefix[0]]
    if not pair and subnet.prefix.version == 4:
        edges.append(subnet.prefix[-1])
    held = {*edges, subnet.gateway, *subnet.auxiliary.values()} - {None}
    return total - sum(1 for address in held if address is not None and address in area)


def mac_from_ipv4(address: IPAddress) -> str:
    """The MAC address Docker derives from an IPv4 address: ``02:42`` and its four bytes."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + address.packed[-4:])


def mac_from_seed(seed: str) -> str:
    """A stable, locally administered unicast MAC address for ``seed`` (an endpoint id)."""
    digest = bytearray(hashlib.sha256(seed.encode()).digest()[:6])
    digest[0] = (digest[0] & 0xFC) | 0x02
    return ":".join(f"{byte:02x}" for byte in digest)
