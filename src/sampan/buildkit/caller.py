"""What the daemon asks of a client through its session: files, secrets, agents, credentials."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote_plus

from google.protobuf.descriptor import MethodDescriptor
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from sampan.build.agents import answered
from sampan.buildkit.protocol import auth_pb2 as auth
from sampan.buildkit.protocol import filesync_pb2 as filesync
from sampan.buildkit.protocol import secrets_pb2 as secrets
from sampan.buildkit.protocol import ssh_pb2 as ssh
from sampan.buildkit.protocol import upload_pb2 as upload
from sampan.buildkit.protocol import wire_pb2 as wire
from sampan.buildkit.rpc import ClientStream
from sampan.buildkit.sessions import Session
from sampan.engine.options import RegistryAuth
from sampan.errors import NotFound, SampanError

_CHUNK = 32 << 10
#: A secret is something to read in one piece.
SECRET_LIMIT = 500 << 10
_DOCKER_HUB = "docker.io"


def method(module: object, service: str, name: str) -> MethodDescriptor:
    """A method of a service of a generated module, by its names."""
    found: MethodDescriptor = module.DESCRIPTOR.services_by_name[service].methods_by_name[name]  # type: ignore[attr-defined]
    return found


DIFF_COPY = method(filesync, "FileSync", "DiffCopy")
SEND = method(filesync, "FileSend", "DiffCopy")
GET_SECRET = method(secrets, "Secrets", "GetSecret")
CHECK_AGENT = method(ssh, "SSH", "CheckAgent")
FORWARD_AGENT = method(ssh, "SSH", "ForwardAgent")
CREDENTIALS = method(auth, "Auth", "Credentials")
PULL = method(upload, "Upload", "Pull")


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Turn what a call of the client's services raises into a SampanError about ``what``."""
    try:
        yield
    except GRPCError as error:
        message = f"{what}: {error.message or error.status.name}"
        raise (NotFound if error.status is Status.NOT_FOUND else SampanError)(message) from None
    except (ConnectionError, ProtocolError, StreamTerminatedError) as error:
        raise SampanError(f"{what}: the client's session ended") from error


class PacketStream:
    """A call of FileSync.DiffCopy as :mod:`sampan.buildkit.transfer` reads it."""

    def __init__(self, stream: ClientStream) -> None:
        self._stream = stream

    async def receive(self) -> bytes | None:
        """The next packet's bytes; None at the end."""
        data: bytes | None = await self._stream.recv_message()
        return data

    async def send(self, packet: wire.Packet) -> None:
        """Send a packet."""
        await self._stream.send_message(packet)

    async def end(self) -> None:
        """Nothing more is sent."""
        await self._stream.end()


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which part of a directory of the client's is wanted: its name, and patterns as
    ``.dockerignore`` has them; ``follow`` are paths whose links count as well."""

    name: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    follow: tuple[str, ...] = ()

    def metadata(self) -> list[tuple[str, str]]:
        """The headers that ask for it; texts that are not ASCII are escaped and marked."""
        found: list[tuple[str, str]] = []
        for key, values in (
            ("include-patterns", self.include),
            ("exclude-patterns", self.exclude),
            ("followpaths", self.follow),
            ("dir-name", (self.name,)),
        ):
            plain = all(value.isascii() for value in values)
            found += ((key, value if plain else quote_plus(value)) for value in values)
            if not plain:
                found.append((f"{key}-encoded", "1"))
        return found


@contextlib.asynccontextmanager
async def files(session: Session, wanted: Filter) -> AsyncGenerator[PacketStream, None]:
    """A transfer of the client's files."""
    session.require(DIFF_COPY, "files")
    with told(f"the client's directory {wanted.name!r}"):
        async with session.channel.open(DIFF_COPY, wanted.metadata(), raw=True) as stream:
            await stream.send_request()
            yield PacketStream(stream)


