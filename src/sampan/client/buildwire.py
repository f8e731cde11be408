"""The client's end of a build: frames over one connection, answering what the daemon asks.

The protocol is told in :mod:`sampan.api.buildsession`. Everything here is blocking; while agents
are connected their sockets are watched beside the daemon's.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
from typing import NamedTuple

from sampan.client.buildlisting import Listing
from sampan.client.failure import ConnectionFailed, StreamFailed
from sampan.client.tarstream import pack
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from collections.abc import Callable, Iterator

    from sampan.client.buildlisting import Keep
    from sampan.client.document import Document, Json
    from sampan.client.http import Stream

_HEAD = struct.Struct(">BII")
_MESSAGE, _DATA, _END = b"J"[0], b"D"[0], b"E"[0]
_PIECE = 256 * 1024


class LocalContext(NamedTuple):
    """A directory of ours that the daemon may ask for, and what of it is not ignored."""

    directory: str
    keep: Keep | None


def context_key(directory: str, name: str) -> str:
    """What the daemon keeps a directory's files under: this machine's, this user's, this path."""
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            machine = file.read().strip()
    except OSError:
        machine = os.uname().nodename
    return json.dumps([machine, os.geteuid(), directory, name])


class Sink:
    """Where an output goes; :meth:`write` takes its bytes, :meth:`close` ends it."""

    def write(self, data: bytes) -> None:
        """Take some bytes."""
        raise NotImplementedError

    def close(self) -> None:
        """The output is complete."""
        raise NotImplementedError

    def abandon(self) -> None:
        """The output broke off: leave nothing behind."""
        raise NotImplementedError


class Inputs(NamedTuple):
    """What the daemon may ask of us: contexts by name, agents' sockets by id."""

    contexts: dict[str, LocalContext]
    agents: dict[str, str]
    archive: bytes


