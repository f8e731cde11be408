"""Which images are accepted: ``policy.json`` (containers-policy.json(5)), pure.

A policy maps scopes of the ``docker`` transport (a reference, a repository, a namespace, a host,
``*.domain``) to requirements, all of which an image must meet; the most particular scope decides,
then the transport's ``""``, then ``default``. A requirement whose key cannot be read is never met:
what it is for is refused, saying so. Archives that are loaded are judged by their transport
(``docker-archive``, ``oci-archive``), which no signature can satisfy.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from sampan.errors import InvalidParameter
from sampan.model.reference import Reference

_TRANSPORT = "docker"
Match = Literal[
    "matchExact",
    "matchRepoDigestOrExact",
    "matchRepository",
    "exactReference",
    "exactRepository",
    "remapIdentity",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIdentity:
    """How the name in a signature must relate to the name of the image."""

    kind: Match = "matchRepoDigestOrExact"
    #: exactReference, exactRepository: the name; remapIdentity: the signed prefix.
    name: str = ""
    #: remapIdentity: the prefix that is replaced.
    prefix: str = ""

    def accepts(self, image: Reference, signed: str) -> bool:
        """Whether a signature for the name ``signed`` is one for ``image``."""
        try:
            other = Reference.parse(signed)
            match self.kind:
                case "exactReference":
                    return other == Reference.parse(self.name)
                case "exactRepository":
                    return other.name == Reference.parse(self.name).name
                case "remapIdentity":
                    image = self._remapped(image)
        except InvalidParameter:
            return False
        if image.name != other.name:
            return False
        if self.kind == "matchRepository":
            return True
        if self.kind == "matchExact":
            return bool(image.tag) and image.tag == other.tag
        return image.digest is not None or image.tag == other.tag

    def _remapped(self, image: Reference) -> Reference:
        name = image.name
        if name != self.prefix and not name.startswith(f"{self.prefix}/"):
            return image
        moved = Reference.parse(self.name + name.removeprefix(self.prefix))
        return Reference(moved.domain, moved.path, image.tag, image.digest)


@dataclass(frozen=True, slots=True)
class Accept:
    """``insecureAcceptAnything``."""


@dataclass(frozen=True, slots=True)
class Reject:
    """``reject``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """``sigstoreSigned``: a cosign signature by any of ``keys`` (PEM) for a matching name.

    ``signedBy``: a simple signature by a key of the OpenPGP keyrings ``keys``. ``notationSigned``
    is an extension of ours: a Notary Project signature whose certificate chain ends in one of
    ``keys``, which are CA certificates.
    """

    kind: Literal["sigstoreSigned", "signedBy", "notationSigned"] = "sigstoreSigned"
    keys: tuple[bytes, ...]
    identity: SignedIdentity = SignedIdentity()


@dataclass(frozen=True, slots=True)
class Unmet:
    """A requirement that nothing can meet, and why: its key cannot be read."""

    reason: str


