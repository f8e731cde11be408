"""The functions of templates: Go's built-in ones and those Docker adds.

Each takes evaluated values and raises ``ValueError`` with Go's wording. ``and``, ``or`` and
``call`` are here for their names; :mod:`sampan.cli.gotemplate.template` evaluates ``and`` and
``or`` itself because they stop early.
"""

from __future__ import annotations

from sampan.cli.gotemplate.printf import sprintf
from sampan.cli.gotemplate.values import (
    NilPointer,
    TypedMap,
    go_print,
    to_json,
    truth,
    type_name,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.gotemplate.values import Value


def _json(value: Value) -> str:
    return to_json(value)


def _split(text: Value, separator: Value) -> Value:
    text, separator = _string(text), _string(separator)
    return list(text) if not separator else list(text.split(separator))


def _join(values: Value, separator: Value) -> str:
    if not isinstance(values, list):
        raise ValueError(f"wrong type for value; expected []string; got {type_name(values)}")
    return _string(separator).join(_string(item) for item in values)


def _title(text: Value) -> str:
    letters = []
    start = True
    for letter in _string(text):
        letters.append(letter.upper() if start else letter)
        start = not (letter.isalnum() or letter in "_'")
    return "".join(letters)


def _pad(text: Value, before: Value, after: Value) -> str:
    source = _string(text)
    return " " * _int(before) + source + " " * _int(after) if source else source


def _truncate(text: Value, length: Value) -> str:
    source, limit = _string(text), _int(length)
    return source if len(source) < limit else source[:limit]


def _length(value: Value) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, list | dict):
        return len(value)
    if value is None:
        raise ValueError("len of nil pointer")
    raise ValueError(f"len of type {type_name(value)}")


def _index(value: Value, *keys: Value) -> Value:
    if value is None:
        raise ValueError("index of untyped nil")
    for key in keys:
        if isinstance(value, list | str):
            if isinstance(key, bool) or not isinstance(key, int):
                raise ValueError(f"cannot index slice/array with type {type_name(key)}")
            if not 0 <= key < len(value):
                raise ValueError(f"index out of range: {key}")
            value = ord(value[key]) if isinstance(value, str) else value[key]
        elif isinstance(value, dict):
            if not isinstance(key, str):
                expected = f"value has type {type_name(key)}; should be string"
                raise ValueError(expected)
            missing = value.zero if isinstance(value, TypedMap) else None
            value = value.get(key, missing)
        elif value is None:
            raise ValueError("index of nil pointer")
        else:
            raise ValueError(f"can't index item of type {type_name(value)}")
    return value


def _slice(value: Value, *bounds: Value) -> Value:
    if not isinstance(value, list | str):
        raise ValueError(f"can't slice item of type {type_name(value)}")
    if len(bounds) > 2:
        raise ValueError("cannot 3-index slice a string")
    limits = [0, len(value)]
    for place, bound in enumerate(bounds):
        limits[place] = _int(bound)
        if not 0 <= limits[place] <= len(value):
            raise ValueError(f"index out of range: {limits[place]}")
    if limits[0] > limits[1]:
        raise ValueError(f"invalid slice index: {limits[0]} > {limits[1]}")
    return value[limits[0] : limits[1]]


def _print(*values: Value) -> str:
    pieces = []
    former: Value = ""
    for place, value in enumerate(values):
        if place and not isinstance(value, str) and not isinstance(former, str):
            pieces.append(" ")
        pieces.append(go_print(value))
        former = value
    return "".join(pieces)


def _println(*values: Value) -> str:
    return " ".join(go_print(value) for value in values) + "\n"


def _printf(pattern: Value, *values: Value) -> str:
    return sprintf(_string(pattern), values)


def _html(*values: Value) -> str:
    text = _print(*values)
    for letter, entity in (("&", "&amp;"), ("'", "&#39;"), ('"', "&#34;"), ("<", "&lt;")):
        text = text.replace(letter, entity)
    return text.replace(">", "&gt;").replace("\0", "\ufffd")


def _js(*values: Value) -> str:
    special = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E"}
    special |= {"&": "\\u0026", "=": "\\u003D"}
    pieces = []
    for letter in _print(*values):
        escaped = special.get(letter)
        if escaped is None and ord(letter) < 0x20:
            escaped = f"\\u{ord(letter):04X}"
        pieces.append(escaped or letter)
    return "".join(pieces)


def _urlquery(*values: Value) -> str:
    from urllib.parse import quote_plus

    return quote_plus(_print(*values), safe="~")


def _not(value: Value) -> bool:
    return not truth(value)


def _call(function: Value, *values: Value) -> Value:
    if not callable(function):
        raise ValueError("call of nil" if function is None else "non-function of type string")
    return function(*values)


def _kind(value: Value) -> str:
    for kind, name in ((bool, "bool"), (int, "int"), (float, "float"), (str, "string")):
        if isinstance(value, kind):
            return name
    if value is None or isinstance(value, NilPointer):
        return "nil"
    raise ValueError("invalid type for comparison")


def _same(left: Value, right: Value) -> bool:
    kinds = _kind(left), _kind(right)
    if "nil" in kinds:
        return kinds[0] == kinds[1]
    if kinds[0] != kinds[1]:
        raise ValueError("incompatible types for comparison")
    return left == right


def _eq(value: Value, *others: Value) -> bool:
    if not others:
        raise ValueError("missing argument for comparison")
    return any(_same(value, other) for other in others)


def _ne(left: Value, right: Value) -> bool:
    return not _same(left, right)


def _lt(left: Value, right: Value) -> bool:
    kinds = _kind(left), _kind(right)
    if kinds[0] != kinds[1]:
        raise ValueError("incompatible types for comparison")
    if isinstance(left, str) and isinstance(right, str):
        return left < right
    if kinds[0] in ("bool", "nil"):
        raise ValueError("invalid type for comparison")
    assert isinstance(left, int | float)
    assert isinstance(right, int | float)
    return left < right


def _le(left: Value, right: Value) -> bool:
    return _lt(left, right) or _same(left, right)


def _gt(left: Value, right: Value) -> bool:
    return not _le(left, right)


def _ge(left: Value, right: Value) -> bool:
    return not _lt(left, right)


def _string(value: Value) -> str:
    if not isinstance(value, str):
        if value is None:
            raise ValueError("invalid value; expected string")
        raise ValueError(f"wrong type for value; expected string; got {type_name(value)}")
    return value


def _int(value: Value) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"wrong type for value; expected int; got {type_name(value)}")
    return value


def _lower(text: Value) -> str:
    return _string(text).lower()


def _upper(text: Value) -> str:
    return _string(text).upper()


FUNCTIONS: dict[str, Callable[..., Value]] = {
    "json": _json,
    "split": _split,
    "join": _join,
    "title": _title,
    "lower": _lower,
    "upper": _upper,
    "pad": _pad,
    "truncate": _truncate,
    "len": _length,
    "index": _index,
    "slice": _slice,
    "print": _print,
    "printf": _printf,
    "println": _println,
    "html": _html,
    "js": _js,
    "urlquery": _urlquery,
    "not": _not,
    "call": _call,
    "eq": _eq,
    "ne": _ne,
    "lt": _lt,
    "le": _le,
    "gt": _gt,
    "ge": _ge,
}

NAMES = frozenset((*FUNCTIONS, "and", "or"))
