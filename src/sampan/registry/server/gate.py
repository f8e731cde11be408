"""The gate in front of every request: who is asking, and is it allowed.

One of three ways, by configuration: nobody is asked; Basic credentials of an htpasswd file; Bearer
tokens, ours or another issuer's. A request without sufficient rights is answered with the
challenge that tells a client how to get them (RFC 9110 section 11.6.1, Docker token spec).
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from sampan.errors import Unauthorized
from sampan.registry.server.access import ANONYMOUS, Identity, Rules, scope
from sampan.registry.server.config import ServerConfig
from sampan.registry.server.errors import Code, ProtocolError
from sampan.registry.server.passwords import Passwords
from sampan.registry.server.tokens import Issuer, Verifier, load_public_keys, signing_key


class Gate:
    """Identifies callers and refuses what the rules do not allow."""

    def __init__(self, config: ServerConfig) -> None:
        auth = config.auth
        self._passwords = Passwords(Path(auth.htpasswd)) if auth.htpasswd else None
        self._realm = ""
        self._service = auth.service
        self._verifier: Verifier | None = None
        self.issuer: Issuer | None = None
        self.rules = Rules(config.access, open=not auth.htpasswd and not auth.issuer)
        if auth.issuer:
            self._realm, self._service = auth.issuer.realm, auth.issuer.service
            self._verifier = Verifier(
                load_public_keys(Path(auth.issuer.keys)),
                issuer=auth.issuer.issuer,
                service=auth.issuer.service,
            )
        elif auth.own_tokens and self._passwords:
            path = Path(auth.token_key or Path(config.storage.root) / "token-key.pem")
            self.issuer = Issuer(
                signing_key(path),
                self._passwords,
                self.rules,
                service=auth.service,
                lifetime=auth.token_seconds,
            )
            self._verifier = self.issuer.verifier

    @property
    def open(self) -> bool:
        """Whether anybody at all is let in."""
        return self.rules.open

    async def identify(self, authorization: str | None, base_url: str) -> Identity:
        """Who sent this ``Authorization`` header; raises UNAUTHORIZED when it is wrong.

        ``base_url`` is this server's own, as the client sees it, for the challenge.
        """
        if authorization is None or self.open:
            return ANONYMOUS
        kind, _, value = authorization.partition(" ")
        try:
            if kind.lower() == "bearer" and self._verifier:
                return self._verifier.identify(value.strip())
            if kind.lower() == "basic" and self._passwords:
                return Identity(user=await self.password_user(value))
        except Unauthorized as error:
            raise self.challenge(base_url, message=error.message) from error
        raise self.challenge(base_url, message=f"unsupported credentials: {kind[:20]!r}")

    async def password_user(self, encoded: str) -> str:
        """The user of Basic credentials; raises :class:`Unauthorized`."""
        try:
            user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, ValueError) as error:
            raise Unauthorized("malformed Basic credentials") from error
        if not colon or not await self.check_password(user, password):
            raise Unauthorized("wrong user name or password")
        return user

    async def check_password(self, user: str, password: str) -> bool:
        """Whether ``password`` is the user's."""
        return self._passwords is not None and await self._passwords.check(user, password)

    def require(
        self, identity: Identity, repository: str, actions: tuple[str, ...], base_url: str
    ) -> None:
        """That ``identity`` may do all ``actions``; raises UNAUTHORIZED or DENIED."""
        if all(self.rules.allows(identity, repository, action) for action in actions):
            return
        if identity.user and identity.grants is None:
            raise ProtocolError(
                Code.DENIED, f"{identity.user} may not {' and '.join(actions)} in {repository}"
            )
        raise self.challenge(base_url, scope(repository, *actions))

    def challenge(
        self, base_url: str, wanted: str = "", message: str = "authentication required"
    ) -> ProtocolError:
        """The 401 that tells a client what to present."""
        if self._verifier:
            realm = self._realm or f"{base_url}/token"
            header = f'Bearer realm="{realm}",service="{self._service}"'
            if wanted:
                header += f',scope="{wanted}"'
        else:
            header = f'Basic realm="{self._service}"'
        return ProtocolError(Code.UNAUTHORIZED, message, headers={"WWW-Authenticate": header})

    def demands_login(self, identity: Identity) -> bool:
        """Whether ``GET /v2/`` is answered with a challenge.

        Also where rules let anybody in: clients learn here how to authenticate, check credentials
        by it, and ask without where they have none.
        """
        return not (self.open or identity.user or identity.grants is not None)

    def close(self) -> None:
        """Let resources go."""
        if self._passwords:
            self._passwords.close()
