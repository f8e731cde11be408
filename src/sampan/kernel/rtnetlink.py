"""rtnetlink(7): links, addresses, routes, neighbours as messages (pure).

Every ``*_add``/``*_set``/``*_delete`` function returns a :class:`Message`; send several in one
:meth:`NetlinkSocket.request`. Numbers are those of linux/if_link.h, if_addr.h, rtnetlink.h.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_network,
)

from sampan.kernel import netlink
from sampan.kernel.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
)

RTM_NEWLINK, RTM_DELLINK = 16, 17
RTM_NEWADDR, RTM_DELADDR = 20, 21
RTM_NEWROUTE, RTM_DELROUTE = 24, 25
RTM_NEWNEIGH, RTM_DELNEIGH = 28, 29

IFF_UP = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK = 1, 3, 4, 5
_IFLA_MASTER, _IFLA_LINKINFO, _IFLA_IFALIAS = 10, 18, 20
_IFLA_AF_SPEC, _IFLA_GROUP, _IFLA_NET_NS_FD = 26, 27, 28
_IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 31, 32
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_INFO_PEER = 1
_BRPORT_MODE, _BRPORT_ISOLATED = 4, 33
_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE = 8, 1
_MACVLAN_MODE, _IPVLAN_MODE, _IPVLAN_FLAGS, _VLAN_ID = 1, 1, 2, 1
_VXLAN_ID, _VXLAN_LINK, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PORT = 1, 3, 4, 7, 15
_VXLAN_LOCAL6 = 17
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_NODAD = 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_TABLE = 1, 4, 5, 6, 7, 15
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_STALE, _NUD_PERMANENT, _NTF_SELF = 0x04, 0x80, 0x02
_RT_TABLE_MAIN, _RT_TABLE_LOCAL, _RTPROT_STATIC = 254, 255, 4
_RTN_UNICAST, _RTN_LOCAL = 1, 2
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253

#: modes of macvlan(4) and ipvlan, as Docker names them
MACVLAN_MODES: Mapping[str, int] = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES: Mapping[str, int] = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS: Mapping[str, int] = {"bridge": 0, "private": 1, "vepa": 2}

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_NDMSG = struct.Struct("=BxxxiHBB")

_EXISTS = frozenset({errno.EEXIST})
_GONE = frozenset({errno.ENODEV, errno.ENOENT})
_NO_ADDRESS = frozenset({errno.EADDRNOTAVAIL, errno.ENODEV})
_NO_ROUTE = frozenset({errno.ESRCH, errno.ENODEV})


def mac_bytes(mac: str) -> bytes:
    """The six bytes of ``aa:bb:cc:dd:ee:ff``; raises :class:`ValueError`."""
    raw = bytes.fromhex(mac.replace(":", "").replace("-", ""))
    if len(raw) != 6:
        raise ValueError(f"invalid MAC address: {mac!r}")
    return raw


def _ifinfo(index: int = 0, *, up: bool | None = None, family: int = 0) -> bytes:
    flags = IFF_UP if up else 0
    return _IFINFO.pack(family, 0, index, flags, IFF_UP if up is not None else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """Attributes common to making and changing links; unset ones are left alone.

    ``mtu`` 0 and ``group`` 0 are unset; ``netns_fd`` is where the link is made or moved.
    ``ipv6_link_local`` False keeps the kernel from giving it a link-local address; ``*_port`` are
    about ports of a bridge (bridge(8) ``isolated``, ``hairpin``).
    """

    up: bool | None = None
    mac: str = ""
    mtu: int = 0
    master: int = 0
    group: int = 0
    alias: str = ""
    name: str = ""
    netns_fd: int | None = None
    ipv6_link_local: bool = True
    isolated_port: bool | None = None
    hairpin_port: bool | None = None

    def pack(self) -> bytes:
        """The attributes."""
        parts = []
        if self.name:
            parts.append(netlink.text(_IFLA_IFNAME, self.name))
        if self.mac:
            parts.append(netlink.attribute(_IFLA_ADDRESS, mac_bytes(self.mac)))
        if self.mtu:
            parts.append(netlink.u32(_IFLA_MTU, self.mtu))
        if self.master:
            parts.append(netlink.u32(_IFLA_MASTER, self.master))
        if self.group:
            parts.append(netlink.u32(_IFLA_GROUP, self.group))
        if self.alias:
            parts.append(netlink.text(_IFLA_IFALIAS, self.alias))
        if self.netns_fd is not None:
            parts.append(netlink.u32(_IFLA_NET_NS_FD, self.netns_fd))
        if not self.ipv6_link_local:
            parts.append(
                netlink.nested(
                    _IFLA_AF_SPEC,
                    netlink.nested(
                        socket.AF_INET6, netlink.u8(_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE)
                    ),
                )
            )
        port = []
        if self.isolated_port is not None:
            port.append(netlink.u8(_BRPORT_ISOLATED, int(self.isolated_port)))
        if self.hairpin_port is not None:
            port.append(netlink.u8(_BRPORT_MODE, int(self.hairpin_port)))
        if port:
            parts.append(
                netlink.nested(
                    _IFLA_LINKINFO,
                    netlink.text(_INFO_SLAVE_KIND, "bridge"),
                    netlink.nested(_INFO_SLAVE_DATA, *port),
                )
            )
        return b"".join(parts)


_PLAIN = LinkOptions()
_ONE_QUEUE = netlink.u32(_IFLA_NUM_TX_QUEUES, 1) + netlink.u32(_IFLA_NUM_RX_QUEUES, 1)


def _new_link(
    kind: str,
    name: str,
    data: bytes,
    options: LinkOptions,
    parent: int = 0,
    exists_ok: bool = False,
    more: bytes = b"",
) -> Message:
    info = [netlink.text(_INFO_KIND, kind)]
    if data:
        info.append(netlink.nested(_INFO_DATA, data))
    body = _ifinfo(up=options.up) + netlink.text(_IFLA_IFNAME, name) + options.pack() + more
    if parent:
        body += netlink.u32(_IFLA_LINK, parent)
    return Message(
        type=RTM_NEWLINK,
        flags=NLM_F_CREATE | NLM_F_EXCL,
        body=body + netlink.nested(_IFLA_LINKINFO, *info),
        what=f"create {kind} {name}",
        ignore=_EXISTS if exists_ok else frozenset(),
    )


def bridge_add(name: str, options: LinkOptions = _PLAIN, *, exists_ok: bool = False) -> Message:
    """A bridge."""
    return _new_link("bridge", name, b"", options, exists_ok=exists_ok)


def veth_add(
    name: str, options: LinkOptions, peer_name: str, peer_options: LinkOptions = _PLAIN
) -> Message:
    """A veth(4) pair; ``peer_options.netns_fd`` makes the peer right where it belongs.

    Of one queue each, which they would have anyway: asked for, the kernel does not make more and
    wait for RCU grace periods to take those out of use.
    """
    peer = _ifinfo(up=peer_options.up) + netlink.text(_IFLA_IFNAME, peer_name) + peer_options.pack()
    data = netlink.nested(_VETH_INFO_PEER, peer + _ONE_QUEUE)
    return _new_link("veth", name, data, options, more=_ONE_QUEUE)


def macvlan_add(name: str, parent: int, mode: str, options: LinkOptions = _PLAIN) -> Message:
    """A macvlan on the link ``parent`` (index); mode is a key of :data:`MACVLAN_MODES`."""
    data = netlink.u32(_MACVLAN_MODE, MACVLAN_MODES[mode])
    return _new_link("macvlan", name, data, options, parent)


def ipvlan_add(
    name: str, parent: int, mode: str, flag: str = "bridge", options: LinkOptions = _PLAIN
) -> Message:
    """An ipvlan on the link ``parent``; keys of :data:`IPVLAN_MODES`, :data:`IPVLAN_FLAGS`."""
    data = netlink.u16(_IPVLAN_MODE, IPVLAN_MODES[mode]) + netlink.u16(
        _IPVLAN_FLAGS, IPVLAN_FLAGS[flag]
    )
    return _new_link("ipvlan", name, data, options, parent)


def vlan_add(name: str, parent: int, vlan_id: int, options: LinkOptions = _PLAIN) -> Message:
    """An 802.1Q link on ``parent``."""
    return _new_link("vlan", name, netlink.u16(_VLAN_ID, vlan_id), options, parent)


def vxlan_add(
    name: str,
    vni: int,
    options: LinkOptions = _PLAIN,
    *,
    port: int = 4789,
    parent: int = 0,
    local: IPv4Address | IPv6Address | None = None,
    learning: bool = True,
) -> Message:
    """A VXLAN (RFC 7348) tunnel end; where to send is put in its fdb with :func:`fdb_append`."""
    data = netlink.u32(_VXLAN_ID, vni) + netlink.u8(_VXLAN_LEARNING, int(learning))
    data += netlink.attribute(_VXLAN_PORT, port.to_bytes(2, "big"))
    if parent:
        data += netlink.u32(_VXLAN_LINK, parent)
    if local is not None:
        data += netlink.attribute(
            _VXLAN_LOCAL if local.version == 4 else _VXLAN_LOCAL6, local.packed
        )
    return _new_link("vxlan", name, data, options)


def link_set(
    name: str = "", options: LinkOptions = _PLAIN, *, index: int = 0, ignore_gone: bool = False
) -> Message:
    """Change the link called ``name`` (or of ``index``)."""
    body = _ifinfo(index, up=options.up)
    if name:
        body += netlink.text(_IFLA_IFNAME, name)
    return Message(
        type=RTM_NEWLINK,
        body=body + options.pack(),
        what=f"set link {name or index}",
        ignore=_GONE if ignore_gone else frozenset(),
    )


def link_delete(name: str = "", *, index: int = 0) -> Message:
    """Delete the link called ``name`` (or of ``index``); its absence is no failure."""
    return Message(
        type=RTM_DELLINK,
        body=_ifinfo(index) + (netlink.text(_IFLA_IFNAME, name) if name else b""),
        what=f"delete link {name or index}",
        ignore=_GONE,
    )


def address_add(index: int, address: IPv4Interface | IPv6Interface) -> Message:
    """Give the link an address. IPv6 skips duplicate address detection: we chose the address,
    and waiting for it would keep the container's first connection back for a second."""
    return Message(
        type=RTM_NEWADDR,
        flags=NLM_F_CREATE | NLM_F_REPLACE,
        body=_address_body(index, address),
        what=f"add address {address}",
        ignore=_EXISTS,
    )


