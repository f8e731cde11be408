"""The values a template works on, their truth, their printed form and their JSON form.

Go prints values by type; JSON values map to Go's as ``encoding/json`` maps them. A Go struct is a
:class:`Record`: its members have names and an order.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    Value: TypeAlias = (
        "bool | int | float | str | list[Value] | dict[str, Value] | Record | Method | None"
    )
    Method: TypeAlias = Callable[..., "Value"]


class Record:
    """A Go struct or pointer to one. Subclasses say what its members are."""

    #: Go's name of the type, for messages.
    type_name = "struct {}"

    def member(self, name: str) -> Value:
        """The field or method called ``name``. Raises ``KeyError``."""
        raise KeyError(name)

    def members(self) -> Iterable[tuple[str, Value]]:
        """The fields in order, for printing."""
        return ()

    def json_members(self) -> Iterable[tuple[str, Value]]:
        """The fields in order, for JSON."""
        return self.members()

    #: Whether Go marshals the type by a method of its own, which escapes HTML.
    escapes_html = False


class Struct(Record):
    """A record made of a dict, in the dict's order."""

    def __init__(self, type_name: str, fields: dict[str, Value]) -> None:
        self.type_name = type_name
        self._fields = fields

    def member(self, name: str) -> Value:
        """The field called ``name``. Raises ``KeyError``."""
        return self._fields[name]

    def members(self) -> Iterable[tuple[str, Value]]:
        """The fields."""
        return self._fields.items()


class NilPointer(Record):
    """A Go pointer that points nowhere."""

    type_name = "<nil>"


class NilList(list["Value"]):
    """A Go slice that was never made: empty, but ``null`` in JSON."""


class TypedMap(dict[str, "Value"]):
    """A Go map whose values have a type: ``index`` gives its zero value for a missing key."""

    zero: Value = None

    @classmethod
    def of(cls, zero: Value, items: Iterable[tuple[str, Value]] = ()) -> TypedMap:
        """A map of ``items`` whose missing ones are ``zero``."""
        made = cls(items)
        made.zero = zero
        return made


class NilMap(TypedMap):
    """A Go map that was never made: empty, but ``null`` in JSON."""


class Duration(int):
    """Nanoseconds that print as Go prints them: ``1h30m0s``."""

    def __str__(self) -> str:
        if self == 0:
            return "0s"
        sign, left = ("-", -int(self)) if self < 0 else ("", int(self))
        for unit, size in (("ns", 1), ("µs", 10**3), ("ms", 10**6)):
            if left < size * 1000:
                return f"{sign}{left / size:.9f}".rstrip("0").rstrip(".") + unit
        seconds = f"{left % (60 * 10**9) / 10**9:.9f}".rstrip("0").rstrip(".")
        minutes = left // (60 * 10**9)
        if minutes >= 60:
            return f"{sign}{minutes // 60}h{minutes % 60}m{seconds}s"
        return f"{sign}{minutes}m{seconds}s" if minutes else f"{sign}{seconds}s"


#: The one nil pointer.
NIL = NilPointer()


def truth(value: Value) -> bool:
    """Whether ``if`` takes the first branch."""
    if isinstance(value, Record):
        return not isinstance(value, NilPointer)
    return bool(value)


def type_name(value: Value) -> str:
    """Go's name of the value's type."""
    if isinstance(value, Record):
        return value.type_name
    for kind, name in (
        (bool, "bool"),
        (Duration, "time.Duration"),
        (int, "int"),
        (float, "float64"),
        (str, "string"),
        (list, "[]interface {}"),
        (dict, "map[string]interface {}"),
    ):
        if isinstance(value, kind):
            return name
    return "func" if callable(value) else "<nil>"


def show(value: Value) -> str:
    """The value as an action prints it."""
    return "<no value>" if value is None else go_print(value)


def go_print(value: Value) -> str:
    """The value as ``fmt.Print`` prints it (``%v``)."""
    if value is None or isinstance(value, NilPointer):
        return "<nil>"
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return float_text(value, "e" if abs(value) >= 1e21 or 0 < abs(value) < 1e-4 else "f")
    if isinstance(value, list):
        return "[" + " ".join(go_print(item) for item in value) + "]"
    if isinstance(value, dict):
        pairs = (f"{key}:{go_print(item)}" for key, item in sorted(value.items()))
        return "map[" + " ".join(pairs) + "]"
    if isinstance(value, Record):
        return "{" + " ".join(go_print(item) for _name, item in value.members()) + "}"
    return str(value)


def float_text(value: float, style: str) -> str:
    """A float in Go's shortest form, plain or with an exponent of at least two digits."""
    text = repr(value)
    if style == "e":
        mantissa, _e, exponent = f"{value:e}".partition("e")
        digits = repr(value).replace(".", "").lstrip("-0").partition("e")[0].rstrip("0") or "0"
        sign = "-" if value < 0 else ""
        mantissa = digits[0] + (f".{digits[1:]}" if digits[1:] else "")
        return f"{sign}{mantissa}e{exponent[0]}{int(exponent[1:]):02d}"
    if "e" in text:
        text = f"{value:.0f}"
    return text.removesuffix(".0")


def to_json(value: Value, *, escape: bool = False) -> str:
    """The value as Go's ``json.Marshal`` writes it.

    ``escape``: ``<``, ``>`` and ``&`` become ``\\u003c`` and so on, as in a record that says so.
    """
    text = json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=False)
    if escape or (isinstance(value, Record) and value.escapes_html):
        text = escape_html(text)
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def escape_html(text: str) -> str:
    """JSON text with the characters special in HTML written as escapes."""
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _plain(value: Value) -> object:
    if isinstance(value, NilPointer | NilList | NilMap):
        return None
    if isinstance(value, Record):
        return {name: _plain(item) for name, item in value.json_members()}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return int(value)
    return None if callable(value) else value
