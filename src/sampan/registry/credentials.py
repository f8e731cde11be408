"""Credentials: from a client's ``X-Registry-Auth`` header, from docker's ``config.json``, and from
credential helpers (docker-credential-helpers protocol).

Nothing here appears in a ``repr`` or an error message. Helpers are separate programs; starting
them is the caller's business (the command line does; the daemon gets credentials with requests).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from sampan.errors import InvalidParameter, Unavailable
from sampan.model.reference import DEFAULT_DOMAIN

#: The key Docker Hub's credentials are kept under.
HUB_KEY = "https://index.docker.io/v1/"
#: The user name that says that the secret is an identity (refresh) token.
TOKEN_USER = "<token>"
_HELPER_NAME = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_HELPER_SECONDS = 30.0
_NOT_FOUND = "credentials not found in native keychain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A user name and password, or an identity (refresh) token, or a ready registry token."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.username or self.identity_token or self.registry_token)

    @property
    def basic(self) -> str:
        """The value of an ``Authorization`` header with user name and password."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()


NONE = Credentials()


class _AuthConfig(msgspec.Struct, rename="lower"):
    username: str = ""
    password: str = ""
    auth: str = ""
    email: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class _ConfigFile(msgspec.Struct):
    auths: dict[str, _AuthConfig] = {}
    creds_store: str = msgspec.field(name="credsStore", default="")
    cred_helpers: dict[str, str] = msgspec.field(name="credHelpers", default_factory=dict)


class _HelperAnswer(msgspec.Struct):
    username: str = msgspec.field(name="Username", default="")
    secret: str = msgspec.field(name="Secret", default="")


def decode_header(value: str) -> tuple[Credentials, str]:
    """Credentials and server address in an ``X-Registry-Auth`` header (base64url JSON).

    An empty header, or ``{}``, is none. Raises :class:`InvalidParameter`.
    """
    if not value:
        return NONE, ""
    try:
        padded = value.rstrip("=") + "=" * (-len(value.rstrip("=")) % 4)
        raw = base64.b64decode(padded, altchars=b"-_", validate=True)
        auth = msgspec.json.decode(raw, type=_AuthConfig)
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise InvalidParameter("invalid X-Registry-Auth header") from error
    return _credentials(auth), auth.serveraddress


def _credentials(auth: _AuthConfig) -> Credentials:
    username, password = auth.username, auth.password
    if auth.auth and not username:
        try:
            pair = base64.b64decode(auth.auth).decode()
        except (binascii.Error, ValueError) as error:
            raise InvalidParameter("invalid auth entry among the credentials") from error
        username, _, password = pair.partition(":")
        password = password.rstrip("\0")
    return Credentials(
        username=username,
        password=password,
        identity_token=auth.identitytoken,
        registry_token=auth.registrytoken,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """What docker's ``config.json`` says about credentials."""

    auths: Mapping[str, Credentials] = field(default_factory=dict)
    store: str = ""
    helpers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, raw: bytes) -> ConfigFile:
        """The document in ``raw``; raises :class:`InvalidParameter`."""
        try:
            document = msgspec.json.decode(raw, type=_ConfigFile)
        except msgspec.DecodeError as error:
            raise InvalidParameter(f"invalid config.json: {error}") from error
        return cls(
            auths={key: _credentials(auth) for key, auth in document.auths.items()},
            store=document.creds_store,
            helpers=document.cred_helpers,
        )

    @classmethod
    def load(cls, path: Path) -> ConfigFile:
        """The file at ``path``; an empty one when there is none."""
        try:
            return cls.parse(path.read_bytes())
        except FileNotFoundError:
            return cls()

    def keys(self, domain: str) -> tuple[str, ...]:
        """The keys credentials of a registry can be under, the usual one first."""
        if domain == DEFAULT_DOMAIN:
            return HUB_KEY, "index.docker.io", "docker.io"
        return domain, f"https://{domain}", f"http://{domain}", f"https://{domain}/v1/"

    def stored(self, domain: str) -> Credentials:
        """Credentials in the file itself."""
        for key in self.keys(domain):
            if found := self.auths.get(key):
                return found
        return NONE

    def helper(self, domain: str) -> str:
        """The name of the helper to ask for a registry's credentials, empty for none."""
        for key in self.keys(domain):
            if name := self.helpers.get(key):
                return name
        return self.store

    async def find(self, domain: str, *, path: str) -> Credentials:
        """The credentials of a registry, asking a helper found on ``path`` if one is configured.

        Raises :class:`Unavailable` when the helper fails.
        """
        name = self.helper(domain)
        if not name:
            return self.stored(domain)
        found = await ask_helper(name, self.keys(domain)[0], path=path)
        return found or self.stored(domain)


async def ask_helper(name: str, key: str, *, path: str) -> Credentials:
    """What ``docker-credential-<name> get`` says of ``key``; NONE when it knows nothing.

    ``path`` is searched for the program. Raises :class:`InvalidParameter` for a name that is no
    program's, :class:`Unavailable` when it fails or takes longer than half a minute.
    """
    if not _HELPER_NAME.fullmatch(name):
        raise InvalidParameter(f"invalid credential helper name: {name[:40]!r}")
    program = shutil.which(f"docker-credential-{name}", path=path)
    if program is None:
        raise Unavailable(f"credential helper docker-credential-{name} is not installed")
    process = await asyncio.create_subprocess_exec(
        program,
        "get",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_HELPER_SECONDS):
            output, _ = await process.communicate(key.encode())
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise Unavailable(f"credential helper docker-credential-{name} does not answer") from error
    if process.returncode != 0:
        if _NOT_FOUND in output.decode(errors="replace"):
            return NONE
        raise Unavailable(
            f"credential helper docker-credential-{name} ended with {process.returncode}"
        )
    try:
        answer = msgspec.json.decode(output, type=_HelperAnswer)
    except msgspec.DecodeError as error:
        raise Unavailable(f"credential helper docker-credential-{name} answers no JSON") from error
    if answer.username == TOKEN_USER:
        return Credentials(username=TOKEN_USER, identity_token=answer.secret)
    return Credentials(username=answer.username, password=answer.secret)
