"""A registry server as processes: one, or several that share the port (SO_REUSEPORT).

With several workers this process only supervises: it starts them with the configuration on their
standard input, restarts one that dies, passes signals on, and answers nothing itself. Garbage is
collected by the first worker.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import msgspec
from aiohttp import web

from sampan.errors import InvalidParameter
from sampan.registry.server.app import Application
from sampan.registry.server.config import ServerConfig, host_port
from sampan.registry.server.metrics import Metrics, region
from sampan.registry.server.services import Services

_log = logging.getLogger(__name__)
_BACKLOG = 1024
_SHUTDOWN_SECONDS = 30.0
_RESTART_PAUSE = 1.0
_KEEPALIVE_SECONDS = 75.0
_STALLED_MILLISECONDS = 120_000


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker process is told: its number, the shared descriptor, the configuration."""

    number: int
    metrics_fd: int
    port: int
    config: ServerConfig


def tls_context(config: ServerConfig) -> ssl.SSLContext | None:
    """The server's side of TLS, None without; raises :class:`InvalidParameter`."""
    if config.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(config.tls.certificate, config.tls.key)
        if config.tls.client_ca:
            context.load_verify_locations(config.tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # ssl.SSLError is one
        raise InvalidParameter(f"cannot use the TLS files: {error}") from error
    return context


def bind(listen: str, *, port: int | None = None, shared: bool) -> socket.socket:
    """A bound, not yet listening socket; ``shared`` lets other processes bind the same port."""
    host, configured = host_port(listen)
    wanted = configured if port is None else port
    family, kind, protocol, _, address = socket.getaddrinfo(
        host or None, wanted, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Accepted connections inherit it: one whose peer takes or acknowledges nothing ends.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALLED_MILLISECONDS)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


@asynccontextmanager
async def serving(
    config: ServerConfig, *, sock: socket.socket | None = None, metrics: Metrics | None = None
) -> AsyncIterator[tuple[str, int]]:
    """A registry in this process and event loop; gives the address it listens on.

    ``sock`` is a bound socket to use instead of binding ``config.listen``. Raises OSError when the
    address is taken, :class:`InvalidParameter` for a configuration that cannot work.
    """
    own = metrics is None
    if metrics is None:
        fd = region(1)
        metrics = Metrics(fd, 0, 1)
        os.close(fd)
    collects = own or metrics.worker == 0
    context = tls_context(config)
    try:
        async with Services(config, metrics, collects=collects) as services:
            server = web.Server(
                Application(services),
                access_log=None,
                auto_decompress=False,
                keepalive_timeout=_KEEPALIVE_SECONDS,
            )
            sock = sock or bind(config.listen, shared=False)
            listener = await asyncio.get_running_loop().create_server(
                server, sock=sock, ssl=context, backlog=_BACKLOG
            )
            try:
                host, port = listener.sockets[0].getsockname()[:2]
                yield host, port
            finally:
                listener.close()
                await server.shutdown(_SHUTDOWN_SECONDS)
                await listener.wait_closed()
    finally:
        if own:
            metrics.close()


async def serve(config: ServerConfig, *, ready: Callable[[str, int], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; ``ready`` is told the address when it can be connected to."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if config.workers == 1:
        async with serving(config) as (host, port):
            if ready:
                ready(host, port)
            await stop.wait()
        return
    # This socket only reserves the port: it never listens, so no connection is given to it.
    with bind(config.listen, shared=True) as reserved:
        host, port = reserved.getsockname()[:2]
        fd = region(config.workers)
        try:
            async with asyncio.TaskGroup() as group:
                started = [asyncio.Event() for _ in range(config.workers)]
                tasks = [
                    group.create_task(
                        _supervise(
                            Worker(number=number, metrics_fd=fd, port=port, config=config), event
                        )
                    )
                    for number, event in enumerate(started)
                ]
                for event in started:
                    await event.wait()
                if ready:
                    ready(host, port)
                await stop.wait()
                for task in tasks:
                    task.cancel()
        finally:
            os.close(fd)


async def _supervise(worker: Worker, started: asyncio.Event) -> None:
    """Keep one worker process running; end it when cancelled."""
    while True:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sampan.registry.server",
            "--worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=(worker.metrics_fd,),
        )
        assert process.stdin is not None  # PIPE was asked for
        assert process.stdout is not None
        try:
            # Not drained: it is short, and one killed before it reads is just started again.
            process.stdin.write(msgspec.json.encode(worker) + b"\n")
            if await process.stdout.readline():
                started.set()
            status = await process.wait()
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            raise
        _log.error("worker %d ended with %d; starting it again", worker.number, status)
        await asyncio.sleep(_RESTART_PAUSE)


async def work(worker: Worker) -> None:
    """A worker process: serve until SIGTERM, or until the supervisor is gone."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # The supervisor never writes again: readable means that it died.
    loop.add_reader(sys.stdin.fileno(), stop.set)
    metrics = Metrics(worker.metrics_fd, worker.number, worker.config.workers)
    try:
        sock = bind(worker.config.listen, port=worker.port, shared=True)
        async with serving(worker.config, sock=sock, metrics=metrics):
            os.write(sys.stdout.fileno(), b"ready\n")
            await stop.wait()
    finally:
        metrics.close()
