"""Values in GVariant's text format, as D-Bus values (pure): what people write for properties.

::

    value   = "true" | "false" | number | string | array | tuple | typed
    typed   = ("@" signature | type name) value      # uint64 5, @as [], objectpath '/x'
    number  = ["-"] digits | "0x" hex digits | decimal fraction
    string  = "'" ... "'" | '"' ... '"'              # with \\ before a quote or a backslash
    array   = "[" [value {"," value}] "]"
    tuple   = "(" [value {"," value}] [","] ")"

A number without a type is an int32 or a double, an array has the type of its first element.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sampan.kernel import dbus

_NAMES = {
    "boolean": "b",
    "byte": "y",
    "int16": "n",
    "uint16": "q",
    "int32": "i",
    "uint32": "u",
    "int64": "x",
    "uint64": "t",
    "double": "d",
    "string": "s",
    "objectpath": "o",
    "signature": "g",
}
_RANGES = {
    "y": (0, 1 << 8),
    "n": (-(1 << 15), 1 << 15),
    "q": (0, 1 << 16),
    "i": (-(1 << 31), 1 << 31),
    "u": (0, 1 << 32),
    "x": (-(1 << 63), 1 << 63),
    "t": (0, 1 << 64),
}
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|(?P<type>@[a-z(){}]+)"""
    r"""|(?P<word>[a-z][a-z0-9]*)|(?P<number>-?(?:0x[0-9a-fA-F]+|[0-9]+(?:\.[0-9]+)?))"""
    r"""|(?P<mark>[\[\](),]))"""
)
_DEEPEST, _LONGEST = 16, 40

#: A D-Bus signature and a value of it.
Typed = tuple[str, Any]


def parse(text: str) -> Typed:
    """The value ``text`` stands for. Raises ValueError."""
    parser = _Parser(text)
    value = parser.value("", 0)
    if parser.peek() is not None:
        raise ValueError(f"more than one value in {text!r}")
    return value


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        self._next = 0
        position, end = 0, len(text.rstrip())
        while position < end:
            found = _TOKEN.match(text, position)
            if found is None or found.lastgroup is None:
                raise ValueError(f"no value at {text[position:]!r}")
            self._tokens.append((found.lastgroup, found[found.lastgroup]))
            position = found.end()

    def peek(self) -> tuple[str, str] | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _take(self) -> tuple[str, str]:
        token = self.peek()
        if token is None:
            raise ValueError(f"{self._text!r} ends too early")
        self._next += 1
        return token

    def value(self, wanted: str, depth: int) -> Typed:
        """The next value, of the signature ``wanted`` ("": of its own)."""
        if depth > _DEEPEST:
            raise ValueError(f"{self._text!r} is nested too deeply")
        kind, text = self._take()
        if kind == "type":
            (signature,) = dbus.split(text[1:])
            return _checked(self.value(signature, depth + 1), wanted)
        if kind == "word" and text in _NAMES:
            return _checked(self.value(_NAMES[text], depth + 1), wanted)
        if kind == "word" and text in ("true", "false"):
            return _checked(("b", text == "true"), wanted)
        if kind == "text":
            plain = re.sub(r"\\(.)", r"\1", text[1:-1])
            return _checked((wanted if wanted in ("o", "g") else "s", plain), wanted)
        if kind == "number":
            return _number(text, wanted)
        if kind == "mark" and text == "[":
            return self._array(wanted, depth)
        if kind == "mark" and text == "(":
            return self._tuple(wanted, depth)
        raise ValueError(f"{text!r} is no value in {self._text!r}")

    def _array(self, wanted: str, depth: int) -> Typed:
        if wanted and wanted[0] != "a":
            raise ValueError(f"an array where {wanted!r} is wanted")
        inner, values = wanted[1:], list[Any]()
        for _ in self._items("]"):
            inner, value = self.value(inner, depth + 1)
            values.append(value)
        if not inner:
            raise ValueError("an empty array needs a type: @as []")
        return f"a{inner}", values

    def _tuple(self, wanted: str, depth: int) -> Typed:
        if wanted and wanted[0] != "(":
            raise ValueError(f"a tuple where {wanted!r} is wanted")
        kinds = dbus.split(wanted[1:-1])
        found = []
        for index in self._items(")"):
            if kinds and index >= len(kinds):
                raise ValueError(f"more values than {wanted!r} has")
            found.append(self.value(kinds[index] if kinds else "", depth + 1))
        if len(found) < max(len(kinds), 1):
            raise ValueError(f"fewer values than {wanted or '()'!r} has")
        return f"({''.join(kind for kind, _ in found)})", tuple(value for _, value in found)

    def _items(self, closing: str) -> Iterator[int]:
        """The index of each element to be parsed, commas and the end taken off."""
        index = 0
        while self.peek() != ("mark", closing):
            yield index
            index += 1
            if self.peek() != ("mark", closing) and self._take() != ("mark", ","):
                raise ValueError(f"a comma is missing in {self._text!r}")
        self._take()


def _checked(found: Typed, wanted: str) -> Typed:
    if wanted and found[0] != wanted:
        raise ValueError(f"{found[1]!r} is not of the type {wanted!r}")
    return found


def _number(text: str, wanted: str) -> Typed:
    kind = wanted or ("d" if "." in text else "i")
    if len(text) > _LONGEST:
        raise ValueError(f"{text[:_LONGEST]}... is too long for a number")
    if kind == "d":
        return kind, float(text)
    if kind not in _RANGES:
        raise ValueError(f"{text} is not of the type {kind!r}")
    number = int(text, 0) if "x" in text else int(text)
    low, end = _RANGES[kind]
    if not low <= number < end:
        raise ValueError(f"{text} is out of the range of {kind!r}")
    return kind, number
