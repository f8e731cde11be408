"""Mutual TLS, and a half-close that TLS does not turn into a close."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sampan.api.listeners import tls_context
from sampan.api.server import Daemon
from sampan.api.settings import Tls
from sampan.api.tls import TlsServer
from sampan.errors import InvalidParameter
from tests.conformance.api.fake import FakeAttachment, FakeEngine

if TYPE_CHECKING:
    from sampan.engine.engine import Engine

Signer = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def issue(directory: Path, name: str, signer: Signer | None = None) -> Signer:
    """A key and a certificate for ``name`` in ``directory``, signed by itself or by ``signer``."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer[0].subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    )
    certificate = builder.sign(signer[1] if signer else key, hashes.SHA256())
    encoding = serialization.Encoding.PEM
    (directory / f"{name}.pem").write_bytes(certificate.public_bytes(encoding))
    (directory / f"{name}-key.pem").write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, key


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """An authority, a server, a client, and a client of nobody."""
    authority = issue(tmp_path, "ca")
    issue(tmp_path, "server", authority)
    issue(tmp_path, "client", authority)
    issue(tmp_path, "stranger")
    return tmp_path


def settings(directory: Path) -> Tls:
    return Tls(
        verify=True,
        ca=str(directory / "ca.pem"),
        certificate=str(directory / "server.pem"),
        key=str(directory / "server-key.pem"),
    )


def client(directory: Path, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
    context.load_cert_chain(directory / f"{name}.pem", directory / f"{name}-key.pem")
    return context


@pytest.fixture
async def engine_and_port(certificates: Path) -> AsyncIterator[tuple[FakeEngine, int]]:
    engine = FakeEngine()
    daemon = Daemon(engine=cast("Engine", engine), product="1", spool_directory=certificates)
    protocol = daemon.server()
    server = await asyncio.get_running_loop().create_server(
        partial(TlsServer, tls_context(settings(certificates)), protocol), "127.0.0.1", 0
    )
    yield engine, server.sockets[0].getsockname()[1]
    server.close()
    await protocol.shutdown(0.1)
    if engine.containers.attachment is not None:
        engine.containers.attachment.release()


async def test_only_clients_of_our_authority_are_served(
    engine_and_port: tuple[FakeEngine, int], certificates: Path
) -> None:
    _, port = engine_and_port
    request = b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection(
        "localhost", port, ssl=client(certificates, "client")
    )
    writer.write(request)
    assert (await reader.read()).endswith(b"OK")
    writer.close()
    with suppress(ssl.SSLError, ConnectionError):  # TLS 1.3: refused only after the handshake
        reader, writer = await asyncio.open_connection(
            "localhost", port, ssl=client(certificates, "stranger")
        )
        writer.write(request)
        assert await reader.read() == b""
        writer.close()


def test_certificates_that_do_not_load_are_named(certificates: Path) -> None:
    wrong = Tls(verify=False, ca="", certificate="/nonexistent.pem", key="/nonexistent.pem")
    with pytest.raises(InvalidParameter, match="/nonexistent"):
        tls_context(wrong)


async def test_the_end_of_input_is_not_the_end_of_output(
    engine_and_port: tuple[FakeEngine, int], certificates: Path
) -> None:
    engine, port = engine_and_port
    attachment = engine.containers.attachment = FakeAttachment()
    peer = Peer(client(certificates, "client"))
    await peer.connect(port)
    await peer.send(
        b"POST /containers/a/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n"
        b"Upgrade: tcp\r\nConnection: Upgrade\r\n\r\n"
    )
    assert (await peer.receive()).startswith(b"HTTP/1.1 101 UPGRADED\r\n")
    await peer.send(b"question")
    await peer.end_output()
    loop = asyncio.get_running_loop()
    assert await loop.sock_recv(attachment.program, 100) == b"question"
    assert await loop.sock_recv(attachment.program, 100) == b""
    block = b"answer" * 50_000
    await loop.sock_sendall(attachment.program, block)
    attachment.program.close()
    received = b""
    while data := await peer.receive():
        received += data
    assert received == block
    peer.close()


class Peer:
    """A TLS client that can end its output alone, as Go's crypto/tls does (CloseWrite)."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def connect(self, port: int) -> None:
        self._reader, self._writer = await asyncio.open_connection("localhost", port)
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                self._in.write(await self._reader.read(1 << 16))
            else:
                return await self._flush()

    async def send(self, data: bytes) -> None:
        self._tls.write(data)
        await self._flush()

    async def end_output(self) -> None:
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.unwrap()
        await self._flush()

    async def receive(self) -> bytes:
        while True:
            try:
                return self._tls.read(1 << 16)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                data = await self._reader.read(1 << 16)
                if not data:
                    return b""
                self._in.write(data)

    def close(self) -> None:
        self._writer.close()

    async def _flush(self) -> None:
        self._writer.write(self._out.read())
        await self._writer.drain()
