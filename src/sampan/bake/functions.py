"""The functions bake files may call (reference/build.md section 14), by name.

What fails raises ValueError or one of its relatives; the evaluator says where.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import ipaddress
import itertools
import json
import math
import os.path
import posixpath
import re
import string
import time
import urllib.parse
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sampan.bake.evaluate import Function, element, number, text, truth

_UNSAFE = re.compile(r"[^a-zA-Z0-9_-]+")
_DURATION = re.compile(r"(-?[0-9.]+)(h|m|s|ms|us|ns)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_MOST = 10_000


def _items(value: object) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        return list(value.values())
    raise ValueError("expected a list")


def _unique(items: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found


def _number(found: float) -> int | float:
    return int(found) if float(found).is_integer() else found


def _format(pattern: object, *values: object) -> str:
    """Go's verbs as HCL has them: ``%s %d %f %q %v %t %x %o %b %e %g %%``."""
    rest = iter(values)

    def one(found: re.Match[str]) -> str:
        flags, verb = found[1], found[2]
        if verb == "%":
            return "%"
        value = next(rest, None)
        if verb in "dxXob":
            return format(int(number(value)), _python(flags, verb))
        if verb in "feEgG":
            return format(float(number(value)), _python(flags, verb))
        shown = json.dumps(value) if verb == "q" else _plain(value)
        return format(shown, _python(flags, "s"))

    return re.sub(r"%([-+0 #]*[0-9]*(?:\.[0-9]+)?)([a-zA-Z%])", one, text(pattern))


def _python(flags: str, verb: str) -> str:
    """Go's flags as Python's format specification."""
    align = "<" if "-" in flags else ">" if verb == "s" and flags.strip("0123456789.") == "" else ""
    width = flags.replace("-", "")
    return f"{align if width else ''}{width}{verb}"


def _plain(value: object) -> str:
    return json.dumps(value) if isinstance(value, list | dict) or value is None else text(value)


def _substr(value: object, offset: object, length: object) -> str:
    whole, start, count = text(value), int(number(offset)), int(number(length))
    start = start if start >= 0 else max(0, len(whole) + start)
    return whole[start:] if count < 0 else whole[start : start + count]


def _range(*limits: object) -> list[int | float]:
    values = [number(limit) for limit in limits]
    start, end = (0, values[0]) if len(values) == 1 else (values[0], values[1])
    step = values[2] if len(values) > 2 else (1 if end >= start else -1)
    if not step or (end - start) / step > _MOST:
        raise ValueError("a range without end")
    found = []
    while (start < end) if step > 0 else (start > end):
        found.append(start)
        start += step
    return found


def _regex(pattern: object, value: object) -> object:
    found = re.search(text(pattern), text(value))
    if found is None:
        raise ValueError("the pattern does not match")
    return _groups(found)


def _groups(found: re.Match[str]) -> object:
    if found.groupdict():
        return found.groupdict()
    return list(found.groups()) if found.groups() else found[0]


def _replacement(pattern: object) -> str:
    """Go's ``${1}`` and ``$1`` as Python's."""
    return re.sub(r"\$\{?(\w+)\}?", r"\\g<\1>", text(pattern).replace("\\", "\\\\"))


def _element(items: object, place: object) -> object:
    found = _items(items)
    return found[int(number(place)) % len(found)]


def _lookup(mapping: Any, key: object, *default: object) -> object:
    if text(key) in mapping:
        return mapping[text(key)]
    if not default:
        raise ValueError(f"there is no element {text(key)!r}")
    return default[0]