Requirement = Accept | Reject | Signed | Unmet


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Requirements by scope; the default policy accepts everything."""

    default: tuple[Requirement, ...] = (Accept(),)
    scopes: Mapping[str, tuple[Requirement, ...]] = field(default_factory=dict)
    #: other transports (``docker-archive``, ...): what their scope ``""`` demands
    transports: Mapping[str, tuple[Requirement, ...]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Policy:
        """The policy in a file, with the keys it names; raises :class:`InvalidParameter`."""
        try:
            return cls.parse(path.read_bytes())
        except OSError as error:
            raise InvalidParameter(f"cannot read {path}: {error.strerror}") from error

    @classmethod
    def parse(cls, raw: bytes) -> Policy:
        """The policy in a document; raises :class:`InvalidParameter` or :class:`Unsupported`."""
        try:
            file = msgspec.json.decode(raw, type=_File)
        except msgspec.DecodeError as error:
            raise InvalidParameter(f"invalid policy.json: {error}") from error
        if not file.default:
            raise InvalidParameter("invalid policy.json: no default requirements")
        return cls(
            default=tuple(map(_requirement, file.default)),
            scopes={
                scope: tuple(map(_requirement, items))
                for scope, items in file.transports.get(_TRANSPORT, {}).items()
            },
            transports={
                name: tuple(map(_requirement, scopes[""]))
                for name, scopes in file.transports.items()
                if name != _TRANSPORT and "" in scopes
            },
        )

    def requirements(self, reference: Reference) -> tuple[Requirement, ...]:
        """What an image must meet."""
        for scope in _scopes(reference):
            found = self.scopes.get(scope)
            if found is not None:
                return found
        return self.default

    def accepts_archives(self, transport: str) -> bool:
        """Whether archives (``docker-archive``, ``oci-archive``) may bring images unsigned."""
        found = self.transports.get(transport, self.default)
        return all(isinstance(item, Accept) for item in found)


def _scopes(reference: Reference) -> list[str]:
    """Scopes of a reference, the most particular first."""
    found = list(reference.scopes())
    host = reference.domain.partition(":")[0]
    while "." in host:
        host = host.partition(".")[2]
        found.append(f"*.{host}")
    return [*found, ""]


class _Identity(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    type: str
    docker_reference: str = ""
    docker_repository: str = ""
    prefix: str = ""
    signed_prefix: str = ""


class _Requirement(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    type: str
    key_type: str = ""
    key_path: str = ""
    key_paths: list[str] = []
    key_data: str = ""
    key_datas: list[str] = []
    signed_identity: _Identity | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    default: list[_Requirement]
    transports: dict[str, dict[str, list[_Requirement]]] = {}


def _requirement(item: _Requirement) -> Requirement:
    match item.type:
        case "insecureAcceptAnything":
            return Accept()
        case "reject":
            return Reject()
        case "sigstoreSigned" | "notationSigned" | "signedBy":
            return _signed(item, item.type)
    raise InvalidParameter(f"invalid policy.json: unknown requirement {item.type[:40]!r}")


def _signed(
    item: _Requirement, kind: Literal["sigstoreSigned", "notationSigned", "signedBy"]
) -> Signed | Unmet:
    """A requirement with the keys it names; one whose keys cannot be read is not met."""
    if kind == "signedBy" and item.key_type != "GPGKeys":
        raise InvalidParameter(f"invalid policy.json: keyType {item.key_type[:40]!r} of signedBy")
    forms = (item.key_path, item.key_paths, item.key_data, item.key_datas)
    if sum(map(bool, forms)) != 1:
        raise InvalidParameter(
            f"invalid policy.json: {kind} needs one of keyPath, keyPaths, keyData and keyDatas"
        )
    identity = _identity(item.signed_identity)
    keys: list[bytes] = []
    for path in filter(None, [item.key_path, *item.key_paths]):
        try:
            keys.append(Path(path).read_bytes())
        except OSError as error:
            return Unmet(f"{kind}: cannot read {path}: {error.strerror}")
    for text in filter(None, [item.key_data, *item.key_datas]):
        try:
            keys.append(base64.b64decode(text, validate=True))
        except binascii.Error as error:
            raise InvalidParameter("invalid policy.json: keyData is not base64") from error
    return Signed(kind=kind, keys=tuple(keys), identity=identity)


def _identity(item: _Identity | None) -> SignedIdentity:
    if item is None:
        return SignedIdentity()
    match item.type:
        case "matchExact" | "matchRepoDigestOrExact" | "matchRepository":
            return SignedIdentity(kind=item.type)
        case "exactReference":
            return SignedIdentity(kind=item.type, name=item.docker_reference)
        case "exactRepository":
            return SignedIdentity(kind=item.type, name=item.docker_repository)
        case "remapIdentity":
            return SignedIdentity(kind=item.type, name=item.signed_prefix, prefix=item.prefix)
    raise InvalidParameter(f"invalid policy.json: unknown signedIdentity {item.type[:40]!r}")