def address_again(index: int, body: bytes) -> Message:
    """Give the link ``index`` an address a link had (``body`` of RTM_NEWADDR), with its peer,
    broadcast address and flags. Its presence is no failure."""
    family, prefix, flags, scope, _ = _IFADDR.unpack_from(body)
    found = netlink.attributes(body, _IFADDR.size)
    made = _IFADDR.pack(family, prefix, 0, scope, index)
    for kind in (_IFA_LOCAL, _IFA_ADDRESS, _IFA_BROADCAST):
        if kind in found:
            made += netlink.attribute(kind, found[kind])
    if _IFA_FLAGS in found:
        flags |= int.from_bytes(found[_IFA_FLAGS], sys.byteorder)
    if family == socket.AF_INET6:
        flags |= _IFA_F_NODAD
    return Message(
        type=RTM_NEWADDR,
        flags=NLM_F_CREATE | NLM_F_REPLACE,
        body=made + netlink.u32(_IFA_FLAGS, flags),
        what="add an address it had",
        ignore=_EXISTS,
    )


def address_delete(index: int, address: IPv4Interface | IPv6Interface) -> Message:
    """Take an address away; its absence is no failure."""
    return Message(
        type=RTM_DELADDR,
        body=_address_body(index, address),
        what=f"delete address {address}",
        ignore=_NO_ADDRESS,
    )


