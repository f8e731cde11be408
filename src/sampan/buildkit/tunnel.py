"""A connection inside a gRPC call: bytes in messages, both ways (Control.Session)."""

from __future__ import annotations

import asyncio
from typing import Any

from sampan.buildkit.protocol import control_pb2 as control
from sampan.buildkit.rpc import ServerStream

#: bytes that may wait to be sent before the protocol is asked to pause
_HIGH, _LOW = 1 << 20, 256 << 10
_PIECE = 256 << 10


class _Transport(asyncio.Transport):
    """What a protocol writes to; a task of :func:`tunnel` sends it."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._buffer = bytearray()
        self._wake = asyncio.Event()
        self._closing = False
        self._paused = False

    def write(self, data: Any) -> None:
        """Send bytes after those before them."""
        if self._closing:
            return
        self._buffer += data
        self._wake.set()
        if len(self._buffer) > _HIGH and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def is_closing(self) -> bool:
        """Whether nothing more is sent."""
        return self._closing

    def close(self) -> None:
        """Nothing more is sent."""
        self._closing = True
        self._wake.set()

    abort = close

    async def send(self, stream: ServerStream) -> None:
        """Send what is written until the transport is closed."""
        while not self._closing or self._buffer:
            if not self._buffer:
                self._wake.clear()
                await self._wake.wait()
                continue
            piece = bytes(self._buffer[:_PIECE])
            del self._buffer[:_PIECE]
            if self._paused and len(self._buffer) < _LOW:
                self._paused = False
                self._protocol.resume_writing()
            await stream.send_message(control.BytesMessage(data=piece))


async def tunnel(stream: ServerStream, protocol: asyncio.Protocol) -> None:
    """Let ``protocol`` have the call as its connection until the client ends it."""
    transport = _Transport(protocol)
    protocol.connection_made(transport)
    sending = asyncio.ensure_future(transport.send(stream))
    try:
        async for message in stream:
            if message.data:
                protocol.data_received(message.data)
    finally:
        transport.close()
        sending.cancel()
        await asyncio.wait([sending])
        protocol.connection_lost(None)
