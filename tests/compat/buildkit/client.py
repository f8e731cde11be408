"""A BuildKit client in Python, over the daemon's socket: what any client can do, and worse."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from sampan.buildkit.directories import stats
from sampan.buildkit.protocol import control_pb2 as control
from sampan.buildkit.protocol import filesync_pb2 as filesync
from sampan.buildkit.protocol import secrets_pb2 as secrets
from sampan.buildkit.protocol.stat_pb2 import Stat
from sampan.buildkit.protocol.wire_pb2 import Packet
from sampan.buildkit.rpc import Channel, Server, ServerStream, Service

CONTROL = control.DESCRIPTOR.services_by_name["Control"]


def method(name: str) -> MethodDescriptor:
    found: MethodDescriptor = CONTROL.methods_by_name[name]
    return found


async def upgrade(path: Path, target: str, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """The daemon's whole answer to an upgrade, the connection closed after it."""
    sock = await _asked(path, target, headers)
    with sock:
        return await _head(sock)


async def _asked(path: Path, target: str, headers: Iterable[tuple[str, str]]) -> socket.socket:
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    await loop.sock_connect(sock, str(path))
    lines = [f"POST {target} HTTP/1.1", "Host: x", "Connection: Upgrade"]
    lines += (f"{name}: {value}" for name, value in headers)
    await loop.sock_sendall(sock, "\r\n".join([*lines, "", ""]).encode())
    return sock


async def _head(sock: socket.socket) -> bytes:
    """Up to the end of the head and not a byte further: HTTP/2 may follow it."""
    loop = asyncio.get_running_loop()
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        byte = await loop.sock_recv(sock, 1)
        if not byte:
            break
        data += byte
    return data


@contextlib.asynccontextmanager
async def _connected(
    path: Path, target: str, protocol: asyncio.Protocol, headers: Iterable[tuple[str, str]] = ()
) -> AsyncIterator[None]:
    sock = await _asked(path, target, [("Upgrade", "h2c"), *headers])
    head = await _head(sock)
    assert head.startswith(b"HTTP/1.1 101"), head
    transport, _ = await asyncio.get_running_loop().create_unix_connection(
        lambda: protocol, sock=sock
    )
    try:
        yield
    finally:
        transport.close()
        await asyncio.sleep(0)


@dataclass
class Source:
    """The client's services: directories by name, secrets by id.

    ``listing`` and ``contents`` of a name, when given, are sent instead of a directory.
    """

    directories: Mapping[str, Path] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    listings: Mapping[str, list[Stat]] = field(default_factory=dict)
    contents: Callable[[str, str], bytes] | None = None
    asked: list[tuple[str, dict[str, list[str]]]] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    def services(self) -> tuple[Service, ...]:
        return (
            Service(filesync.DESCRIPTOR.services_by_name["FileSync"], {"DiffCopy": self.send}),
            Service(secrets.DESCRIPTOR.services_by_name["Secrets"], {"GetSecret": self.get_secret}),
        )

    async def get_secret(self, stream: ServerStream) -> None:
        request = await stream.recv_message()
        assert request is not None
        if request.ID not in self.secrets:
            raise GRPCError(Status.NOT_FOUND, f"secret {request.ID} not found")
        await stream.send_message(secrets.GetSecretResponse(data=self.secrets[request.ID]))

    async def send(self, stream: ServerStream) -> None:
        metadata: Any = stream.metadata
        name = str(metadata["dir-name"])
        self.asked.append((name, {key: metadata.getall(key) for key in metadata}))
        listing = self._listing(name, metadata.getall("include-patterns", []))
        for stat in listing:
            await stream.send_message(Packet(type=Packet.PACKET_STAT, stat=stat))
        await stream.send_message(Packet(type=Packet.PACKET_STAT))
        async for packet in stream:
            if packet.type == Packet.PACKET_FIN:
                await stream.send_message(Packet(type=Packet.PACKET_FIN))
                return
            assert packet.type == Packet.PACKET_REQ, packet
            path = listing[packet.ID].path
            self.fetched.append(path)
            data = self.contents(name, path) if self.contents else self._read(name, path)
            if data:
                await stream.send_message(Packet(type=Packet.PACKET_DATA, ID=packet.ID, data=data))
            await stream.send_message(Packet(type=Packet.PACKET_DATA, ID=packet.ID))

    def _listing(self, name: str, include: list[str]) -> list[Stat]:
        if name in self.listings:
            return self.listings[name]
        if name not in self.directories:
            raise GRPCError(Status.NOT_FOUND, f"no access allowed to dir {name!r}")
        found = list(stats(self.directories[name]))
        return [one for one in found if not include or one.path in include]

    def _read(self, name: str, path: str) -> bytes:
        return (self.directories[name] / path).read_bytes()


@dataclass
class Client:
    """A connection to Control, and sessions beside it."""

    socket: Path
    channel: Channel

    async def call(self, name: str, request: Any) -> Any:
        return await self.channel.call(method(name), request)

    async def listen(self, **fields: Any) -> AsyncIterator[control.BuildHistoryEvent]:
        """What is told of builds that are over or go on."""
        async with self.channel.open(method("ListenBuildHistory")) as stream:
            await stream.send_message(control.BuildHistoryRequest(**fields), end=True)
            async for event in stream:
                yield event

    async def status(self, ref: str) -> control.StatusResponse:
        """Everything a build tells until it is over."""
        found = control.StatusResponse()
        async with self.channel.open(method("Status")) as stream:
            await stream.send_message(control.StatusRequest(Ref=ref), end=True)
            async for response in stream:
                found.MergeFrom(response)
        return found

    @contextlib.asynccontextmanager
    async def session(self, source: Source, shared_key: str = "") -> AsyncIterator[str]:
        """A session that offers ``source``; its id."""
        identity = os.urandom(12).hex()
        methods = [path for service in source.services() for path in service.__mapping__()]
        headers = [
            ("X-Docker-Expose-Session-Uuid", identity),
            ("X-Docker-Expose-Session-Name", "test"),
            ("X-Docker-Expose-Session-Sharedkey", shared_key),
            *(("X-Docker-Expose-Session-Grpc-Method", path) for path in methods),
        ]
        server = Server(source.services())
        async with _connected(self.socket, "/session", server.protocol(), headers):
            yield identity

    async def solve(
        self,
        source: Source,
        *,
        attributes: Mapping[str, str] | None = None,
        shared_key: str = "",
        ref: str = "",
        **fields: Any,
    ) -> tuple[dict[str, str], control.StatusResponse]:
        """A build by the Dockerfile frontend; what its outputs tell, and its news."""
        ref = ref or os.urandom(12).hex()
        async with self.session(source, shared_key) as session:
            request = control.SolveRequest(
                Ref=ref,
                Session=session,
                Frontend="dockerfile.v0",
                FrontendAttrs=attributes or {},
                **fields,
            )
            following = asyncio.ensure_future(self.status(ref))
            try:
                response = await self.call("Solve", request)
                return dict(response.ExporterResponse), await following
            finally:
                following.cancel()
                await asyncio.wait([following])


@contextlib.asynccontextmanager
async def connect(path: Path) -> AsyncIterator[Client]:
    """A client of the daemon at a socket."""
    channel = Channel()
    async with _connected(path, "/grpc", channel.protocol):
        yield Client(path, channel)
    channel.shut()
