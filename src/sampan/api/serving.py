"""Bringing the daemon up in order, and down in reverse: sockets, engine, servers."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from aiohttp import web

from sampan import __version__
from sampan.api import listeners, metrics, reply
from sampan.api.authorization import Authorization
from sampan.api.server import Daemon
from sampan.api.settings import Settings
from sampan.api.tls import TlsServer
from sampan.engine.config import EngineConfig
from sampan.engine.engine import Engine
from sampan.engine.tracing import Tracing
from sampan.errors import InvalidParameter, Unsupported

log = logging.getLogger("sampan.api")


@asynccontextmanager
async def serving(settings: Settings, *, passed_sockets: int) -> AsyncIterator[Daemon]:
    """Serve the API while the context lasts; it begins once requests are answered.

    ``passed_sockets`` is the number of sockets systemd handed over. At the end no new connection
    is taken, requests that change something get ``shutdown_timeout`` seconds, streams are cut, and
    the engine lets go of its containers, which run on. Raises :class:`sampan.errors.SampanError`.
    """
    _check_bridge(settings.engine)
    async with AsyncExitStack() as stack:
        bound = listeners.open_all(
            settings.hosts,
            group=settings.group,
            group_required=settings.group_required,
            tls=settings.tls,
            passed=passed_sockets,
        )
        for listener in bound:
            stack.callback(listener.close)
        began = time.monotonic()
        engine = await Engine.open(settings.engine)
        stack.push_async_callback(engine.close)
        tracing = _traced(stack, engine)
        daemon = Daemon(
            engine=engine,
            product=__version__,
            spool_directory=_spool_directory(settings),
            warnings=tuple(listeners.warnings(bound)),
            experimental=settings.engine.experimental,
            buildkit=settings.buildkit,
            tracing=tracing,
        )
        stack.callback(daemon.threads.close)
        daemon.authorization = await Authorization.of(settings, daemon.threads)
        for listener in bound:
            await _serve(stack, daemon, listener, settings.engine.shutdown_timeout)
        if settings.metrics_address:
            await _serve_metrics(stack, daemon, settings.metrics_address)
        log.info("daemon has completed initialization in %.0f ms", _since(began))
        for listener in bound:
            log.info("API listen on %s", listener.address)
        yield daemon


def _check_bridge(config: EngineConfig) -> None:
    """A default bridge of another name is somebody else's, who has to have made it."""
    if not config.bridge_enabled or config.bridge == EngineConfig().bridge:
        return
    try:
        socket.if_nametoindex(config.bridge)
    except OSError as error:
        raise InvalidParameter(
            f"bridge device with non default name {config.bridge} must be created manually"
        ) from error


def _traced(stack: AsyncExitStack, engine: Engine) -> Tracing | None:
    """Tell of spans what the environment names; a collector nobody can reach stops nothing."""
    try:
        tracing = Tracing.configured(os.environ, __version__)
    except Unsupported as error:
        log.error("%s", error.message)
        return None
    if tracing is not None:
        engine.core.tracing = tracing
        stack.push_async_callback(engine.core.threads.run_long, tracing.close)
    return tracing


def _since(began: float) -> float:
    return (time.monotonic() - began) * 1000


def _spool_directory(settings: Settings) -> Path:
    """Where output for slow clients goes: on disk, as the exec root is memory."""
    directory = settings.engine.data_root / "tmp"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


async def _serve(
    stack: AsyncExitStack, daemon: Daemon, listener: listeners.Listener, patience: int
) -> None:
    server = daemon.server(listener.access)
    loop = asyncio.get_running_loop()
    context = listener.tls
    factory = server if context is None else partial(TlsServer, context, server)
    accepting = await loop.create_server(factory, sock=listener.socket, backlog=listeners.BACKLOG)

    async def close() -> None:
        accepting.close()
        server.pre_shutdown()
        await daemon.drain(patience)
        await server.shutdown(0.1)
        await daemon.settle()

    stack.push_async_callback(close)


async def _serve_metrics(stack: AsyncExitStack, daemon: Daemon, address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        raise InvalidParameter(f"metrics-addr: expected host:port, got {address!r}")

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.path != "/metrics":
            return reply.error("page not found", 404)
        text = await metrics.render(daemon.engine, daemon.metrics, daemon.product)
        return reply.text(text, metrics.CONTENT_TYPE)

    server = web.Server(handle, access_log=None)
    try:
        accepting = await asyncio.get_running_loop().create_server(
            server, host.strip("[]") or "127.0.0.1", int(port)
        )
    except OSError as error:
        raise InvalidParameter(f"metrics-addr: can't listen on {address}: {error}") from None

    async def close() -> None:
        accepting.close()
        await server.shutdown(0.1)

    stack.push_async_callback(close)
    log.info("metrics on http://%s/metrics", address)


def notify(state: str, address: str | None) -> None:
    """Tell the service manager (sd_notify(3)); ``address`` is its ``NOTIFY_SOCKET``, if any."""
    if not address:
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto(state.encode(), target)
        except OSError as error:
            log.warning("cannot notify the service manager: %s", os.strerror(error.errno or 0))
