"""An event loop in a thread of its own, asked from ordinary code."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterable, Iterator
from typing import TypeVar

from sampan.engine.options import Attachment

T = TypeVar("T")
_END = object()


class Loop:
    """Runs coroutines for callers that block; thread-safe."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="sampan-loop", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def call(self, work: Coroutine[object, object, T]) -> T:
        """The result of a coroutine; an interrupted caller (Ctrl-C) cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def call_twice(self, work: Coroutine[object, object, Awaitable[T]]) -> T:
        """The result of the awaitable that a coroutine returns."""

        async def both() -> T:
            return await (await work)

        return self.call(both())

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        """The items of an asynchronous iterator; leaving early closes it."""
        try:
            while (item := self.call(_next(source))) is not _END:
                yield item  # type: ignore[misc]
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                self.call(close())

    def close(self) -> None:
        """End the loop and its thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()


async def _next(source: AsyncIterator[object]) -> object:
    return await anext(source, _END)


async def iterate(source: Iterable[bytes]) -> AsyncIterator[bytes]:
    """A blocking iterable as an asynchronous one; each item is fetched in a thread."""
    items = iter(source)
    while (item := await asyncio.to_thread(next, items, None)) is not None:
        yield item


class Connection:
    """A client's end of standard streams, for ordinary code."""

    def __init__(self, attachment: Attachment, loop: Loop) -> None:
        self._attachment = attachment
        self._loop = loop
        #: whether the stream is raw (a terminal) or framed
        self.tty = attachment.tty

    def open(self) -> socket.socket | None:
        """The blocking socket, once the container starts; see :class:`Attachment`."""
        stream = self._loop.call(self._attachment.open())
        if stream is not None:
            stream.setblocking(True)
        return stream

    def close(self) -> None:
        """Give up a pending attachment; idempotent."""
        self._loop.call(self._attachment.aclose())
