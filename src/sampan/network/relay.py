"""Published ports that no rule of the kernel can translate, passed on by hand.

These are ports at IPv6 addresses for containers without IPv6 (``-p 80:80`` on an IPv4 network,
reached through ``::1`` or from outside), and ``::1`` where bridged packets pass the IP hooks
(:func:`sampan.network.nft.base`). One thread does it for all ports, and only for these. The
container sees the host as the peer; connections end with the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import TypeAlias

from sampan.network.datagrams import DatagramRelay
from sampan.network.model import EndpointSpec, IPAddress, NetworkSpec, PortBinding
from sampan.network.nft import is_relayed

_CHUNK = 1 << 16
_BACKLOG = 128
_SO_DETACH_FILTER = 27
#: seconds a container may take to accept
_PATIENCE = 10.0
#: seconds before accepting again when descriptors or memory had run out
_PAUSE = 1.0
_LOOPBACK = IPv6Address("::1")
#: how an IPv6 socket shows an IPv4 address
_MAPPED = "::ffff:"

_Server: TypeAlias = "_StreamRelay | DatagramRelay"


@dataclass(frozen=True, slots=True)
class Relayed:
    """What comes to ``binding``'s host port goes to ``address`` and its container port; with
    ``only_from``, what comes from there."""

    binding: PortBinding
    address: IPAddress
    only_from: str = ""

    def admits(self, peer: str) -> bool:
        """Whether what comes from this address is passed on. What comes by IPv4, to a socket
        that holds the port for both families, is the rules' to translate."""
        return peer == self.only_from if self.only_from else not peer.startswith(_MAPPED)


def relays(spec: NetworkSpec) -> bool:
    """Whether ports of a network's containers without IPv6 are relayed: where they are
    translated at all (pure)."""
    return spec.driver == "bridge" and spec.gateway_mode_ipv4 != "routed"


def relayed(
    endpoint: EndpointSpec, ports: Iterable[PortBinding], *, loopback6: bool
) -> tuple[Relayed, ...]:
    """Those of an endpoint's published ports that no rule can publish (pure).

    ``loopback6``: connections to ``::1`` are translated.
    """
    found = []
    for binding in ports:
        if endpoint.ipv4 is not None and binding.host_port and is_relayed(endpoint, binding):
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
        """Listen for an endpoint on ``sockets``, bound to ``ports``; their owner closes them, after
        :meth:`close_of`."""
        with self._lock:
            if not ports or endpoint_id in self._servers:
                return
            ready = [_ready(sock) for sock in sockets]
            future = asyncio.run_coroutine_threadsafe(_serve(ready, ports), self._running())
            self._servers[endpoint_id] = future.result()

    def close_of(self, endpoint_id: str) -> None:
        """Serve an endpoint's sockets no longer: they can be closed then. Idempotent."""
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
            servers.append(DatagramRelay(sock, target, port.admits))
        else:
            servers.append(_StreamRelay(sock, port))
    return servers


class _StreamRelay:
    """One host port whose connections go to a container: an event loop's server at a tenth of the
    price, for there may be thousands of ports that nobody comes to."""

    def __init__(self, sock: socket.socket, port: Relayed) -> None:
        """``sock`` listens and does not block; it is not ours to close."""
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._port = port
        self._pause: asyncio.TimerHandle | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._listen()

    def close(self) -> None:
        """Accept no more; idempotent."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._socket)

    def _listen(self) -> None:
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        for _ in range(_BACKLOG):
            try:
                connection, peer = self._socket.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._loop.remove_reader(self._socket)
                    self._pause = self._loop.call_later(_PAUSE, self._listen)
                return  # nobody more, or one who went again
            if self._port.admits(peer[0]):
                task = self._loop.create_task(_relay(connection, self._port))
                self._connections.add(task)
                task.add_done_callback(self._connections.discard)
            else:
                connection.close()


async def _relay(connection: socket.socket, port: Relayed) -> None:
    """Pass one connection on until both sides have ended."""
    connection.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=connection)
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
