"""Attaching clients to containers and execs, also to those that have not started yet."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence

from sampan.engine.options import AttachOptions, Stream
from sampan.errors import InvalidParameter

_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse_detach_keys(text: str) -> bytes:
    """The bytes of ``ctrl-p,ctrl-q`` or ``a,b``; raises InvalidParameter.

    key ::= character | "DEL" | "ctrl-" ( "a".."z" | "@" | "[" | "\\" | "]" | "^" | "_" )
    """
    found = bytearray()
    for key in text.split(",") if text else []:
        if len(key) == 1 and ord(key) < 128:
            found.append(ord(key))
            continue
        if key == "DEL":
            found.append(127)
            continue
        name = key.removeprefix("ctrl-")
        if name != key and len(name) == 1 and (name in _CONTROL or "a" <= name <= "z"):
            found.append(_CONTROL[name] if name in _CONTROL else ord(name) - ord("a") + 1)
            continue
        raise InvalidParameter(f"Invalid detach keys ({text}) provided")
    return bytes(found)


class DetachScanner:
    """Finds the detach sequence in a client's input, also when it arrives in pieces."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on of ``data`` (held back: a beginning of the sequence), and if it ended."""
        if not self._keys or (not self._matched and self._keys[0] not in data):
            return data, False
        out = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(out), True
                continue
            out += self._keys[: self._matched]
            self._matched = 0
            if byte == self._keys[0]:
                self._matched = 1
                if len(self._keys) == 1:
                    return bytes(out), True
            else:
                out.append(byte)
        return bytes(out), False


class PendingAttachment:
    """A place in the queue of clients to be plugged when a container starts."""

    def __init__(self, options: AttachOptions) -> None:
        self.options = options
        self.socket: asyncio.Future[socket.socket | None]
        self.socket = asyncio.get_running_loop().create_future()

    def resolve(self, stream: socket.socket | None) -> None:
        """Give the client its stream; closes it when the client has gone meanwhile."""
        if self.socket.done():
            if stream is not None:
                stream.close()
        else:
            self.socket.set_result(stream)


class ClientAttachment:
    """The engine's :class:`sampan.engine.options.Attachment`."""

    def __init__(
        self,
        *,
        tty: bool,
        options: AttachOptions,
        stdin: bool,
        backlog: Stream | None,
        pending: PendingAttachment | None,
        on_detach: Callable[[], None],
        before_open: Callable[[], Awaitable[None]] | None = None,
        after_output: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.tty = tty
        self.stdin = stdin
        self.backlog = backlog
        self._pending = pending
        keys = parse_detach_keys(options.detach_keys)
        self._scanner = DetachScanner(keys if tty else b"")
        self._on_detach = on_detach
        self._before_open = before_open
        self._after_output = after_output
        self._taken = False

    async def open(self) -> socket.socket | None:
        """See :class:`Attachment`."""
        if self._pending is None:
            return None
        if self._before_open is not None:
            await self._before_open()
        stream = await asyncio.shield(self._pending.socket)
        self._taken = True
        if stream is not None:
            stream.setblocking(False)
        return stream

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """See :class:`Attachment`."""
        return self._scanner.feed(data)

    async def output_ended(self) -> None:
        """See :class:`Attachment`."""
        if self._after_output is not None:
            await self._after_output()

    async def detached(self) -> None:
        """See :class:`Attachment`."""
        self._on_detach()

    async def aclose(self) -> None:
        """See :class:`Attachment`."""
        if self.backlog is not None:
            await self.backlog.aclose()
        if self._pending is None or self._taken:
            return
        found = self._pending.socket
        if not found.done():
            found.cancel()
        elif not found.cancelled() and (stream := found.result()) is not None:
            stream.close()  # it was plugged, but the client left before it took it


def connected(stream: socket.socket, options: AttachOptions) -> PendingAttachment:
    """An attachment that is plugged already."""
    pending = PendingAttachment(options)
    pending.resolve(stream)
    return pending


def discard(pendings: Sequence[PendingAttachment]) -> None:
    """The container will not start: its waiting clients get no stream."""
    for pending in pendings:
        with contextlib.suppress(asyncio.InvalidStateError):
            pending.resolve(None)
