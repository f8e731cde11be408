"""Published ports that no rule of the kernel can translate, passed on by hand.

These are ports at an IPv6 address for containers without IPv6 (``-p [::1]:80:80`` on an IPv4
network), and ``::1`` where bridged packets pass the IP hooks (:func:`sampan.network.nft.base`).
One thread does it for all ports, and only for these. The container sees the host as the peer;
connections end with the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import TypeAlias

from sampan.network.datagrams import DatagramRelay
from sampan.network.model import EndpointSpec, IPAddress, PortBinding
from sampan.network.nft import is_relayed

_CHUNK = 1 << 16
_BACKLOG = 128
_SO_DETACH_FILTER = 27
#: seconds a container may take to accept
_PATIENCE = 10.0
_LOOPBACK = IPv6Address("::1")

_Server: TypeAlias = asyncio.Server | DatagramRelay


@dataclass(frozen=True, slots=True)
class Relayed:
    """What comes to ``binding``'s host port goes to ``address`` and its container port; with
    ``only_from``, what comes from there."""

    binding: PortBinding
    address: IPAddress
    only_from: str = ""


def relayed(
    endpoint: EndpointSpec, ports: Iterable[PortBinding], *, loopback6: bool
) -> tuple[Relayed, ...]:
    """Those of an endpoint's published ports that no rule can publish (pure).

    ``loopback6``: connections to ``::1`` are translated.
    """
    found = []
    for binding in ports:
        if endpoint.ipv4 is not None and is_relayed(endpoint, binding):
            found.append(Relayed(binding, endpoint.ipv4.ip))
        elif (
            not loopback6
            and endpoint.ipv6 is not None
            and binding.host_port
            and binding.protocol != "sctp"
            and binding.host_address in (None, IPv6Address("::"), _LOOPBACK)
        ):
            found.append(Relayed(binding, endpoint.ipv6.ip, str(_LOOPBACK)))
    return tuple(found)


class Relays:
    """All relayed ports of one driver; the thread exists while there is any.

    Methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._servers: dict[str, list[_Server]] = {}

    def open(
        self, endpoint_id: str, ports: Sequence[Relayed], sockets: Sequence[socket.socket]
    ) -> None:
        """Listen for an endpoint on ``sockets``, bound to ``ports`` and taken over."""
        with self._lock:
            if not ports or endpoint_id in self._servers:
                for sock in sockets:
                    sock.close()
                return
            ready = [_ready(sock) for sock in sockets]
            future = asyncio.run_coroutine_threadsafe(_serve(ready, ports), self._running())
            self._servers[endpoint_id] = future.result()

    def close_of(self, endpoint_id: str) -> None:
        """Stop listening for an endpoint, whose ports are free when this returns. Idempotent."""
        with self._lock:
            servers = self._servers.pop(endpoint_id, [])
            if servers and self._loop is not None:
                asyncio.run_coroutine_threadsafe(_close(servers), self._loop).result()

    def keep_only(self, endpoints: Iterable[str]) -> None:
        """Stop listening for everybody else."""
        kept = set(endpoints)
        for endpoint_id in [held for held in self._servers if held not in kept]:
            self.close_of(endpoint_id)

    def close(self) -> None:
        """Stop everything; idempotent."""
        self.keep_only(())
        with self._lock:
            if self._loop is not None and self._thread is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join()
                self._loop = self._thread = None

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=_run, args=(self._loop,), name="sampan-relay", daemon=True
            )
            self._thread.start()
        return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        for _ in range(3):  # what they scheduled on their way out
            loop.run_until_complete(asyncio.sleep(0))
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _ready(sock: socket.socket) -> socket.socket:
    """Listen on a reserved socket, which may have been made mute."""
    with contextlib.suppress(OSError):  # ENOENT: it was not
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
    if sock.type == socket.SOCK_STREAM:
        # For its connections: those that linger must not keep us from the port after a restart.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.listen(_BACKLOG)
    sock.setblocking(False)
    return sock


async def _close(servers: Sequence[_Server]) -> None:
    for server in servers:
        server.close()


async def _serve(sockets: Sequence[socket.socket], ports: Sequence[Relayed]) -> list[_Server]:
    servers: list[_Server] = []
    for sock, port in zip(sockets, ports, strict=True):
        if sock.type == socket.SOCK_DGRAM:
            target = (str(port.address), port.binding.container_port)
            servers.append(DatagramRelay(sock, target, only_from=port.only_from))
            continue

        async def connected(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: Relayed = port
        ) -> None:
            await _relay(reader, writer, port)

        servers.append(await asyncio.start_server(connected, sock=sock))
    return servers


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: Relayed) -> None:
    """Pass one connection on until both sides have ended."""
    peer = writer.get_extra_info("peername")
    if port.only_from and (not peer or peer[0] != port.only_from):
        writer.transport.abort()
        return
    try:
        async with asyncio.timeout(_PATIENCE):
            there, back = await asyncio.open_connection(
                str(port.address), port.binding.container_port
            )
    except (OSError, TimeoutError):
        writer.transport.abort()  # the client is refused, as it would be by the container
        return
    try:
        await asyncio.gather(_pump(reader, back), _pump(there, writer))
    finally:
        for end in (writer, back):
            end.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(_CHUNK):
            sink.write(data)
            await sink.drain()
        sink.write_eof()
