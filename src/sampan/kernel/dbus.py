"""D-Bus: calls to a service on this machine and signals from it, over its Unix socket.

Only what talking to systemd and firewalld takes: method calls, replies, errors and signals, without
descriptors.
Names of functions and fields are those of the D-Bus specification; types are given by signatures
("Type System"), values are Python's own: int, bool, str, bytes or list for arrays, tuple for
structures, dict for dictionaries, and ``(signature, value)`` for a variant.

A connection is for one thread and every wait on it has an end.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

_CALL, _RETURN, _ERROR, _SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_FIELD_TYPES = {_REPLY: "u", _PATH: "o", _SIGNATURE: "g"}
#: Type codes of fixed size, as struct(3) has them; what is aligned to its size.
_FIXED = {"y": "B", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d"}
_ALIGNMENT = {"y": 1, "g": 1, "v": 1, "n": 2, "q": 2, "x": 8, "t": 8, "d": 8, "(": 8, "{": 8}
_LONGEST = 1 << 27  # "Message Protocol": no message is longer
_MOST_SIGNALS = 1000

Value = Any
Signal = tuple[str, str, tuple[Value, ...]]


class DBusError(Exception):
    """The service answered with an error: ``name`` (``org.freedesktop...``) and its ``message``."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message or name)
        self.name = name
        self.message = message or name


def marshal(signature: str, values: Sequence[Value]) -> bytes:
    """The body of a message with these values ("Marshaling"), little-endian."""
    out = bytearray()
    for kind, value in zip(split(signature), values, strict=True):
        _put(out, kind, value)
    return bytes(out)


def unmarshal(signature: str, data: bytes, little: bool = True) -> tuple[Value, ...]:
    """The values of a body. Raises ValueError when it is not what ``signature`` says."""
    reader = _Reader(data, "<" if little else ">")
    try:
        return tuple(reader.get(kind) for kind in split(signature))
    except (struct.error, IndexError) as error:
        raise ValueError(f"malformed D-Bus message of type {signature!r}") from error


def split(signature: str) -> list[str]:
    """The complete types of a signature. Raises ValueError when it is not one."""
    types, start = [], 0
    while start < len(signature):
        end = _end(signature, start)
        types.append(signature[start:end])
        start = end
    return types


def _end(signature: str, start: int) -> int:
    """Where the complete type at ``start`` ends."""
    kind = signature[start : start + 1]
    if kind == "a":
        return _end(signature, start + 1)
    if kind and kind in "({":
        closing, position = {"(": ")", "{": "}"}[kind], start + 1
        while signature[position : position + 1] != closing:
            position = _end(signature, position)
        return position + 1
    if not kind or kind not in "ybnqiuxtdsogv":
        raise ValueError(f"invalid D-Bus signature {signature!r}")
    return start + 1


def _pad(out: bytearray, alignment: int) -> None:
    out += bytes(-len(out) % alignment)


def _put(out: bytearray, kind: str, value: Value) -> None:
    head = kind[0]
    _pad(out, _ALIGNMENT.get(head, 4))
    if head in _FIXED:
        out += struct.pack("<" + _FIXED[head], value)
    elif head == "b":
        out += struct.pack("<I", bool(value))
    elif head in "so":
        data = value.encode()
        out += struct.pack("<I", len(data)) + data + b"\0"
    elif head == "g":
        out += bytes([len(value)]) + value.encode() + b"\0"
    elif head == "v":
        _put(out, "g", value[0])
        _put(out, value[0], value[1])
    elif head == "a":
        _put_array(out, kind[1:], value)
    else:
        for inner, item in zip(split(kind[1:-1]), value, strict=True):
            _put(out, inner, item)


def _put_array(out: bytearray, inner: str, value: Value) -> None:
    place = len(out)
    out += bytes(4)
    _pad(out, _ALIGNMENT.get(inner[0], 4))
    start = len(out)
    if inner == "y":
        out += bytes(value)
    else:
        for item in value.items() if isinstance(value, dict) else value:
            _put(out, inner, item)
    struct.pack_into("<I", out, place, len(out) - start)


class _Reader:
    def __init__(self, data: bytes, order: str) -> None:
        self._data = data
        self._order = order
        self.position = 0

    def _fixed(self, code: str) -> Value:
        size = struct.calcsize(code)
        self.align(size)
        (value,) = struct.unpack_from(self._order + code, self._data, self.position)
        self.position += size
        return value

    def align(self, alignment: int) -> None:
        self.position += -self.position % alignment

    def _text(self, length: int) -> str:
        data = self._data[self.position : self.position + length]
        if len(data) != length:
            raise IndexError(length)
        self.position += length + 1
        return data.decode(errors="replace")

    def get(self, kind: str) -> Value:
        head = kind[0]
        if head in _FIXED:
            return self._fixed(_FIXED[head])
        if head == "b":
            return bool(self._fixed("I"))
        if head in "so":
            return self._text(self._fixed("I"))
        if head == "g":
            return self._text(self._fixed("B"))
        if head == "v":
            inner = self.get("g")
            return inner, self.get(inner)
        if head == "a":
            return self._array(kind[1:])
        self.align(8)
        return tuple(self.get(inner) for inner in split(kind[1:-1]))

    def _array(self, inner: str) -> Value:
        length = self._fixed("I")
        self.align(_ALIGNMENT.get(inner[0], 4))
        end = self.position + length
        if end > len(self._data):
            raise IndexError(length)
        if inner == "y":
            data = self._data[self.position : end]
            self.position = end
            return data
        items = []
        while self.position < end:
            items.append(self.get(inner))
        return dict(items) if inner[0] == "{" else items


