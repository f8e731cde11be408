"""Blocking calls for asynchronous callers: a bounded pool of threads."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from sampan.client.containers import Connection

T = TypeVar("T")
P = ParamSpec("P")
#: Calls and streams that may be under way at the same time.
LIMIT = 64


class Threads:
    """Runs calls in threads; at most :data:`LIMIT` at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(LIMIT, thread_name_prefix="sampan-client")

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a call. A cancelled caller leaves the call to its end."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, functools.partial(call, *args, **kwargs))

    async def iterate(self, items: Iterator[T]) -> AsyncIterator[T]:
        """The items of a blocking iterator."""
        end = object()
        while (item := await self.run(next, items, end)) is not end:
            yield item  # type: ignore[misc]

    def close(self) -> None:
        """Let the threads end; those in a call end after it."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class AsyncConnection:
    """A client's end of a container's standard streams."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        #: Whether the stream is raw (a terminal) or framed.
        self.tty = connection.tty

    async def open(self) -> socket.socket:
        """The non-blocking socket, for ``loop.sock_recv`` or ``asyncio.open_connection(sock=)``."""
        sock = self._connection.open()
        sock.setblocking(False)
        return sock

    async def aclose(self) -> None:
        """Close it; idempotent."""
        self._connection.close()
