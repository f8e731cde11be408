"""What a registry server is started with: one frozen value, read from a TOML file or made in code.

Unknown keys are refused by name, so that a misspelt limit is not silently no limit.

Example::

    listen = "0.0.0.0:5000"
    workers = 2

    [storage]
    root = "/var/lib/sampan-registry"

    [auth]
    htpasswd = "/etc/sampan-registry/htpasswd"

    [[access]]
    user = "ci"
    repository = "team/*"
    actions = ["pull", "push"]
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from sampan.errors import InvalidParameter

Action = Literal["pull", "push", "delete"]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the sections: frozen, no positional arguments, no unknown keys."""


class S3(Config, frozen=True):
    """An S3-compatible bucket. ``endpoint`` is the service's URL without the bucket.

    ``redirect`` sends clients to pre-signed URLs (valid ``redirect_seconds``) for blobs instead of
    passing their bytes through this server, unless that led from HTTPS here to HTTP.
    ``path_style`` puts the bucket in the path.
    """

    endpoint: str
    bucket: str
    region: str = "us-east-1"
    access_key: str = ""
    secret_key: str = ""
    prefix: str = ""
    path_style: bool = True
    redirect: bool = True
    redirect_seconds: int = 1200
    public_endpoint: str = ""
    ca_file: str = ""


class Storage(Config, frozen=True):
    """Where the data is: a directory, or a bucket when ``s3`` is given.

    With ``s3``, ``root`` only spools what a pull-through cache is fetching.
    """

    root: str = "/var/lib/sampan-registry"
    s3: S3 | None = None


class TLS(Config, frozen=True):
    """PEM files. ``client_ca`` makes client certificates, signed by it, mandatory."""

    certificate: str
    key: str
    client_ca: str = ""


class TokenIssuer(Config, frozen=True):
    """Tokens of somebody else's authorization server (Docker token specification).

    ``keys`` is a PEM file with the issuer's public keys or certificates.
    """

    realm: str
    service: str
    issuer: str
    keys: str


class Auth(Config, frozen=True):
    """Who may come in. With neither file nor issuer everybody is anonymous and may do all.

    ``htpasswd`` holds ``user:bcrypt`` lines; it is read again when it changes. ``own_tokens`` makes
    this server issue Bearer tokens itself (at ``/token``, signed with ``token_key``, an ECDSA P-256
    key in PEM that is made when absent), so that clients send a password once per session.
    """

    htpasswd: str = ""
    own_tokens: bool = False
    token_key: str = ""
    token_seconds: int = 300
    service: str = "sampan-registry"
    issuer: TokenIssuer | None = None


class Access(Config, frozen=True):
    """A rule: ``user`` (``*`` any authenticated, ``""`` anybody at all) may do ``actions``.

    ``repository`` is a shell pattern where ``*`` also matches ``/``. Rights add up.
    """

    user: str
    repository: str = "*"
    actions: tuple[Action, ...] = ("pull",)


class Upstream(Config, frozen=True):
    """A registry this one is a pull-through cache of, for repositories below ``prefix``.

    ``prefix`` (empty: every repository) is taken off the name before asking ``url``. A tag is asked
    for again after ``fresh_seconds``.
    """

    url: str
    prefix: str = ""
    username: str = ""
    password: str = ""
    fresh_seconds: int = 60
    ca_file: str = ""


class Quota(Config, frozen=True):
    """Repositories matching the shell pattern may hold this many bytes each."""

    repository: str
    bytes: int


class Webhook(Config, frozen=True):
    """Where to send events (the envelope of Docker's registry), with extra ``headers``.

    Each event is tried ``attempts`` times; ``queue`` bounds how many wait.
    """

    url: str
    headers: dict[str, str] = {}
    actions: tuple[str, ...] = ("push", "pull", "delete", "mount")
    timeout_seconds: float = 5.0
    attempts: int = 5
    queue: int = 10_000


class Collection(Config, frozen=True):
    """Garbage collection while serving: every ``interval_seconds`` (0: never by itself).

    Blobs that no manifest refers to go once they are ``grace_seconds`` old; uploads nobody
    continued after ``upload_seconds``; with ``untagged_seconds``, manifests without a tag, an index
    or a subject that hold them, after that long.
    """

    interval_seconds: float = 0.0
    grace_seconds: float = 3600.0
    upload_seconds: float = 86400.0
    untagged_seconds: float | None = None


class ServerConfig(Config, frozen=True):
    """Everything about one registry server.

    ``listen`` is ``host:port`` (port 0: any). ``workers`` processes share the port. ``delete``
    allows deleting; ``read_only`` refuses every change. ``metrics`` serves ``/metrics`` and ``web``
    the pages for people. ``max_manifest_bytes`` bounds manifests, ``warning`` is sent with every
    answer.
    """

    listen: str = "127.0.0.1:5000"
    workers: int = 1
    storage: Storage = Storage()
    tls: TLS | None = None
    auth: Auth = Auth()
    access: tuple[Access, ...] = ()
    upstreams: tuple[Upstream, ...] = ()
    quotas: tuple[Quota, ...] = ()
    webhooks: tuple[Webhook, ...] = ()
    collection: Collection = Collection()
    delete: bool = True
    read_only: bool = False
    sparse_indexes: bool = False
    metrics: bool = True
    web: bool = True
    max_manifest_bytes: int = 4 << 20
    warning: str = ""

    def __post_init__(self) -> None:
        host_port(self.listen)
        if not 1 <= self.workers <= 256:
            raise InvalidParameter(f"workers must be 1 to 256, not {self.workers}")
        if self.warning and (len(self.warning) > 1024 or not self.warning.isprintable()):
            raise InvalidParameter("warning must be at most 1024 printable characters")
        if self.auth.own_tokens and not self.auth.htpasswd:
            raise InvalidParameter("auth.own_tokens needs auth.htpasswd")
        if self.auth.own_tokens and self.auth.issuer:
            raise InvalidParameter("auth.own_tokens and auth.issuer exclude each other")
        prefixes = [upstream.prefix for upstream in self.upstreams]
        if len(set(prefixes)) != len(prefixes):
            raise InvalidParameter("two upstreams have the same prefix")


def host_port(listen: str) -> tuple[str, int]:
    """Host and port of ``host:port``, ``[v6]:port`` or ``:port``; raises InvalidParameter."""
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidParameter(f"invalid address {listen!r}: expected host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def load(path: Path) -> ServerConfig:
    """The configuration in a TOML file; raises :class:`InvalidParameter` naming what is wrong."""
    try:
        document = tomllib.loads(path.read_text())
        return msgspec.convert(document, ServerConfig)
    except OSError as error:
        raise InvalidParameter(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise InvalidParameter(f"{path}: {error}") from error
