"""Requests in, answers out: the one place that knows which method of which endpoint does what.

The low-level server of aiohttp is used, without its router: paths of this API are read from their
end (:mod:`sampan.registry.server.routing`), and manifests are served several times faster.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from sampan.errors import NoSpace, SampanError, Unavailable
from sampan.registry.server import contents, discovery, pages, token_endpoint, uploads
from sampan.registry.server.access import ANONYMOUS
from sampan.registry.server.call import Call, base_url
from sampan.registry.server.errors import Code, ProtocolError
from sampan.registry.server.routing import Endpoint, Route, parse
from sampan.registry.server.services import Services

_log = logging.getLogger(__name__)
Handler = Callable[[Call], Awaitable[web.StreamResponse]]
_VERSION_HEADER = {"Docker-Distribution-API-Version": "registry/2.0"}


@dataclass(frozen=True, slots=True)
class _Operation:
    """A handler, the rights it needs, and whether it changes the registry."""

    handler: Handler
    actions: tuple[str, ...]
    changes: bool = False


async def _base(call: Call) -> web.StreamResponse:
    """GET /v2/: this is a registry; the place where clients find out how to log in."""
    return web.json_response({})


_PULL = ("pull",)
_PUSH = ("pull", "push")
_DELETE = ("delete",)
_OPERATIONS: Mapping[Endpoint, Mapping[str, _Operation]] = {
    Endpoint.BASE: {"GET": _Operation(_base, ()), "HEAD": _Operation(_base, ())},
    Endpoint.CATALOG: {"GET": _Operation(discovery.list_repositories, ())},
    Endpoint.EXTENSIONS: {"GET": _Operation(discovery.list_extensions, ())},
    Endpoint.MANIFEST: {
        "GET": _Operation(contents.get_manifest, _PULL),
        "HEAD": _Operation(contents.get_manifest, _PULL),
        "PUT": _Operation(contents.put_manifest, _PUSH, changes=True),
        "DELETE": _Operation(contents.delete_manifest, _DELETE, changes=True),
    },
    Endpoint.BLOB: {
        "GET": _Operation(contents.get_blob, _PULL),
        "HEAD": _Operation(contents.get_blob, _PULL),
        "DELETE": _Operation(contents.delete_blob, _DELETE, changes=True),
    },
    Endpoint.UPLOADS: {"POST": _Operation(uploads.start, _PUSH, changes=True)},
    Endpoint.UPLOAD: {
        "GET": _Operation(uploads.status, _PUSH),
        "PATCH": _Operation(uploads.chunk, _PUSH, changes=True),
        "PUT": _Operation(uploads.finish, _PUSH, changes=True),
        "DELETE": _Operation(uploads.cancel, _PUSH, changes=True),
    },
    Endpoint.TAGS: {"GET": _Operation(discovery.list_tags, _PULL)},
    Endpoint.REFERRERS: {"GET": _Operation(discovery.list_referrers, _PULL)},
}


class Application:
    """The request handler of one server process."""

    def __init__(self, services: Services, clock: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._clock = clock
        self._headers = dict(_VERSION_HEADER)
        if services.config.warning:
            text = services.config.warning.replace("\\", "\\\\").replace('"', '\\"')
            self._headers["Warning"] = f'299 - "{text}"'

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; errors become answers here and nowhere else."""
        started = self._clock()
        endpoint = "other"
        try:
            route = parse(request.path)
            if route is None:
                endpoint, response = await self._elsewhere(request)
            else:
                endpoint = route.endpoint.value
                response = await self._dispatch(request, route)
        except ProtocolError as error:
            response = self._refusal(error)
        except (Unavailable, NoSpace) as error:
            _log.error("%s %s: %s", request.method, request.path, error)
            status = 507 if isinstance(error, NoSpace) else 503
            response = self._refusal(ProtocolError(Code.UNSUPPORTED, error.message, status=status))
        except (ConnectionError, web.RequestPayloadError) as error:
            # The client is gone; what it sent of an upload is kept.
            _log.info("%s %s: %s", request.method, request.path, type(error).__name__)
            response = self._refusal(
                ProtocolError(Code.BLOB_UPLOAD_INVALID, "the connection broke", status=400)
            )
        except SampanError as error:
            _log.error("%s %s: %s", request.method, request.path, error)
            response = self._refusal(
                ProtocolError(Code.UNSUPPORTED, error.message, status=error.http_status)
            )
        response.headers.update(self._headers)
        self._services.metrics.request(
            endpoint, request.method, response.status, self._clock() - started
        )
        if length := request.content_length:
            self._services.metrics.add("received_bytes_total", length)
        if request.method != "HEAD" and response.content_length:
            self._services.metrics.add("sent_bytes_total", response.content_length)
        return response

    @staticmethod
    def _refusal(error: ProtocolError) -> web.StreamResponse:
        headers = error.headers | {
            "Content-Type": "application/json",
            "X-Content-Type-Options": "nosniff",
        }
        return web.Response(status=error.status, headers=headers, body=error.body())

    async def _dispatch(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        services = self._services
        operations = _OPERATIONS[route.endpoint]
        operation = operations.get(request.method)
        if operation is None:
            raise ProtocolError(
                Code.UNSUPPORTED,
                f"{request.method} is not supported here",
                headers={"Allow": ", ".join(operations)},
            )
        identity = ANONYMOUS
        if not services.gate.open:
            url = base_url(request)
            identity = await services.gate.identify(request.headers.get("Authorization"), url)
            if route.endpoint is Endpoint.BASE and services.gate.demands_login(identity):
                raise services.gate.challenge(url)
            if route.endpoint is Endpoint.CATALOG and not services.gate.rules.lists_catalog(
                identity
            ):
                raise services.gate.challenge(url, "registry:catalog:*")
        if operation.actions:
            url = "" if services.gate.open else base_url(request)
            services.gate.require(identity, route.repository, operation.actions, url)
        if operation.changes:
            self._may_change(request, route)
        return await operation.handler(Call(request, route, identity, services))

    def _may_change(self, request: web.BaseRequest, route: Route) -> None:
        config = self._services.config
        if config.read_only:
            raise ProtocolError(Code.UNSUPPORTED, "this registry is read-only")
        if self._services.upstreams.of(route.repository):
            raise ProtocolError(
                Code.UNSUPPORTED, f"{route.repository} is a cache of another registry"
            )
        if (
            request.method == "DELETE"
            and route.endpoint is not Endpoint.UPLOAD
            and not config.delete
        ):
            raise ProtocolError(Code.UNSUPPORTED, "deleting is disabled")

    async def _elsewhere(self, request: web.BaseRequest) -> tuple[str, web.StreamResponse]:
        """Paths that are not the distribution API's."""
        services = self._services
        if request.path == "/token" and services.gate.issuer:
            return "token", await token_endpoint.answer(request, services.gate)
        if request.path == "/metrics" and services.config.metrics and request.method == "GET":
            text = services.metrics.expose()
            return "metrics", web.Response(
                text=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
            )
        if services.config.web and request.method in ("GET", "HEAD"):
            return "web", await pages.answer(request, services)
        raise ProtocolError(Code.UNSUPPORTED, "no such page", status=404)
