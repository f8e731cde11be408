"""The embedded resolver in real namespaces: names, forwarding, TCP, re-plugging."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from dnslib import QTYPE, RCODE, RR, TXT, A, DNSRecord

from sampan.kernel import netns
from sampan.network.dns import Host, Zone, zone
from sampan.network.resolver import Resolver

from .conftest import HOST4, OUTSIDE4, World, make_network


def query(
    netns_fd: int, name: str, kind: str = "A", *, tcp: bool = False, server: str = "127.0.0.11"
) -> DNSRecord:
    request = DNSRecord.question(name, kind)
    family = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with netns.open_socket(netns_fd, socket.AF_INET, family) as sock:
        sock.settimeout(8)
        sock.connect((server, 53))
        packed = request.pack()
        if not tcp:
            sock.send(packed)
            answer = sock.recv(65535)
        else:
            sock.sendall(len(packed).to_bytes(2, "big") + packed)
            file = sock.makefile("rb")
            answer = file.read(int.from_bytes(file.read(2), "big"))
            file.close()
    parsed = DNSRecord.parse(answer)
    assert parsed.header.id == request.header.id
    return parsed


def addresses(answer: DNSRecord) -> list[str]:
    assert answer.header.rcode == RCODE.NOERROR
    return [str(rr.rdata) for rr in answer.rr]


class UpstreamServer:
    """A DNS server of somebody else: answers every A with its own address, TXT with who asked;
    truncates UDP answers about ``big``; the one outside says SERVFAIL about ``broken`` and
    REFUSED about ``closed``."""

    def __init__(self, netns_fd: int, address: str) -> None:
        self.udp = netns.open_socket(netns_fd, socket.AF_INET, socket.SOCK_DGRAM)
        self.tcp = netns.open_socket(netns_fd, socket.AF_INET, socket.SOCK_STREAM)
        self.address = address
        for sock in (self.udp, self.tcp):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, 53))
        self.tcp.listen(5)
        self.threads = [threading.Thread(target=f) for f in (self._datagrams, self._streams)]
        for thread in self.threads:
            thread.start()

    def _answer(self, data: bytes, peer: str, *, tcp: bool) -> bytes:
        request = DNSRecord.parse(data)
        reply = request.reply()
        if "broken" in str(request.q.qname) and self.address == OUTSIDE4:
            reply.header.rcode = RCODE.SERVFAIL
        elif "closed" in str(request.q.qname) and self.address == OUTSIDE4:
            reply.header.rcode = RCODE.REFUSED
        elif "big" in str(request.q.qname) and not tcp:
            reply.header.tc = 1
        elif request.q.qtype == QTYPE.TXT:
            reply.add_answer(RR(request.q.qname, QTYPE.TXT, rdata=TXT(peer)))
        else:
            reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A(self.address)))
        return bytes(reply.pack())

    def _datagrams(self) -> None:
        while True:
            data, peer = self.udp.recvfrom(4096)
            if peer is None or data == b"":
                return
            self.udp.sendto(self._answer(data, peer[0], tcp=False), peer)

    def _streams(self) -> None:
        while True:
            try:
                connection, peer = self.tcp.accept()
            except OSError:
                return
            with connection:
                length = int.from_bytes(connection.recv(2), "big")
                answer = self._answer(connection.recv(length), peer[0], tcp=True)
                connection.sendall(len(answer).to_bytes(2, "big") + answer)

    def close(self) -> None:
        for sock in (self.udp, self.tcp):
            with contextlib.suppress(OSError):  # not connected, but its reader wakes up
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        self.udp.close()
        self.tcp.close()


@pytest.fixture
def resolver(world: World) -> Iterator[Resolver]:
    resolver = Resolver()
    yield resolver
    resolver.close()


ZONE = zone(
    "Backend",
    [
        Host(
            names=("db", "Primary"),
            addresses=(ip_address("172.17.0.5"), ip_address("fd00:17::5")),
        ),
        Host(names=("web",), addresses=(ip_address("172.17.0.6"),)),
        Host(names=("web",), addresses=(ip_address("172.17.0.7"),)),
    ],
)


def test_names_of_the_networks(world: World, resolver: Resolver) -> None:
    net = make_network(17)
    world.driver.ensure(net)
    fd, _, _ = world.start(net, 2)
    resolver.plug(
        "c1",
        fd,
        networks=["n1", "n2"],
        own=Zone(addresses={"link": (ip_address("172.17.0.9"),)}),
    )
    resolver.set_zone("n1", ZONE)
    assert addresses(query(fd, "db")) == ["172.17.0.5"]
    assert addresses(query(fd, "DB.backend.")) == ["172.17.0.5"]
    assert addresses(query(fd, "primary", "AAAA")) == ["fd00:17::5"]
    assert addresses(query(fd, "link")) == ["172.17.0.9"]
    # every address of a service, each first in turn
    turns = [addresses(query(fd, "web")) for _ in range(4)]
    assert {tuple(sorted(turn)) for turn in turns} == {("172.17.0.6", "172.17.0.7")}
    assert {turn[0] for turn in turns} == {"172.17.0.6", "172.17.0.7"}
    # known, but nothing of that kind: empty, not forwarded
    assert addresses(query(fd, "web", "AAAA")) == []
    assert addresses(query(fd, "web", "MX")) == []
    assert addresses(query(fd, "5.0.17.172.in-addr.arpa", "PTR")) == ["db.Backend."]
    assert addresses(query(fd, ip_address("fd00:17::5").reverse_pointer, "PTR")) == ["db.Backend."]
    assert addresses(query(fd, "db", tcp=True)) == ["172.17.0.5"]
    # no upstream servers: nobody to ask, as dockerd says it
    assert query(fd, "nowhere.example").header.rcode == RCODE.SERVFAIL
    assert query(fd, "nowhere.example", tcp=True).header.rcode == RCODE.SERVFAIL
    resolver.set_zone("n1", Zone())
    assert query(fd, "db").header.rcode == RCODE.SERVFAIL
    resolver.set_zone("n2", Zone(addresses={"db": (ip_address("10.0.0.1"),)}))
    assert addresses(query(fd, "db")) == ["10.0.0.1"]
    resolver.change("c1", ["n1"])
    assert query(fd, "db").header.rcode == RCODE.SERVFAIL


def test_other_names_are_forwarded(world: World, resolver: Resolver) -> None:
    net = make_network(17)
    world.driver.ensure(net)
    fd, _, _ = world.start(net, 2)
    # one elsewhere, one that only the container can reach
    first, second = UpstreamServer(world.outside, OUTSIDE4), UpstreamServer(fd, "127.0.0.53")
    try:
        # 203.0.113.1 is the host, where nobody listens: refused, and the next one is asked
        resolver.plug("c1", fd, networks=["n1"], upstream=[HOST4, OUTSIDE4])
        resolver.set_zone("n1", ZONE)
        assert addresses(query(fd, "www.example")) == [OUTSIDE4]
        assert addresses(query(fd, "db")) == ["172.17.0.5"]
        assert addresses(query(fd, "who.example", "TXT")) == [f'"{HOST4}"']
        truncated = query(fd, "big.example")
        assert truncated.header.tc
        assert addresses(query(fd, "big.example", tcp=True)) == [OUTSIDE4]
        for tcp in (False, True):
            for name in ("broken.example", "closed.example"):
                assert query(fd, name, tcp=tcp).header.rcode == RCODE.SERVFAIL
        # servers given with --dns are asked from the container's own namespace
        resolver.plug("c1", fd, networks=["n1"], upstream=["127.0.0.53"], from_host=False)
        assert addresses(query(fd, "www.example")) == ["127.0.0.53"]
        assert addresses(query(fd, "big.example", tcp=True)) == ["127.0.0.53"]
        # who cannot tell is not the last one asked, by neither way
        servers = [OUTSIDE4, "127.0.0.53"]
        resolver.plug("c1", fd, networks=["n1"], upstream=servers, from_host=False)
        for tcp in (False, True):
            assert addresses(query(fd, "broken.example", tcp=tcp)) == ["127.0.0.53"]
            assert addresses(query(fd, "closed.example", tcp=tcp)) == ["127.0.0.53"]
            assert addresses(query(fd, "www.example", tcp=tcp)) == [OUTSIDE4]
    finally:
        first.close()
        second.close()


def test_port_53_stays_free_and_a_new_daemon_takes_over(world: World, resolver: Resolver) -> None:
    net = make_network(17)
    world.driver.ensure(net)
    fd, _, _ = world.start(net, 2)
    resolver.plug("c1", fd, networks=["n1"])
    resolver.set_zone("n1", ZONE)
    with (
        netns.open_socket(fd, socket.AF_INET, socket.SOCK_DGRAM) as udp,
        netns.open_socket(fd, socket.AF_INET, socket.SOCK_STREAM) as tcp,
    ):
        udp.bind(("0.0.0.0", 53))
        tcp.bind(("0.0.0.0", 53))
        assert addresses(query(fd, "db")) == ["172.17.0.5"]
    after_restart = Resolver()
    try:
        after_restart.set_zone("n1", ZONE)
        after_restart.plug("c1", fd, networks=["n1"])
        resolver.close()
        assert addresses(query(fd, "db")) == ["172.17.0.5"]
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            after_restart.plug("c1", fd, networks=["n1"], from_host=False)
        assert addresses(query(fd, "db", tcp=True)) == ["172.17.0.5"]
        assert len(os.listdir("/proc/self/fd")) <= before + 2
        after_restart.unplug("c1")
        after_restart.unplug("c1")
    finally:
        after_restart.close()


def test_garbage_does_not_stop_it(world: World, resolver: Resolver) -> None:
    net = make_network(17)
    world.driver.ensure(net)
    fd, _, _ = world.start(net, 2)
    resolver.plug("c1", fd, networks=["n1"])
    resolver.set_zone("n1", ZONE)
    with netns.open_socket(fd, socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.11", 53))
        for size in range(0, 600, 7):
            sock.send(os.urandom(size))
    with netns.open_socket(fd, socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.connect(("127.0.0.11", 53))
        sock.sendall(b"\0\5hello" + os.urandom(50))
    assert addresses(query(fd, "db")) == ["172.17.0.5"]
