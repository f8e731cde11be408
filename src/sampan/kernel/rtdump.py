"""rtnetlink(7) dumps: links, addresses and routes of a namespace as values."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
)

from sampan.kernel import netlink
from sampan.kernel.netlink import Message, NetlinkSocket

RTM_NEWLINK, RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE, RTM_GETNEIGH = 16, 18, 22, 26, 30

_IFF_UP = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK = 1, 3, 4, 5
_IFLA_MASTER, _IFLA_OPERSTATE, _IFLA_LINKINFO, _IFLA_IFALIAS = 10, 16, 18, 20
_IFLA_STATS64, _IFLA_GROUP, _IFLA_EXT_MASK = 23, 27, 29
_RTEXT_FILTER_SKIP_STATS = 8
_OPERATIONAL = (b"\x06", b"\x00")  # IF_OPER_UP, IF_OPER_UNKNOWN
_INFO_KIND = 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_PERMANENT, _SCOPE_UNIVERSE = 0x80, 0
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_TABLE = 1, 4, 5, 6, 15
_RT_TABLE_MAIN, _RTN_UNICAST, _RTN_LOCAL = 254, 1, 2
_NDA_DST, _NDA_LLADDR = 1, 2

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_NDMSG = struct.Struct("=BxxxiHBB")

_GONE = frozenset({errno.ENODEV, errno.ENOENT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One link as a dump shows it. ``up`` is what was asked for; ``operational`` that packets go
    through (RFC 2863 operstate up, or unknown where a link has no such state)."""

    index: int
    name: str
    up: bool
    operational: bool = False
    kind: str = ""
    mac: str = ""
    mtu: int = 0
    master: int = 0
    parent: int = 0
    group: int = 0
    alias: str = ""
    statistics: tuple[int, ...] = ()


def parse_link(body: bytes) -> Link:
    """A :class:`Link` from the body of RTM_NEWLINK. ``statistics`` are rtnl_link_stats64's
    fields in order, when the kernel sent them."""
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    found = netlink.attributes(body, _IFINFO.size)
    info = netlink.attributes(found.get(_IFLA_LINKINFO, b""))
    stats = found.get(_IFLA_STATS64, b"")
    return Link(
        index=index,
        name=_text(found.get(_IFLA_IFNAME)),
        up=bool(flags & _IFF_UP),
        operational=found.get(_IFLA_OPERSTATE, b"\0") in _OPERATIONAL,
        kind=_text(info.get(_INFO_KIND)),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found.get(_IFLA_MTU)),
        master=_number(found.get(_IFLA_MASTER)),
        parent=_number(found.get(_IFLA_LINK)),
        group=_number(found.get(_IFLA_GROUP)),
        alias=_text(found.get(_IFLA_IFALIAS)),
        statistics=struct.unpack_from(f"={len(stats) // 8}Q", stats),
    )


def _text(raw: bytes | None) -> str:
    return raw.rstrip(b"\0").decode(errors="replace") if raw else ""


def _number(raw: bytes | None) -> int:
    return int(struct.unpack_from("=I", raw)[0]) if raw else 0


def link(sock: NetlinkSocket, name: str) -> Link | None:
    """The link called ``name``, or None."""
    request = Message(
        type=RTM_GETLINK,
        body=_IFINFO.pack(0, 0, 0, 0, 0)
        + netlink.text(_IFLA_IFNAME, name)
        + netlink.u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS),
        what=f"link {name}",
    )
    try:
        _, body = sock.get(request)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    return parse_link(body)


def settle(sock: NetlinkSocket, *names: str, patience: float = 0.03) -> bool:
    """Whether packets go through all these links now; waits ``patience`` seconds at most.

    The kernel takes a link whose carrier came on into service a little later (link watch), and
    drops what is sent until then. Since Linux 6.9 asking for the link makes it happen at once;
    before, it takes a moment. A link that is not there is not waited for.
    """

    def settled(name: str) -> bool:
        found = link(sock, name)
        return found is None or found.operational

    return _wait([partial(settled, name) for name in names], patience)


def settle_addresses(sock: NetlinkSocket, *wanted: IPv6Address, patience: float = 0.03) -> bool:
    """Whether packets for these addresses of ours are taken now; as :func:`settle`.

    The kernel makes the local route of an IPv6 address in the background, also without duplicate
    address detection, and drops what arrives for it until then.
    """
    return _wait([partial(is_local, sock, address) for address in wanted], patience)


def _wait(conditions: Sequence[Callable[[], bool]], patience: float) -> bool:
    deadline = time.monotonic() + patience
    waiting = list(conditions)
    while waiting := [holds for holds in waiting if not holds()]:
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.0005)
    return True