def _merge(*mappings: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for mapping in mappings:
        found |= mapping or {}
    return found


def _flatten(items: object) -> list[Any]:
    found: list[Any] = []
    for item in _items(items):
        found += _flatten(item) if isinstance(item, list) else [item]
    return found


def _chunks(items: Any, size: object) -> list[Any]:
    count = int(number(size)) or len(items)
    return [items[start : start + count] for start in range(0, len(items), count)]


def _moment(value: object) -> datetime:
    return datetime.fromisoformat(text(value).replace("Z", "+00:00"))


def _zulu(moment: datetime) -> str:
    shown = moment.isoformat(timespec="seconds")
    return shown.removesuffix("+00:00") + "Z" if shown.endswith("+00:00") else shown


def _timeadd(value: object, duration: object) -> str:
    parts = _DURATION.findall(text(duration))
    if not parts:
        raise ValueError(f"invalid duration {duration!r}")
    seconds = sum(float(count) * _SECONDS[unit] for count, unit in parts)
    return _zulu(_moment(value) + timedelta(seconds=seconds))


_DATE = {
    **{"YYYY": "%Y", "YY": "%y", "MMMM": "%B", "MMM": "%b", "MM": "%m", "M": "%-m"},
    **{"DD": "%d", "D": "%-d", "EEEE": "%A", "EEE": "%a", "hh": "%H", "h": "%-H"},
    **{"HH": "%I", "H": "%-I", "AA": "%p", "aa": "%p", "mm": "%M", "m": "%-M"},
    **{"ss": "%S", "s": "%-S", "ZZZZZ": "%z", "ZZZZ": "%z", "ZZZ": "UTC", "Z": "Z"},
}


def _formatdate(pattern: object, value: object) -> str:
    moment = _moment(value)
    found = []
    for part in re.finditer(r"'((?:[^']|'')*)'|(([a-zA-Z])\3*)|(.)", text(pattern), re.DOTALL):
        if part[1] is not None:
            found.append(part[1].replace("''", "'"))
        elif part[2]:
            if part[2] not in _DATE:
                raise ValueError(f"invalid date format verb {part[2]!r}")
            shown = moment.strftime(_DATE[part[2]])
            found.append(shown.lower() if part[2] == "aa" else shown)
        else:
            found.append(part[4])
    return "".join(found)


def _unix(value: object) -> dict[str, object]:
    moment = datetime.fromtimestamp(int(number(value)), UTC)
    return {
        **{"year": moment.year, "month": moment.month, "day": moment.day, "hour": moment.hour},
        **{"minute": moment.minute, "second": moment.second, "rfc3339": _zulu(moment)},
        **{"weekday": moment.isoweekday() % 7, "year_day": moment.timetuple().tm_yday},
        **{"iso_year": moment.isocalendar()[0], "iso_week": moment.isocalendar()[1]},
        **{"month_name": moment.strftime("%B"), "weekday_name": moment.strftime("%A")},
    }


def _subnet(prefix: object, bits: object, place: object) -> str:
    network = ipaddress.ip_network(text(prefix), strict=False)
    length = network.prefixlen + int(number(bits))
    step = 1 << (network.max_prefixlen - length)
    address = int(network.network_address) + step * int(number(place))
    found = ipaddress.ip_network(f"{ipaddress.ip_address(address)}/{length}")
    if not int(network.network_address) <= address <= int(network.broadcast_address):
        raise ValueError(f"{prefix} has no such subnet")
    return str(found)


def _subnets(prefix: object, *bits: object) -> list[str]:
    network = ipaddress.ip_network(text(prefix), strict=False)
    address = int(network.network_address)
    found = []
    for count in bits:
        size = 1 << (network.max_prefixlen - network.prefixlen - int(number(count)))
        address = -(-address // size) * size
        length = network.prefixlen + int(number(count))
        found.append(f"{ipaddress.ip_address(address)}/{length}")
        address += size
    return found


def _host(prefix: object, place: object) -> str:
    network = ipaddress.ip_network(text(prefix), strict=False)
    count = int(number(place))
    start = network.network_address if count >= 0 else network.broadcast_address + 1
    return str(start + count)


def _csv(value: object) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text(value))))


def _indent(spaces: object, value: object) -> str:
    return text(value).replace("\n", "\n" + " " * int(number(spaces)))


def _semver(value: str) -> tuple[object, ...]:
    plain = value.removeprefix("v").partition("+")[0]
    core, _, pre = plain.partition("-")
    numbers = tuple(int(part) for part in [*core.split("."), "0", "0"][:3])
    parts = [
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split(".") if part
    ]
    return (*numbers, 0 if pre else 1, parts)


def _semvercmp(value: object, constraint: object) -> bool:
    """Whether a version fits constraints like ``>= 1.2, < 2`` or ``~1.2``, ``^1``."""
    version = _semver(text(value))
    for alternative in text(constraint).split("||"):
        parts = re.findall(r"(?:[<>=!~^]+\s*)?v?[0-9][^\s,]*", alternative)
        if all(_fits(version, one) for one in parts):
            return True
    return False


