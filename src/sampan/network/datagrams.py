"""Passing UDP datagrams on between a host port and a container, for :mod:`sampan.network.relay`.

UDP has no connections: each client gets a socket of its own towards the container, so that answers
find the way back, until it has been silent for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

#: what recvfrom(2) tells of a sender of either family
_Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int]

_LARGEST = 1 << 16
#: datagrams taken at once before others have their turn
_BURST = 64
#: seconds without a datagram either way after which a client is forgotten; Docker's proxy has 90
_SILENCE = 90.0
#: clients at a time; the one that has been silent longest makes room
_MOST = 1024


@dataclass(slots=True)
class _Client:
    socket: socket.socket
    heard: float


class DatagramRelay:
    """One host port whose datagrams go to a container. Lives on the loop that makes it."""

    def __init__(
        self, sock: socket.socket, target: tuple[str, int], admits: Callable[[str], bool]
    ) -> None:
        """``sock`` is bound to the host port, does not block and is not ours to close. ``admits``
        says of an address whether its datagrams are passed on, or thrown away."""
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._target = target
        self._admits = admits
        self._clients: OrderedDict[_Address, _Client] = OrderedDict()
        self._loop.add_reader(sock, self._from_outside)
        self._timer = self._loop.call_later(_SILENCE, self._forget_silent)

    def close(self) -> None:
        """Forget every client; idempotent."""
        self._timer.cancel()
        self._loop.remove_reader(self._socket)
        while self._clients:
            self._forget(next(iter(self._clients)))

    def _from_outside(self) -> None:
        # An error here is of an earlier datagram that could not be delivered, or "no more".
        with contextlib.suppress(OSError):
            for _ in range(_BURST):
                data, address = self._socket.recvfrom(_LARGEST)
                if self._admits(address[0]):
                    self._client(address).socket.send(data)

    def _client(self, address: _Address) -> _Client:
        client = self._clients.get(address)
        if client is None:
            if len(self._clients) >= _MOST:
                self._forget(next(iter(self._clients)))
            family = socket.AF_INET6 if ":" in self._target[0] else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            try:
                sock.connect(self._target)
            except OSError:
                sock.close()
                raise
            client = self._clients[address] = _Client(sock, 0.0)
            self._loop.add_reader(sock, self._from_container, address, client)
        self._touch(address, client)
        return client

    def _from_container(self, address: _Address, client: _Client) -> None:
        with contextlib.suppress(OSError):  # "port unreachable" is nothing we could pass on
            for _ in range(_BURST):
                self._socket.sendto(client.socket.recv(_LARGEST), address)
        self._touch(address, client)

    def _touch(self, address: _Address, client: _Client) -> None:
        client.heard = self._loop.time()
        self._clients.move_to_end(address)

    def _forget(self, address: _Address) -> None:
        client = self._clients.pop(address)
        self._loop.remove_reader(client.socket)
        client.socket.close()

    def _forget_silent(self) -> None:
        limit = self._loop.time() - _SILENCE
        while self._clients and next(iter(self._clients.values())).heard <= limit:
            self._forget(next(iter(self._clients)))
        self._timer = self._loop.call_later(_SILENCE / 2, self._forget_silent)
