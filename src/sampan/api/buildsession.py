"""``POST /sampan/build``: a build as a conversation with our own command line.

The connection is upgraded to frames: a kind (one byte), a stream's number and a length (four bytes
each, big endian), then the payload. ``J`` is a JSON message of one key that names it, ``D`` some
bytes of a stream, ``E`` its end. The client begins with ``build``; then the server asks (``list``
what a context holds, ``send`` what is missing of it, ``agent`` a connection to an SSH agent), tells
(``vertex``, ``log``, ``warning``) and delivers (``output``), until ``done`` or ``failed``.

A client that goes away cancels its build. Nothing is buffered without bound: a stream's reader
makes the connection wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from sampan.api.hijack import upgrade
from sampan.api.reply import error_message
from sampan.build.progress import Vertex
from sampan.errors import InvalidParameter, SampanError

_HEAD = struct.Struct(">BII")
_MESSAGE, _DATA, _END = b"J"[0], b"D"[0], b"E"[0]
_MOST = 64 << 20
_PIECE = 256 << 10
_AHEAD = 16


@dataclass(slots=True)
class Incoming:
    """A stream of the client's, as an asynchronous iterator of bytes."""

    queue: asyncio.Queue[bytes | None] = field(
        default_factory=lambda: asyncio.Queue(maxsize=_AHEAD)
    )

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (data := await self.queue.get()) is not None:
            yield data

    async def read(self) -> bytes:
        """Everything, at most 1 GiB."""
        parts, size = [], 0
        async for data in self:
            size += len(data)
            if size > 1 << 30:
                raise InvalidParameter("the client sends too much")
            parts.append(data)
        return b"".join(parts)


class Wire:
    """The two directions of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._streams: dict[int, Incoming] = {}
        self._numbers = itertools.count(1)
        self._messages: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(maxsize=_AHEAD)
        self._sending = asyncio.Lock()

    async def receive(self) -> None:
        """Take in frames until the client is gone."""
        try:
            while True:
                head = await self._reader.readexactly(_HEAD.size)
                kind, number, length = _HEAD.unpack(head)
                if length > _MOST:
                    raise InvalidParameter("a frame of the client is too large")
                data = await self._reader.readexactly(length)
                if kind == _MESSAGE:
                    await self._messages.put(msgspec.json.decode(data, type=dict[str, Any]))
                elif number in self._streams:
                    await self._streams[number].queue.put(data if kind == _DATA else None)
                    if kind == _END:
                        del self._streams[number]
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # gone

    async def message(self) -> dict[str, Any]:
        """The next message."""
        found = await self._messages.get()
        assert found is not None
        return found

    def open(self) -> tuple[int, Incoming]:
        """A number for a stream, and what the client will send on it."""
        number = next(self._numbers)
        self._streams[number] = Incoming()
        return number, self._streams[number]

    def close(self, number: int) -> None:
        """Nothing more of a stream is wanted."""
        self._streams.pop(number, None)

    async def tell(self, **message: Any) -> None:
        """Send a message; waits while the client does not read."""
        await self._send(_MESSAGE, 0, msgspec.json.encode(message))

    async def data(self, number: int, data: bytes) -> None:
        """Send some bytes of a stream."""
        for start in range(0, len(data), _PIECE):
            await self._send(_DATA, number, data[start : start + _PIECE])

    async def end(self, number: int) -> None:
        """End a stream."""
        await self._send(_END, number, b"")

    async def _send(self, kind: int, number: int, data: bytes) -> None:
        async with self._sending:
            self._writer.write(_HEAD.pack(kind, number, len(data)) + data)
            await self._writer.drain()

    async def finish(self) -> None:
        """Close once everything is sent."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()
        self._writer.close()


class Told:
    """A build's progress on its way to the client, in order."""

    def __init__(self) -> None:
        self.news: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def started(self, vertex: Vertex) -> None:
        """See :class:`sampan.build.progress.Progress`."""
        if vertex.metadata:
            return  # nothing happens that people wait for
        self.news.put_nowait({"vertex": {"id": vertex.id, "name": vertex.name, "started": True}})

    def log(self, vertex: Vertex, stream: int, data: bytes) -> None:
        """See :class:`sampan.build.progress.Progress`."""
        text = data.decode(errors="replace")
        self.news.put_nowait({"log": {"id": vertex.id, "stream": stream, "text": text}})

    def completed(self, vertex: Vertex, *, cached: bool = False, error: str = "") -> None:
        """See :class:`sampan.build.progress.Progress`."""
        if vertex.metadata:
            return
        found = {"id": vertex.id, "name": vertex.name, "cached": cached, "error": error}
        self.news.put_nowait({"vertex": {**found, "completed": True}})

    def warning(self, vertex: Vertex | None, message: str) -> None:
        """See :class:`sampan.build.progress.Progress`."""
        self.news.put_nowait({"warning": message})

    async def pass_on(self, wire: Wire) -> None:
        """Send news until :meth:`end`."""
        while (one := await self.news.get()) is not None:
            await wire.tell(**one)

    def end(self) -> None:
        """No more news."""
        self.news.put_nowait(None)


async def converse(request: web.BaseRequest, serve: Any) -> web.StreamResponse:
    """Upgrade the connection and run ``serve(wire, told)`` on it.

    What ``serve`` returns is the message ``done``; a SampanError is the message ``failed``.
    """
    tasks: list[asyncio.Task[None]] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.ensure_future(_converse(Wire(reader, writer), serve)))

    reader = asyncio.StreamReader(limit=1 << 20)
    protocol = asyncio.StreamReaderProtocol(reader, connected)
    try:
        return await upgrade(request, protocol, "tcp")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _converse(wire: Wire, serve: Any) -> None:
    told = Told()
    receiving = asyncio.ensure_future(wire.receive())
    telling = asyncio.ensure_future(told.pass_on(wire))
    serving = asyncio.ensure_future(serve(wire, told))
    try:
        await asyncio.wait([receiving, serving], return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            return  # the client is gone
        told.end()
        await telling
        try:
            await wire.tell(done=serving.result())
        except SampanError as error:
            await wire.tell(failed=failure_message(error))
        except Exception as error:
            await wire.tell(failed=error_message(error)["errorDetail"])
    except ConnectionError:
        return
    finally:
        for task in (receiving, telling, serving):
            task.cancel()
        await asyncio.gather(receiving, telling, serving, return_exceptions=True)
        await wire.finish()


def failure_message(error: SampanError) -> dict[str, Any]:
    """An error as the client shows it: its sentence, the program's exit code and last lines, and
    the place in the Dockerfile."""
    found: dict[str, Any] = {"message": error.message}
    for name in ("code", "tail", "line", "excerpt"):
        value = getattr(error, name, None)
        if value:
            found[name] = value
    return found