def _fits(version: Any, one: str) -> bool:
    found = re.fullmatch(r"\s*(>=|<=|>|<|=|!=|~|\^)?\s*v?([0-9][^\s]*)\s*", one)
    if found is None:
        raise ValueError(f"invalid version constraint {one!r}")
    operator, wanted = found[1] or "=", _semver(found[2])
    given: Any = wanted
    match operator:
        case ">=":
            return bool(version >= given)
        case "<=":
            return bool(version <= given)
        case ">":
            return bool(version > given)
        case "<":
            return bool(version < given)
        case "!=":
            return bool(version != given)
        case "~":
            return bool(version >= given and version[:2] == given[:2])
        case "^":
            return bool(version >= given and version[0] == given[0])
    return bool(version == given)


def _bcrypt(value: object, *cost: object) -> str:
    import bcrypt

    rounds = int(number(cost[0])) if cost else 10
    return bcrypt.hashpw(text(value).encode(), bcrypt.gensalt(rounds)).decode()


def _rsadecrypt(data: object, key: object) -> str:
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    loaded = load_pem_private_key(text(key).encode(), None)
    if not isinstance(loaded, RSAPrivateKey):
        raise ValueError("the key is no RSA key")
    return loaded.decrypt(base64.b64decode(text(data)), PKCS1v15()).decode()


def _convert(value: object, kind: object) -> object:
    """``convert``: types are written as their names."""
    match kind:
        case "number":
            return number(value)
        case "bool":
            return truth(value)
        case "string":
            return text(value)
    return value


def _hash(name: str) -> Function:
    return lambda value: hashlib.new(name, text(value).encode()).hexdigest()


def _compare(check: Any) -> Function:
    return lambda first, second: bool(check(number(first), number(second)))


def _calculate(do: Any) -> Function:
    return lambda *values: _number(do(*(number(value) for value in values)))


def _slice(items: Any, start: object, end: object) -> Any:
    return items[int(number(start)) : int(number(end))]


