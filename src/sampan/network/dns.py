"""What the embedded resolver answers by itself (pure): RFC 1035, RFC 6891 (EDNS0).

The engine describes each network by a :class:`Zone`; a container sees the zones of its networks,
in order, through a :class:`View`. Names known there are answered, whatever is asked about them;
everything else is for the upstream servers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address

from dnslib import AAAA, EDNS0, OPCODE, PTR, QTYPE, RCODE, RR, A, DNSError, DNSRecord

from sampan.network.model import IPAddress

#: Seconds an answer may be remembered; addresses change when containers restart (as Docker's).
TTL = 600
#: What we say we can take by UDP, and the most we send when the client can take it.
EDNS_SIZE = 1232
_PLAIN_SIZE = 512
_HEADER = struct.Struct(">HHHHHH")
_QR, _RD, _RA = 0x8000, 0x0100, 0x0080
_CACHE_LIMIT = 2048
#: Orders of one answer's records that are kept ready.
_ROTATIONS = 64
_TC = 0x0200
#: A resource record before its data, its name a pointer to the question's (RFC 1035, 4.1.4).
_RECORD_SIZE = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """Names of one network: ``addresses`` by lower-case name without the final dot (container
    names, aliases, services), ``names`` by address for reverse look-ups. ``aliases`` are names
    for other names of any zone, present or not (links)."""

    addresses: Mapping[str, tuple[IPAddress, ...]] = field(default_factory=dict)
    names: Mapping[IPAddress, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One container on a network, for :func:`zone`."""

    names: tuple[str, ...]
    addresses: tuple[IPAddress, ...]


def zone(network_name: str, hosts: Iterable[Host]) -> Zone:
    """The zone of a network: each host under every name it has, alone and followed by the
    network's; hosts of one name (a service) together."""
    addresses: dict[str, tuple[IPAddress, ...]] = {}
    names: dict[IPAddress, str] = {}
    suffix = network_name.lower()
    for host in hosts:
        for name in dict.fromkeys(n.lower().rstrip(".") for n in host.names if n.rstrip(".")):
            for full in (name, f"{name}.{suffix}"):
                held = addresses.get(full, ())
                addresses[full] = held + tuple(a for a in host.addresses if a not in held)
        if host.names:
            names.update(dict.fromkeys(host.addresses, f"{host.names[0]}.{network_name}"))
    return Zone(addresses=addresses, names=names)


def reverse_name(name: str) -> IPAddress | None:
    """The address that ``4.3.2.1.in-addr.arpa`` or an ``ip6.arpa`` name is about."""
    lowered = name.lower().rstrip(".")
    if lowered.endswith(".in-addr.arpa"):
        labels = lowered.removesuffix(".in-addr.arpa").split(".")
        text = ".".join(reversed(labels))
        wanted = 4
    elif lowered.endswith(".ip6.arpa"):
        labels = lowered.removesuffix(".ip6.arpa").split(".")
        if any(len(label) != 1 for label in labels):
            return None
        digits = "".join(reversed(labels))
        text = ":".join(digits[i : i + 4] for i in range(0, len(digits), 4))
        wanted = 32
    else:
        return None
    if len(labels) != wanted:
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None


class View:
    """One container's sight of names, with a cache of whole answers.

    Answers are built by dnslib once for each distinct question and kept as bytes, one for each
    rotation of the addresses, so that the usual query costs a dictionary look-up.
    """

    def __init__(self, zones: Sequence[Zone], own: Zone | None = None) -> None:
        """``own`` holds names only this container sees (links), before all others."""
        self._zones = ([own] if own is not None else []) + list(zones)
        self._cache: dict[tuple[bytes, bool], _Answers] = {}

    def answer(self, query: bytes, *, tcp: bool = False) -> bytes | None:
        """The answer to a query in wire format; ``None`` when it is for upstream; ``b""`` when
        it deserves none (not a query at all)."""
        if len(query) < _HEADER.size or query[2] & 0x80:
            return b""
        key = (query[2:], tcp)
        cached = self._cache.get(key)
        if cached is None:
            if len(self._cache) >= _CACHE_LIMIT:
                self._cache.clear()
            cached = self._cache[key] = _Answers(self._build(query, tcp))
        following = cached.next()
        return None if following is None else query[:2] + following

    def _build(self, query: bytes, tcp: bool) -> Sequence[bytes]:
        """Every rotation of the answer; none when it is for upstream."""
        _, flags, questions, _, _, _ = _HEADER.unpack_from(query)
        if (flags >> 11) & 0xF != OPCODE.QUERY:
            return [refusal(query, RCODE.NOTIMP)]
        end = question_end(query)
        if questions != 1 or not end:
            return [refusal(query, RCODE.FORMERR)]
        kind = int.from_bytes(query[end - 4 : end - 2], "big")
        records = self._records(_text_name(query[_HEADER.size : end - 4]), kind)
        if records is None:
            return []  # upstream may understand what we would not: nothing else is looked at
        try:
            request = DNSRecord.parse(query)
        except (DNSError, ValueError, IndexError, struct.error):
            return [refusal(query, RCODE.FORMERR)]
        option = next((rr for rr in request.ar if rr.rtype == QTYPE.OPT), None)
        if option is not None and (option.ttl >> 16) & 0xFF:
            # RFC 6891, 6.1.3: a version we do not know; BADVERS has its upper bits in OPT.
            return [_bad_version(request)]
        size = _PLAIN_SIZE if option is None else max(_PLAIN_SIZE, min(option.rclass, EDNS_SIZE))
        return _rotations(request, records, 0xFFFF if tcp else size, with_option=option is not None)

    def _records(self, name: str, kind: int) -> list[RR] | None:
        """Resource records about ``name``; ``None`` when nobody here knows it."""
        address = reverse_name(name)
        if address is not None:
            found = next((z.names[address] for z in self._zones if address in z.names), None)
            if found is None:
                return None
            return [RR(name, QTYPE.PTR, rdata=PTR(found), ttl=TTL)] if kind == QTYPE.PTR else []
        meant = next((z.aliases[name] for z in self._zones if name in z.aliases), name)
        known = next((z.addresses[meant] for z in self._zones if meant in z.addresses), None)
        if known is None:
            return None
        # Known, but not of the kind asked for: an empty answer. Asking upstream would tell
        # strangers our names and could bring a wrong address back.
        return [
            RR(name, QTYPE.A, rdata=A(str(a)), ttl=TTL)
            if isinstance(a, IPv4Address)
            else RR(name, QTYPE.AAAA, rdata=AAAA(str(a)), ttl=TTL)
            for a in known
            if kind == (QTYPE.A if isinstance(a, IPv4Address) else QTYPE.AAAA) or kind == QTYPE.ANY
        ]


