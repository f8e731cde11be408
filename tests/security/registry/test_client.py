"""Registries that lie, stall and steal: what the client does about it."""

from __future__ import annotations

import asyncio
import datetime
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sampan.content.store import FileStore
from sampan.errors import DigestMismatch, InvalidParameter, SampanError, Unavailable
from sampan.model.digest import Digest
from sampan.model.reference import Reference
from sampan.registry import Certificates, Credentials, Patience, Registries, Registry, Settings
from tests.unit.registry import samples

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
SECRET = Credentials(username="user", password="hunter2")


async def no_sleep(seconds: float) -> None:
    await asyncio.sleep(0)


SETTINGS = Settings(patience=Patience(attempts=3, sleep=no_sleep))


@asynccontextmanager
async def listening(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server of this handler; its address."""
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"{host}:{port}"
    finally:
        await runner.cleanup()


@pytest.fixture
def content(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "content")


class Liar:
    """Serves a sample, with replacements by path."""

    def __init__(self, sample: samples.Sample) -> None:
        self.sample = sample
        self.requests: list[tuple[str, str, str]] = []
        self.replaced: dict[str, Handler] = {}

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        authorization = request.headers.get("Authorization", "")
        self.requests.append((request.method, request.path, authorization))
        for part, handler in self.replaced.items():
            if part in request.path:
                return await handler(request)
        if "/manifests/" in request.path:
            headers = {
                "Content-Type": self.sample.media_type,
                "Docker-Content-Digest": str(self.sample.digest),
            }
            return web.Response(body=self.sample.manifest, headers=headers)
        for blob in self.sample.blobs:
            if str(Digest.of(blob)) in request.path:
                return web.Response(body=blob)
        return web.Response(body=b"{}")


async def pull(address: str, content: FileStore, settings: Settings = SETTINGS) -> None:
    async with Registry(settings) as registry:
        reference = Reference.parse(f"{address}/a:x")
        await registry.pull(reference, content=content, credentials=SECRET)


def nothing_wrong_is_stored(content: FileStore) -> None:
    for blob in content.walk():
        assert Digest.of(content.path(blob.digest).read_bytes()) == blob.digest


@pytest.mark.parametrize("change", ["other", "longer", "shorter"])
async def test_a_layer_that_is_not_what_its_digest_says(content: FileStore, change: str) -> None:
    sample = samples.image(1, 100_000)
    layer = sample.blobs[1]
    wrong = {"other": b"x" * len(layer), "longer": layer + b"x", "shorter": layer[:-1]}[change]

    async def send(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=wrong)

    liar = Liar(sample)
    liar.replaced[str(Digest.of(layer))] = send
    async with listening(liar) as address:
        with pytest.raises((DigestMismatch, Unavailable)):
            await pull(address, content)
    assert not content.exists(Digest.of(layer))
    nothing_wrong_is_stored(content)


async def test_a_manifest_that_is_not_what_its_digest_says(content: FileStore) -> None:
    sample, other = samples.image(1), samples.image(1)
    liar = Liar(sample)

    async def send(request: web.BaseRequest) -> web.StreamResponse:
        headers = {
            "Content-Type": other.media_type,
            "Docker-Content-Digest": str(sample.digest),
        }
        return web.Response(body=other.manifest, headers=headers)

    liar.replaced["/manifests/"] = send
    async with listening(liar) as address:
        with pytest.raises(DigestMismatch):
            await pull(address, content)
        async with Registry(SETTINGS) as registry:
            by_digest = Reference.parse(f"{address}/a@{sample.digest}")
            with pytest.raises(DigestMismatch):
                await registry.pull(by_digest, content=content)
    assert list(content.walk()) == []


async def test_a_configuration_that_is_not_what_its_digest_says(content: FileStore) -> None:
    liar = Liar(samples.image(0))

    async def send(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"{}")

    liar.replaced["/blobs/"] = send
    async with listening(liar) as address:
        with pytest.raises(DigestMismatch):
            await pull(address, content)


async def test_an_endless_manifest_is_cut_off(content: FileStore) -> None:
    liar = Liar(samples.image(0))
    sent = 0

    async def send(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while request.method == "GET" and sent < 200 << 20:
            await response.write(b" " * (1 << 16))
            sent += 1 << 16
        return response

    liar.replaced["/manifests/"] = send
    async with listening(liar) as address:
        with pytest.raises(InvalidParameter, match="larger than"):
            await pull(address, content)
    assert sent < 100 << 20


async def test_huge_and_negative_sizes_are_refused(content: FileStore) -> None:
    for size in (-1, 1 << 62):
        document = json.loads(samples.image(0).manifest)
        document["config"]["size"] = size
        raw = json.dumps(document).encode()
        liar = Liar(samples.Sample(raw, ()))
        async with listening(liar) as address:
            with pytest.raises(InvalidParameter):
                await pull(address, content)


async def test_indexes_without_end_are_refused(content: FileStore) -> None:
    inner = samples.image(0)
    listed = {str(inner.digest): inner}
    outer = inner
    for _ in range(6):
        platform = {"os": "linux", "architecture": "amd64"}
        outer = samples.index(outer.descriptor(platform=platform))
        listed[str(outer.digest)] = outer
    liar = Liar(outer)

    async def send(request: web.BaseRequest) -> web.StreamResponse:
        wanted = listed.get(request.path.rpartition("/")[2], outer)
        headers = {
            "Content-Type": wanted.media_type,
            "Docker-Content-Digest": str(wanted.digest),
        }
        return web.Response(body=wanted.manifest, headers=headers)

    liar.sample = samples.Sample(outer.manifest, inner.blobs, outer.media_type)
    liar.replaced["/manifests/"] = send
    async with listening(liar) as address:
        with pytest.raises(InvalidParameter, match="nested too deeply"):
            await pull(address, content)


async def test_credentials_do_not_follow_redirects_to_another_host(content: FileStore) -> None:
    sample = samples.image(1, 50_000)
    thief = Liar(sample)
    liar = Liar(sample)
    busy: list[int] = []

    async def challenge(request: web.BaseRequest) -> web.StreamResponse:
        # The other host asks, too.
        if request.headers.get("Authorization"):
            return web.Response(body=sample.blobs[1])
        headers = {"WWW-Authenticate": f'Bearer realm="http://{theirs}/token"'}
        return web.Response(status=401, headers=headers)

    async with AsyncExitStack() as stack:
        theirs = await stack.enter_async_context(listening(thief))

        async def away(request: web.BaseRequest) -> web.StreamResponse:
            if not request.headers.get("Authorization"):
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="r"'})
            if busy:
                return web.Response(status=busy.pop())
            headers = {"Location": f"http://{theirs}{request.path}"}
            return web.Response(status=307, headers=headers)

        liar.replaced["/blobs/"] = away
        address = await stack.enter_async_context(listening(liar))
        await pull(address, content)
        assert any(authorization for *_, authorization in liar.requests)
        assert thief.requests
        assert all(authorization == "" for *_, authorization in thief.requests)
        # And when the other host demands them, it gets none either, nor does its realm; also
        # not at a second try, when the request that is sent there has them from the first.
        busy.append(503)
        content.delete(Digest.of(sample.blobs[1]))
        thief.replaced["/blobs/"] = challenge
        with pytest.raises(SampanError):
            await pull(address, content)
        assert all(authorization == "" for *_, authorization in thief.requests)


async def test_addresses_of_foreign_layers_get_no_credentials(
    content: FileStore, tmp_path: Path
) -> None:
    """Who may write a manifest may name any address as where a layer is."""
    pem, context = certificate(tmp_path, "thief")
    sample = samples.image(1, 50_000)
    layer = sample.blobs[1]
    thief, liar = Liar(sample), Liar(sample)

    def demanding(found: web.BaseRequest) -> bool:
        return not found.headers.get("Authorization")

    challenge = {"WWW-Authenticate": 'Basic realm="give"'}

    async def manifest(request: web.BaseRequest) -> web.StreamResponse:
        if demanding(request):
            return web.Response(status=401, headers=challenge)
        headers = {"Content-Type": sample.media_type, "Docker-Content-Digest": str(Digest.of(raw))}
        return web.Response(body=raw, headers=headers)

    async def lost(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=401 if demanding(request) else 404, headers=challenge)

    async with AsyncExitStack() as stack:
        theirs = await stack.enter_async_context(listening(thief, context))
        document = json.loads(sample.manifest)
        document["layers"][0]["urls"] = [f"https://{theirs}/v2/a/blobs/{Digest.of(layer)}"]
        raw = json.dumps(document).encode()
        liar.replaced["/manifests/"] = manifest
        liar.replaced[str(Digest.of(layer))] = lost
        address = await stack.enter_async_context(listening(liar))
        settings = Settings(
            certificates=Certificates((), authorities=str(pem)), patience=SETTINGS.patience
        )
        await pull(address, content, settings)
        assert content.exists(Digest.of(layer))
        content.delete(Digest.of(layer))
        thief.replaced["/blobs/"] = lost  # it asks for them
        with pytest.raises(SampanError):
            await pull(address, content, settings)
    assert any(authorization for *_, authorization in liar.requests)
    assert len(thief.requests) >= 2
    assert all(authorization == "" for *_, authorization in thief.requests)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://x/", "http://u:p@127.0.0.1:1/"])
async def test_redirects_out_of_http_are_refused(content: FileStore, target: str) -> None:
    liar = Liar(samples.image(1))

    async def away(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": target})

    liar.replaced["/blobs/"] = away
    async with listening(liar) as address:
        with pytest.raises(InvalidParameter):
            await pull(address, content)


async def test_redirects_without_end_are_refused(content: FileStore) -> None:
    liar = Liar(samples.image(1))

    async def around(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": f"{request.path}?again"})

    liar.replaced["/blobs/"] = around
    async with listening(liar) as address:
        with pytest.raises(InvalidParameter, match="too many"):
            await pull(address, content)


async def test_a_list_may_not_continue_on_another_host() -> None:
    liar = Liar(samples.image(0))

    async def send(request: web.BaseRequest) -> web.StreamResponse:
        headers = {"Link": '<http://127.0.0.1:1/v2/a/tags/list>; rel="next"'}
        return web.json_response({"name": "a", "tags": ["x"]}, headers=headers)

    liar.replaced["/tags/"] = send
    async with listening(liar) as address, Registry(SETTINGS) as registry:
        with pytest.raises(InvalidParameter, match="another host"):
            await registry.tags(Reference.parse(f"{address}/a"))


async def test_errors_do_not_carry_credentials_or_control_characters(content: FileStore) -> None:
    liar = Liar(samples.image(0))

    async def send(request: web.BaseRequest) -> web.StreamResponse:
        if not request.headers.get("Authorization"):
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="r"'})
        body = b'{"errors":[{"code":"DENIED","message":"\\u001b]0;evil\\u0007"}]}'
        return web.Response(status=403, body=body)

    liar.replaced["/manifests/"] = send
    async with listening(liar) as address:
        with pytest.raises(SampanError) as caught:
            await pull(address, content)
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).isprintable()


def certificate(directory: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for 127.0.0.1 and a server context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(__import__("ipaddress").ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = directory / f"{name}.crt"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = directory / f"{name}.key"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem, private)
    return pem, context


class Strict(Registries):
    """As if 127.0.0.1 were a host like any other."""

    def is_insecure(self, host: str) -> bool:
        return host in self.insecure


async def test_a_certificate_of_a_man_in_the_middle(content: FileStore, tmp_path: Path) -> None:
    trusted, genuine = certificate(tmp_path, "genuine")
    _, forged = certificate(tmp_path, "forged")
    sample = samples.image(1)
    for context, works in ((genuine, True), (forged, False)):
        liar = Liar(sample)
        async with listening(liar, context) as address:
            place = tmp_path / "certs.d" / address
            place.mkdir(parents=True)
            (place / "ca.crt").write_bytes(trusted.read_bytes())
            settings = Settings(
                registries=Strict(),
                certificates=Certificates((tmp_path / "certs.d",)),
                patience=SETTINGS.patience,
            )
            if works:
                await pull(address, content, settings)
                continue
            with pytest.raises(Unavailable, match="certificate cannot be trusted"):
                await pull(address, content, settings)
            assert liar.requests == []
            # Called insecure by its user, it is used.
            allowed = Settings(
                registries=Strict(insecure=(address,)),
                certificates=settings.certificates,
                patience=SETTINGS.patience,
            )
            await pull(address, content, allowed)


async def test_a_registry_reached_by_https_does_not_redirect_to_http(
    content: FileStore, tmp_path: Path
) -> None:
    pem, context = certificate(tmp_path, "r")
    plain, secure = Liar(samples.image(1)), Liar(samples.image(1))
    async with listening(plain) as theirs:

        async def away(request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=302, headers={"Location": f"http://{theirs}/"})

        secure.replaced["/blobs/"] = away
        async with listening(secure, context) as address:
            settings = Settings(
                registries=Strict(),
                certificates=Certificates((), authorities=str(pem)),
                patience=SETTINGS.patience,
            )
            with pytest.raises(InvalidParameter, match="from https to http"):
                await pull(address, content, settings)
        assert plain.requests == []
