"""Who may do what: Basic, our own tokens, another issuer's, TLS with client certificates."""

from __future__ import annotations

import base64
import ipaddress
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bcrypt
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sampan.content.store import FileStore
from sampan.errors import Forbidden, NotFound, SampanError, Unauthorized, Unavailable
from sampan.model.reference import Reference
from sampan.registry import (
    Certificates,
    Credentials,
    Event,
    LayerProgress,
    Patience,
    Registry,
    Settings,
    Step,
)
from sampan.registry.server.config import TLS, Access, Auth, Storage, TokenIssuer
from tests.conformance.registry.conftest import Server, bucket
from tests.unit.registry import samples

Start = Callable[..., Awaitable[Server]]
ALICE = Credentials(username="alice", password="wonder:land")
BOB = Credentials(username="bob", password="builder")
RULES = (
    Access(user="", repository="public/*", actions=("pull",)),
    Access(user="*", repository="shared/*", actions=("pull",)),
    Access(user="alice", repository="*", actions=("pull", "push", "delete")),
    Access(user="bob", repository="bob/*", actions=("pull", "push")),
)


@pytest.fixture
def htpasswd(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    lines = [
        f"{item.username}:{bcrypt.hashpw(item.password.encode(), bcrypt.gensalt(4)).decode()}"
        for item in (ALICE, BOB)
    ]
    path.write_text("\n".join(lines))
    return path


def basic(credentials: Credentials) -> dict[str, str]:
    return {"Authorization": credentials.basic}


@pytest.mark.parametrize("tokens", [False, True])
async def test_rights(start: Start, content: FileStore, htpasswd: Path, tokens: bool) -> None:
    server = await start(auth=Auth(htpasswd=str(htpasswd), own_tokens=tokens), access=RULES)
    root = samples.image(1).store(content)
    name = {
        key: Reference.parse(f"{server.address}/{key}/x:1") for key in ("public", "shared", "bob")
    }
    hidden = Reference.parse(f"{server.address}/hidden:1")
    wrong = Credentials(username="alice", password="x")
    async with Registry() as registry:
        for reference in name.values():
            await registry.push(reference, root, content=content, credentials=ALICE)
        await registry.pull(name["shared"], content=content, credentials=BOB)
        await registry.push(name["bob"], root, content=content, credentials=BOB)
        await registry.pull(name["public"], content=content)
        with pytest.raises((Forbidden, Unauthorized)):
            await registry.push(name["shared"], root, content=content, credentials=BOB)
        with pytest.raises(NotFound, match="pull access denied"):
            await registry.pull(name["bob"], content=content)
        with pytest.raises(SampanError):
            await registry.pull(name["bob"], content=content, credentials=wrong)
        # A blob cannot be mounted from where one may not read.
        secret = samples.image(1)
        secret.store(content)
        await registry.push(hidden, secret.digest, content=content, credentials=ALICE)
        events: list[Event] = []
        await registry.push(
            name["bob"],
            secret.digest,
            content=content,
            credentials=BOB,
            listener=events.append,
            sources=lambda _: [hidden],
        )
        said = [item.step for item in events if isinstance(item, LayerProgress)]
        assert Step.PUSHED in said
        assert Step.MOUNTED not in said
        # Deleting is a right of its own.
        async with registry.origin(name["bob"], BOB, actions="pull,push,delete") as repository:
            with pytest.raises(SampanError):
                await repository.delete_manifest(root)
        async with registry.origin(name["bob"], ALICE, actions="pull,push,delete") as repository:
            await repository.delete_manifest(root)
            assert [item async for item in repository.repositories()]
        assert await registry.login(server.address, ALICE) == "" or tokens
        with pytest.raises(Unauthorized):
            await registry.login(server.address, wrong)


async def test_challenges(start: Start, htpasswd: Path) -> None:
    server = await start(auth=Auth(htpasswd=str(htpasswd), own_tokens=True), access=RULES)
    status, headers, body = await server.ask("GET", "/v2/bob/x/manifests/1")
    assert (status, json.loads(body)["errors"][0]["code"]) == (401, "UNAUTHORIZED")
    assert headers["www-authenticate"] == (
        f'Bearer realm="http://{server.address}/token",service="sampan-registry",'
        'scope="repository:bob/x:pull"'
    )
    assert (await server.ask("GET", "/v2/"))[0] == 401
    assert (await server.ask("GET", "/v2/", headers=basic(BOB)))[0] == 200
    assert (await server.ask("GET", "/v2/_catalog"))[0] == 401
    status, _, body = await server.ask("GET", "/v2/public/x/manifests/1", headers=basic(BOB))
    assert status == 404
    for value in ("Basic !!!", "Basic " + base64.b64encode(b"nocolon").decode(), "Digest x", "x"):
        status, _, _ = await server.ask("GET", "/v2/", headers={"Authorization": value})
        assert status == 401


async def test_tokens_hold_what_the_rules_allow_and_die_with_the_password(
    start: Start, htpasswd: Path
) -> None:
    server = await start(auth=Auth(htpasswd=str(htpasswd), own_tokens=True), access=RULES)
    query = (
        "scope=repository:bob/x:pull,push,delete&scope=repository:secret:pull&offline_token=true"
    )
    _, _, body = await server.ask("GET", f"/token?{query}", headers=basic(BOB))
    answer = json.loads(body)
    claims = jwt.decode(answer["token"], options={"verify_signature": False})
    assert claims["access"] == [
        {"type": "repository", "name": "bob/x", "actions": ["pull", "push"]}
    ]

    async def refresh() -> int:
        form = f"grant_type=refresh_token&refresh_token={answer['refresh_token']}&service=s"
        return (await server.ask("POST", "/token", form.encode()))[0]

    assert await refresh() == 200
    # A refresh token is no access token.
    token = {"Authorization": f"Bearer {answer['refresh_token']}"}
    assert (await server.ask("GET", "/v2/", headers=token))[0] == 401
    forged = jwt.encode({**claims, "access": []}, ec.generate_private_key(ec.SECP256R1()), "ES256")
    for text in (forged, jwt.encode(claims, "", "none"), answer["token"][:-4] + "AAAA", "x.y.z"):
        status, _, _ = await server.ask("GET", "/v2/", headers={"Authorization": f"Bearer {text}"})
        assert status == 401
    changed = f"bob:{bcrypt.hashpw(b'new', bcrypt.gensalt(4)).decode()}\n"
    htpasswd.write_text(changed)  # noqa: ASYNC240
    assert await refresh() == 401


async def test_tokens_of_another_issuer(start: Start, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = tmp_path / "keys.pem"
    pem.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    issuer = TokenIssuer(realm="https://auth.example/t", service="svc", issuer="iss", keys=str(pem))
    server = await start(auth=Auth(issuer=issuer))
    _, headers, _ = await server.ask("GET", "/v2/")
    assert headers["www-authenticate"] == 'Bearer realm="https://auth.example/t",service="svc"'

    async def status(**changed: object) -> int:
        access = [{"type": "repository", "name": "a", "actions": ["*"]}]
        claims = {"iss": "iss", "aud": "svc", "exp": time.time() + 60, "access": access, **changed}
        token = jwt.encode(claims, key, "ES256")
        answer = await server.ask(
            "GET", "/v2/a/tags/list", headers={"Authorization": f"Bearer {token}"}
        )
        return answer[0]

    assert await status() == 404  # let in; there is no such repository
    assert await status(aud="other") == 401
    assert await status(iss="other") == 401
    assert await status(exp=time.time() - 60) == 401
    assert await status(access=[]) == 401


def authority(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate authority in ``ca.crt``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
    made = _certificate(name, name, key.public_key(), key, ca=True)
    (directory / "ca.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return made, key


def issue(
    directory: Path,
    name: str,
    signer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey],
    suffix: str,
) -> None:
    """A certificate for 127.0.0.1 in ``<name>.<suffix>`` and ``<name>.key``."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = _certificate(subject, signer[0].subject, key.public_key(), signer[1], ca=False)
    (directory / f"{name}.{suffix}").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    key: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


async def test_tls_with_client_certificates_from_certs_d(
    start: Start, content: FileStore, tmp_path: Path
) -> None:
    signer = authority(tmp_path)
    issue(tmp_path, "server", signer, "crt")
    tls = TLS(
        certificate=str(tmp_path / "server.crt"),
        key=str(tmp_path / "server.key"),
        client_ca=str(tmp_path / "ca.crt"),
    )
    server = await start(tls=tls)
    root = samples.image(1, 3_000_000).store(content)
    reference = Reference.parse(f"{server.address}/a:x")
    place = tmp_path / "certs.d" / server.address
    place.mkdir(parents=True)
    (place / "ca.crt").write_bytes((tmp_path / "ca.crt").read_bytes())

    def settings() -> Settings:
        certificates = Certificates((tmp_path / "certs.d",))
        return Settings(certificates=certificates, patience=Patience(attempts=1))

    async with Registry(settings()) as registry:
        with pytest.raises(Unavailable):  # it demands a certificate
            await registry.push(reference, root, content=content)
    issue(place, "client", signer, "cert")
    async with Registry(settings()) as registry:
        await registry.push(reference, root, content=content)
        fresh = FileStore(tmp_path / "fresh")
        assert (await registry.pull(reference, content=fresh)).root.digest == root


async def test_tls_before_a_store_without(
    start: Start, s3: str, content: FileStore, tmp_path: Path
) -> None:
    """No client is sent from HTTPS to a pre-signed URL of plain HTTP: ours would not go there."""
    issue(tmp_path, "server", authority(tmp_path), "crt")
    tls = TLS(certificate=str(tmp_path / "server.crt"), key=str(tmp_path / "server.key"))
    server = await start(tls=tls, storage=Storage(root=str(tmp_path / "root"), s3=await bucket(s3)))
    root = samples.image(1, 100_000).store(content)
    reference = Reference.parse(f"{server.address}/a:x")
    place = tmp_path / "certs.d" / server.address
    place.mkdir(parents=True)
    (place / "ca.crt").write_bytes((tmp_path / "ca.crt").read_bytes())
    settings = Settings(certificates=Certificates((tmp_path / "certs.d",)))
    async with Registry(settings) as registry:
        await registry.push(reference, root, content=content)
        fresh = FileStore(tmp_path / "fresh")
        assert (await registry.pull(reference, content=fresh)).root.digest == root
