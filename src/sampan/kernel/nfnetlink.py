"""nf_tables over netlink without libnftables, for what must work with any descriptor number.

libnftables waits with select(2), which ends the process when its socket's number is 1024 or more.
A daemon with many containers may only use a context it opened early; what is done in a
container's namespace needs a socket of its own each time, so that little is spoken here directly.
Numbers are those of linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address

from sampan.kernel import netlink
from sampan.kernel.netlink import (
    NETLINK_NETFILTER,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    NetlinkSocket,
)

_SUBSYS = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0, 2, 3, 6
_TABLE_NAME = 1
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 3, 4, 5, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_HOOK_LOCAL_OUT, _PRIORITY_DSTNAT, _ACCEPT = 3, -100, 1
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_LIST_ELEMENT, _EXPRESSION_NAME, _EXPRESSION_DATA, _DATA_VALUE = 1, 1, 2, 1
_BASE_NETWORK, _BASE_TRANSPORT = 1, 2
_META_L4PROTO, _NAT_DNAT = 16, 1
_REGISTER_1, _REGISTER_2 = 1, 2
_DADDR_OFFSET, _DPORT_OFFSET = 16, 2
_NFGENMSG = struct.Struct(">BBH")


def redirect_messages(
    table: str, address: IPv4Address, port: int, targets: Sequence[tuple[int, int]]
) -> list[Message]:
    """One transaction that makes ``table`` (of family ip, new) with a chain at the output hook:
    packets for ``address``, ``port`` go to another port of it. ``targets`` are (IP protocol
    number, port to go to) (pure)."""
    name = netlink.text(_TABLE_NAME, table)
    batch = [
        _edge(_BATCH_BEGIN),
        _message(_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, name),
        _message(
            _NEWCHAIN,
            NLM_F_CREATE | NLM_F_EXCL,
            netlink.text(_CHAIN_TABLE, table)
            + netlink.text(_CHAIN_NAME, "output")
            + netlink.nested(
                _CHAIN_HOOK,
                _be32(_HOOK_NUMBER, _HOOK_LOCAL_OUT),
                _be32(_HOOK_PRIORITY, _PRIORITY_DSTNAT),
            )
            + _be32(_CHAIN_POLICY, _ACCEPT)
            + netlink.text(_CHAIN_TYPE, "nat"),
        ),
    ]
    batch.extend(
        _message(
            _NEWRULE,
            NLM_F_CREATE | NLM_F_APPEND,
            netlink.text(_RULE_TABLE, table)
            + netlink.text(_RULE_CHAIN, "output")
            + netlink.nested(_RULE_EXPRESSIONS, *_redirect(address, port, protocol, target)),
        )
        for protocol, target in targets
    )
    batch.append(_edge(_BATCH_END))
    return batch


def redirect(
    sock: NetlinkSocket,
    table: str,
    address: IPv4Address,
    port: int,
    targets: Sequence[tuple[int, int]],
) -> None:
    """Carry :func:`redirect_messages` out, in place of a table of that name if there is one.

    ``sock`` is a NETLINK_NETFILTER socket of the namespace concerned. Raises :class:`OSError`.
    """
    batch = redirect_messages(table, address, port, targets)
    # The end of a batch is acknowledged by new kernels only; what is before it, always.
    errors = sock.attempt(batch, acknowledge=len(batch) - 2)
    first = next((error for error in errors if error is not None), None)
    if first is not None and first.errno == errno.EEXIST:
        # Not always: deleting waits for RCU, 15 ms.
        batch.insert(1, _message(_DELTABLE, 0, netlink.text(_TABLE_NAME, table)))
        sock.request(batch, acknowledge=len(batch) - 2)
    elif first is not None:
        raise first


def open_socket() -> NetlinkSocket:
    """A socket for :func:`redirect` in the calling thread's namespace."""
    return NetlinkSocket(NETLINK_NETFILTER)


def _redirect(address: IPv4Address, port: int, protocol: int, target: int) -> list[bytes]:
    return [
        _payload(_BASE_NETWORK, _DADDR_OFFSET, 4),
        _equal(address.packed),
        _expression("meta", _be32(1, _REGISTER_1), _be32(2, _META_L4PROTO)),
        _equal(bytes((protocol,))),
        _payload(_BASE_TRANSPORT, _DPORT_OFFSET, 2),
        _equal(port.to_bytes(2, "big")),
        _immediate(_REGISTER_1, address.packed),
        _immediate(_REGISTER_2, target.to_bytes(2, "big")),
        _expression(
            "nat",
            _be32(1, _NAT_DNAT),
            _be32(2, socket.AF_INET),
            _be32(3, _REGISTER_1),
            _be32(4, _REGISTER_1),
            _be32(5, _REGISTER_2),
            _be32(6, _REGISTER_2),
        ),
    ]


def _payload(base: int, offset: int, length: int) -> bytes:
    return _expression(
        "payload", _be32(1, _REGISTER_1), _be32(2, base), _be32(3, offset), _be32(4, length)
    )


def _equal(value: bytes) -> bytes:
    data = netlink.nested(3, netlink.attribute(_DATA_VALUE, value))
    return _expression("cmp", _be32(1, _REGISTER_1), _be32(2, 0), data)


def _immediate(register: int, value: bytes) -> bytes:
    data = netlink.nested(2, netlink.attribute(_DATA_VALUE, value))
    return _expression("immediate", _be32(1, register), data)


def _expression(name: str, *attributes: bytes) -> bytes:
    return netlink.nested(
        _LIST_ELEMENT,
        netlink.text(_EXPRESSION_NAME, name),
        netlink.nested(_EXPRESSION_DATA, *attributes),
    )


def _be32(kind: int, value: int) -> bytes:
    return netlink.attribute(kind, (value & 0xFFFFFFFF).to_bytes(4, "big"))


def _message(kind: int, flags: int, body: bytes) -> Message:
    return Message(
        type=_SUBSYS << 8 | kind,
        flags=flags,
        body=_NFGENMSG.pack(socket.AF_INET, 0, 0) + body,
        what="nftables",
    )


def _edge(kind: int) -> Message:
    return Message(type=kind, body=_NFGENMSG.pack(0, 0, _SUBSYS), what="nftables batch")
