"""From a connection to an answer: version, route, rights, handler, headers, errors."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from aiohttp import web

from sampan.api import reply
from sampan.api.access import FULL, Access
from sampan.api.authorization import Authorization
from sampan.api.call import Call
from sampan.api.hijack import Taken
from sampan.api.metrics import RequestMetrics
from sampan.api.protocol import Protocol, Server
from sampan.api.router import Effect, Match, Route, Router, split_version
from sampan.api.routes import all_routes
from sampan.api.scope import labels_of
from sampan.api.version import CURRENT, TooOld, negotiate
from sampan.engine.threads import Threads
from sampan.engine.tracing import Tracing, answered
from sampan.errors import InvalidParameter, NotFound, SampanError

if TYPE_CHECKING:
    from sampan.api.settings import Settings
    from sampan.buildkit.service import BuildKit
    from sampan.engine.engine import Engine

log = logging.getLogger("sampan.api")

#: plugins asked at the same time
_AUTHORIZATIONS = 16
#: how long cancelled requests get at the end
SETTLE_SECONDS = 2.0


@dataclass(slots=True, kw_only=True)
class Daemon:
    """What the routes need besides the engine; one per process.

    ``product`` is the version in the ``Server`` header, ``spool_directory`` where output for slow
    clients may go, ``warnings`` what is unwise about how it is reached.
    """

    engine: Engine
    product: str
    spool_directory: Path
    warnings: tuple[str, ...] = ()
    experimental: bool = False
    buildkit: bool = False
    buildkit_service: BuildKit | None = None
    authorization: Authorization | None = None
    tracing: Tracing | None = None
    threads: Threads = field(default_factory=lambda: Threads(_AUTHORIZATIONS))
    metrics: RequestMetrics = field(default_factory=RequestMetrics)
    router: Router = field(default_factory=lambda: Router(all_routes()))
    background: set[asyncio.Task[web.StreamResponse]] = field(default_factory=set)
    active: set[asyncio.Task[object]] = field(default_factory=set)

    async def reload(self, settings: Settings) -> None:
        """Take over what can change while running does; when it raises, nothing has changed."""
        authorization = await Authorization.of(settings, self.threads)
        await self.engine.reload(settings.engine)
        self.authorization = authorization

    def headers(self) -> dict[str, str]:
        """Headers of every answer."""
        return {
            "Api-Version": str(CURRENT),
            "Docker-Experimental": "true" if self.experimental else "false",
            "Ostype": "linux",
            "Server": f"Sampan/{self.product} (linux)",
        }

    def server(self, access: Access = FULL) -> Server:
        """A protocol factory for a listening socket with the given rights."""
        return Server(
            partial(self.handle, access),
            handler_cancellation=True,
            request_factory=self._request,
            access_log=None,
            max_line_size=1 << 16,
            max_field_size=1 << 17,
            auto_decompress=False,
            lingering_time=0.5,
            logger=log,
        )

    def _request(
        self, message: object, payload: object, protocol: object, writer: object, task: object
    ) -> web.BaseRequest:
        return Request(message, payload, protocol, writer, task, self)

    async def handle(self, access: Access, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; never raises but for a client that went away."""
        tracing = self.tracing
        if tracing is None:
            return await self._answer(access, request)
        with tracing.request(request.method, request.path, request.headers) as span:
            response = await self._answer(access, request)
            answered(span, self._pattern(request), response.status)
            return response

    async def _answer(self, access: Access, request: web.BaseRequest) -> web.StreamResponse:
        started = time.perf_counter()
        pattern = ""
        task = cast("asyncio.Task[object]", asyncio.current_task())
        self.active.add(task)
        try:
            call, match = self._route(access, request)
            if isinstance(match, web.Response):
                return match
            pattern = match.route.pattern
            access.check(match.route)
            if access.scoped:
                await check_scope(call, pattern)
            if self.authorization is not None:
                return await self._authorized(self.authorization, call, match.route)
            return await self._handled(call, match.route)
        except TooOld as problem:
            return reply.text(f"{problem.message}\n", status=problem.http_status)
        except Exception as problem:
            if reply.gone(request):
                return Taken()
            return reply.failure(problem)
        finally:
            if isinstance(request.protocol, Protocol):
                request.protocol.resume_http()
            self.active.discard(task)
            self.metrics.observe(request.method, pattern, time.perf_counter() - started)

    async def _handled(self, call: Call, route: Route) -> web.StreamResponse:
        if route.effect is Effect.WRITE:
            return await self._to_the_end(route.handler(call))
        return await route.handler(call)

    async def _authorized(
        self, authorization: Authorization, call: Call, route: Route
    ) -> web.StreamResponse:
        """Carry out what plugins allow; an answer they deny is not sent, unless it was already."""
        call, shown = await authorization.request(call)
        try:
            response = await self._handled(call, route)
        except SampanError as problem:
            response = reply.failure(problem)
        if isinstance(response, Taken):
            return response
        try:
            await authorization.answer(call, shown, response)
        except SampanError:
            if not response.prepared:
                raise
        return response

    def _pattern(self, request: web.BaseRequest) -> str:
        """The pattern of the route a request took, "" if none."""
        found = self.router.match(request.method, split_version(request.path)[1], CURRENT)
        return found.route.pattern if isinstance(found, Match) else ""

    def _route(self, access: Access, request: web.BaseRequest) -> tuple[Call, Match | web.Response]:
        asked, path = split_version(request.path)
        version = negotiate(asked) if asked is not None else CURRENT
        found = self.router.match(request.method, path, version)
        call = Call(request=request, daemon=self, version=version, access=access)
        if isinstance(found, Match):
            return Call(
                request=request,
                daemon=self,
                version=version,
                access=access,
                parts=found.parts,
            ), found
        if request.method == "OPTIONS":
            return call, reply.empty(200)
        if not found:
            return call, reply.error("page not found", 404)
        refused = reply.error(f"method {request.method} is not allowed here", 405)
        refused.headers["Allow"] = ", ".join(sorted(found))
        return call, refused

    async def _to_the_end(self, work: Awaitable[web.StreamResponse]) -> web.StreamResponse:
        """Finish what changes something even if the client does not wait for the answer."""
        task = asyncio.ensure_future(work)
        self.background.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def _finished(self, task: asyncio.Task[web.StreamResponse]) -> None:
        self.background.discard(task)
        if not task.cancelled():
            task.exception()  # reported to the client, if it is still there

    async def drain(self, seconds: float) -> None:
        """Wait for requests that change something, at most ``seconds``."""
        if self.background:
            await asyncio.wait(self.background, timeout=seconds)

    async def settle(self) -> None:
        """Wait until requests that were cancelled have let go of what they held."""
        if self.active:
            await asyncio.wait(self.active, timeout=SETTLE_SECONDS)


class Request(web.BaseRequest):
    """A request whose answer gets the daemon's headers, however it is sent."""

    def __init__(
        self,
        message: object,
        payload: object,
        protocol: object,
        writer: object,
        task: object,
        daemon: Daemon,
    ) -> None:
        super().__init__(message, payload, protocol, writer, task, asyncio.get_running_loop())  # type: ignore[arg-type]
        self._daemon = daemon

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers.update(self._daemon.headers())


async def check_scope(call: Call, pattern: str) -> None:
    """Hide what does not carry the socket's labels (:class:`NotFound`, as if it did not exist)."""
    kind, _, rest = pattern.removeprefix("/sampan").lstrip("/").partition("/")
    if kind not in ("containers", "exec", "networks", "volumes") or not rest.startswith("{name}"):
        return
    one = kind.removesuffix("s")
    labels = await (_exec_labels(call) if one == "exec" else labels_of(call, one, call.name))
    if not call.access.sees(labels):
        raise NotFound(f"No such {one}: {call.name}")


async def _exec_labels(call: Call) -> dict[str, str] | None:
    found = await call.engine.execs.inspect(call.name)
    if not found.container_id:
        raise InvalidParameter("the exec instance names no container")
    return await labels_of(call, "container", found.container_id)