class Connection:
    """A connection to a bus, or straight to a service that listens itself; close it when done."""

    def __init__(self, path: str, *, bus: bool = True, timeout: float = 30.0) -> None:
        """Connect to the socket ``path`` and authenticate as who we are.

        ``bus``: a message bus, which is told Hello. ``timeout``: seconds any call may take.
        Raises OSError, DBusError.
        """
        self.bus = bus
        self._timeout = timeout
        self._serial = 0
        self._received = bytearray()
        self._signals: list[Signal] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(path)
            self._authenticate()
            if bus:
                self.call(("org.freedesktop.DBus", "/org/freedesktop/DBus"), "Hello")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _authenticate(self) -> None:
        """SASL EXTERNAL: the kernel tells the other side who we are."""
        identity = str(os.geteuid()).encode().hex()
        self._socket.sendall(f"\0AUTH EXTERNAL {identity}\r\n".encode())
        answer = bytearray()
        while not answer.endswith(b"\r\n"):
            byte = self._socket.recv(1)
            if not byte or len(answer) > 1000:
                raise ConnectionError(errno.ECONNRESET, "no answer to D-Bus authentication")
            answer += byte
        if not answer.startswith(b"OK "):
            raise PermissionError(errno.EACCES, "D-Bus authentication was refused")
        self._socket.sendall(b"BEGIN\r\n")

    def call(
        self,
        target: tuple[str, str],
        method: str,
        signature: str = "",
        *values: Value,
        interface: str = "",
    ) -> tuple[Value, ...]:
        """Call a method of ``target`` (name, object path); the interface is the name by default.

        Returns what it returns. Raises DBusError when it fails, TimeoutError when it does not
        answer, OSError and ValueError when the connection is broken.
        """
        name, path = target
        self._serial += 1
        fields = [
            (_PATH, ("o", path)),
            (_INTERFACE, ("s", interface or name)),
            (_MEMBER, ("s", method)),
            (_DESTINATION, ("s", name)),
        ]
        if signature:
            fields.append((_SIGNATURE, ("g", signature)))
        body = marshal(signature, values)
        header = bytearray(struct.pack("<cBBBII", b"l", _CALL, 0, 1, len(body), self._serial))
        _put(header, "a(yv)", fields)
        _pad(header, 8)
        self._socket.settimeout(self._timeout)
        self._socket.sendall(header + body)
        deadline = time.monotonic() + self._timeout
        while True:
            kind, found, result = self._message(deadline)
            if found.get(_REPLY) == self._serial and kind in (_RETURN, _ERROR):
                break
        if kind == _ERROR:
            text = result[0] if result and isinstance(result[0], str) else ""
            raise DBusError(str(found.get(_ERROR_NAME, "")), text)
        return result

    def fileno(self) -> int:
        """The descriptor to poll(2) for signals, once :meth:`wait_signal` has none left."""
        return self._socket.fileno()

    def subscribe(self, rule: str) -> None:
        """Have the bus tell us of the signals a match rule names ("Match Rules")."""
        self.call(("org.freedesktop.DBus", "/org/freedesktop/DBus"), "AddMatch", "s", rule)

    def wait_signal(self, wanted: Callable[[Signal], bool], timeout: float | None = None) -> Signal:
        """The first signal (interface, member, values) that is ``wanted``, seen already or not,
        within ``timeout`` seconds (as long as a call may take).

        Raises TimeoutError, OSError.
        """
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        while True:
            while self._signals:
                if wanted(signal := self._signals.pop(0)):
                    return signal
            self._message(deadline)

    def _message(self, deadline: float) -> tuple[int, dict[int, Value], tuple[Value, ...]]:
        """The next message: its type, header fields and values; signals are kept too."""
        fixed = self._receive(0, 16, deadline)
        order = "<" if fixed[:1] == b"l" else ">"
        body, _, fields = struct.unpack_from(f"{order}III", fixed, 4)
        length = 16 + fields + -fields % 8
        if length + body > _LONGEST:
            raise ValueError("a D-Bus message is too long")
        data = self._receive(0, length + body, deadline)
        del self._received[: length + body]
        reader = _Reader(data[:length], order)
        reader.position = 12
        found = {code: value for code, (_, value) in reader.get("a(yv)")}
        values = unmarshal(found.get(_SIGNATURE, ""), data[length:], order == "<")
        if data[1] == _SIGNAL and len(self._signals) < _MOST_SIGNALS:
            self._signals.append((found.get(_INTERFACE, ""), found.get(_MEMBER, ""), values))
        return data[1], found, values

    def _receive(self, start: int, end: int, deadline: float) -> bytes:
        """Bytes of what comes next, which stay in the buffer."""
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        while len(self._received) < end:
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError(errno.ETIMEDOUT, "no answer over D-Bus")
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionError(errno.ECONNRESET, "the D-Bus connection ended")
            self._received += data
        return bytes(self._received[start:end])
