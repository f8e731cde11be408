"""rtnetlink(7) dumps: links, addresses and routes of a namespace as values."""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
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
_IFLA_MASTER, _IFLA_LINKINFO, _IFLA_IFALIAS = 10, 18, 20
_IFLA_STATS64, _IFLA_GROUP, _IFLA_EXT_MASK = 23, 27, 29
_RTEXT_FILTER_SKIP_STATS = 8
_INFO_KIND = 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_TABLE = 1, 4, 5, 6, 15
_RT_TABLE_MAIN, _RTN_UNICAST = 254, 1
_NDA_DST, _NDA_LLADDR = 1, 2

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_NDMSG = struct.Struct("=BxxxiHBB")

_GONE = frozenset({errno.ENODEV, errno.ENOENT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One link as a dump shows it."""

    index: int
    name: str
    up: bool
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
