"""Matches of iptables(8) in nftables rules, told as libnftables-json(5) tells matches.

iptables-nft keeps what nft has no words of its own for as *xt* expressions, of which
libnftables-json(5) shows the name alone. What they say is read from the kernel and decoded here:
several ports (``multiport``: what ``ufw allow 80,443/tcp`` makes), the state of the connection
(``conntrack``, ``state``) and the kind of address (``addrtype``). Structures are those of
linux/netfilter/xt_multiport.h, xt_conntrack.h and xt_addrtype.h.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence

from sampan.kernel import netlink
from sampan.kernel.netlink import NETLINK_NETFILTER, Message, NetlinkSocket
from sampan.network.hostinput import Object

_FAMILIES = {"inet": 1, "ip": socket.AF_INET, "ip6": socket.AF_INET6}
_GETRULE = 10 << 8 | 7
_RULE_TABLE, _RULE_HANDLE, _RULE_EXPRESSIONS = 1, 3, 4
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_MATCH_NAME, _MATCH_REVISION, _MATCH_INFO = 1, 2, 3
_NFGENMSG = struct.Struct("=BBH")
_ATTRIBUTE = struct.Struct("=HH")

#: flags, count, ports, whether each begins a range, whether inverted
_MULTIPORT = struct.Struct("=BB15H15BB")
_PORTS_SIDES = {0: "sport", 1: "dport"}
#: addresses and masks, expiry, protocol and ports; match and invert flags, states, statuses
_CONNTRACK = struct.Struct("=128x8x10xHHHH")
_CONNTRACK_STATE = 1
_STATES = {1: "invalid", 2: "established", 4: "related", 8: "new", 1 << 8: "untracked"}
_ADDRTYPE = struct.Struct("=HHI")
_ADDRTYPE_INVERT_SOURCE, _ADDRTYPE_INVERT_TARGET = 1, 2
_KINDS = ("unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole",
          "unreachable", "prohibit")  # fmt: skip


def told(listing: str, family: str, table: str) -> str:
    """``nft -j list table`` with the matches of iptables in it told, where they are known.

    Works in the network namespace of the calling thread. Raises :class:`OSError`.
    """
    if '"xt"' not in listing:
        return listing
    document = json.loads(listing)
    known = _matches(family, table)
    for entry in document["nftables"]:
        if rule := entry.get("rule"):
            rule["expr"] = explained(rule["expr"], known.get(rule["handle"], ()))
    return json.dumps(document)


def explained(rule: Sequence[Object], matches: Sequence[Object | None]) -> list[Object]:
    """A rule's statements, those about matches of iptables replaced by ``matches``, which are
    told in the same order; ``None`` leaves one as it is (pure)."""
    if [_is_match(statement) for statement in rule].count(True) != len(matches):
        return list(rule)  # another rule than was listed
    following = iter(matches)
    found: list[Object] = []
    for statement in rule:
        match = next(following) if _is_match(statement) else None
        found.append(match or statement)
    return found


def _is_match(statement: Object) -> bool:
    value = statement.get("xt")
    return isinstance(value, Mapping) and value.get("type") == "match"


def _matches(family: str, table: str) -> dict[int, list[Object | None]]:
    """The matches of iptables of each rule of a table, by the rule's handle."""
    body = _NFGENMSG.pack(_FAMILIES[family], 0, 0) + netlink.text(_RULE_TABLE, table)
    found = {}
    with NetlinkSocket(NETLINK_NETFILTER) as sock:
        for _, answer in sock.dump(Message(type=_GETRULE, body=body, what=f"rules of {table}")):
            rule = netlink.attributes(answer, _NFGENMSG.size)
            handle = int.from_bytes(rule.get(_RULE_HANDLE, b""), "big")
            found[handle] = list(_decoded(rule.get(_RULE_EXPRESSIONS, b"")))
    return found


def _decoded(expressions: bytes) -> Iterator[Object | None]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(expressions):
        length, _ = _ATTRIBUTE.unpack_from(expressions, offset)
        expression = netlink.attributes(expressions[offset + _ATTRIBUTE.size : offset + length])
        if expression.get(_EXPRESSION_NAME) == b"match\0":
            match = netlink.attributes(expression.get(_EXPRESSION_DATA, b""))
            name = match.get(_MATCH_NAME, b"").rstrip(b"\0").decode(errors="replace")
            revision = int.from_bytes(match.get(_MATCH_REVISION, b""), "big")
            yield decode(name, revision, match.get(_MATCH_INFO, b""))
        offset += max(_ATTRIBUTE.size, (length + 3) & ~3)


def decode(name: str, revision: int, info: bytes) -> Object | None:
    """What a match says, or ``None`` where that cannot be told in full (pure)."""
    if (name, revision) == ("multiport", 1) and len(info) >= _MULTIPORT.size:
        return _multiport(info)
    if (name, revision) == ("conntrack", 3) and len(info) >= _CONNTRACK.size:
        return _conntrack(info)
    if (name, revision) == ("addrtype", 1) and len(info) >= _ADDRTYPE.size:
        return _addrtype(info)
    return None


def _multiport(info: bytes) -> Object | None:
    side, count, *rest, inverted = _MULTIPORT.unpack_from(info)
    if side not in _PORTS_SIDES or count > 15:  # "either" is two matches, one of which holds
        return None
    ports, begins = rest[:15], rest[15:]
    elements: list[object] = []
    index = 0
    while index < count:
        if begins[index] and index + 1 < count:
            elements.append({"range": [ports[index], ports[index + 1]]})
            index += 1
        else:
            elements.append(ports[index])
        index += 1
    left: Object = {"payload": {"protocol": "th", "field": _PORTS_SIDES[side]}}
    return _among(left, elements, inverted=bool(inverted))


def _conntrack(info: bytes) -> Object | None:
    looked_at, inverted, states, _ = _CONNTRACK.unpack_from(info)
    if looked_at != _CONNTRACK_STATE or states & ~sum(_STATES):
        return None  # more than the state, or states that translation makes
    names: list[object] = [name for bit, name in _STATES.items() if states & bit]
    return _among({"ct": {"key": "state"}}, names, inverted=bool(inverted & _CONNTRACK_STATE))


def _addrtype(info: bytes) -> Object | None:
    source, target, flags = _ADDRTYPE.unpack_from(info)
    kinds, end, invert = (
        (source, "saddr", _ADDRTYPE_INVERT_SOURCE)
        if source
        else (target, "daddr", _ADDRTYPE_INVERT_TARGET)
    )
    if (source and target) or flags & ~invert or kinds >> len(_KINDS):
        return None
    names: list[object] = [name for bit, name in enumerate(_KINDS) if kinds >> bit & 1]
    left: Object = {"fib": {"result": "type", "flags": [end]}}
    return _among(left, names, inverted=bool(flags & invert))


def _among(left: Object, elements: list[object], *, inverted: bool) -> Object | None:
    if not elements:
        return None
    operator = "!=" if inverted else "=="
    return {"match": {"op": operator, "left": left, "right": {"set": elements}}}
