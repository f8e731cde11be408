"""Cosign signatures: making and checking them (sigstore "Signature Specification"), pure.

A signature is a layer of an image tagged ``<algorithm>-<hex>.sig``: the signed *simple signing*
document, with the signature over its bytes in an annotation. Keys are PEM: ECDSA (with SHA-256),
RSA (PKCS #1 v1.5) or Ed25519.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from sampan.errors import InvalidParameter, Unsupported
from sampan.model.descriptor import OCI_CONFIG, OCI_MANIFEST
from sampan.model.digest import Digest
from sampan.model.reference import Reference
from sampan.registry import manifest as manifests
from sampan.registry.manifest import Manifest
from sampan.registry.policy import SignedIdentity

PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
#: Longer documents are no signatures, and more than so many are not looked at.
MAX_PAYLOAD = 64 << 10
MAX_SIGNATURES = 100
_KIND = "cosign container image signature"
_PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class _Identity(msgspec.Struct):
    reference: str = msgspec.field(name="docker-reference", default="")


class _Image(msgspec.Struct):
    digest: str = msgspec.field(name="docker-manifest-digest", default="")


class _Critical(msgspec.Struct):
    type: str
    image: _Image
    identity: _Identity


class _Payload(msgspec.Struct):
    critical: _Critical


@dataclass(frozen=True, slots=True)
class Signature:
    """A signed document and the signature over it, not checked."""

    payload: bytes
    signature: bytes


def tag(digest: Digest) -> str:
    """The tag signatures of a manifest are under."""
    return f"{digest.algorithm}-{digest.hex}.sig"


def decode(text: str) -> bytes | None:
    """The signature in an annotation, None when it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def verify(
    signatures: Iterable[Signature],
    keys: Iterable[bytes],
    digests: Collection[Digest],
    image: Reference,
    identity: SignedIdentity,
) -> str:
    """Empty when some signature is good for one of the manifests ``digests``; or why not.

    ``image`` is the name they were asked for by.

    Raises :class:`InvalidParameter` for a key that cannot be read.
    """
    trusted = [_public_key(pem) for pem in keys]
    reason = "a signature was required, but no signature exists"
    for item in signatures:
        if not any(_is_by(key, item) for key in trusted):
            reason = "no signature is by a trusted key"
            continue
        try:
            critical = msgspec.json.decode(item.payload, type=_Payload).critical
        except msgspec.DecodeError:
            reason = "the signed document is malformed"
            continue
        if critical.type != _KIND:
            reason = f"the signed document is a {critical.type[:80]!r}"
        elif critical.image.digest not in map(str, digests):
            reason = "the signature is for another manifest"
        elif not identity.accepts(image, critical.identity.reference):
            reason = f"the signature is for {critical.identity.reference[:200]!r}"
        else:
            return ""
    return reason


def _public_key(pem: bytes) -> _PublicKey:
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidParameter(f"a trusted key cannot be read: {error}") from error
    if not isinstance(key, _PublicKey):
        raise Unsupported("a trusted key is of a kind that is not supported")
    return key


def _is_by(key: _PublicKey, item: Signature) -> bool:
    try:
        match key:
            case ec.EllipticCurvePublicKey():
                key.verify(item.signature, item.payload, ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPublicKey():
                key.verify(item.signature, item.payload, padding.PKCS1v15(), hashes.SHA256())
            case ed25519.Ed25519PublicKey():
                key.verify(item.signature, item.payload)
    except InvalidSignature:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key to sign with."""

    key: _PrivateKey = field(repr=False)

    @classmethod
    def load(cls, pem: bytes, password: bytes | None = None) -> Signer:
        """The PKCS #8 (or traditional) key in ``pem``; raises :class:`InvalidParameter`.

        Cosign's own encrypted format is refused by name.
        """
        if b"COSIGN PRIVATE KEY" in pem or b"SIGSTORE PRIVATE KEY" in pem:
            raise Unsupported("cosign's encrypted keys are not supported: use a PKCS #8 key")
        try:
            key = serialization.load_pem_private_key(pem, password)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InvalidParameter("the signing key cannot be read") from error
        if not isinstance(key, _PrivateKey):
            raise Unsupported("the signing key is of a kind that is not supported")
        return cls(key)

    def sign(self, digest: Digest, image: Reference) -> Signature:
        """A signature that the manifest ``digest`` is what ``image`` names."""
        payload = msgspec.json.encode(
            {
                "critical": {
                    "identity": {"docker-reference": str(image)},
                    "image": {"docker-manifest-digest": str(digest)},
                    "type": _KIND,
                },
                "optional": {"creator": "sampan"},
            }
        )
        match self.key:
            case ec.EllipticCurvePrivateKey():
                made = self.key.sign(payload, ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPrivateKey():
                made = self.key.sign(payload, padding.PKCS1v15(), hashes.SHA256())
            case ed25519.Ed25519PrivateKey():
                made = self.key.sign(payload)
        return Signature(payload, made)


def attached(signature: Signature, before: Manifest | None) -> tuple[Manifest, bytes]:
    """The signature image with one more signature than ``before`` has, and its configuration."""
    layers = [manifests.encode_descriptor(item) for item in before.layers] if before else []
    layers.append(
        {
            "mediaType": PAYLOAD_TYPE,
            "digest": str(Digest.of(signature.payload)),
            "size": len(signature.payload),
            "annotations": {SIGNATURE: base64.b64encode(signature.signature).decode()},
        }
    )
    config = msgspec.json.encode(
        {
            "architecture": "",
            "os": "",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [item["digest"] for item in layers]},
        }
    )
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": OCI_CONFIG,
            "digest": str(Digest.of(config)),
            "size": len(config),
        },
        "layers": layers,
    }
    return manifests.parse(msgspec.json.encode(document)), config