def is_local(sock: NetlinkSocket, address: IPv6Address) -> bool:
    """Whether the socket's namespace takes packets for ``address`` as its own."""
    request = Message(
        type=RTM_GETROUTE,
        body=_RTMSG.pack(socket.AF_INET6, 128, 0, 0, 0, 0, 0, 0, 0)
        + netlink.attribute(_RTA_DST, address.packed),
        what=f"route {address}",
    )
    try:
        _, body = sock.get(request)
    except OSError as error:
        if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            return False
        raise
    return int(_RTMSG.unpack_from(body)[7]) == _RTN_LOCAL


def links(sock: NetlinkSocket, *, statistics: bool = False) -> list[Link]:
    """Every link of the socket's namespace."""
    mask = 0 if statistics else _RTEXT_FILTER_SKIP_STATS
    request = Message(
        type=RTM_GETLINK,
        body=_IFINFO.pack(0, 0, 0, 0, 0) + netlink.u32(_IFLA_EXT_MASK, mask),
        what="links",
    )
    return [parse_link(body) for kind, body in sock.dump(request) if kind == RTM_NEWLINK]


@dataclass(frozen=True, slots=True)
class Address:
    """One address of one link."""

    index: int
    interface: IPv4Interface | IPv6Interface


def addresses(sock: NetlinkSocket) -> list[Address]:
    """Every address of the socket's namespace."""
    found = []
    request = Message(type=RTM_GETADDR, body=_IFADDR.pack(0, 0, 0, 0, 0), what="addresses")
    for _, body in sock.dump(request):
        family, prefix, _, _, index = _IFADDR.unpack_from(body)
        if family not in (socket.AF_INET, socket.AF_INET6):
            continue
        values = netlink.attributes(body, _IFADDR.size)
        packed = values.get(_IFA_LOCAL) or values[_IFA_ADDRESS]
        make = IPv4Interface if family == socket.AF_INET else IPv6Interface
        found.append(Address(index, make((packed, prefix))))
    return found


def lasting_addresses(sock: NetlinkSocket, index: int) -> list[bytes]:
    """Bodies of RTM_NEWADDR: addresses of the link that somebody gave it for good and everywhere
    (IFA_F_PERMANENT, RT_SCOPE_UNIVERSE). See :func:`sampan.kernel.rtnetlink.address_again`."""
    request = Message(type=RTM_GETADDR, body=_IFADDR.pack(0, 0, 0, 0, 0), what="addresses")
    found = []
    for _, body in sock.dump(request):
        family, _, flags, scope, link_index = _IFADDR.unpack_from(body)
        if family not in (socket.AF_INET, socket.AF_INET6) or link_index != index:
            continue
        flags |= _number(netlink.attributes(body, _IFADDR.size).get(_IFA_FLAGS))
        if flags & _IFA_F_PERMANENT and scope == _SCOPE_UNIVERSE:
            found.append(body)
    return found


@dataclass(frozen=True, slots=True)
class Route:
    """One unicast route of the main table."""

    destination: IPv4Network | IPv6Network
    gateway: IPv4Address | IPv6Address | None
    index: int
    metric: int


def routes(sock: NetlinkSocket) -> list[Route]:
    """Every unicast route of the main table in the socket's namespace."""
    found = []
    request = Message(type=RTM_GETROUTE, body=_RTMSG.pack(0, 0, 0, 0, 0, 0, 0, 0, 0), what="routes")
    for _, body in sock.dump(request):
        family, prefix, _, _, table, _, _, kind, _ = _RTMSG.unpack_from(body)
        if kind != _RTN_UNICAST or family not in (socket.AF_INET, socket.AF_INET6):
            continue
        values = netlink.attributes(body, _RTMSG.size)
        if (_number(values.get(_RTA_TABLE)) or table) != _RT_TABLE_MAIN:
            continue
        make = IPv4Network if family == socket.AF_INET else IPv6Network
        size = 4 if family == socket.AF_INET else 16
        gateway = values.get(_RTA_GATEWAY)
        found.append(
            Route(
                make((values.get(_RTA_DST, bytes(size)), prefix)),
                ip_address(gateway) if gateway else None,
                _number(values.get(_RTA_OIF)),
                _number(values.get(_RTA_PRIORITY)),
            )
        )
    return found


def flood_peers(sock: NetlinkSocket, index: int) -> list[IPv4Address | IPv6Address]:
    """Where the VXLAN link ``index`` sends frames it knows no better place for."""
    request = Message(
        type=RTM_GETNEIGH,
        body=_NDMSG.pack(socket.AF_BRIDGE, index, 0, 0, 0),
        what="forwarding entries",
    )
    found = []
    for _, body in sock.dump(request):
        _, link_index, _, _, _ = _NDMSG.unpack_from(body)
        values = netlink.attributes(body, _NDMSG.size)
        if link_index == index and values.get(_NDA_LLADDR) == bytes(6) and _NDA_DST in values:
            found.append(ip_address(values[_NDA_DST]))
    return found