async def uploaded(session: Session, path: str) -> AsyncIterator[bytes]:
    """What the client reads from its standard input, by the path it has announced."""
    session.require(PULL, "upload")
    with told("the upload"):
        async with session.channel.open(PULL, [("urlpath", path)]) as stream:
            await stream.send_request()
            await stream.end()
            async for message in stream:
                yield message.data


async def secret(session: Session, identity: str) -> bytes | None:
    """A secret's value; None when the client has none of that id. Never logged."""
    if not session.offers(GET_SECRET):
        return None
    try:
        with told(f"secret {identity}"):
            answer = await session.channel.call(GET_SECRET, secrets.GetSecretRequest(ID=identity))
    except NotFound:
        return None
    data: bytes = answer.data
    if len(data) > SECRET_LIMIT:
        raise SampanError(f"secret {identity} is larger than {SECRET_LIMIT} bytes")
    return data


async def credentials(session: Session, domain: str) -> RegistryAuth | None:
    """What the client knows of a registry; None when it has nothing or cannot tell."""
    if not session.offers(CREDENTIALS):
        return None
    host = "registry-1.docker.io" if domain == _DOCKER_HUB else domain
    with told(f"credentials for {domain}"):
        answer = await session.channel.call(CREDENTIALS, auth.CredentialsRequest(Host=host))
    if not answer.Secret:
        return None
    if not answer.Username:
        return RegistryAuth(identity_token=answer.Secret)
    return RegistryAuth(username=answer.Username, password=answer.Secret)


@contextlib.asynccontextmanager
async def agent(session: Session, identity: str, directory: Path) -> AsyncIterator[str]:
    """A Unix socket below ``directory`` that is the client's ssh agent; its path.

    Raises NotFound when the client forwards no agent of that id.
    """
    session.require(CHECK_AGENT, "ssh agent")
    with told(f"ssh agent {identity}"):
        await session.channel.call(CHECK_AGENT, ssh.CheckAgentRequest(ID=identity))
    path = directory / f"agent-{uuid.uuid4().hex[:12]}"
    made = socket.socket(socket.AF_UNIX)
    try:
        made.bind(str(path))
        os.chmod(path, 0o600)
        async with answered(partial(_forward, session, identity), made):
            yield str(path)
    finally:
        made.close()
        path.unlink(missing_ok=True)


async def _forward(
    session: Session, identity: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """One connection to the agent, both ways, until either side ends it."""
    metadata = [("buildkit.ssh.id", identity)]
    with contextlib.suppress(GRPCError, OSError, ProtocolError, StreamTerminatedError):
        async with session.channel.open(FORWARD_AGENT, metadata) as stream:
            await stream.send_request()

            async def outward() -> None:
                while data := await reader.read(_CHUNK):
                    await stream.send_message(ssh.BytesMessage(data=data))
                await stream.end()

            sending = asyncio.ensure_future(outward())
            try:
                async for message in stream:
                    writer.write(message.data)
                    await writer.drain()
            finally:
                sending.cancel()
                await asyncio.wait([sending])
    writer.close()


async def send_file(
    session: Session,
    chunks: AsyncIterator[bytes],
    *,
    exporter: int,
    attributes: Sequence[tuple[str, str]] = (),
) -> None:
    """Give the client a file of exporter number ``exporter`` (0 the first)."""
    session.require(SEND, "place for a file")
    metadata = [("buildkit-attachable-exporter-id", str(exporter))]
    metadata += ((f"exporter-md-{key}", value) for key, value in attributes)
    with told("the client's output"):
        async with session.channel.open(SEND, metadata) as stream:
            await stream.send_request()
            async for chunk in chunks:
                for start in range(0, len(chunk), _SEND_CHUNK):
                    piece = chunk[start : start + _SEND_CHUNK]
                    await stream.send_message(filesync.BytesMessage(data=piece))
            await stream.end()
            async for _ in stream:  # until the client has closed its file
                pass


_SEND_CHUNK = 1 << 20
