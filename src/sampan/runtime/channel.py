"""Messages between the runtime's processes, with descriptors beside them.

Three kinds. A *channel* is a SOCK_SEQPACKET pair between the runtime's side and init: one JSON
object a packet. A *pair* is the same between a monitor and its worker, forks of one process, with
marshalled values: the monitor touches next to nothing to read them. A *connection* is a stream
between client and worker: a frame is the lengths of a JSON object and of a blob (two little-endian
u32), then both; descriptors come with the frame's first byte. All bound what they accept.
"""

from __future__ import annotations

import array
import marshal
import os
import select
import socket
import struct
from collections.abc import Sequence
from typing import Any

from sampan.errors import Corrupt
from sampan.runtime import json_text

Message = dict[str, Any]

PACKET_LIMIT = 64 * 1024
_VALUE_LIMIT = 192 * 1024
FRAME_LIMIT = 16 * 1024 * 1024
DESCRIPTOR_LIMIT = 253  # SCM_MAX_FD
# As plain numbers: the enumerations of the socket module are slow to combine.
_SOL_SOCKET, _SCM_RIGHTS = int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS)
_NOSIGNAL, _CMSG_CLOEXEC = int(socket.MSG_NOSIGNAL), int(socket.MSG_CMSG_CLOEXEC)
_HEADER = struct.Struct("<II")
_ANCILLARY = socket.CMSG_SPACE(DESCRIPTOR_LIMIT * 4)


def pair() -> tuple[socket.socket, socket.socket]:
    """A connected channel, both ends close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(channel: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send one packet. Raises :class:`OSError` (EPIPE when the other end is gone)."""
    _send(channel, json_text.dumps(message), fds)


def receive(channel: socket.socket) -> tuple[Message | None, list[int]]:
    """Receive one packet; (None, []) when the other end is gone."""
    try:
        data, ancillary, _, _ = channel.recvmsg(PACKET_LIMIT, _ANCILLARY, _CMSG_CLOEXEC)
    except ConnectionResetError:
        # It went without reading all we sent. The kernel tells that first, and once; what it had
        # said before, such as why it goes, is still there to be read.
        data, ancillary, _, _ = channel.recvmsg(PACKET_LIMIT, _ANCILLARY, _CMSG_CLOEXEC)
    fds = _descriptors(ancillary)
    if not data:
        return None, fds
    return json_text.loads(data), fds


def readable(sock: socket.socket) -> bool:
    """Whether something waits to be received, or a connection to be accepted."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


def send_value(pair: socket.socket, value: Any, fds: Sequence[int] = ()) -> None:
    """Send one marshalled value."""
    _send(pair, marshal.dumps(value), fds)


def receive_value(pair: socket.socket) -> tuple[Any, list[int]]:
    """Receive one marshalled value; (None, []) when the other end is gone."""
    data, ancillary, _, _ = pair.recvmsg(_VALUE_LIMIT, _ANCILLARY, _CMSG_CLOEXEC)
    return (marshal.loads(data), _descriptors(ancillary)) if data else (None, [])


def send_frame(
    connection: socket.socket, message: Message, blob: bytes = b"", fds: Sequence[int] = ()
) -> None:
    """Send one frame."""
    body = json_text.dumps(message)
    data = _HEADER.pack(len(body), len(blob)) + body + blob
    sent = _send(connection, data, fds)
    if sent < len(data):
        connection.sendall(data[sent:])


def receive_frame(connection: socket.socket) -> tuple[Message | None, bytes, list[int]]:
    """Receive one frame; (None, b"", []) at the end of the stream.

    Raises :class:`Corrupt` for a frame that is too large or cut off.
    """
    fds: list[int] = []
    try:
        header = _read(connection, _HEADER.size, fds)
        if not header:
            return None, b"", fds
        length, blob_length = _HEADER.unpack(header)
        if length + blob_length > FRAME_LIMIT:
            raise Corrupt(f"message of {length + blob_length} bytes is too large")
        body = _read(connection, length + blob_length, fds)
        if length + blob_length and not body:
            raise Corrupt("message is cut off")
        return json_text.loads(body[:length]), body[length:], fds
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


def _send(sock: socket.socket, data: bytes, fds: Sequence[int]) -> int:
    if not fds:
        return sock.send(data, _NOSIGNAL)
    rights = [(_SOL_SOCKET, _SCM_RIGHTS, array.array("i", fds))]
    return sock.sendmsg([data], rights, _NOSIGNAL)


def _read(sock: socket.socket, length: int, fds: list[int]) -> bytes:
    """Exactly ``length`` bytes, b"" at a clean end; raises :class:`Corrupt` in between."""
    parts: list[bytes] = []
    missing = length
    while missing:
        data, ancillary, _, _ = sock.recvmsg(missing, _ANCILLARY, _CMSG_CLOEXEC)
        fds += _descriptors(ancillary)
        if not data:
            if parts:
                raise Corrupt("message is cut off")
            return b""
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found: list[int] = []
    for level, kind, data in ancillary:
        if level == _SOL_SOCKET and kind == _SCM_RIGHTS:
            found += memoryview(data[: len(data) & ~3]).cast("i").tolist()
    return found
