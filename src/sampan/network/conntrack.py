"""Connection tracking entries that would outlive what they were about (ctnetlink).

UDP has no end of connection: a client that keeps sending to a published port keeps the entry of
the container that used to be there. Entries are deleted when a port is published or given back.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable

from sampan.kernel import netlink
from sampan.kernel.netlink import NETLINK_NETFILTER, Message, NetlinkSocket

_NFNL_SUBSYS_CTNETLINK = 1
_IPCTNL_MSG_CT_GET, _IPCTNL_MSG_CT_DELETE = 1, 2
_CTA_TUPLE_ORIG, _CTA_ZONE = 1, 18
_CTA_TUPLE_PROTO = 2
_CTA_PROTO_NUM, _CTA_PROTO_DST_PORT = 1, 3
_NFGENMSG = struct.Struct("=BBH")


def forget_udp_ports(ports: Iterable[int]) -> int:
    """Delete every UDP entry whose original destination port is in ``ports``; returns how many.

    A kernel without connection tracking has none to delete.
    """
    wanted = frozenset(ports)
    if not wanted:
        return 0
    try:
        with NetlinkSocket(NETLINK_NETFILTER) as sock:
            return sum(
                _forget(sock, family, wanted) for family in (socket.AF_INET, socket.AF_INET6)
            )
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL):
            return 0
        raise


def _forget(sock: NetlinkSocket, family: int, ports: frozenset[int]) -> int:
    header = _NFGENMSG.pack(family, 0, 0)
    request = Message(
        type=_NFNL_SUBSYS_CTNETLINK << 8 | _IPCTNL_MSG_CT_GET, body=header, what="conntrack"
    )
    doomed = []
    for _, body in sock.dump(request):
        entry = netlink.attributes(body, _NFGENMSG.size)
        original = entry.get(_CTA_TUPLE_ORIG, b"")
        protocol = netlink.attributes(netlink.attributes(original).get(_CTA_TUPLE_PROTO, b""))
        number = protocol.get(_CTA_PROTO_NUM, b"\0")[0]
        port = int.from_bytes(protocol.get(_CTA_PROTO_DST_PORT, b""), "big")
        if number != socket.IPPROTO_UDP or port not in ports:
            continue
        body = header + netlink.nested(_CTA_TUPLE_ORIG, original)
        if _CTA_ZONE in entry:
            body += netlink.attribute(_CTA_ZONE, entry[_CTA_ZONE])
        doomed.append(
            Message(
                type=_NFNL_SUBSYS_CTNETLINK << 8 | _IPCTNL_MSG_CT_DELETE,
                body=body,
                what="conntrack entry",
                ignore=frozenset({errno.ENOENT}),  # it timed out meanwhile
            )
        )
    for message in doomed:
        sock.request([message])
    return len(doomed)
