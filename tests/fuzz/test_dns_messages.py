"""Hostile DNS packets: always an answer that parses, a refusal, or silence; never an error."""

from __future__ import annotations

from ipaddress import ip_address

from dnslib import EDNS0, RCODE, DNSRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.network.dns import (
    Host,
    View,
    question_end,
    response_code,
    reverse_name,
    same_question,
    zone,
)

ZONE = zone(
    "net",
    [
        Host(names=("db",), addresses=(ip_address("10.0.0.2"), ip_address("fd00::2"))),
        *(Host(names=("web",), addresses=(ip_address(f"10.1.{i}.1"),)) for i in range(80)),
    ],
)


def query(name: str, kind: str = "A", *, edns: bool = False) -> bytes:
    record = DNSRecord.question(name, kind)
    if edns:
        record.add_ar(EDNS0(udp_len=4096))
    return bytes(record.pack())


def check(message: bytes, *, tcp: bool) -> None:
    view = View([ZONE])
    for _ in range(2):  # the second one comes from the cache
        answer = view.answer(message, tcp=tcp)
        if answer:
            assert answer[:2] == message[:2]
            assert answer[2] & 0x80
            assert tcp or len(answer) <= 1232
            if response_code(answer) == RCODE.NOERROR:
                DNSRecord.parse(answer)
        same_question(message, answer or b"")
    response_code(message)


@given(st.binary(max_size=200), st.booleans())
def test_random_bytes(message: bytes, tcp: bool) -> None:
    check(message, tcp=tcp)


@settings(max_examples=400)
@given(
    st.sampled_from(
        [
            query("db"),
            query("web", edns=True),
            query("db.net", "AAAA", edns=True),
            query("2.0.0.10.in-addr.arpa", "PTR"),
        ]
    ),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=4),
    st.integers(0, 80),
    st.binary(max_size=20),
)
def test_damaged_queries(
    message: bytes, changes: list[tuple[int, int]], cut: int, tail: bytes
) -> None:
    damaged = bytearray(message)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    check(bytes(damaged[: cut or None]) + tail, tcp=False)


@given(st.text(max_size=80))
def test_reverse_names(text: str) -> None:
    for suffix in ("", ".in-addr.arpa", ".ip6.arpa"):
        reverse_name(text + suffix)


@given(st.ip_addresses())
def test_reverse_names_of_addresses(address: object) -> None:
    pointer = address.reverse_pointer  # type: ignore[attr-defined]
    assert reverse_name(pointer.upper() + ".") == address


def test_what_is_refused_and_what_is_cut() -> None:
    view = View([ZONE])
    big = DNSRecord.parse(view.answer(query("web")) or b"")
    assert big.header.tc
    whole = DNSRecord.parse(view.answer(query("web"), tcp=True) or b"")
    assert len(whole.rr) == 80
    assert not whole.header.tc
    # what fits is there all the same: some clients never ask by TCP
    for cut, size in (
        (big, 512),
        (DNSRecord.parse(view.answer(query("web", edns=True)) or b""), 1232),
    ):
        assert 0 <= size - len(cut.pack()) < 16
        assert {str(rr.rdata) for rr in cut.rr} < {str(rr.rdata) for rr in whole.rr}
    with_option = DNSRecord.parse(view.answer(query("db", edns=True)) or b"")
    assert [rr.rtype for rr in with_option.ar] == [41]
    without = DNSRecord.parse(view.answer(query("db")) or b"")
    assert not without.ar
    assert view.answer(query("elsewhere.example")) is None
    assert view.answer(b"\0" * 11) == b""
    assert view.answer(bytes(with_option.pack())) == b""  # a response is not asked back
    update = bytearray(query("db"))
    update[2] |= 5 << 3
    assert response_code(view.answer(bytes(update)) or b"") == RCODE.NOTIMP
    two = bytearray(query("db"))
    two[5] = 2
    assert response_code(view.answer(bytes(two)) or b"") == RCODE.FORMERR
    assert response_code(view.answer(query("db")[:-3]) or b"") == RCODE.FORMERR
    future = bytearray(query("db", edns=True))
    future[-5] = 1  # EDNS version 1
    assert DNSRecord.parse(view.answer(bytes(future)) or b"").ar[0].ttl >> 24 == 1
    assert question_end(query("db")) == len(query("db"))


def test_answers_of_large_services() -> None:
    """Whatever their number, all are there by TCP, in turns that begin with many of them."""
    many = [ip_address("10.0.0.0") + number for number in range(1000)]
    view = View([zone("net", [Host(names=("many",), addresses=tuple(many))])])
    first, found = set(), {str(address) for address in many}
    for _ in range(70):
        whole = DNSRecord.parse(view.answer(query("many"), tcp=True) or b"")
        assert {str(rr.rdata) for rr in whole.rr} == found
        first.add(str(whole.rr[0].rdata))
        assert {str(rr.rname) for rr in whole.rr} == {"many."}
    assert len(first) == 63