_TEXT: dict[str, Function] = {
    "basename": lambda path: posixpath.basename(text(path)),
    "chomp": lambda value: text(value).rstrip("\r\n"),
    "dirname": lambda path: posixpath.dirname(text(path)) or ".",
    "format": _format,
    "indent": _indent,
    "indexof": lambda items, value: _items(items).index(value),
    "join": lambda glue, *lists: text(glue).join(
        text(item) for items in lists for item in _items(items)
    ),
    "lower": lambda value: text(value).lower(),
    "regex": _regex,
    "regex_replace": lambda value, pattern, new: re.sub(
        text(pattern), _replacement(new), text(value)
    ),
    "regexall": lambda pattern, value: [
        _groups(found) for found in re.finditer(text(pattern), text(value))
    ],
    "replace": lambda value, old, new: text(value).replace(text(old), text(new)),
    "reverse": lambda value: text(value)[::-1],
    "sanitize": lambda value: _UNSAFE.sub("_", text(value)),
    "split": lambda glue, value: text(value).split(text(glue)) if text(value) else [],
    "strlen": lambda value: len(text(value)),
    "substr": _substr,
    "title": lambda value: string.capwords(text(value), " "),
    "trim": lambda value, cut: text(value).strip(text(cut)),
    "trimprefix": lambda value, cut: text(value).removeprefix(text(cut)),
    "trimspace": lambda value: text(value).strip(),
    "trimsuffix": lambda value, cut: text(value).removesuffix(text(cut)),
    "upper": lambda value: text(value).upper(),
    "homedir": lambda: os.path.expanduser("~"),
}
_LISTS: dict[str, Function] = {
    "chunklist": _chunks,
    "coalesce": lambda *values: next(value for value in values if value not in (None, "")),
    "coalescelist": lambda *values: next(value for value in values if value),
    "compact": lambda items: [item for item in _items(items) if item not in (None, "")],
    "concat": lambda *lists: [item for items in lists for item in _items(items)],
    "contains": lambda items, value: value in _items(items),
    "distinct": lambda items: _unique(_items(items)),
    "element": _element,
    "flatten": _flatten,
    "formatlist": lambda pattern, *lists: [
        _format(pattern, *values)
        for values in zip(
            *(one if isinstance(one, list) else itertools.repeat(one) for one in lists),
            strict=False,
        )
    ],
    "hasindex": lambda items, key: (
        text(key) in items
        if isinstance(items, dict)
        else isinstance(number(key), int) and 0 <= number(key) < len(items)
    ),
    "index": element,
    "keys": lambda mapping: sorted(mapping),
    "length": lambda items: len(items),
    "lookup": _lookup,
    "merge": _merge,
    "range": _range,
    "reverselist": lambda items: _items(items)[::-1],
    "sethaselement": lambda items, value: value in _items(items),
    "setintersection": lambda first, *more: [
        item for item in _unique(first) if all(item in one for one in more)
    ],
    "setproduct": lambda *lists: [list(one) for one in itertools.product(*lists)],
    "setsubtract": lambda first, second: [item for item in _unique(first) if item not in second],
    "setsymmetricdifference": lambda first, second: [
        *(item for item in _unique(first) if item not in second),
        *(item for item in _unique(second) if item not in first),
    ],
    "setunion": lambda *lists: _unique([item for items in lists for item in items]),
    "slice": _slice,
    "sort": lambda items: sorted(text(item) for item in _items(items)),
    "values": lambda mapping: [mapping[key] for key in sorted(mapping)],
    "zipmap": lambda keys, values: dict(zip(keys, values, strict=True)),
}
_NUMBERS: dict[str, Function] = {
    "absolute": _calculate(abs),
    "add": _calculate(lambda first, second: first + second),
    "ceil": _calculate(math.ceil),
    "divide": _calculate(lambda first, second: first / second),
    "floor": _calculate(math.floor),
    "greaterthan": _compare(lambda first, second: first > second),
    "greaterthanorequalto": _compare(lambda first, second: first >= second),
    "int": _calculate(math.trunc),
    "lessthan": _compare(lambda first, second: first < second),
    "lessthanorequalto": _compare(lambda first, second: first <= second),
    "log": _calculate(math.log),
    "max": _calculate(max),
    "min": _calculate(min),
    "modulo": _calculate(math.fmod),
    "multiply": _calculate(lambda first, second: first * second),
    "negate": _calculate(lambda value: -value),
    "parseint": lambda value, base: int(text(value), int(number(base))),
    "pow": _calculate(pow),
    "signum": _calculate(lambda value: (value > 0) - (value < 0)),
    "subtract": _calculate(lambda first, second: first - second),
}
_LOGIC: dict[str, Function] = {
    "and": lambda first, second: truth(first) and truth(second),
    "equal": lambda first, second: first == second,
    "not": lambda value: not truth(value),
    "notequal": lambda first, second: first != second,
    "or": lambda first, second: truth(first) or truth(second),
    "convert": _convert,
    "semvercmp": _semvercmp,
}
_CODES: dict[str, Function] = {
    "base64decode": lambda value: base64.b64decode(text(value)).decode(),
    "base64encode": lambda value: base64.b64encode(text(value).encode()).decode(),
    "bcrypt": _bcrypt,
    "byteslen": lambda value: len(text(value).encode()),
    "bytesslice": lambda value, start, length: (
        text(value).encode()[int(number(start)) : int(number(start)) + int(number(length))].decode()
    ),
    "csvdecode": _csv,
    "jsondecode": lambda value: json.loads(text(value)),
    "jsonencode": lambda value: json.dumps(value, separators=(",", ":"), sort_keys=True),
    "md5": _hash("md5"),
    "rsadecrypt": _rsadecrypt,
    "sha1": _hash("sha1"),
    "sha256": _hash("sha256"),
    "sha512": _hash("sha512"),
    "urlencode": lambda value: urllib.parse.quote_plus(text(value)),
    "uuidv4": lambda: str(uuid.uuid4()),
    "uuidv5": lambda space, name: str(
        uuid.uuid5(
            {
                "dns": uuid.NAMESPACE_DNS,
                "url": uuid.NAMESPACE_URL,
                "oid": uuid.NAMESPACE_OID,
                "x500": uuid.NAMESPACE_X500,
            }.get(text(space))
            or uuid.UUID(text(space)),
            text(name),
        )
    ),
    "cidrhost": _host,
    "cidrnetmask": lambda prefix: str(ipaddress.ip_network(text(prefix), strict=False).netmask),
    "cidrsubnet": _subnet,
    "cidrsubnets": _subnets,
}
_TIMES: dict[str, Function] = {
    "formatdate": _formatdate,
    "formattimestamp": _formatdate,
    "timeadd": _timeadd,
    "timestamp": lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    "unixtimestampparse": _unix,
}
#: Every function but ``try`` and ``can``, whose arguments may fail.
FUNCTIONS: dict[str, Function] = {
    **_TEXT,
    **_LISTS,
    **_NUMBERS,
    **_LOGIC,
    **_CODES,
    **_TIMES,
}
