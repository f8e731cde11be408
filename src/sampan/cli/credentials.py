"""Registry credentials: ``config.json``, credential helpers, and the header the daemon wants.

A helper is a program ``docker-credential-NAME`` that takes ``get``, ``store``, ``erase`` or
``list`` as its argument and JSON on standard input. Secrets never appear in argv or in messages.
"""

from __future__ import annotations

import base64
import json
from typing import NamedTuple

from sampan.cli.fault import CliError
from sampan.client.document import as_table, table, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.config import Config
    from sampan.cli.session import Session
    from sampan.client.document import Document

#: The key Docker Hub's credentials are stored under.
HUB = "https://index.docker.io/v1/"
_HUB_NAMES = ("docker.io", "index.docker.io")
_TOKEN_USER = "<token>"


class Credentials(NamedTuple):
    """What a registry is told; empty members are not sent."""

    server: str
    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def document(self) -> Document:
        """The API's AuthConfig."""
        members = {
            "username": self.username,
            "password": self.password,
            "identitytoken": self.identity_token,
            "registrytoken": self.registry_token,
            "serveraddress": self.server,
        }
        return {name: value for name, value in members.items() if value}


def server_key(domain: str) -> str:
    """The key the credentials of a registry are stored under."""
    return HUB if domain in _HUB_NAMES else domain


def registry_auth(session: Session, domain: str) -> str:
    """The ``X-Registry-Auth`` header for a registry: URL-safe base64 of JSON."""
    credentials = Store(session.config).get(server_key(domain))
    return encode_auth(credentials.document() if credentials else {})


def encode_auth(document: Document) -> str:
    """A document as the header carries it (RFC 4648, section 5)."""
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()


def _host(key: str) -> str:
    """A key without its scheme and path, as old files have them."""
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]


class Store:
    """The credentials of a configuration, wherever they are kept."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def get(self, server: str) -> Credentials | None:
        """The credentials of a server, None when there are none."""
        helper = self._helper(server)
        if helper:
            return helper_get(helper, server)
        auths = self._config.table("auths")
        entry = table(auths, server)
        if not entry:
            for key in auths:
                if _host(key) == _host(server):
                    entry = table(auths, key)
        return _decode_entry(server, entry) if entry else None

    def all(self) -> dict[str, Credentials]:
        """Every server's credentials, for builds that pull from several."""
        names = set(self._config.table("auths")) | set(self._config.table("credHelpers"))
        found = {}
        for name in sorted(names):
            credentials = self.get(name)
            if credentials is not None:
                found[name] = credentials
        return found

    def put(self, credentials: Credentials) -> str:
        """Keep credentials; returns where: a helper's name or ``""`` for the file."""
        helper = self._helper(credentials.server)
        auths = dict(self._config.table("auths"))
        if helper:
            helper_store(helper, credentials)
            auths[credentials.server] = {}
        else:
            auths[credentials.server] = _encode_entry(credentials)
        self._config.document["auths"] = auths
        self._config.save()
        return helper

    def erase(self, server: str) -> bool:
        """Forget a server's credentials. False when there were none."""
        helper = self._helper(server)
        auths = dict(self._config.table("auths"))
        known = server in auths
        if helper:
            helper_run(helper, "erase", server)
        if known:
            del auths[server]
            self._config.document["auths"] = auths
            self._config.save()
        return known or bool(helper)

    def _helper(self, server: str) -> str:
        helpers = self._config.labels("credHelpers")
        return helpers.get(server) or helpers.get(_host(server)) or self._config.text("credsStore")


def _decode_entry(server: str, entry: Document) -> Credentials:
    username, password = text(entry, "username"), text(entry, "password")
    packed = text(entry, "auth")
    if packed:
        try:
            decoded = base64.b64decode(packed, validate=True).decode()
        except ValueError as error:
            raise CliError(f"credentials of {server} in config.json are malformed") from error
        username, _colon, password = decoded.rstrip("\0").partition(":")
    return Credentials(
        server=server,
        username=username,
        password=password,
        identity_token=text(entry, "identitytoken"),
        registry_token=text(entry, "registrytoken"),
    )


def _encode_entry(credentials: Credentials) -> Document:
    pair = f"{credentials.username}:{credentials.password}".encode()
    entry: Document = {"auth": base64.b64encode(pair).decode()}
    if credentials.identity_token:
        entry["identitytoken"] = credentials.identity_token
    return entry


def helper_get(helper: str, server: str) -> Credentials | None:
    """Ask a helper. None when it knows nothing."""
    status, output = helper_run(helper, "get", server)
    if status != 0:
        if "credentials not found" in output or not output:
            return None
        raise CliError(f"error getting credentials - err: exit status {status}, out: `{output}`")
    try:
        answer = as_table(json.loads(output))
    except ValueError as error:
        raise CliError(f"docker-credential-{helper} answered something that is no JSON") from error
    username, secret = text(answer, "Username"), text(answer, "Secret")
    if username == _TOKEN_USER:
        return Credentials(server, identity_token=secret)
    return Credentials(server, username, secret)


def helper_store(helper: str, credentials: Credentials) -> None:
    """Give credentials to a helper. Raises :class:`CliError`."""
    token = credentials.identity_token
    message = {
        "ServerURL": credentials.server,
        "Username": _TOKEN_USER if token else credentials.username,
        "Secret": token or credentials.password,
    }
    status, output = helper_run(helper, "store", json.dumps(message))
    if status != 0:
        raise CliError(f"error storing credentials - err: exit status {status}, out: `{output}`")


def helper_run(helper: str, action: str, message: str) -> tuple[int, str]:
    """Run a helper; its status and what it printed."""
    import subprocess

    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, action], input=message.encode(), stdout=subprocess.PIPE, check=False
        )
    except FileNotFoundError:
        raise CliError(
            f'error getting credentials - err: exec: "{program}": executable file not found in '
            "$PATH, out: ``"
        ) from None
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()
