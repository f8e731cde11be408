"""The one way blocking work leaves the event loop: a bounded pool of threads."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_END = object()


class Threads:
    """Threads for blocking calls: short ones share ``size``; streams have a pool of their own.

    Streams (logs being followed by nobody fast, archives being sent) last as long as their
    client; they may never starve a start or a removal.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._running = 0
        self._short = ThreadPoolExecutor(size, thread_name_prefix="sampan-work")
        self._long = ThreadPoolExecutor(max(size, 16) * 4, thread_name_prefix="sampan-stream")

    @property
    def busy(self) -> bool:
        """Whether a short call would have to wait for another to end."""
        return self._running >= self._size

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of ``function(*args, **kwargs)``, called in a thread.

        Cancelling the caller does not stop the call: it runs to its end, as kernel work must.
        """
        call = partial(function, *args, **kwargs) if kwargs else partial(function, *args)
        future = asyncio.get_running_loop().run_in_executor(self._short, call)
        self._running += 1
        future.add_done_callback(self._one_less)
        return await future

    def _one_less(self, future: asyncio.Future[T]) -> None:
        self._running -= 1

    async def run_long(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As :meth:`run`, for work that takes as long as a client or a registry does."""
        call = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._long, call)

    async def iterate(self, source: Iterator[T], *, ahead: int = 4) -> AsyncIterator[T]:
        """The items of a blocking iterator, at most ``ahead`` of them waiting.

        The iterator is closed in its thread when the consumer stops early.
        """
        loop = asyncio.get_running_loop()
        ready: asyncio.Queue[object] = asyncio.Queue()
        room = threading.Semaphore(ahead)
        stopped = threading.Event()

        def pump() -> None:
            outcome: object = _END
            try:
                for item in source:
                    room.acquire()
                    if stopped.is_set():
                        break
                    loop.call_soon_threadsafe(ready.put_nowait, item)
            except BaseException as error:
                outcome = _Raised(error)
            finally:
                close = getattr(source, "close", None)
                if close is not None:
                    close()
                loop.call_soon_threadsafe(ready.put_nowait, outcome)

        task = loop.run_in_executor(self._long, pump)
        try:
            while (item := await ready.get()) is not _END:
                if isinstance(item, _Raised):
                    raise item.error
                room.release()
                yield item  # type: ignore[misc]
        finally:
            stopped.set()
            room.release()
            await asyncio.shield(task)

    def close(self) -> None:
        """Let queued work finish and end the threads."""
        self._short.shutdown(wait=True)
        self._long.shutdown(wait=False, cancel_futures=True)


class _Raised:
    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class BodyReader:
    """An asynchronous stream of bytes as a blocking ``read`` for a thread; bounded in between.

    The story: the loop runs :meth:`feed`, a thread reads until it is done or fails and then
    calls :meth:`close`, upon which ``feed`` returns.
    """

    def __init__(self, ahead: int = 8) -> None:
        self._chunks: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(ahead)
        self._loop = asyncio.get_running_loop()
        self._closed = asyncio.Event()
        self._rest = b""
        self._ended = False

    async def feed(self, body: AsyncIterator[bytes]) -> None:
        """Pass the whole body on; an error of it is raised in the reading thread."""
        try:
            async for chunk in body:
                await self._room.acquire()
                if self._closed.is_set():
                    return
                if chunk:
                    self._chunks.put(bytes(chunk))
                else:
                    self._room.release()
            self._chunks.put(b"")
        except BaseException as error:
            self._chunks.put(error)
            raise

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes (all of a chunk when negative), empty at the end."""
        if not self._rest and not self._ended:
            chunk = self._chunks.get()
            if isinstance(chunk, BaseException):
                self._ended = True
                raise OSError(f"the request's body broke off: {chunk}") from chunk
            self._ended = not chunk
            self._rest = chunk
            self._loop.call_soon_threadsafe(self._room.release)
        if size < 0 or size >= len(self._rest):
            data, self._rest = self._rest, b""
        else:
            data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def close(self) -> None:
        """No more will be read; callable from the thread."""
        self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._closed.set()
        self._room.release()


class Tasks:
    """The engine's own background tasks: none is lost, none outlives it."""

    def __init__(self, failed: Callable[[str, BaseException], None]) -> None:
        self._tasks: set[asyncio.Task[object]] = set()
        self._whole: set[asyncio.Task[object]] = set()
        self._failed = failed

    def spawn(
        self,
        work: Coroutine[object, object, T],
        name: str,
        *,
        quiet: bool = False,
        whole: bool = False,
    ) -> asyncio.Task[T]:
        """Run ``work`` concurrently; a failure is reported under ``name``.

        ``quiet``: somebody awaits the task, who gets its failure. ``whole``: once begun it is
        done to its end, the engine's closing waits for it.
        """
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        if whole:
            self._whole.add(task)
        task.add_done_callback(self._quiet if quiet else self._done)
        return task

    def _forget(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        self._whole.discard(task)

    def _quiet(self, task: asyncio.Task[object]) -> None:
        self._forget(task)
        if not task.cancelled():
            task.exception()  # marked as retrieved also when the caller has gone

    def _done(self, task: asyncio.Task[object]) -> None:
        self._forget(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(task.get_name(), error)

    async def cancel(self, patience: float = 30.0) -> None:
        """Let whole ones finish for ``patience`` seconds, cancel the others, wait for their end."""
        mine = asyncio.current_task()
        for task in self._tasks - self._whole - {mine}:
            task.cancel()
        if whole := self._whole - {mine}:
            await asyncio.wait(whole, timeout=patience)
        rest = self._tasks - {mine}
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest)
