"""Authentication with registries as a conversation without I/O (Docker token specification).

A request is sent with what is known; a 401 names the scheme and, for Bearer, where to get a token
for which scope; :meth:`Authenticator.answer` fetches it with the credentials (GET with Basic, or
an OAuth2 POST when there is an identity token), and the request is repeated once. Tokens are kept
per host and scope until shortly before they expire.

Credentials go to the host they are for, and to the realm it names when that is safe: a realm over
plain HTTP gets none unless the registry itself is reached so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

import msgspec

from sampan.errors import Unauthorized
from sampan.registry.challenge import Challenge, parse
from sampan.registry.credentials import NONE, Credentials
from sampan.registry.http import Conversation, Reply, Request, failure

_DEFAULT_LIFETIME = 60
_EARLY = 10.0
_MAX_TOKENS = 1000
_CLIENT_ID = "sampan"


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: float = 0
    refresh_token: str = ""


@dataclass(slots=True)
class Authenticator:
    """The authentication of one account with one registry host.

    ``clock`` is monotonic, in seconds. ``refreshed`` is the last refresh token the registry gave.
    """

    credentials: Credentials = NONE
    clock: Callable[[], float] = time.monotonic
    refreshed: str = field(default="", repr=False)
    _basic: bool = False
    _tokens: dict[str, tuple[str, float]] = field(default_factory=dict, repr=False)

    def header(self, scope: str) -> str:
        """The ``Authorization`` header to begin with for ``scope``; empty when none is known."""
        if self.credentials.registry_token:
            return f"Bearer {self.credentials.registry_token}"
        token, expires = self._tokens.get(scope, ("", 0.0))
        if token and expires > self.clock():
            return f"Bearer {token}"
        return self.credentials.basic if self._basic else ""

    def answer(self, refused: Reply, scope: str, *, offline: bool = False) -> Conversation[str]:
        """The ``Authorization`` header to repeat a request with that got the 401 ``refused``.

        Yields the request for a token if one is needed. The header is empty when there is nothing
        more to present. ``offline`` asks for a refresh token too. Raises an error that says what
        the authorization server said when it refuses.
        """
        self._tokens.pop(scope, None)
        challenge = self._choose(refused)
        if challenge is None or self.credentials.registry_token:
            return ""
        if challenge.scheme == "basic":
            if not self.credentials.username or self._basic:
                return ""
            self._basic = True
            return self.credentials.basic
        request = self._token_request(challenge, scope, refused.url, offline=offline)
        reply = yield request
        if reply.status in (404, 405) and request.method == "POST":
            # The realm has no OAuth2 endpoint; ask as anybody would.
            reply = yield self._get_token(challenge, scope, refused.url, offline=offline)
        self._keep(scope, reply)
        return self.header(scope)

    def _choose(self, reply: Reply) -> Challenge | None:
        known = {challenge.scheme: challenge for challenge in parse(reply.challenges)}
        bearer = known.get("bearer")
        return bearer if bearer and bearer.parameters.get("realm") else known.get("basic")

    def _token_request(
        self, challenge: Challenge, scope: str, url: str, *, offline: bool
    ) -> Request:
        if not self.credentials.identity_token or not _trusts(url, challenge):
            return self._get_token(challenge, scope, url, offline=offline)
        form = {
            "grant_type": "refresh_token",
            "refresh_token": self.credentials.identity_token,
            "service": challenge.parameters.get("service", ""),
            "client_id": _CLIENT_ID,
            "scope": self._scope(challenge, scope),
        }
        return Request(
            method="POST",
            url=challenge.parameters["realm"],
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            body=urlencode(form).encode(),
        )

    def _get_token(self, challenge: Challenge, scope: str, url: str, *, offline: bool) -> Request:
        realm = challenge.parameters["realm"]
        query = [("service", challenge.parameters.get("service", ""))]
        query += [("scope", word) for word in self._scope(challenge, scope).split()]
        if self.credentials.username:
            query.append(("account", self.credentials.username))
        if offline:
            query += [("offline_token", "true"), ("client_id", _CLIENT_ID)]
        text = urlencode([pair for pair in query if pair[1]])
        headers: Mapping[str, str] = {}
        if self.credentials.username and self.credentials.password and _trusts(url, challenge):
            headers = {"Authorization": self.credentials.basic}
        return Request(
            method="GET", url=f"{realm}{'&' if '?' in realm else '?'}{text}", headers=headers
        )

    @staticmethod
    def _scope(challenge: Challenge, scope: str) -> str:
        """The scopes to ask for: ours, which may hold more than the challenge's, or the latter."""
        return scope or challenge.parameters.get("scope", "")

    def _keep(self, scope: str, reply: Reply) -> None:
        if reply.status != 200:
            raise failure(reply, "cannot get a token from the registry's authorization server")
        try:
            token = msgspec.json.decode(reply.body, type=_Token)
        except msgspec.DecodeError as error:
            raise Unauthorized("the registry's authorization server answered no token") from error
        text = token.token or token.access_token
        if not text or not text.isascii() or not text.isprintable():
            raise Unauthorized("the registry's authorization server answered no token")
        lifetime = token.expires_in or _DEFAULT_LIFETIME
        if len(self._tokens) >= _MAX_TOKENS:
            self._tokens.clear()
        self._tokens[scope] = text, self.clock() + max(lifetime - _EARLY, 1.0)
        self.refreshed = token.refresh_token or self.refreshed


def _trusts(url: str, challenge: Challenge) -> bool:
    """Whether credentials may go to the realm that the registry at ``url`` names."""
    realm = urlsplit(challenge.parameters["realm"])
    return realm.scheme == "https" or (realm.scheme == "http" and urlsplit(url).scheme == "http")
