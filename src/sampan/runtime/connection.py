"""The monitor's side of a client's connection: frames in, answers and events out.

Nothing here waits for a client: an answer it has no room for ends its connection.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable

from sampan.errors import Conflict, SampanError, StartFailed
from sampan.runtime import json_text
from sampan.runtime.channel import FRAME_LIMIT, Message
from sampan.runtime.loop import READ, Loop

_HEADER = struct.Struct("<II")
_READ_SIZE = 64 * 1024
_BACKLOG = 64
_NOW = int(socket.MSG_DONTWAIT) | int(socket.MSG_NOSIGNAL)


class Connection:
    """One connection; ``on_message`` gets whole frames, ``on_end`` the end."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        on_message: Callable[[Connection, Message, bytes], None],
        on_end: Callable[[Connection], None],
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._loop = loop
        self._on_message = on_message
        self._on_end = on_end
        self._buffer = bytearray()
        self.open = True
        loop.add(sock.fileno(), READ, self._ready)

    def _ready(self, events: int) -> None:
        try:
            data = self.sock.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._buffer += data
        while self.open and len(self._buffer) >= _HEADER.size:
            length, blob_length = _HEADER.unpack_from(self._buffer)
            if length + blob_length > FRAME_LIMIT:
                self.close()
                return
            end = _HEADER.size + length + blob_length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            try:
                self._on_message(self, json_text.loads(body[:length]), body[length:])
            except Exception as error:
                # A mistake, of whoever asks or ours; it is no reason to end a container.
                if self.open:
                    self.fail(StartFailed(f"{type(error).__name__}: {error}"))

    def reply(self, message: Message) -> bool:
        """Send one frame; False (and closed) when the peer does not take it."""
        body = json_text.dumps(message)
        return self._send(_HEADER.pack(len(body), 0) + body)

    def fail(self, error: SampanError) -> None:
        """Answer with an error."""
        self.reply({"error": type(error).__name__, "message": error.message})

    def line(self, message: Message) -> bool:
        """Send one line of a watch; False (and closed) when the peer does not take it."""
        return self._send(json_text.dumps(message) + b"\n")

    def _send(self, data: bytes) -> bool:
        try:
            if self.sock.send(data, _NOW) == len(data):
                return True
        except OSError:
            pass  # as for a short write: it is not reading
        self.close()
        return False

    def watch_end(self) -> None:
        """From here on only the peer's end matters."""
        self._loop.remove(self.sock.fileno())
        self._loop.add(self.sock.fileno(), READ, self._ended)

    def _ended(self, events: int) -> None:
        try:
            data = self.sock.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()

    @property
    def at_rest(self) -> bool:
        """Whether no part of a request has been received."""
        return not self._buffer

    def take(self) -> tuple[socket.socket, bytes]:
        """Give the socket away: (it, what was received beyond the last frame)."""
        self._loop.remove(self.sock.fileno())
        self.open = False
        early = bytes(self._buffer)
        self._buffer.clear()
        self._on_end(self)
        return self.sock, early

    def close(self) -> None:
        """Close. Idempotent."""
        if self.open:
            self.open = False
            self._loop.remove(self.sock.fileno())
            self.sock.close()
            self._on_end(self)


def listen(directory: str, name: str) -> socket.socket:
    """A listening socket in ``directory``, for its owner alone; a dead one there is replaced.

    It is bound by way of a descriptor: the path may be longer than a socket address can be.
    Raises :class:`Conflict` when somebody listens there already, :class:`OSError`.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        address = f"/proc/self/fd/{fd}/{name}"
        try:
            listener.bind(address)
        except OSError:
            if _answers(address):
                raise Conflict(f"{directory} has a monitor already") from None
            os.unlink(address)
            listener.bind(address)
        os.chmod(address, 0o600)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(fd)
    return listener


def trusted(sock: socket.socket) -> bool:
    """Whether the peer is root or our own user (unix(7) SO_PEERCRED)."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    uid = int.from_bytes(credentials[4:8], "little")
    return uid in (0, os.geteuid())


def _answers(address: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(address)
        except OSError:
            return False
        return True
