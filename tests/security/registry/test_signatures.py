"""Signatures and policy: what is accepted, and every way to be refused."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, utils
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sampan.content.store import FileStore
from sampan.errors import Forbidden, InvalidParameter
from sampan.model.digest import Digest
from sampan.model.reference import Reference
from sampan.registry import Policy, Registry, Settings, Signer, cosign, notation
from sampan.registry.policy import SignedIdentity
from sampan.registry.server.config import ServerConfig, Storage
from sampan.registry.server.serve import serving
from tests.unit.registry import samples

NAME = Reference.parse("r.example/team/app:1")
DIGEST = Digest.of(b"manifest")
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def public(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def private(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate,
    ],
)
def test_cosign_signatures(make: Callable[[], PrivateKey]) -> None:
    key, other = make(), make()
    made = Signer.load(private(key)).sign(DIGEST, NAME)
    assert "key" not in repr(Signer(key)).lower()

    def reason(
        signature: cosign.Signature = made,
        keys: list[bytes] | None = None,
        digest: Digest = DIGEST,
        image: Reference = NAME,
    ) -> str:
        trusted = keys if keys is not None else [public(key)]
        return cosign.verify([signature], trusted, [digest], image, SignedIdentity())

    assert reason() == ""
    assert reason(keys=[public(other), public(key)]) == ""
    assert "trusted key" in reason(keys=[public(other)])
    assert "another manifest" in reason(digest=Digest.of(b"other"))
    assert "team/app" in reason(image=Reference.parse("r.example/team/app:2"))
    changed = made.payload.replace(b"team/app", b"evil/app")
    assert "trusted key" in reason(cosign.Signature(changed, made.signature))
    assert "no signature exists" in cosign.verify([], [], [DIGEST], NAME, SignedIdentity())


def test_identities() -> None:
    def accepts(kind: str, image: str, signed: str, name: str = "", prefix: str = "") -> bool:
        identity = SignedIdentity(kind=kind, name=name, prefix=prefix)  # type: ignore[arg-type]
        return identity.accepts(Reference.parse(image), signed)

    by_digest = f"r.example/a@{DIGEST}"
    assert accepts("matchRepoDigestOrExact", by_digest, "r.example/a:7")
    assert not accepts("matchExact", by_digest, "r.example/a:7")
    assert accepts("matchExact", "r.example/a:7", "r.example/a:7")
    assert accepts("matchRepository", "r.example/a:7", "r.example/a:8")
    assert not accepts("matchRepository", "r.example/a:7", "r.example/b:7")
    assert accepts("exactReference", "m.example/x:1", "r.example/a:1", "r.example/a:1")
    assert accepts("exactRepository", "m.example/x:1", "r.example/a:9", "r.example/a")
    remapped = ("m.example/mirror/a:1", "r.example/a:1", "r.example", "m.example/mirror")
    assert accepts("remapIdentity", *remapped)
    assert not accepts("matchExact", "r.example/a:7", "not a reference!")


def test_policies() -> None:
    key = base64.b64encode(public(ec.generate_private_key(ec.SECP256R1()))).decode()
    policy = Policy.parse(
        json.dumps(
            {
                "default": [{"type": "reject"}],
                "transports": {
                    "docker": {
                        "": [{"type": "insecureAcceptAnything"}],
                        "r.example": [{"type": "reject"}],
                        "r.example/team": [{"type": "sigstoreSigned", "keyData": key}],
                        "*.wild.example": [{"type": "reject"}],
                        "pgp.example": [
                            {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/x"}
                        ],
                    },
                    "docker-archive": {"": [{"type": "insecureAcceptAnything"}]},
                },
            }
        ).encode()
    )

    def kind(text: str) -> str:
        return type(policy.requirements(Reference.parse(text))[0]).__name__

    assert kind("r.example/team/app:1") == "Signed"
    assert kind("r.example/teams/app") == "Reject"
    assert kind("a.b.wild.example:5000/x") == "Reject"
    assert kind("other.example/x") == "Accept"
    assert kind("pgp.example/x") == "Unmet"
    assert policy.accepts_archives("docker-archive")
    assert not policy.accepts_archives("oci-archive")


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ("{}", InvalidParameter),
        ('{"default":[]}', InvalidParameter),
        ('{"default":[{"type":"sigstoreSigned"}]}', InvalidParameter),
        ('{"default":[{"type":"acceptAll"}]}', InvalidParameter),
        ('{"default":[{"type":"reject","extra":1}]}', InvalidParameter),
        ('{"default":[{"type":"signedBy","keyPath":"/x"}]}', InvalidParameter),
        ('{"default":[{"type":"signedBy","keyType":"X509","keyPath":"/x"}]}', InvalidParameter),
        (
            '{"default":[{"type":"sigstoreSigned","keyPath":"/x","keyData":"eA=="}]}',
            InvalidParameter,
        ),
    ],
)
def test_wrong_policies_are_refused(document: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        Policy.parse(document.encode())


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    storage = Storage(root=str(tmp_path / "root"))
    async with serving(ServerConfig(listen="127.0.0.1:0", storage=storage)) as (host, port):
        yield f"{host}:{port}"


def requiring(kind: str, key: bytes) -> Settings:
    data = base64.b64encode(key).decode()
    document = {"default": [{"type": kind, "keyData": data}]}
    return Settings(policy=Policy.parse(json.dumps(document).encode()))


async def test_pulls_demand_the_signature_that_pushes_attach(address: str, tmp_path: Path) -> None:
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    content = FileStore(tmp_path / "content")
    reference = Reference.parse(f"{address}/team/app:1")
    image = samples.image(1)
    image.store(content)
    platform = {"os": "linux", "architecture": "amd64"}
    root = samples.index(image.descriptor(platform=platform)).store(content)
    async with Registry() as registry:
        await registry.push(reference, root, content=content)
    fresh = FileStore(tmp_path / "fresh")
    async with Registry(requiring("sigstoreSigned", public(key))) as registry:
        with pytest.raises(Forbidden, match="no signature exists"):
            await registry.pull(reference, content=fresh)
        for signer in (other, key):  # one signature beside another
            await registry.push(reference, root, content=content, signer=Signer(signer))
        assert (await registry.pull(reference, content=fresh)).root.digest == root
        # What is signed under one name is not accepted under another.
        moved = Reference.parse(f"{address}/team/other:1")
        async with registry.origin(reference, actions="pull") as repository:
            signatures = await repository.manifest(cosign.tag(root))
        assert len(signatures.layers) == 2
        await registry.push(moved, root, content=content)
        with pytest.raises(Forbidden, match="no signature exists"):
            await registry.pull(moved, content=fresh)
    stranger = ec.generate_private_key(ec.SECP256R1())
    async with Registry(requiring("sigstoreSigned", public(stranger))) as registry:
        with pytest.raises(Forbidden, match="trusted key"):
            await registry.pull(reference, content=fresh)


# -- notation


class Chain:
    """A CA, a leaf for signing code, and envelopes signed with it."""

    def __init__(self, *, days: int = 1, usage: x509.ObjectIdentifier | None = None) -> None:
        self._ca_key = ec.generate_private_key(ec.SECP256R1())
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
        self._ca = self._make(name, name, self._ca_key.public_key(), ca=True, days=30)
        leaf = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")])
        usages = [usage or ExtendedKeyUsageOID.CODE_SIGNING]
        self.leaf = self._make(leaf, name, self.key.public_key(), days=days, usages=usages)
        self.root = self._ca.public_bytes(serialization.Encoding.PEM)

    def _make(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePublicKey,
        *,
        days: int,
        ca: bool = False,
        usages: list[x509.ObjectIdentifier] | None = None,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=20))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(not ca, False, False, False, False, ca, False, False, False),
                critical=True,
            )
        )
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        return builder.sign(self._ca_key, hashes.SHA256())

    def sign(self, sample: dict[str, object], **headers: object) -> bytes:
        """An envelope over a descriptor."""

        def encoded(data: bytes) -> str:
            return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

        protected = {
            "alg": "ES256",
            "cty": "application/vnd.cncf.notary.payload.v1+json",
            "crit": ["io.cncf.notary.signingScheme"],
            "io.cncf.notary.signingScheme": "notary.x509",
            "io.cncf.notary.signingTime": datetime.now(UTC).isoformat(),
            **headers,
        }
        first = encoded(json.dumps(protected).encode())
        second = encoded(json.dumps({"targetArtifact": sample}).encode())
        made = self.key.sign(f"{first}.{second}".encode(), ec.ECDSA(hashes.SHA256()))
        r, s = utils.decode_dss_signature(made)
        certificates = [
            base64.b64encode(item.public_bytes(serialization.Encoding.DER)).decode()
            for item in (self.leaf, self._ca)
        ]
        return json.dumps(
            {
                "protected": first,
                "payload": second,
                "header": {"x5c": certificates},
                "signature": encoded(r.to_bytes(32) + s.to_bytes(32)),
            }
        ).encode()


def test_notation_envelopes() -> None:
    chain, stranger = Chain(), Chain()
    target: dict[str, object] = {"mediaType": "m", "digest": str(DIGEST), "size": 8}
    now = datetime.now(UTC)

    def reason(envelope: bytes, roots: bytes = chain.root, time: datetime = now) -> str:
        return notation.verify([envelope], [roots], [DIGEST], time)

    good = chain.sign(target)
    assert reason(good) == ""
    assert "not trusted" in reason(good, stranger.root)
    assert "not trusted" in reason(good, time=now + timedelta(days=2))
    assert "another manifest" in reason(chain.sign({**target, "digest": "sha256:" + "a" * 64}))
    expired = {"io.cncf.notary.expiry": (now - timedelta(days=1)).isoformat()}
    assert "expired" in reason(chain.sign(target, **expired))
    assert "not understood" in reason(
        chain.sign(target, crit=["io.cncf.notary.signingScheme", "x"])
    )
    assert "not supported" in reason(chain.sign(target, cty="text/plain"))
    assert "not its certificate's" in reason(chain.sign(target, alg="ES384"))
    assert "not its certificate's" in reason(chain.sign(target, alg="none"))
    server = Chain(usage=ExtendedKeyUsageOID.SERVER_AUTH)
    assert "not for signing code" in reason(server.sign(target), server.root)
    document = json.loads(good)
    document["payload"] = document["payload"][:-2]
    assert reason(json.dumps(document).encode())
    # A leaf cannot issue: a chain through it leads nowhere.
    document = json.loads(good)
    document["header"]["x5c"].insert(0, document["header"]["x5c"][0])
    assert "not trusted" in reason(json.dumps(document).encode())
    assert "malformed" in reason(b"{}")


async def test_pulls_demand_a_notation_signature(address: str, tmp_path: Path) -> None:
    chain = Chain()
    content = FileStore(tmp_path / "content")
    reference = Reference.parse(f"{address}/team/app:1")
    image = samples.image(1)
    image.store(content)
    envelope = chain.sign(image.descriptor())
    document = {
        "schemaVersion": 2,
        "mediaType": image.media_type,
        "artifactType": notation.ARTIFACT_TYPE,
        "config": samples.descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [samples.descriptor(notation.ENVELOPE_TYPE, envelope)],
        "subject": image.descriptor(),
    }
    signature = samples.Sample(json.dumps(document).encode(), (b"{}", envelope))
    signature.store(content)
    async with Registry(requiring("notationSigned", chain.root)) as registry:
        await registry.push(reference, image.digest, content=content)
        with pytest.raises(Forbidden, match="no signature exists"):
            await registry.pull(reference, content=content)
        untagged = Reference.parse(f"{address}/team/app@{signature.digest}")
        await registry.push(untagged, signature.digest, content=content)
        await registry.pull(reference, content=content)
