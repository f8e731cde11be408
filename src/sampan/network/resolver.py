"""The embedded resolver: one thread for all containers, a socket pair in each one's namespace.

A container on a user-defined network has ``nameserver 127.0.0.11`` in its resolv.conf. There, in
its own network namespace, nftables sends port 53 to two sockets of ours on other ports, so that
port 53 itself stays free for the container's own DNS server. The sockets belong to the daemon;
after a restart :meth:`Resolver.plug` replaces them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from sampan.errors import StartFailed
from sampan.kernel import descriptors, netns, nfnetlink
from sampan.network.dns import View, Zone
from sampan.network.dnsupstream import Upstream
from sampan.network.files import EMBEDDED_RESOLVER

#: Datagrams taken from one container before the others get a turn.
_BURST = 64
_MAX_MESSAGE = 65535
_STREAMS = 64
_IDLE = 10.0

_TABLE = "sampan-dns"
_PORT = 53


@dataclass(eq=False, slots=True)
class _Client:
    """One container: what it sees, its sockets, whom its other questions go to."""

    networks: tuple[str, ...]
    own: Zone | None
    view: View
    udp: socket.socket
    tcp: socket.socket
    upstream: Upstream
    streams: set[asyncio.Task[None]] = field(default_factory=set)


class Resolver:
    """Answers name queries of containers. Methods may be called from any thread and do not wait
    for the resolver's own."""

    def __init__(self) -> None:
        """Start the thread, in the network namespace of the caller (the host's)."""
        self._loop = asyncio.new_event_loop()
        self._zones: dict[str, Zone] = {}
        self._clients: dict[str, _Client] = {}
        self._lock = threading.Lock()  # over both, and each client's view
        self._thread = threading.Thread(target=self._run, name="sampan-dns", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and close every socket; idempotent."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop)
            self._thread.join()

    def set_zone(self, network_id: str, zone: Zone) -> None:
        """Say what a network's names are now, in place of what was said before. Queries that
        arrive after this returns are answered accordingly."""
        with self._lock:
            self._zones[network_id] = zone
            self._refresh(network_id)

    def remove_zone(self, network_id: str) -> None:
        """Forget a network. Idempotent."""
        with self._lock:
            self._zones.pop(network_id, None)
            self._refresh(network_id)

    def plug(
        self,
        container_id: str,
        netns_fd: int,
        *,
        networks: Sequence[str],
        upstream: Sequence[str] = (),
        from_host: bool = True,
        own: Zone | None = None,
    ) -> None:
        """Serve a container at 127.0.0.11 of the namespace ``netns_fd`` (not consumed).

        ``networks`` are ids in the order names are looked up; ``upstream`` the servers for all
        other names (none for a container on internal networks only), asked from the host's
        namespace or, with ``from_host`` False, from the container's. Called again for the same
        container (after a restart of the daemon, or when its networks changed) it takes the
        place of the earlier call. Raises :class:`StartFailed`.
        """
        sockets: list[socket.socket] = []
        descriptor: int | None = None
        try:
            with netns.entered(netns_fd):
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    sockets.append(_listen(kind))
                _redirect(sockets[0].getsockname()[1], sockets[1].getsockname()[1])
            if not from_host:
                descriptor = os.dup(netns_fd)
        except OSError as error:
            for sock in sockets:
                sock.close()
            raise StartFailed(f"cannot set up name resolution: {error.strerror}") from error
        client = _Client(
            networks=tuple(networks),
            own=own,
            view=View(()),
            udp=sockets[0],
            tcp=sockets[1],
            upstream=Upstream(upstream, descriptor),
        )
        with self._lock:
            before = self._clients.get(container_id)
            self._clients[container_id] = client
            client.view = self._view(client)
        self._post(self._open, client)
        if before is not None:
            self._post(self._close, before)

    def change(self, container_id: str, networks: Sequence[str], own: Zone | None = None) -> None:
        """Say which networks a plugged container is on now; one not plugged is ignored."""
        with self._lock:
            client = self._clients.get(container_id)
            if client is not None:
                client.networks, client.own = tuple(networks), own
                client.view = self._view(client)

    def unplug(self, container_id: str) -> None:
        """Stop serving a container; its namespace need not exist any more. Idempotent."""
        with self._lock:
            client = self._clients.pop(container_id, None)
        if client is not None:
            self._post(self._close, client)

    def _refresh(self, network_id: str) -> None:
        for client in self._clients.values():
            if network_id in client.networks:
                client.view = self._view(client)

    def _view(self, client: _Client) -> View:
        known = [self._zones[n] for n in client.networks if n in self._zones]
        return View(known, client.own)

    # everything below runs on the resolver's thread

    def _post(self, function: Callable[..., None], *arguments: object) -> None:
        self._loop.call_soon_threadsafe(function, *arguments)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._finish())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    def _stop(self) -> None:
        with self._lock:
            clients = list(self._clients.values())
            self._clients.clear()
        for client in clients:
            self._close(client)
        self._loop.stop()

    async def _finish(self) -> None:
        """Cancel the connections still being served."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(3):  # what they scheduled on their way out
            await asyncio.sleep(0)

    def _open(self, client: _Client) -> None:
        self._loop.add_reader(client.udp.fileno(), self._datagrams, client)
        self._loop.add_reader(client.tcp.fileno(), self._connections, client)

    def _close(self, client: _Client) -> None:
        for sock in (client.udp, client.tcp):
            self._loop.remove_reader(sock.fileno())
            sock.close()
        for task in client.streams:
            task.cancel()
        client.upstream.close()

    def _datagrams(self, client: _Client) -> None:
        receive, send = client.udp.recvfrom, client.udp.sendto
        for _ in range(_BURST):
            try:
                query, peer = receive(_MAX_MESSAGE)
            except OSError:  # none left
                return
            answer = client.view.answer(query)
            if answer is None:
                client.upstream.ask(query, _sender(client.udp, peer))
            elif answer:
                # The asker may be gone, or its buffer full: DNS over UDP may lose answers.
                with contextlib.suppress(OSError):
                    send(answer, peer)

    def _connections(self, client: _Client) -> None:
        try:
            sock, _ = client.tcp.accept()
        except OSError:  # it hung up meanwhile
            return
        if len(client.streams) >= _STREAMS:
            sock.close()
            return
        sock.setblocking(False)
        task = self._loop.create_task(self._stream(client, sock))
        client.streams.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(client.streams.discard)
        # Cancelled before its first step, nobody else would; else its transport has.
        task.add_done_callback(lambda _: self._loop.call_soon(sock.close))

    @staticmethod
    async def _stream(client: _Client, sock: socket.socket) -> None:
        """Serve one TCP connection: questions in order, until it is idle."""
        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                while True:
                    async with asyncio.timeout(_IDLE):
                        length = int.from_bytes(await reader.readexactly(2), "big")
                        query = await reader.readexactly(length)
                    answer = client.view.answer(query, tcp=True)
                    if answer is None:
                        answer = await client.upstream.ask_stream(query)
                    if not answer:
                        break
                    writer.write(len(answer).to_bytes(2, "big") + answer)
                    async with asyncio.timeout(_IDLE):
                        await writer.drain()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def _sender(sock: socket.socket, peer: tuple[str, int]) -> Callable[[bytes], None]:
    def send(answer: bytes) -> None:
        with contextlib.suppress(OSError):  # unplugged, or the asker is gone
            sock.sendto(answer, peer)

    return send


def _listen(kind: int) -> socket.socket:
    """A socket on a free port of 127.0.0.11 in the calling thread's namespace."""
    sock = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        if kind == socket.SOCK_DGRAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind((EMBEDDED_RESOLVER, 0))
        if kind == socket.SOCK_STREAM:
            sock.listen(_STREAMS)
    except BaseException:
        sock.close()
        raise
    return descriptors.raised(sock)


def _redirect(udp: int, tcp: int) -> None:
    """Send port 53 of 127.0.0.11 to these ports in the calling thread's namespace."""
    with nfnetlink.open_socket() as sock:
        nfnetlink.redirect(
            sock,
            _TABLE,
            IPv4Address(EMBEDDED_RESOLVER),
            _PORT,
            [(socket.IPPROTO_UDP, udp), (socket.IPPROTO_TCP, tcp)],
        )
