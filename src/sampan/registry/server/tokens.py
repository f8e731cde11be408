"""Bearer tokens: verifying them, and issuing them (Docker token authentication specification).

A token is a JWT whose ``access`` claim lists resources and actions. :class:`Verifier` knows the
issuer's public keys; :class:`Issuer` signs with the server's own key, for users of an htpasswd
file. Refresh tokens are JWTs too, of another audience, and die with the password they were got by.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import jwt
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from sampan.content.atomic import atomic_write
from sampan.errors import InvalidParameter, Unauthorized
from sampan.registry.server.access import Grant, Identity, Rules
from sampan.registry.server.passwords import Passwords

_ALGORITHMS = ("ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "EdDSA")
_LEEWAY = 30
_REFRESH_SECONDS = 30 * 86400
_PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----", re.DOTALL)
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class _Access(msgspec.Struct):
    type: str
    name: str
    actions: list[str]


class _Claims(msgspec.Struct):
    sub: str = ""
    access: list[_Access] = []
    fingerprint: str = ""


class Verifier:
    """Accepts tokens that ``issuer`` signed with one of ``keys`` for ``service``."""

    def __init__(self, keys: Iterable[PublicKey], *, issuer: str, service: str) -> None:
        self._keys = tuple(keys)
        self._issuer = issuer
        self._service = service

    def identify(self, token: str) -> Identity:
        """The identity and rights a token carries; raises :class:`Unauthorized`."""
        claims = self.claims(token, self._service)
        return Identity(
            user=claims.sub,
            grants=tuple(
                Grant(type=item.type, name=item.name, actions=tuple(item.actions))
                for item in claims.access
            ),
        )

    def claims(self, token: str, audience: str) -> _Claims:
        """The verified claims of a token for ``audience``; raises :class:`Unauthorized`."""
        for key in self._keys:
            try:
                claims = jwt.decode(
                    token,
                    key,
                    algorithms=list(_ALGORITHMS),
                    audience=audience,
                    issuer=self._issuer,
                    leeway=_LEEWAY,
                    options={"require": ["exp", "iss", "aud"]},
                )
                return msgspec.convert(claims, _Claims)
            except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError, jwt.InvalidKeyError):
                continue  # another key's
            except (jwt.PyJWTError, msgspec.ValidationError) as error:
                raise Unauthorized(f"invalid token: {error}") from error
        raise Unauthorized("invalid token: not signed by the issuer")


class Issuer:
    """Issues tokens to users of ``passwords`` within ``rules``.

    ``clock`` gives seconds since the epoch; ``lifetime`` is a token's, in seconds.
    """

    def __init__(
        self,
        key: ec.EllipticCurvePrivateKey,
        passwords: Passwords,
        rules: Rules,
        *,
        service: str,
        lifetime: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key = key
        self._passwords = passwords
        self._rules = rules
        self._service = service
        self._lifetime = lifetime
        self._clock = clock
        self.verifier = Verifier([key.public_key()], issuer=service, service=service)

    def token(self, user: str, scopes: Iterable[str], *, offline: bool) -> dict[str, str | int]:
        """The JSON answer of the token endpoint for an authenticated (or no) ``user``.

        ``offline`` adds a refresh token.
        """
        now = int(self._clock())
        access = [
            {"type": grant.type, "name": grant.name, "actions": list(grant.actions)}
            for grant in self._rules.grant(user, scopes)
        ]
        token = self._sign(
            self._service, self._lifetime, {"sub": user, "access": access, "jti": _random()}
        )
        answer: dict[str, str | int] = {
            "token": token,
            "access_token": token,
            "expires_in": self._lifetime,
            "issued_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        }
        fingerprint = self._passwords.fingerprint(user)
        if offline and fingerprint:
            answer["refresh_token"] = self._sign(
                f"{self._service} refresh",
                _REFRESH_SECONDS,
                {"sub": user, "fingerprint": fingerprint},
            )
        return answer

    def refreshed(self, refresh_token: str) -> str:
        """The user of a refresh token; raises :class:`Unauthorized`."""
        claims = self.verifier.claims(refresh_token, f"{self._service} refresh")
        if not claims.sub or claims.fingerprint != self._passwords.fingerprint(claims.sub):
            raise Unauthorized("the refresh token is no longer valid")
        return claims.sub

    def _sign(self, audience: str, lifetime: int, claims: dict[str, object]) -> str:
        now = int(self._clock())
        times = {"iat": now, "nbf": now, "exp": now + lifetime}
        return jwt.encode(
            {"iss": self._service, "aud": audience, **times, **claims}, self._key, "ES256"
        )


def _random() -> str:
    return secrets.token_urlsafe(12)


def load_public_keys(path: Path) -> list[PublicKey]:
    """The public keys and certificates in a PEM file; raises :class:`InvalidParameter`."""
    try:
        text = path.read_text()
        keys = [_public_key(match[0].encode()) for match in _PEM.finditer(text)]
    except (OSError, ValueError) as error:
        raise InvalidParameter(f"cannot read public keys in {path}: {error}") from error
    if not keys:
        raise InvalidParameter(f"{path}: no public keys")
    return keys


def _public_key(pem: bytes) -> PublicKey:
    if b"CERTIFICATE" in pem:
        certified = x509.load_pem_x509_certificate(pem).public_key()
        if isinstance(certified, PublicKey):
            return certified
    else:
        key = serialization.load_pem_public_key(pem)
        if isinstance(key, PublicKey):
            return key
    raise ValueError("unsupported kind of key")


def signing_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The ECDSA key in ``path``, made when there is none; raises :class:`InvalidParameter`."""
    if not path.exists():
        pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, pem)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidParameter(f"{path}: expected an ECDSA P-256 key")
    return key
