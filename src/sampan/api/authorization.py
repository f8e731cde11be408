"""Authorization plugins (``--authorization-plugin``): each request and answer is shown to them.

Docker, "Access authorization plugin": ``AuthZPlugin.AuthZReq`` before a request is carried out,
``AuthZPlugin.AuthZRes`` before its answer is sent; plugins are asked in order and the first that
denies wins. Bodies are shown when they are JSON, those of ``/auth`` never, and no answer longer
than 64 KiB. A body nobody could show is not acted on: JSON that is not announced as such, or that
is too long, is refused. A stream has begun by the time its answer could be denied.
"""

from __future__ import annotations

import base64
import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from aiohttp import web

from sampan.api import body
from sampan.api.call import Call
from sampan.api.settings import Settings
from sampan.engine.threads import Threads
from sampan.errors import Forbidden, InvalidParameter, SampanError
from sampan.plugin.client import Plugins

log = logging.getLogger("sampan.api")

INTERFACE = "authz"
#: largest body of a request, in bytes, that plugins are shown
REQUEST_LIMIT = 1 << 20
#: largest body of an answer
ANSWER_LIMIT = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """The plugins of one configuration, in the order they are asked."""

    plugins: Plugins
    names: Sequence[str]
    threads: Threads

    @classmethod
    async def of(cls, settings: Settings, threads: Threads) -> Authorization | None:
        """What the settings ask for; raises :class:`InvalidParameter` for a plugin not there."""
        if not settings.authorization_plugins:
            return None
        names = tuple(dict.fromkeys(settings.authorization_plugins))
        made = cls(
            plugins=Plugins(settings.engine.plugin_directories), names=names, threads=threads
        )
        for name in names:
            try:
                await threads.run(made.plugins.find, name, INTERFACE)
            except SampanError as error:
                raise InvalidParameter(
                    f"error validating authorization plugin: {error.message}"
                ) from error
        return made

    async def request(self, call: Call) -> tuple[Call, Shown]:
        """Ask whether a request may be carried out; the call to carry out, its body read.

        Raises :class:`Forbidden` when a plugin denies it, :class:`SampanError` when one fails.
        """
        kept = call
        document = _described(call)
        if _is_json(call.request.headers.get("Content-Type", "")):
            await call.accept_body()
            raw = await body.read(call.request.content, REQUEST_LIMIT)
            kept = replace(call, taken=raw)
            if raw and not _secret(call):
                document["RequestBody"] = base64.b64encode(raw).decode()
        shown = Shown(document=document)
        await self._ask(call, "AuthZPlugin.AuthZReq", document)
        return kept, shown

    async def answer(self, call: Call, shown: Shown, response: web.StreamResponse) -> None:
        """Ask whether an answer may be sent; raises as :meth:`request`."""
        document = {**shown.document, "ResponseStatusCode": response.status}
        document["ResponseHeaders"] = _canonical(response.headers)
        if isinstance(response, web.Response) and isinstance(response.body, bytes):
            plain = _is_json(response.headers.get("Content-Type", "")) and not _secret(call)
            if plain and response.body and len(response.body) <= ANSWER_LIMIT:
                document["ResponseBody"] = base64.b64encode(response.body).decode()
        await self._ask(call, "AuthZPlugin.AuthZRes", document)

    async def _ask(self, call: Call, method: str, document: Mapping[str, object]) -> None:
        for name in self.names:
            try:
                allowed, message = await self.threads.run(self._verdict, name, method, document)
            except SampanError as error:
                log.warning("%s for %s: %s", method, call.request.path, error.message)
                raise SampanError(f"plugin {name} failed with error: {error.message}") from error
            if not allowed:
                raise Forbidden(f"authorization denied by plugin {name}: {message}")

    def _verdict(self, name: str, method: str, document: Mapping[str, object]) -> tuple[bool, str]:
        """What one plugin says. Blocks."""
        answer = self.plugins.find(name, INTERFACE).call(method, document)
        return answer.get("Allow") is True, str(answer.get("Msg") or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What plugins were told of a request, to be told again with its answer."""

    document: dict[str, object]


def _described(call: Call) -> dict[str, object]:
    request = call.request
    document: dict[str, object] = {
        "RequestMethod": request.method,
        "RequestURI": request.raw_path,
        "RequestHeaders": _canonical(request.headers),
        "RequestPeerCertificates": None,
    }
    transport = request.transport
    secure = transport.get_extra_info("ssl_object") if transport is not None else None
    if secure is not None and (found := secure.getpeercert()):
        names = dict(pair for part in found.get("subject", ()) for pair in part)
        document["User"] = names.get("commonName", "")
        document["UserAuthNMethod"] = "TLS"
        pem = ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True))
        document["RequestPeerCertificates"] = [base64.b64encode(pem.encode()).decode()]
    return document


def _canonical(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers under the names Go gives them, without a client's credentials for registries."""
    named = {
        "-".join(part.capitalize() for part in key.split("-")): value
        for key, value in reversed(list(headers.items()))
    }
    return {key: value for key, value in named.items() if not key.startswith("X-Registry-")}


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"


def _secret(call: Call) -> bool:
    """Whether bodies of this request hold passwords."""
    return call.request.path.rpartition("/")[2] == "auth"
