"""A host, a neighbour and containers, each a network namespace of the test's own."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from sampan.kernel import netns, rtdump, rtnetlink
from sampan.kernel.netlink import NetlinkSocket
from sampan.kernel.rtnetlink import LinkOptions
from sampan.network import ipam
from sampan.network.bridge import BridgeDriver
from sampan.network.model import EndpointSpec, EndpointStatus, NetworkSpec, PortBinding, Subnet

HOST4, OUTSIDE4 = "203.0.113.1", "203.0.113.2"
HOST6, OUTSIDE6 = "2001:db8::1", "2001:db8::2"
_BLOCKED = 0.3


def set_up(netns_fd: int, name: str, *addresses: str) -> None:
    """Bring ``name`` and loopback up, with addresses."""
    with netns.entered(netns_fd), NetlinkSocket() as sock:
        link = rtdump.link(sock, name)
        assert link is not None
        sock.request(
            [
                rtnetlink.link_set("lo", LinkOptions(up=True)),
                *(rtnetlink.address_add(link.index, ip_interface(a)) for a in addresses),
                rtnetlink.link_set(name, LinkOptions(up=True)),
            ]
        )


def add_address(netns_fd: int, *addresses: str) -> None:
    """Further addresses of a namespace, on its loopback interface."""
    with netns.entered(netns_fd), NetlinkSocket() as sock:
        link = rtdump.link(sock, "lo")
        assert link is not None
        sock.request([rtnetlink.address_add(link.index, ip_interface(a)) for a in addresses])


def add_route(netns_fd: int, destination: str, gateway: str) -> None:
    with netns.entered(netns_fd), NetlinkSocket() as sock:
        sock.request(
            [rtnetlink.route_add(ip_network(destination), gateway=ip_interface(gateway).ip)]
        )


@dataclass
class Server:
    """Answers every TCP connection or UDP datagram in a namespace with ``name peer-address``."""

    sock: socket.socket
    name: str
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                if self.sock.type == socket.SOCK_DGRAM:
                    _, peer = self.sock.recvfrom(2048)
                    if peer is None:  # shut down
                        return
                    self.sock.sendto(f"{self.name} {plain(peer[0])}".encode(), peer)
                    continue
                connection, peer = self.sock.accept()
                with connection:
                    connection.sendall(f"{self.name} {plain(peer[0])}".encode())

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


def plain(address: str) -> str:
    return address.removeprefix("::ffff:")


class World:
    """The namespaces of one test, and what happens in them."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self.host = self.namespace()
        self.outside = self.namespace()
        stack.enter_context(netns.entered(self.host))
        with NetlinkSocket() as sock:
            sock.request(
                [
                    rtnetlink.veth_add(
                        "uplink", LinkOptions(), "uplink", LinkOptions(netns_fd=self.outside)
                    )
                ]
            )
        set_up(self.host, "uplink", f"{HOST4}/24", f"{HOST6}/64", "fe80::1/64")
        set_up(self.outside, "uplink", f"{OUTSIDE4}/24", f"{OUTSIDE6}/64", "fe80::2/64")
        self._introduce(self.host, OUTSIDE6, self.outside)
        self._introduce(self.outside, HOST6, self.host)
        self.driver = BridgeDriver("sampan")
        stack.callback(self.driver.close)

    @staticmethod
    def filter_bridged(on: bool) -> None:
        """Have bridged packets pass the IP hooks or not (br_netfilter)."""
        for name in ("iptables", "ip6tables"):
            try:
                netns.write_sysctls({f"net.bridge.bridge-nf-call-{name}": str(int(on))})
            except FileNotFoundError:
                if on:
                    pytest.skip("the kernel has no br_netfilter")

    @staticmethod
    def _introduce(netns_fd: int, address: str, other_fd: int) -> None:
        """A neighbour entry, or the first packet would wait for the link's own DAD."""
        with netns.entered(other_fd), NetlinkSocket() as sock:
            other = rtdump.link(sock, "uplink")
        with netns.entered(netns_fd), NetlinkSocket() as sock:
            link = rtdump.link(sock, "uplink")
            assert link is not None
            assert other is not None
            sock.request([rtnetlink.neighbour_add(link.index, ip_address(address), other.mac)])

    def namespace(self) -> int:
        fd = netns.create()
        self._stack.callback(os.close, fd)
        return fd

    def serve(
        self, netns_fd: int, port: int, name: str, kind: int = socket.SOCK_STREAM, at: str = "::"
    ) -> None:
        family = socket.AF_INET6 if ":" in at else socket.AF_INET
        sock = netns.open_socket(netns_fd, family, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if at == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((at, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(16)
        server = Server(sock, name)
        self._stack.callback(server.close)

    def unreachable(
        self, netns_fd: int, address: str, port: int, kind: int = socket.SOCK_STREAM
    ) -> bool:
        """Whether nobody answers at (address, port) for a while, asked from a namespace."""
        return self.ask(netns_fd, address, port, kind, patience=_BLOCKED) == ""

    def ask(
        self,
        netns_fd: int,
        address: str,
        port: int,
        kind: int = socket.SOCK_STREAM,
        patience: float = 10,
        source: str = "",
    ) -> str:
        """What answers at (address, port) asked from a namespace; "" for nobody."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with netns.open_socket(netns_fd, family, kind) as sock:
            sock.settimeout(patience)
            try:
                if source:
                    sock.bind((source, 0))
                sock.connect((address, port))
                if kind == socket.SOCK_DGRAM:
                    sock.send(b"?")
                return sock.recv(2048).decode()
            except OSError:
                return ""

    def start(
        self,
        spec: NetworkSpec,
        number: int,
        *,
        ports: tuple[PortBinding, ...] = (),
        netns_fd: int | None = None,
        **changes: object,
    ) -> tuple[int, EndpointSpec, EndpointStatus]:
        """Attach container ``number`` (its addresses end in it) to ``spec``."""
        fd = self.namespace() if netns_fd is None else netns_fd
        endpoint = make_endpoint(spec, number, ports=ports, **changes)
        status = self.driver.attach(spec, endpoint, fd)
        return fd, endpoint, status


def make_network(number: int, **changes: object) -> NetworkSpec:
    """A dual-stack bridge network, ``172.<number>.0.0/16`` and ``fd00:<number>::/64``."""
    key = f"{number:012x}"
    values: dict[str, object] = {
        "id": key,
        "name": f"net{number}",
        "bridge": f"br-{key}",
        "subnets": (
            ipam.make_subnet(ipam.parse_network(f"172.{number}.0.0/16")),
            ipam.make_subnet(ipam.parse_network(f"fd00:{number}::/64")),
        ),
    }
    return NetworkSpec(**(values | changes))  # type: ignore[arg-type]


def address_of(subnet: Subnet, number: int) -> str:
    return str(subnet.prefix[number])


def make_endpoint(spec: NetworkSpec, number: int, **changes: object) -> EndpointSpec:
    values: dict[str, object] = {
        "endpoint_id": hashlib.sha256(f"{spec.id} {number}".encode()).hexdigest(),
        "container_id": f"{number:064x}",
        "container_name": f"c{number}",
        "network_id": spec.id,
        "addresses": tuple(
            ip_interface(f"{address_of(s, number)}/{s.prefix.prefixlen}") for s in spec.subnets
        ),
        "gateways": ()
        if spec.internal
        else tuple(s.gateway for s in spec.subnets if s.gateway is not None),
    }
    return EndpointSpec(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def world() -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with contextlib.ExitStack() as stack:
        yield World(stack)