class _Answers:
    """The rotations of one answer, given out in turn."""

    __slots__ = ("_responses", "_turn")

    def __init__(self, responses: Sequence[bytes]) -> None:
        self._responses = [response[2:] for response in responses]
        self._turn = 0

    def next(self) -> bytes | None:
        """The next rotation without its id; ``None`` when the question is for upstream."""
        responses = self._responses
        if not responses:
            return None
        self._turn = (self._turn + 1) % len(responses)
        return responses[self._turn]


def _text_name(wire: bytes) -> str:
    """The name in ``wire`` (labels up to the empty one) as zones write names. A dot inside a
    label could pose as a border between two: such a name is nobody's."""
    labels = []
    offset = 0
    while length := wire[offset]:
        labels.append(wire[offset + 1 : offset + 1 + length])
        offset += 1 + length
    if any(b"." in label for label in labels):
        return ""
    return b".".join(labels).decode("utf-8", "replace").lower()


def _rotations(
    request: DNSRecord, records: Sequence[RR], size: int, *, with_option: bool
) -> list[bytes]:
    """The answer with its records in one order after another, that clients who take the first
    address spread. Of more than fit in ``size`` as many as fit are sent, and said to be not all:
    who can asks again by TCP, who cannot has some."""
    reply = request.reply(ra=1, aa=0)
    reply.header.rd = request.header.rd
    for record in records:
        # As asked, letter case included: clients compare it (draft-vixie-dnsext-dns0x20).
        record.rname = request.q.qname
        reply.add_answer(record)
    if with_option:
        reply.add_ar(EDNS0(udp_len=EDNS_SIZE))
    packed = bytes(reply.pack())
    if len(records) < 2 and len(packed) <= size:
        return [packed]
    start = offset = question_end(packed)
    parts = []
    for _ in records:
        end = offset + _RECORD_SIZE
        end += int.from_bytes(packed[end - 2 : end], "big")
        parts.append(packed[offset:end])
        offset = end
    before, after = packed[:start], packed[offset:]
    return [
        _cut(before, [*parts[turn:], *parts[:turn]], after, size)
        for turn in range(0, len(parts), 1 + (len(parts) - 1) // _ROTATIONS)
    ]


def _cut(before: bytes, parts: Sequence[bytes], after: bytes, size: int) -> bytes:
    """The message of its header and question, as many records as fit, and what follows them."""
    room, count = size - len(before) - len(after), 0
    for part in parts:
        room -= len(part)
        if room < 0:
            break
        count += 1
    identifier, flags, questions, _, authorities, additional = _HEADER.unpack_from(before)
    if count < len(parts):
        flags |= _TC
    header = _HEADER.pack(identifier, flags, questions, count, authorities, additional)
    return header + before[_HEADER.size :] + b"".join(parts[:count]) + after


def _bad_version(request: DNSRecord) -> bytes:
    reply = request.reply(ra=1, aa=0)
    reply.add_ar(EDNS0(udp_len=EDNS_SIZE, ext_rcode=1))
    return bytes(reply.pack())


def refusal(query: bytes, code: int) -> bytes:
    """An answer with only an error code, made without trusting anything after the header; the
    question is repeated when it can be told where it ends."""
    identifier, flags, _, _, _, _ = _HEADER.unpack_from(query)
    end = question_end(query)
    header = _QR | (flags & (0x7800 | _RD)) | _RA | code
    count = 1 if end else 0
    return _HEADER.pack(identifier, header, count, 0, 0, 0) + query[_HEADER.size : end or 0]


def question_end(message: bytes) -> int:
    """Where the first question ends; 0 when there is no whole one. Names in questions of queries
    are not compressed (RFC 1035, 4.1.4: pointers need an earlier name)."""
    if len(message) < _HEADER.size or message[4:6] == b"\0\0":
        return 0
    offset = _HEADER.size
    while offset < len(message):
        length = message[offset]
        if length == 0:
            end = offset + 1 + 4
            return end if end <= len(message) else 0
        if length > 63 or offset - _HEADER.size > 254:
            return 0
        offset += 1 + length
    return 0


def same_question(query: bytes, response: bytes) -> bool:
    """Whether ``response`` answers ``query``: a response, and to this question, letter for
    letter (upper or lower)."""
    end = question_end(query)
    return (
        end > 0
        and len(response) >= end
        and bool(response[2] & 0x80)
        and query[_HEADER.size : end].lower() == response[_HEADER.size : end].lower()
    )


def response_code(response: bytes) -> int:
    """The RCODE of a message."""
    return response[3] & 0x0F if len(response) >= _HEADER.size else int(RCODE.FORMERR)
