"""Taking a connection over from HTTP: attach, exec start, BuildKit (API v1.55, "Hijacking").

The transport is given another protocol, whose ``eof_received`` keeps the connection open: a client
that has ended its input still reads the output. aiohttp's own protocol object is told only when
all is over, so that its book-keeping stays right.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from sampan.api.protocol import Protocol
from sampan.api.relay import Relay
from sampan.engine.options import Attachment

#: bytes that may be on their way to a client before the spool is used
IN_FLIGHT = 256 << 10


async def hijack(
    request: web.BaseRequest,
    attachment: Attachment,
    content_type: str,
    spool_directory: Path,
    *,
    report_failure: bool = False,
    reframe: Callable[[bytes], bytes] | None = None,
) -> web.StreamResponse:
    """Answer the upgrade, then relay between the client and ``attachment`` until it is over."""
    connection = Connection(request)
    relay = Relay(
        connection, attachment, spool_directory, report_failure=report_failure, reframe=reframe
    )
    connection.start(relay, _head("Upgrade" in request.headers, content_type))
    try:
        await relay.run()
        if relay.detach_requested:
            await attachment.detached()
    finally:
        await connection.finish()
    return Taken()


def _head(upgrade: bool, content_type: str) -> bytes:
    if upgrade:
        return (
            "HTTP/1.1 101 UPGRADED\r\n"
            f"Content-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        ).encode()
    return f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n".encode()


async def upgrade(
    request: web.BaseRequest, protocol: asyncio.Protocol, name: str
) -> web.StreamResponse:
    """Answer an upgrade to ``name`` and leave the connection to ``protocol`` until it is over."""
    upgraded = _Upgraded(protocol)
    http, transport = request.protocol, request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    http.keep_alive(False)
    early = http.take_early() if isinstance(http, Protocol) else b""
    transport.set_protocol(upgraded)
    if not (isinstance(http, Protocol) and http.prior_knowledge):
        transport.write(
            f"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: {name}\r\n\r\n".encode()
        )
    protocol.connection_made(transport)
    if early:
        protocol.data_received(early)
    if not transport.is_reading():
        transport.resume_reading()
    try:
        await upgraded.lost.wait()
    finally:
        transport.abort()
        request.task.add_done_callback(lambda _: http.connection_lost(None))
    return Taken()


class _Upgraded(asyncio.Protocol):
    """Passes a connection's news on to another protocol, and tells when it is gone."""

    def __init__(self, inner: asyncio.Protocol) -> None:
        self.lost = asyncio.Event()
        self.data_received = inner.data_received  # type: ignore[method-assign]
        self.eof_received = inner.eof_received  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]
        self._inner = inner

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self.lost.set()
        self._inner.connection_lost(exc)


class Connection(asyncio.Protocol):
    """The client's transport once it is no longer HTTP's."""

    def __init__(self, request: web.BaseRequest) -> None:
        self.lost = asyncio.Event()
        self._http = request.protocol
        self._task = request.task
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        self._transport = transport
        self._writable = asyncio.Event()
        self._writable.set()
        self._relay: Relay | None = None
        self._hangup: Hangup | None = None

    def start(self, relay: Relay, head: bytes) -> None:
        """Take over: send the response's head and deliver input from now on."""
        self._relay = relay
        self._http.keep_alive(False)
        early = self._http.take_early() if isinstance(self._http, Protocol) else b""
        self._transport.set_protocol(self)
        self._transport.set_write_buffer_limits(high=IN_FLIGHT)
        self._transport.write(head)
        if early:
            self.data_received(early)
        if not self._transport.is_reading():
            self._transport.resume_reading()

    async def finish(self) -> None:
        """Close once everything is sent, and let aiohttp forget the connection."""
        self._transport.close()
        try:
            await self.lost.wait()
        finally:
            self._transport.abort()
            http = self._http
            self._task.add_done_callback(lambda _: http.connection_lost(None))

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Input of the client."""
        if self._relay is not None:
            self._relay.input_received(data)

    def eof_received(self) -> bool:
        """The client has ended its input; it may still read."""
        if self._relay is not None:
            self._relay.input_ended()
        self._hangup = Hangup.watch(self._transport)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self._hangup is not None:
            self._hangup.close()
        self.lost.set()
        self._writable.set()

    def pause_writing(self) -> None:
        """The client does not keep up."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The client keeps up again."""
        self._writable.set()

    # sampan.api.relay.Client

    def offer(self, data: bytes) -> bool:
        """Send at once unless the client is behind."""
        if not self._writable.is_set() or self._transport.is_closing():
            return False
        self._transport.write(data)
        return True

    async def send(self, data: bytes) -> None:
        """Send, and wait until the client can take more."""
        if self._transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self._transport.write(data)
        await self._writable.wait()

    def pause_input(self) -> None:
        """Stop reading from the client."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_input(self) -> None:
        """Read from the client again."""
        if not self._transport.is_closing():
            self._transport.resume_reading()


class Hangup:
    """Notices that a half-closed client has gone altogether.

    asyncio stops looking at a socket once it has read its end of file, so a client that dies
    afterwards would stay until something is written to it. An epoll set that asks for no events
    still reports a hang-up (epoll_ctl(2), EPOLLHUP), and is itself something to wait for.
    """

    def __init__(self, transport: asyncio.Transport, descriptor: int) -> None:
        self._transport = transport
        self._epoll = select.epoll(1)
        self._epoll.register(descriptor, 0)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._hung_up)

    @classmethod
    def watch(cls, transport: asyncio.Transport) -> Hangup | None:
        """Watch the socket under ``transport``, if there is one."""
        socket = transport.get_extra_info("socket")
        return None if socket is None or socket.fileno() < 0 else cls(transport, socket.fileno())

    def close(self) -> None:
        """Stop watching."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def _hung_up(self) -> None:
        self.close()
        self._transport.abort()


class Taken(web.StreamResponse):
    """Tells aiohttp that a request has been answered behind its back."""

    @property
    def keep_alive(self) -> bool | None:
        """Never: the connection is closed."""
        return False

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Nothing is left to send."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to send."""
