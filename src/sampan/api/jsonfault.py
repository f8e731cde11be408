"""Where JSON goes wrong, in the words of Go's decoder, which clients of dockerd know.

Only asked about text another parser has refused; it scans that text once more. States and words
follow RFC 8259's grammar: a value, then what may come after it.
"""

from __future__ import annotations

#: said of text that holds a value and then more
TRAILING = "unexpected content after JSON"
_SPACE = " \t\r\n"
_HEX = frozenset("0123456789abcdefABCDEF")
_DIGITS = frozenset("0123456789")
_LITERALS = {"t": "true", "f": "false", "n": "null"}
#: deeper nesting is not looked into: the text is refused anyway
_DEPTH = 100


class _FaultError(Exception):
    """The first fault found; carries the sentence."""


def describe(text: str) -> str:
    """The fault of ``text``: ``invalid character 'x' looking for beginning of value``, ..."""
    try:
        at = _value(text, 0, 0)
        if text[at:].strip(_SPACE):
            return TRAILING
    except _FaultError as fault:
        return str(fault)
    return "not the JSON it looks like"


def _fault(text: str, at: int, context: str) -> _FaultError:
    if at >= len(text):
        return _FaultError("unexpected EOF")
    shown = {"'": "'\\''", '"': "'\"'"}.get(text[at], repr(text[at]))
    return _FaultError(f"invalid character {shown} {context}")


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _value(text: str, at: int, depth: int) -> int:
    """The position after the value at ``at``."""
    if depth > _DEPTH:
        raise _FaultError("exceeded max depth")
    at = _skip(text, at)
    first = text[at : at + 1]
    if first == "{":
        return _object(text, at + 1, depth)
    if first == "[":
        return _array(text, at + 1, depth)
    if first == '"':
        return _string(text, at + 1)
    if first == "-" or first in _DIGITS:
        return _number(text, at)
    if first in _LITERALS:
        for offset, wanted in enumerate(_LITERALS[first]):
            if text[at + offset : at + offset + 1] != wanted:
                context = f"in literal {_LITERALS[first]} (expecting {wanted!r})"
                raise _fault(text, at + offset, context)
        return at + len(_LITERALS[first])
    raise _fault(text, at, "looking for beginning of value")


def _object(text: str, at: int, depth: int) -> int:
    at = _skip(text, at)
    if text[at : at + 1] == "}":
        return at + 1
    while True:
        at = _skip(text, at)
        if text[at : at + 1] != '"':
            raise _fault(text, at, "looking for beginning of object key string")
        at = _skip(text, _string(text, at + 1))
        if text[at : at + 1] != ":":
            raise _fault(text, at, "after object key")
        at = _skip(text, _value(text, at + 1, depth + 1))
        if text[at : at + 1] == "}":
            return at + 1
        if text[at : at + 1] != ",":
            raise _fault(text, at, "after object key:value pair")
        at += 1


def _array(text: str, at: int, depth: int) -> int:
    at = _skip(text, at)
    if text[at : at + 1] == "]":
        return at + 1
    while True:
        at = _skip(text, _value(text, at, depth + 1))
        if text[at : at + 1] == "]":
            return at + 1
        if text[at : at + 1] != ",":
            raise _fault(text, at, "after array element")
        at += 1


def _string(text: str, at: int) -> int:
    while at < len(text):
        if text[at] == '"':
            return at + 1
        if text[at] < " ":
            raise _fault(text, at, "in string literal")
        if text[at] == "\\":
            at += 1
            if text[at : at + 1] == "u":
                for offset in range(1, 5):
                    if text[at + offset : at + offset + 1] not in _HEX:
                        context = "in \\u hexadecimal character escape"
                        raise _fault(text, at + offset, context)
                at += 4
            elif text[at : at + 1] not in tuple('"\\/bfnrt'):
                raise _fault(text, at, "in string escape code")
        at += 1
    raise _fault(text, at, "in string literal")


def _digits(text: str, at: int, context: str) -> int:
    if text[at : at + 1] not in _DIGITS:
        raise _fault(text, at, context)
    while text[at : at + 1] in _DIGITS:
        at += 1
    return at


def _number(text: str, at: int) -> int:
    if text[at] == "-":
        at += 1
    zero = text[at : at + 1] == "0"
    at = at + 1 if zero else _digits(text, at, "in numeric literal")
    if text[at : at + 1] == ".":
        at = _digits(text, at + 1, "after decimal point in numeric literal")
    if text[at : at + 1] in ("e", "E"):
        at += 1 + (text[at + 1 : at + 2] in ("+", "-"))
        at = _digits(text, at, "in exponent of numeric literal")
    return at
