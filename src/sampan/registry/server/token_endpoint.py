"""``/token``: Bearer tokens for clients (Docker token specification; OAuth2 for POST).

GET with Basic credentials, or none, and ``service``, any number of ``scope`` and
``offline_token``. POST with a form: ``grant_type`` ``password`` or ``refresh_token``.
"""

from __future__ import annotations

from urllib.parse import parse_qs

from aiohttp import web

from sampan.errors import Unauthorized
from sampan.registry.server.call import base_url
from sampan.registry.server.errors import Code, ProtocolError
from sampan.registry.server.gate import Gate

_MAX_FORM = 64 << 10


async def answer(request: web.BaseRequest, gate: Gate) -> web.StreamResponse:
    """A token for whoever the request proves to be."""
    issuer = gate.issuer
    if issuer is None:
        raise ProtocolError(Code.UNSUPPORTED, "this registry issues no tokens", status=404)
    try:
        if request.method == "GET":
            user, scopes, offline = await _by_basic(request, gate)
        elif request.method == "POST":
            user, scopes, offline = await _by_form(request, gate)
        else:
            raise ProtocolError(Code.UNSUPPORTED, "GET or POST", headers={"Allow": "GET, POST"})
    except Unauthorized as error:
        raise ProtocolError(
            Code.UNAUTHORIZED,
            error.message,
            headers={"WWW-Authenticate": f'Basic realm="{base_url(request)}"'},
        ) from error
    words = [word for scope in scopes for word in scope.split()]
    return web.json_response(
        issuer.token(user, words, offline=offline), headers={"Cache-Control": "no-store"}
    )


async def _by_basic(request: web.BaseRequest, gate: Gate) -> tuple[str, list[str], bool]:
    header = request.headers.get("Authorization")
    user = ""
    if header is not None:
        kind, _, encoded = header.partition(" ")
        if kind.lower() != "basic":
            raise Unauthorized("expected Basic credentials")
        user = await gate.password_user(encoded.strip())
    query = request.query
    return user, query.getall("scope", []), query.get("offline_token") == "true"


async def _by_form(request: web.BaseRequest, gate: Gate) -> tuple[str, list[str], bool]:
    raw = await request.content.read(_MAX_FORM)
    form = parse_qs(raw.decode("utf-8", "replace"))

    def field(name: str) -> str:
        return form.get(name, [""])[0]

    grant = field("grant_type")
    if grant == "password":
        user = field("username")
        if not await gate.check_password(user, field("password")):
            raise Unauthorized("wrong user name or password")
    elif grant == "refresh_token" and gate.issuer:
        user = gate.issuer.refreshed(field("refresh_token"))
    else:
        raise ProtocolError(
            Code.UNSUPPORTED, "grant_type must be password or refresh_token", status=400
        )
    return user, form.get("scope", []), field("access_type") == "offline"
