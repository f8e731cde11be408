"""Connections of log drivers: datagrams and streams, over IP and Unix sockets, with TLS or not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from sampan.errors import InvalidParameter

#: seconds for a connection, and for a peer to take what was written
TIMEOUT = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """``scheme`` is one of udp, tcp, tcp+tls, unix, unixgram; ``path`` for the last two."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path or f'{self.host}:{self.port}'}"


def parse_address(text: str, driver: str, schemes: frozenset[str], port: int) -> Address:
    """``tcp://host:port``, ``unix:///path``...; ``port`` is taken where none is given (0: must be).

    Raises InvalidParameter naming the driver.
    """
    scheme, separator, _ = text.partition("://")
    if not separator:
        raise InvalidParameter(f"{driver}: {text!r} is not an address: its scheme is missing")
    if scheme not in schemes:
        raise InvalidParameter(f"{driver}: unsupported scheme {scheme!r} in address {text!r}")
    if scheme.startswith("unix"):
        path = text.partition("://")[2]
        if not path.startswith("/"):
            raise InvalidParameter(f"{driver}: address {text!r} has no absolute path")
        return Address(scheme=scheme, path=path)
    try:
        parts = urlsplit(text)
        found = parts.port or port
    except ValueError as error:
        raise InvalidParameter(f"{driver}: address {text!r}: {error}") from error
    if not parts.hostname or not found:
        what = "host" if found else "port"
        raise InvalidParameter(f"{driver}: address {text!r} names no {what}")
    if parts.path not in ("", "/") or parts.query:
        raise InvalidParameter(f"{driver}: address {text!r} has more than host and port")
    return Address(scheme=scheme, host=parts.hostname, port=found)


class Datagrams:
    """A connected datagram socket. Where nobody listens, datagrams are lost, as UDP has it."""

    stream = False

    def __init__(self, channel: socket.socket) -> None:
        self._socket = channel

    async def write(self, data: bytes) -> None:
        """One datagram."""
        async with asyncio.timeout(TIMEOUT):
            try:
                await asyncio.get_running_loop().sock_sendall(self._socket, data)
            except ConnectionRefusedError:
                if self._socket.family == socket.AF_UNIX:
                    raise

    async def aclose(self) -> None:
        """Close the socket."""
        self._socket.close()


class Stream:
    """A connected stream."""

    stream = True

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def write(self, data: bytes) -> None:
        """All of it, as soon as the peer takes it."""
        # A peer that has closed would swallow the first write without an error.
        if self.reader.at_eof():
            raise ConnectionResetError("the peer has closed the connection")
        self._writer.write(data)
        async with asyncio.timeout(TIMEOUT):
            await self._writer.drain()

    async def aclose(self) -> None:
        """Close it; what was written is delivered first, if the peer takes it."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(TIMEOUT):
                await self._writer.wait_closed()


Channel = Datagrams | Stream
_Peer = str | tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


async def connect(address: Address, tls: ssl.SSLContext | None = None) -> Channel:
    """Open a connection; raises :class:`OSError` that names the address."""
    try:
        async with asyncio.timeout(TIMEOUT):
            match address.scheme:
                case "unixgram":
                    return await _datagrams(socket.AF_UNIX, address.path)
                case "unix":
                    return Stream(*await asyncio.open_unix_connection(address.path))
                case "udp":
                    loop = asyncio.get_running_loop()
                    found = await loop.getaddrinfo(
                        address.host, address.port, type=socket.SOCK_DGRAM
                    )
                    return await _datagrams(found[0][0], found[0][4])
                case _:
                    return Stream(
                        *await asyncio.open_connection(address.host, address.port, ssl=tls)
                    )
    except OSError as error:
        # asyncio's own text for a refusal says neither that nor whose it is.
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else str(error) or "timed out"
        raise OSError(error.errno, f"dial {address}: {reason}") from error


async def _datagrams(family: int, peer: _Peer) -> Datagrams:
    channel = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        channel.setblocking(False)
        channel.connect(peer)
    except BaseException:
        channel.close()
        raise
    return Datagrams(channel)
