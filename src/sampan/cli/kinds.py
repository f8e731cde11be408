"""The plain kinds of flag values, with the wording of Go's ``strconv`` and Docker's ``opts``."""

from __future__ import annotations

from sampan.cli.command import Kind

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))
_SIZE_SUFFIX = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_DURATION_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}


def parse_bool(text: str) -> bool:
    """A Go boolean. Raises ``ValueError``."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def _integer(text: str, function: str, low: int, high: int) -> int:
    digits = text[1:] if text[:1] in ("+", "-") else text
    negative_unsigned = low == 0 and text[:1] in ("+", "-")
    if negative_unsigned or not digits.isascii():
        digits = ""
    try:
        octal = digits[:1] == "0" and digits[1:].isdecimal()
        value = int(digits, 8 if octal else 0)
    except ValueError:
        raise ValueError(f'strconv.{function}: parsing "{text}": invalid syntax') from None
    value = -value if text[:1] == "-" else value
    if not low <= value <= high:
        raise ValueError(f'strconv.{function}: parsing "{text}": value out of range')
    return value


def parse_int(text: str) -> int:
    """A 64-bit signed integer. Raises ``ValueError``."""
    return _integer(text, "ParseInt", -(2**63), 2**63 - 1)


def parse_uint16(text: str) -> int:
    """A 16-bit unsigned integer. Raises ``ValueError``."""
    return _integer(text, "ParseUint", 0, 2**16 - 1)


def parse_uint64(text: str) -> int:
    """A 64-bit unsigned integer. Raises ``ValueError``."""
    return _integer(text, "ParseUint", 0, 2**64 - 1)


def parse_bytes(text: str) -> int:
    """A size such as ``512m`` or ``1.5GiB`` in bytes (powers of 1024). Raises ``ValueError``."""
    end = len(text)
    while end and not (text[end - 1].isdecimal() or text[end - 1] in ". "):
        end -= 1
    number, suffix = text[:end].rstrip(" "), text[end:].lower()
    if suffix[1:] in ("b", "ib"):
        suffix = suffix[0]
    if not number or not number.replace(".", "", 1).isdecimal():
        raise ValueError(f"invalid size: '{text}'")
    if suffix not in _SIZE_SUFFIX:
        raise ValueError(f"invalid suffix: '{text[end:]}'")
    return int(float(number) * (1 << _SIZE_SUFFIX[suffix]))


def parse_memory_swap(text: str) -> int:
    """A size, or ``-1`` for unlimited. Raises ``ValueError``."""
    return -1 if text == "-1" else parse_bytes(text)


def parse_duration(text: str) -> int:
    """A Go duration such as ``1h30m`` or ``250ms`` in nanoseconds. Raises ``ValueError``."""
    sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(f'time: invalid duration "{text}"')
    total = 0.0
    exact = 0
    while rest:
        end = 0
        while end < len(rest) and (rest[end].isdecimal() or rest[end] == "."):
            end += 1
        number, tail = rest[:end], rest[end:]
        stop = 0
        while stop < len(tail) and not (tail[stop].isdecimal() or tail[stop] == "."):
            stop += 1
        unit, rest = tail[:stop], tail[stop:]
        if not number or number == "." or number.count(".") > 1:
            raise ValueError(f'time: invalid duration "{text}"')
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _DURATION_NANOSECONDS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        if "." in number:
            total += float(number) * _DURATION_NANOSECONDS[unit]
        else:
            exact += int(number) * _DURATION_NANOSECONDS[unit]
    return sign * (exact + round(total))


def parse_decimal(text: str) -> int:
    """``--cpus``: a rational number, in billionths (NanoCPUs). Raises ``ValueError``."""
    from fractions import Fraction

    try:
        value = Fraction(text) * 10**9
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    if value.denominator != 1:
        raise ValueError("value is too precise")
    return int(value)


def parse_filter(text: str) -> tuple[str, str]:
    """``name=value`` with the name lowered. Raises ``ValueError``."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError("bad format of filter (expected name=value)")
    return name.strip().lower(), value.strip()


def split_csv(text: str) -> list[str]:
    """The fields of one line of comma-separated values (RFC 4180). Raises ``ValueError``."""
    if '"' not in text:
        return text.split(",")
    import csv

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise ValueError(f"parse error: {error}") from error
    return rows[0] if rows else []


def parse_slice(text: str) -> list[str]:
    """A comma-separated list. Raises ``ValueError``."""
    return split_csv(text) if text else []


def parse_pair(text: str) -> tuple[str, str]:
    """``key=value`` (the value may be absent)."""
    key, _equals, value = text.partition("=")
    return key, value


def parse_pairs(text: str) -> list[tuple[str, str]]:
    """Comma-separated ``key=value`` pairs. Raises ``ValueError``."""
    pairs = []
    for field in split_csv(text):
        key, equals, value = field.partition("=")
        if not equals:
            raise ValueError(f"{field} must be formatted as key=value")
        pairs.append((key, value))
    return pairs


def parse_ip(text: str) -> str:
    """An IP address in its usual form. Raises ``ValueError``."""
    import socket

    address = text.strip()
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_ntop(family, socket.inet_pton(family, address))
        except OSError:
            continue
    raise ValueError(f'failed to parse IP: "{text}"')


def parse_ips(text: str) -> list[str]:
    """Comma-separated IP addresses. Raises ``ValueError``."""
    addresses = []
    for field in split_csv(text):
        try:
            addresses.append(parse_ip(field))
        except ValueError:
            message = f"invalid string being converted to IP address: {field}"
            raise ValueError(message) from None
    return addresses


def parse_ip_nets(text: str) -> list[str]:
    """Comma-separated CIDR prefixes, host bits cleared. Raises ``ValueError``."""
    import ipaddress

    try:
        return [str(ipaddress.ip_network(field, strict=False)) for field in split_csv(text)]
    except ValueError:
        raise ValueError(f"invalid string being converted to CIDR: {text}") from None


BOOL = Kind("", parse_bool, switch=True)
STRING = Kind("string", str)
INT = Kind("int", parse_int)
UINT16 = Kind("uint16", parse_uint16)
UINT64 = Kind("uint", parse_uint64)
BYTES = Kind("bytes", parse_bytes)
MEMORY_SWAP = Kind("bytes", parse_memory_swap)
DURATION = Kind("duration", parse_duration)
DECIMAL = Kind("decimal", parse_decimal)
LIST = Kind("list", str, many=True)
MAP = Kind("map", parse_pair, many=True)
FILTER = Kind("filter", parse_filter, many=True)
STRINGS = Kind("strings", parse_slice, many=True)
PAIRS = Kind("stringToString", parse_pairs, many=True)
IP = Kind("ip", parse_ip)
IPS = Kind("ipSlice", parse_ips, many=True)
IP_NETS = Kind("ipNetSlice", parse_ip_nets, many=True)
