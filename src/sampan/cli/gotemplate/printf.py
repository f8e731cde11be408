"""Go's ``fmt.Sprintf`` for the values of templates.

verb ::= "%" { flag } [ width ] [ "." precision ] letter

A verb that does not fit its value, a missing or an extra argument shows in the text, as in Go.
"""

from __future__ import annotations

from sampan.cli.gotemplate.values import Record, float_text, go_print, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.cli.gotemplate.values import Value

_INTEGER_VERBS = {"d": "d", "x": "x", "X": "X", "o": "o", "b": "b"}
_FLOAT_VERBS = "eEfFgG"


def sprintf(pattern: str, values: Sequence[Value]) -> str:
    """``pattern`` with its verbs replaced by ``values``."""
    pieces = []
    used = 0
    at = 0
    while at < len(pattern):
        mark = pattern.find("%", at)
        if mark < 0:
            pieces.append(pattern[at:])
            break
        pieces.append(pattern[at:mark])
        flags, mark = _span(pattern, mark + 1, "+-# 0")
        width, mark, used = _count(pattern, mark, values, used)
        precision = None
        if pattern[mark : mark + 1] == ".":
            precision, mark, used = _count(pattern, mark + 1, values, used)
            precision = precision or 0
        at = mark + 1
        verb = pattern[mark : mark + 1]
        if not verb:
            pieces.append("%!(NOVERB)")
        elif verb == "%":
            pieces.append("%")
        elif used >= len(values):
            pieces.append(f"%!{verb}(MISSING)")
        else:
            pieces.append(_pad(_verb(verb, flags, precision, values[used]), flags, width))
            used += 1
    if used < len(values):
        extra = ", ".join(f"{type_name(item)}={go_print(item)}" for item in values[used:])
        pieces.append(f"%!(EXTRA {extra})")
    return "".join(pieces)


def quote(text: str) -> str:
    """The text as a Go string constant (``%q``)."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\a": "\\a"}
    escapes |= {"\b": "\\b", "\f": "\\f", "\v": "\\v"}
    pieces = []
    for letter in text:
        if letter in escapes:
            pieces.append(escapes[letter])
        elif letter.isprintable():
            pieces.append(letter)
        else:
            code = ord(letter)
            short = f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
            pieces.append(f"\\x{code:02x}" if code < 0x80 else short)
    return '"' + "".join(pieces) + '"'


def _span(pattern: str, start: int, letters: str) -> tuple[str, int]:
    end = start
    while end < len(pattern) and pattern[end] in letters:
        end += 1
    return pattern[start:end], end


def _count(
    pattern: str, at: int, values: Sequence[Value], used: int
) -> tuple[int | None, int, int]:
    if pattern[at : at + 1] == "*":
        value = values[used] if used < len(values) else None
        return (value if isinstance(value, int) else None), at + 1, used + 1
    digits, at = _span(pattern, at, "0123456789")
    return (int(digits) if digits else None), at, used


def _pad(text: str, flags: str, width: int | None) -> str:
    if width is None:
        return text
    if "-" in flags or width < 0:
        return text.ljust(abs(width))
    if "0" in flags and text[:1] in ("+", "-"):
        return text[0] + text[1:].rjust(width - 1, "0")
    return text.rjust(width, "0" if "0" in flags else " ")


def _verb(verb: str, flags: str, precision: int | None, value: Value) -> str:
    if verb == "T":
        return type_name(value)
    if verb == "v":
        return _general(flags, precision, value)
    if value is None:
        return f"%!{verb}(<nil>)"
    if isinstance(value, list):
        return "[" + " ".join(_verb(verb, flags, precision, item) for item in value) + "]"
    if isinstance(value, dict):
        pairs = (
            f"{_verb(verb, flags, precision, key)}:{_verb(verb, flags, precision, item)}"
            for key, item in sorted(value.items())
        )
        return "map[" + " ".join(pairs) + "]"
    text = _scalar(verb, flags, precision, value)
    return f"%!{verb}({type_name(value)}={go_print(value)})" if text is None else text


def _general(flags: str, precision: int | None, value: Value) -> str:
    if "#" in flags and isinstance(value, str):
        return quote(value)
    if "+" in flags and isinstance(value, Record):
        pairs = (f"{name}:{go_print(item)}" for name, item in value.members())
        return "{" + " ".join(pairs) + "}"
    text = go_print(value)
    return text[:precision] if precision is not None and isinstance(value, str) else text


def _scalar(verb: str, flags: str, precision: int | None, value: Value) -> str | None:
    """The text of a boolean, number or string, None when the verb does not fit."""
    if isinstance(value, bool):
        return ("true" if value else "false") if verb == "t" else None
    if isinstance(value, int):
        return _integer(verb, flags, value)
    if isinstance(value, float):
        return _float(verb, flags, precision, value)
    if isinstance(value, str):
        return _text(verb, precision, value)
    return go_print(value) if verb == "s" else None


def _integer(verb: str, flags: str, value: int) -> str | None:
    sign = "+" if "+" in flags and value >= 0 else ""
    if verb in _INTEGER_VERBS:
        prefix = {"x": "0x", "X": "0X", "o": "0"}.get(verb, "") if "#" in flags else ""
        text = format(abs(value), _INTEGER_VERBS[verb])
        return f"{'-' if value < 0 else sign}{prefix}{text}"
    if verb == "c":
        return chr(value)
    if verb == "q":
        return f"'{chr(value)}'"
    return f"U+{value:04X}" if verb == "U" else None


def _float(verb: str, flags: str, precision: int | None, value: float) -> str | None:
    if verb not in _FLOAT_VERBS:
        return None
    sign = "+" if "+" in flags and value >= 0 else ""
    if verb in "gG" and precision is None:
        return sign + float_text(value, "e" if abs(value) >= 1e21 else "f")
    return sign + format(value, f".{6 if precision is None else precision}{verb}")


def _text(verb: str, precision: int | None, value: str) -> str | None:
    if verb in ("s", "q"):
        cut = value if precision is None else value[:precision]
        return quote(cut) if verb == "q" else cut
    if verb in ("x", "X"):
        digits = value.encode("utf-8", "surrogateescape").hex()
        return digits.upper() if verb == "X" else digits
    return None