def _address_body(index: int, address: IPv4Interface | IPv6Interface) -> bytes:
    scope = _SCOPE_LINK if address.ip.is_link_local else _SCOPE_UNIVERSE
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    flags = _IFA_F_NODAD if address.version == 6 else 0
    packed = address.ip.packed
    body = _IFADDR.pack(family, address.network.prefixlen, flags, scope, index)
    body += netlink.attribute(_IFA_LOCAL, packed) + netlink.attribute(_IFA_ADDRESS, packed)
    if address.version == 4 and address.network.prefixlen < 31:
        body += netlink.attribute(_IFA_BROADCAST, address.network.broadcast_address.packed)
    if flags:
        body += netlink.u32(_IFA_FLAGS, flags)
    return body


def _route_body(
    destination: IPv4Network | IPv6Network,
    gateway: IPv4Address | IPv6Address | None,
    index: int,
    metric: int,
    source: IPv4Address | IPv6Address | None,
    *,
    local: bool = False,
) -> bytes:
    family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
    scope = _SCOPE_UNIVERSE if gateway or destination.version == 6 else _SCOPE_LINK
    table, kind = (_RT_TABLE_LOCAL, _RTN_LOCAL) if local else (_RT_TABLE_MAIN, _RTN_UNICAST)
    length = destination.prefixlen
    body = _RTMSG.pack(family, length, 0, 0, table, _RTPROT_STATIC, scope, kind, 0)
    if destination.prefixlen:
        body += netlink.attribute(_RTA_DST, destination.network_address.packed)
    if gateway is not None:
        body += netlink.attribute(_RTA_GATEWAY, gateway.packed)
    if source is not None:
        body += netlink.attribute(_RTA_PREFSRC, source.packed)
    if index:
        body += netlink.u32(_RTA_OIF, index)
    if metric:
        body += netlink.u32(_RTA_PRIORITY, metric)
    return body


