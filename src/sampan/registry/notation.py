"""Notary Project signatures (``notation``), JWS envelopes: checking them, pure.

A signature is a manifest with the artifact type :data:`ARTIFACT_TYPE` whose subject is the signed
one; its layer is a JWS with the certificate chain of its signer. Trusted are chains that end in a
given CA and were valid when signed and are now; the algorithm must be the key's. (Notary Project:
"OCI Signatures", "JWS envelope".)
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.x509.oid import ExtendedKeyUsageOID

from sampan.errors import InvalidParameter
from sampan.model.digest import Digest

ARTIFACT_TYPE = "application/vnd.cncf.notary.signature"
ENVELOPE_TYPE = "application/jose+json"
MAX_ENVELOPE = 1 << 20
MAX_SIGNATURES = 100
_PAYLOAD_TYPE = "application/vnd.cncf.notary.payload.v1+json"
_SCHEME = "notary.x509"
_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_CURVES = {"256": 256, "384": 384, "512": 521}
_MAX_CHAIN = 10
#: Critical headers that are understood; a signature with another is not valid.
_UNDERSTOOD = frozenset(
    {
        "io.cncf.notary.signingScheme",
        "io.cncf.notary.expiry",
    }
)


class _Headers(msgspec.Struct):
    alg: str
    cty: str
    crit: list[str]
    scheme: str = msgspec.field(name="io.cncf.notary.signingScheme")
    signed: datetime = msgspec.field(name="io.cncf.notary.signingTime")
    expiry: datetime | None = msgspec.field(name="io.cncf.notary.expiry", default=None)


class _Unprotected(msgspec.Struct):
    x5c: list[str]


class _Envelope(msgspec.Struct):
    payload: str
    protected: str
    signature: str
    header: _Unprotected


class _Target(msgspec.Struct):
    digest: str


class _Payload(msgspec.Struct):
    target: _Target = msgspec.field(name="targetArtifact")


def verify(
    envelopes: Iterable[bytes], roots: Iterable[bytes], digests: Collection[Digest], now: datetime
) -> str:
    """Empty when some envelope is a good signature of one of ``digests``; or why not.

    ``roots`` are CA certificates in PEM; ``now`` is in UTC. Raises :class:`InvalidParameter` for
    a certificate among them that cannot be read.
    """
    try:
        trusted = [item for pem in roots for item in x509.load_pem_x509_certificates(pem)]
    except ValueError as error:
        raise InvalidParameter(f"a trusted certificate cannot be read: {error}") from error
    reason = "a signature was required, but no signature exists"
    for envelope in envelopes:
        reason = _check(envelope, trusted, digests, now)
        if not reason:
            return ""
    return reason


def _check(
    raw: bytes, trusted: Sequence[x509.Certificate], digests: Collection[Digest], now: datetime
) -> str:
    try:
        envelope = msgspec.json.decode(raw, type=_Envelope)
        headers = msgspec.json.decode(_unbase64(envelope.protected), type=_Headers)
        payload = msgspec.json.decode(_unbase64(envelope.payload), type=_Payload)
        chain = [
            x509.load_der_x509_certificate(base64.b64decode(item, validate=True))
            for item in envelope.header.x5c[:_MAX_CHAIN]
        ]
        signature = _unbase64(envelope.signature)
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        return f"a signature is malformed: {error}"[:200]
    if headers.scheme != _SCHEME or headers.cty != _PAYLOAD_TYPE:
        return "a signature is of a scheme that is not supported"
    if "io.cncf.notary.signingScheme" not in headers.crit or not _UNDERSTOOD.issuperset(
        headers.crit
    ):
        return "a signature has critical headers that are not understood"
    if headers.expiry is not None and headers.expiry <= now:
        return "the signature has expired"
    if not chain or not _leads_to(chain, trusted, (headers.signed, now)):
        return "the signer's certificate is not trusted"
    if not _may_sign_code(chain[0]):
        return "the signer's certificate is not for signing code"
    signed = f"{envelope.protected}.{envelope.payload}".encode()
    if not _is_signed(chain[0], headers.alg, signature, signed):
        return "the signature is not its certificate's"
    if payload.target.digest not in map(str, digests):
        return "the signature is for another manifest"
    return ""


def _unbase64(text: str) -> bytes:
    padded = text + "=" * (-len(text) % 4)
    return base64.b64decode(padded, altchars=b"-_", validate=True)


def _leads_to(
    chain: Sequence[x509.Certificate],
    trusted: Sequence[x509.Certificate],
    times: tuple[datetime, ...],
) -> bool:
    """Whether each certificate is issued by the next, the last is (or is by) a trusted one."""
    anchors = {item.fingerprint(hashes.SHA256()) for item in trusted}
    for position, item in enumerate(chain):
        if any(not _is_valid(item, time) for time in times):
            return False
        if position and not _is_authority(item, below=position - 1):
            return False
        if item.fingerprint(hashes.SHA256()) in anchors:
            return True
        following = chain[position + 1 :][:1] or [
            root for root in trusted if root.subject == item.issuer
        ]
        if not any(_issued(item, by) for by in following):
            return False
        if position + 1 == len(chain):
            return all(_is_authority(root, below=position) for root in following[:1]) and all(
                _is_valid(following[0], time) for time in times
            )
    return False


def _is_valid(certificate: x509.Certificate, time: datetime) -> bool:
    moment = time.astimezone(UTC)
    return certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc


def _is_authority(certificate: x509.Certificate, *, below: int) -> bool:
    """Whether a certificate may issue others, with ``below`` authorities between."""
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    deep_enough = basic.path_length is None or basic.path_length >= below
    return basic.ca and deep_enough and usage.key_cert_sign


def _issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _may_sign_code(certificate: x509.Certificate) -> bool:
    extensions = certificate.extensions
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    if not usage.digital_signature:
        return False
    try:
        extended = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.CODE_SIGNING in extended


def _is_signed(
    certificate: x509.Certificate, algorithm: str, signature: bytes, data: bytes
) -> bool:
    """Whether the certificate's key signed ``data`` by the JWS ``algorithm`` for such a key."""
    key = certificate.public_key()
    family, size = algorithm[:2], algorithm[2:]
    if size not in _HASHES:
        return False
    kind = _HASHES[size]
    try:
        if isinstance(key, rsa.RSAPublicKey) and family == "PS" and key.key_size >= 2048:
            pss = padding.PSS(padding.MGF1(kind), kind.digest_size)
            key.verify(signature, data, pss, kind)
            return True
        if isinstance(key, ec.EllipticCurvePublicKey) and family == "ES":
            half = len(signature) // 2
            if key.curve.key_size != _CURVES[size] or half != (key.curve.key_size + 7) // 8:
                return False
            r, s = (int.from_bytes(part) for part in (signature[:half], signature[half:]))
            key.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(kind))
            return True
    except InvalidSignature:
        return False
    return False