class Conversation:
    """One build. ``on_news`` is given vertices, logs and warnings, ``sink`` makes outputs."""

    def __init__(
        self,
        stream: Stream,
        inputs: Inputs,
        on_news: Callable[[str, Json], None],
        sink: Callable[[int], Sink],
    ) -> None:
        self._stream = stream
        self._inputs = inputs
        self._on_news = on_news
        self._sink = sink
        self._buffer = bytearray()
        self._listings: dict[str, Listing] = {}
        self._sinks: dict[int, Sink] = {}
        self._agents: dict[int, socket.socket] = {}

    def run(self, asked: Document) -> Document:
        """Ask for the build and see it through; what the daemon says of the result.

        Raises :class:`StreamFailed` for a failed build, :class:`ConnectionFailed`.
        """
        try:
            self._tell({"build": asked})
            while True:
                message = self._next()
                for name, value in message.items():
                    if name == "done":
                        return value if isinstance(value, dict) else {}
                    if name == "failed":
                        raise _failure(value)
                    self._take(name, value)
        finally:
            for sink in self._sinks.values():
                sink.abandon()
            for agent in self._agents.values():
                agent.close()
            self._stream.close()

    def _take(self, name: str, value: Json) -> None:
        fields = value if isinstance(value, dict) else {}
        number = fields.get("stream")
        stream = number if isinstance(number, int) else 0
        match name:
            case "list":
                self._list(str(fields.get("context", "")), fields.get("paths"), stream)
            case "send":
                wanted = fields.get("wanted")
                numbers = wanted if isinstance(wanted, list) else []
                self._send_context(
                    str(fields.get("context", "")),
                    [one for one in numbers if isinstance(one, int)],
                    stream,
                )
            case "archive":
                self._send_archive(stream)
            case "agent":
                self._open_agent(str(fields.get("id", "")), stream)
            case "output":
                which = fields.get("number")
                self._sinks[stream] = self._sink(which if isinstance(which, int) else 0)
            case _:
                self._on_news(name, value)

    # -- answers

    def _context(self, name: str) -> LocalContext:
        try:
            return self._inputs.contexts[name]
        except KeyError:
            raise InvalidParameter(
                f"the daemon asks for a context {name!r} that is not ours"
            ) from None

    def _list(self, name: str, paths: Json, stream: int) -> None:
        context = self._context(name)
        chosen = [str(path) for path in paths] if isinstance(paths, list) else None
        listing = self._listings[name] = Listing(context.directory, context.keep, chosen)
        data = listing.encode()
        for start in range(0, len(data), _PIECE):
            self._send(_DATA, stream, data[start : start + _PIECE])
        self._send(_END, stream)

    def _send_context(self, name: str, wanted: list[int], stream: int) -> None:
        listing = self._listings.get(name)
        if listing is None:
            raise InvalidParameter(f"the daemon asks for files of {name!r} before their list")
        buffer = bytearray()
        for piece in pack(listing.packed(wanted), change=_owned_by_root):
            buffer += piece
            if len(buffer) >= _PIECE:
                self._send(_DATA, stream, bytes(buffer))
                buffer.clear()
        self._send(_DATA, stream, bytes(buffer))
        self._send(_END, stream)

    def _send_archive(self, stream: int) -> None:
        self._send(_DATA, stream, self._inputs.archive)
        while piece := sys.stdin.buffer.read(_PIECE):
            self._send(_DATA, stream, piece)
        self._send(_END, stream)

    def _open_agent(self, identity: str, stream: int) -> None:
        path = self._inputs.agents.get(identity, "")
        agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            agent.connect(path)
        except OSError:
            agent.close()
            self._send(_END, stream)
            return
        self._agents[stream] = agent

    # -- frames

    def _tell(self, message: Document) -> None:
        self._send(_MESSAGE, 0, json.dumps(message, separators=(",", ":")).encode())

    def _send(self, kind: int, stream: int, data: bytes = b"") -> None:
        try:
            self._stream.sendall(_HEAD.pack(kind, stream, len(data)) + data)
        except OSError as error:
            raise ConnectionFailed(f"error during connect: {error.strerror}") from error

    def _next(self) -> Document:
        """The next message; frames of streams are dealt with on the way."""
        while True:
            for kind, number, data in self._frames():
                if kind == _MESSAGE:
                    found = json.loads(data)
                    return found if isinstance(found, dict) else {}
                self._data(kind, number, data)
            self._read()

    def _frames(self) -> Iterator[tuple[int, int, bytes]]:
        """Whole frames that have arrived, each taken off the buffer before it is given."""
        while len(self._buffer) >= _HEAD.size:
            kind, number, length = _HEAD.unpack_from(self._buffer)
            end = _HEAD.size + length
            if len(self._buffer) < end:
                return
            data = bytes(self._buffer[_HEAD.size : end])
            del self._buffer[:end]
            yield kind, number, data

    def _read(self) -> None:
        """Wait for the daemon, passing on what agents say meanwhile."""
        early = self._stream.take_early()
        if early:
            self._buffer += early
            return
        while self._agents:
            sockets = {agent.fileno(): number for number, agent in self._agents.items()}
            ready, _, _ = select.select([self._stream.fileno(), *sockets], [], [])
            for descriptor in ready:
                if descriptor in sockets:
                    self._from_agent(sockets[descriptor])
            if self._stream.fileno() in ready:
                break
        data = self._stream.recv(_PIECE)
        if not data:
            raise ConnectionFailed("the daemon ended the connection before the build was done")
        self._buffer += data

    def _from_agent(self, number: int) -> None:
        data = self._agents[number].recv(65536)
        if data:
            self._send(_DATA, number, data)
        else:
            self._agents.pop(number).close()
            self._send(_END, number)

    def _data(self, kind: int, number: int, data: bytes) -> None:
        if number in self._sinks:
            if kind == _DATA:
                self._sinks[number].write(data)
            else:
                self._sinks.pop(number).close()
        elif number in self._agents:
            if kind == _DATA:
                self._agents[number].sendall(data)
            else:
                self._agents.pop(number).close()


def _failure(value: Json) -> StreamFailed:
    """A failed build: the place in the Dockerfile, then the sentence."""
    fields = value if isinstance(value, dict) else {}
    message = str(fields.get("message", "the build failed"))
    code = fields.get("code")
    excerpt = fields.get("excerpt")
    shown = f"{excerpt}\n{message}" if excerpt else message
    return StreamFailed(shown, code if isinstance(code, int) else 1)


def _owned_by_root(header: tarfile.TarInfo) -> None:
    # Which user made the context must not change the cache key or the image.
    header.uid = header.gid = 0


__all__ = ["Conversation", "Inputs", "LocalContext", "Sink", "context_key"]
