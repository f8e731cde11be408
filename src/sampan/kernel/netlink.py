"""netlink(7): messages, attributes, requests in batches, dumps.

Pure packing and parsing plus one blocking :class:`NetlinkSocket`. Several requests go out in one
``send`` and only the last asks for an acknowledgement: the kernel handles them in order and
answers every failure anyway, so a batch costs two system calls however long it is.
"""

from __future__ import annotations

import errno as errno_module
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 0x001
NLM_F_MULTI = 0x002
NLM_F_ACK = 0x004
NLM_F_DUMP_INTR = 0x010
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_ACK_TLVS = 0x200

NLMSG_ERROR = 2
NLMSG_DONE = 3

NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF

_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NLMSGERR_ATTR_MSG = 1

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_U32 = struct.Struct("=I")
_RECEIVE = 1 << 17
#: A netlink peer that answers nothing for so long is broken; every wait has an end.
_TIMEOUT = 30.0
_DUMP_RETRIES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One request: ``type`` and ``flags`` of nlmsghdr, the ``body`` after it.

    ``what`` names the object in errors; errnos in ``ignore`` are no failure (idempotence).
    """

    type: int
    body: bytes
    flags: int = 0
    what: str = ""
    ignore: frozenset[int] = field(default_factory=frozenset)


def attribute(kind: int, payload: bytes) -> bytes:
    """One nlattr, padded to four bytes."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def u8(kind: int, value: int) -> bytes:
    """An attribute of one byte."""
    return attribute(kind, bytes((value,)))


def u16(kind: int, value: int) -> bytes:
    """An attribute of two bytes, host order."""
    return attribute(kind, value.to_bytes(2, sys.byteorder))


def u32(kind: int, value: int) -> bytes:
    """An attribute of four bytes, host order."""
    return attribute(kind, _U32.pack(value))


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string."""
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute holding attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(parts))


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes in ``data`` from ``offset``, by type; the last of a type wins.

    Raises :class:`ValueError` when lengths do not add up.
    """
    found: dict[int, bytes] = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            raise ValueError(f"netlink attribute of {length} bytes at {offset} of {end}")
        found[kind & _NLA_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The messages of one datagram: (type, flags, sequence, body).

    Raises :class:`ValueError` when lengths do not add up.
    """
    offset, end = 0, len(data)
    while offset < end:
        if offset + _HEADER.size > end:
            raise ValueError("netlink message shorter than its header")
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > end:
            raise ValueError(f"netlink message of {length} bytes at {offset} of {end}")
        yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def failure(flags: int, body: bytes, what: str) -> OSError | None:
    """The error an NLMSG_ERROR reply reports, with the kernel's own words (extack) if it has
    any; ``None`` for an acknowledgement."""
    code = -struct.unpack_from("=i", body)[0]
    if code == 0:
        return None
    reason = os.strerror(code)
    # With NETLINK_CAP_ACK the offending request is cut to its header.
    if flags & NLM_F_ACK_TLVS and len(body) > 4 + _HEADER.size:
        detail = attributes(body, 4 + _HEADER.size).get(_NLMSGERR_ATTR_MSG)
        if detail:
            reason = f"{reason} ({detail.rstrip(bytes(1)).decode(errors='replace')})"
    return OSError(code, reason, what) if what else OSError(code, reason)


class NetlinkSocket:
    """A blocking netlink socket; not for several threads at once."""

    def __init__(self, protocol: int = NETLINK_ROUTE, sock: socket.socket | None = None) -> None:
        """Open a socket of ``protocol`` in the calling thread's network namespace, or take
        over ``sock`` (opened in another one)."""
        self._socket = sock or socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
        )
        self._sequence = 0
        self._socket.settimeout(_TIMEOUT)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)

    def close(self) -> None:
        """Close the socket; idempotent."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def request(self, batch: Sequence[Message], *, acknowledge: int = -1) -> None:
        """Send all messages at once and wait until the kernel handled them.

        Later messages are carried out even when an earlier one fails. The kernel acknowledges
        the message at index ``acknowledge``. Raises :class:`OSError` of the first failure not
        ignored, naming its object.
        """
        if not batch:
            return
        errors = self.attempt(batch, acknowledge=acknowledge)
        for message, error in zip(batch, errors, strict=True):
            if error is not None and error.errno not in message.ignore:
                raise error

    def attempt(self, batch: Sequence[Message], *, acknowledge: int = -1) -> list[OSError | None]:
        """As :meth:`request`, but return each message's failure (or None) instead."""
        first = self._sequence + 1
        self._sequence += len(batch)
        last = first + acknowledge % len(batch)
        data = b"".join(
            self._pack(message, first + index, NLM_F_ACK if first + index == last else 0)
            for index, message in enumerate(batch)
        )
        self._socket.send(data)
        errors: list[OSError | None] = [None] * len(batch)
        while True:
            for kind, flags, sequence, body in messages(self._socket.recv(_RECEIVE)):
                if kind != NLMSG_ERROR or not first <= sequence <= self._sequence:
                    continue
                index = sequence - first
                errors[index] = failure(flags, body, batch[index].what)
                if sequence == last:
                    return errors

    def get(self, message: Message) -> tuple[int, bytes]:
        """Ask for one object: (type, body). Raises :class:`OSError` when there is none."""
        self._sequence += 1
        self._socket.send(self._pack(message, self._sequence, 0))
        while True:
            for kind, flags, sequence, body in messages(self._socket.recv(_RECEIVE)):
                if sequence != self._sequence:
                    continue
                if kind == NLMSG_ERROR and (error := failure(flags, body, message.what)):
                    raise error
                return kind, body

    def dump(self, message: Message) -> list[tuple[int, bytes]]:
        """Every object of a kind: [(type, body)]; repeated while the kernel says it changed."""
        for _ in range(_DUMP_RETRIES):
            found, interrupted = self._dump_once(message)
            if not interrupted:
                return found
        raise OSError(errno_module.EAGAIN, "dump kept being interrupted", message.what)

    def _dump_once(self, message: Message) -> tuple[list[tuple[int, bytes]], bool]:
        self._sequence += 1
        self._socket.send(self._pack(message, self._sequence, NLM_F_DUMP))
        found: list[tuple[int, bytes]] = []
        interrupted = False
        while True:
            for kind, flags, sequence, body in messages(self._socket.recv(_RECEIVE)):
                if sequence != self._sequence:
                    continue
                interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                if kind == NLMSG_DONE:
                    return found, interrupted
                if kind == NLMSG_ERROR:
                    error = failure(flags, body, message.what)
                    if error is not None:
                        raise error
                    return found, interrupted
                found.append((kind, body))

    @staticmethod
    def _pack(message: Message, sequence: int, extra: int) -> bytes:
        length = _HEADER.size + len(message.body)
        header = _HEADER.pack(
            length, message.type, NLM_F_REQUEST | message.flags | extra, sequence, 0
        )
        return header + message.body + bytes(-length % 4)