def route_add(
    destination: IPv4Network | IPv6Network,
    *,
    gateway: IPv4Address | IPv6Address | None = None,
    index: int = 0,
    metric: int = 0,
    source: IPv4Address | IPv6Address | None = None,
) -> Message:
    """A route in the main table, replacing one to the same destination."""
    return Message(
        type=RTM_NEWROUTE,
        flags=NLM_F_CREATE | NLM_F_REPLACE,
        body=_route_body(destination, gateway, index, metric, source),
        what=f"add route {destination}" + (f" via {gateway}" if gateway else ""),
    )


def local_route_add(address: IPv4Address | IPv6Address, index: int, *, metric: int = 0) -> Message:
    """A route in the local table: ``address`` is this host's, also when asked by the link
    ``index``. Its presence is no failure."""
    host = ip_network(f"{address}/{address.max_prefixlen}")
    return Message(
        type=RTM_NEWROUTE,
        flags=NLM_F_CREATE | NLM_F_EXCL,
        body=_route_body(host, None, index, metric, None, local=True),
        what=f"add local route {address}",
        ignore=_EXISTS,
    )


def route_delete(
    destination: IPv4Network | IPv6Network,
    *,
    gateway: IPv4Address | IPv6Address | None = None,
    index: int = 0,
    metric: int = 0,
) -> Message:
    """Delete a route; its absence is no failure."""
    return Message(
        type=RTM_DELROUTE,
        body=_route_body(destination, gateway, index, metric, None),
        what=f"delete route {destination}",
        ignore=_NO_ROUTE,
    )


def neighbour_add(
    index: int, address: IPv4Address | IPv6Address, mac: str, *, permanent: bool = True
) -> Message:
    """An ARP or ND entry, in place of one there is. One that is not ``permanent`` is used at once
    and then checked and aged as if it had been learned."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    state = _NUD_PERMANENT if permanent else _NUD_STALE
    return Message(
        type=RTM_NEWNEIGH,
        flags=NLM_F_CREATE | NLM_F_REPLACE,
        body=_NDMSG.pack(family, index, state, 0, 0)
        + netlink.attribute(_NDA_DST, address.packed)
        + netlink.attribute(_NDA_LLADDR, mac_bytes(mac)),
        what=f"add neighbour {address}",
    )


def fdb_append(
    index: int, remote: IPv4Address | IPv6Address, mac: str = "00:00:00:00:00:00"
) -> Message:
    """Have the VXLAN link send frames for ``mac`` (all zero: unknown and broadcast) to
    ``remote`` as well."""
    return Message(
        type=RTM_NEWNEIGH,
        flags=NLM_F_CREATE | NLM_F_APPEND,
        body=_fdb_body(index, remote, mac),
        what=f"add forwarding entry {mac} to {remote}",
        ignore=_EXISTS,
    )


def fdb_delete(
    index: int, remote: IPv4Address | IPv6Address, mac: str = "00:00:00:00:00:00"
) -> Message:
    """Undo :func:`fdb_append`."""
    return Message(
        type=RTM_DELNEIGH,
        body=_fdb_body(index, remote, mac),
        what=f"delete forwarding entry {mac} to {remote}",
        ignore=_GONE,
    )


def _fdb_body(index: int, remote: IPv4Address | IPv6Address, mac: str) -> bytes:
    return (
        _NDMSG.pack(socket.AF_BRIDGE, index, _NUD_PERMANENT, _NTF_SELF, 0)
        + netlink.attribute(_NDA_LLADDR, mac_bytes(mac))
        + netlink.attribute(_NDA_DST, remote.packed)
    )
