"""Published SCTP ports, where the kernel has SCTP (the virtual machine's does)."""

from __future__ import annotations

import contextlib
import socket

import pytest

from sampan.errors import Conflict
from sampan.kernel import netns
from sampan.network.model import PortBinding

from .conftest import HOST4, OUTSIDE4, Server, World, make_network


def sctp(netns_fd: int) -> socket.socket:
    """An SCTP socket in a namespace."""
    with netns.entered(netns_fd):
        try:
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
        except OSError as error:
            pytest.skip(f"needs a kernel with SCTP: {error.strerror}")


def test_published_sctp_ports(world: World) -> None:
    with contextlib.ExitStack() as stack:
        net = make_network(17)
        world.driver.ensure(net)
        binding = PortBinding(container_port=80, host_port=8080, protocol="sctp")
        listening = sctp(world.host)
        stack.enter_context(listening)
        listening.bind(("0.0.0.0", 8080))
        listening.listen()
        with pytest.raises(Conflict, match="8080/sctp: address already in use"):
            world.start(net, 2, ports=(binding,))
        listening.close()
        one, endpoint, _ = world.start(net, 3, ports=(binding,))
        serving = sctp(one)
        serving.bind(("0.0.0.0", 80))
        serving.listen()
        stack.callback(Server(serving, "one").close)
        for asker, address, source in (
            (world.outside, HOST4, OUTSIDE4),
            (world.host, HOST4, HOST4),
            (world.host, "127.0.0.1", "172.17.0.1"),
        ):
            with sctp(asker) as client:
                client.settimeout(10)
                client.connect((address, 8080))
                assert client.recv(100).decode() == f"one {source}"
        world.driver.detach(net, endpoint)
        with sctp(world.outside) as client:
            client.settimeout(2)
            with pytest.raises(OSError, match=r"refused|timed out"):
                client.connect((HOST4, 8080))
