"""Host ports: free ones, ranges, families, old connections, all or none."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from sampan.errors import Conflict, NoSpace
from sampan.kernel import netns
from sampan.network import interface
from sampan.network.model import PortBinding
from sampan.network.ports import PortReservations

ANY = PortBinding(container_port=80)


@pytest.fixture
def ports() -> Iterator[PortReservations]:
    """Reservations in a namespace of the test's own with a small ephemeral range."""
    host = netns.create()
    with netns.entered(host), contextlib.closing(PortReservations()) as reservations:
        interface.loopback_up(host)
        netns.write_sysctls({"net.ipv4.ip_local_port_range": "40000 40004"})
        yield reservations
    os.close(host)


def numbers(bindings: tuple[PortBinding, ...]) -> list[int]:
    return [binding.host_port for binding in bindings]


def test_free_ports_go_round_and_run_out(ports: PortReservations) -> None:
    assert numbers(ports.reserve("a", [ANY, ANY])) == [40000, 40001]
    ports.release("a")
    assert numbers(ports.reserve("b", [ANY, ANY])) == [40002, 40003]
    udp = replace(ANY, protocol="udp")
    assert numbers(ports.reserve("c", [udp])) == [40004]
    assert numbers(ports.reserve("d", [ANY, ANY, ANY])) == [40000, 40001, 40004]
    with pytest.raises(NoSpace, match="no available port in the ephemeral range"):
        ports.reserve("e", [ANY])
    assert ports.held("b") == tuple(replace(ANY, host_port=n) for n in (40002, 40003))


def test_ranges_take_the_first_free_port(ports: PortReservations) -> None:
    wanted = replace(ANY, host_port=8000, host_port_end=8002)
    with socket.socket() as other:
        other.bind(("0.0.0.0", 8000))
        assert numbers(ports.reserve("a", [wanted])) == [8001]
        assert numbers(ports.reserve("b", [wanted])) == [8002]
        with pytest.raises(NoSpace, match=r"0\.0\.0\.0:8000-8002 failed: all ports are allocated"):
            ports.reserve("c", [wanted])


def test_all_or_none(ports: PortReservations) -> None:
    first = replace(ANY, host_port=8000)
    ports.reserve("a", [first], name="web")
    with pytest.raises(Conflict, match="already allocated by container web"):
        ports.reserve("b", [replace(ANY, host_port=8001), first])
    assert ports.held("b") == ()
    ports.reserve("c", [replace(ANY, host_port=8001)])
    ports.keep_only(["c"])
    assert ports.held("a") == ()
    ports.reserve("d", [first])


def test_addresses_and_families_conflict_when_they_overlap(ports: PortReservations) -> None:
    on4, any4, on6 = (
        replace(ANY, host_port=80, host_address=ip_address(a))
        for a in ("127.0.0.1", "0.0.0.0", "::1")
    )
    ports.reserve("four", [on4])
    ports.reserve("six", [on6])
    for wanted in (any4, on4, replace(ANY, host_port=80)):
        with pytest.raises(Conflict):
            ports.reserve("x", [wanted])
    ports.release("four")
    ports.reserve("x", [any4])
    # one without an address is held in both families
    ports.reserve("y", [replace(ANY, host_port=81)])
    for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        with socket.socket(family) as sock:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            with pytest.raises(OSError, match="in use"):
                sock.bind((anywhere, 81))
    sctp = replace(ANY, host_port=80, protocol="sctp")
    ports.reserve("z", [sctp])
    with pytest.raises(Conflict):
        ports.reserve("zz", [sctp])


def test_connections_that_are_over_are_no_conflict(ports: PortReservations) -> None:
    with socket.socket() as server, socket.socket() as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 8000))
        server.listen()
        client.connect(("127.0.0.1", 8000))
        accepted, _ = server.accept()
        accepted.close()  # first: its side stays in TIME_WAIT
        assert client.recv(1) == b""
    ports.reserve("a", [replace(ANY, host_port=8000)])
    for reuse in (0, 1):  # and nobody else gets it
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
            with pytest.raises(OSError, match="in use"):
                other.bind(("0.0.0.0", 8000))
    with pytest.raises(Conflict):
        ports.reserve("b", [replace(ANY, host_port=8000)])
