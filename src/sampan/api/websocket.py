"""Attach over a websocket (API v1.55, ``ContainerAttachWebsocket``).

Output is never multiplexed here: both streams arrive as messages of plain bytes (text messages for
clients older than API 1.28).
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import WSMsgType, web

from sampan.api.frames import Deframer
from sampan.api.relay import Relay
from sampan.engine.options import Attachment


async def attach(
    request: web.BaseRequest, attachment: Attachment, *, binary: bool, spool_directory: Path
) -> web.StreamResponse:
    """Serve one websocket client until the container's output or the client ends."""
    socket = web.WebSocketResponse(autoping=True, heartbeat=None, max_msg_size=1 << 20)
    await socket.prepare(request)
    client = SocketClient(socket, binary=binary, framed=not attachment.tty)
    relay = Relay(client, attachment, spool_directory)
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(client.read(relay))
        try:
            await relay.run()
        finally:
            reader.cancel()
    if relay.detach_requested:
        await attachment.detached()
    await socket.close()
    return socket


class SocketClient:
    """A websocket as the client of a relay."""

    def __init__(self, socket: web.WebSocketResponse, *, binary: bool, framed: bool) -> None:
        self.lost = asyncio.Event()
        self._socket = socket
        self._binary = binary
        self._deframer = Deframer() if framed else None
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def read(self, relay: Relay) -> None:
        """Deliver the client's messages as input until it closes."""
        try:
            async for message in self._socket:
                if message.type is WSMsgType.TEXT:
                    relay.input_received(message.data.encode())
                elif message.type is WSMsgType.BINARY:
                    relay.input_received(message.data)
                await self._flowing.wait()
        finally:
            relay.input_ended()
            self.lost.set()

    def offer(self, data: bytes) -> bool:
        """Never at once: sending a message may have to wait."""
        return False

    async def send(self, data: bytes) -> None:
        """Send as one message."""
        payload = data if self._deframer is None else self._deframer.feed(data)
        if not payload:
            return
        if self._binary:
            await self._socket.send_bytes(payload)
        else:
            await self._socket.send_str(payload.decode("utf-8", "replace"))

    def pause_input(self) -> None:
        """Stop taking messages."""
        self._flowing.clear()

    def resume_input(self) -> None:
        """Take messages again."""
        self._flowing.set()
