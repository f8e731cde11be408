"""Points in time: the API's texts, the forms people read, and the forms they write.

An instant is a whole number of nanoseconds since the Unix epoch, so nothing is lost on the way
from RFC 3339 and back. ``datetime`` is not used: it costs start-up time and keeps microseconds.
"""

from __future__ import annotations

import time

NANOSECONDS = 10**9
#: Go's zero time, ``0001-01-01T00:00:00Z``.
ZERO = -62135596800 * NANOSECONDS


def now() -> int:
    """The present instant."""
    return time.time_ns()


def parse_rfc3339(text: str) -> int | None:
    """The instant an API time stamp names, None when it is not one."""
    date, separator, rest = text.partition("T")
    if not separator:
        return None
    clock, zone = _split_zone(rest)
    clock, _dot, fraction = clock.partition(".")
    try:
        year, month, day = (int(part) for part in date.split("-"))
        hour, minute, second = (int(part) for part in clock.split(":"))
        nanoseconds = int(fraction[:9].ljust(9, "0")) if fraction else 0
        offset = _offset(zone)
    except ValueError:
        return None
    seconds = days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
    return (seconds - offset) * NANOSECONDS + nanoseconds


def days_from_civil(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the proleptic Gregorian calendar."""
    year -= month <= 2
    era = year // 400
    year_of_era = year - era * 400
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * 146097 + day_of_era - 719468


def _split_zone(text: str) -> tuple[str, str]:
    for mark in ("Z", "z", "+", "-"):
        at = text.find(mark)
        if at >= 0:
            return text[:at], text[at:]
    return text, ""


def _offset(zone: str) -> int:
    if zone in ("Z", "z", ""):
        return 0
    hours, _colon, minutes = zone[1:].partition(":")
    seconds = int(hours) * 3600 + int(minutes or 0) * 60
    return -seconds if zone[0] == "-" else seconds


def _fields(instant: int, local: bool) -> tuple[str, str, str, str]:
    """Date, clock, fraction (9 digits) and zone offset of an instant."""
    seconds, nanoseconds = divmod(instant, NANOSECONDS)
    if seconds < -62135596800:
        seconds = -62135596800
    broken = time.localtime(seconds) if local else time.gmtime(seconds)
    offset = broken.tm_gmtoff or 0
    sign = "-" if offset < 0 else "+"
    zone = f"{sign}{abs(offset) // 3600:02d}{abs(offset) // 60 % 60:02d}"
    date = f"{broken.tm_year:04d}-{broken.tm_mon:02d}-{broken.tm_mday:02d}"
    clock = f"{broken.tm_hour:02d}:{broken.tm_min:02d}:{broken.tm_sec:02d}"
    return date, clock, f"{nanoseconds:09d}", zone


def go_string(instant: int, *, local: bool = True) -> str:
    """Go's ``time.String``: ``2026-11-24 03:36:59.5 +0000 UTC``."""
    date, clock, fraction, zone = _fields(instant, local)
    fraction = fraction.rstrip("0")
    name = time.tzname[time.localtime(instant // NANOSECONDS).tm_isdst > 0] if local else "UTC"
    return f"{date} {clock}{'.' if fraction else ''}{fraction} {zone} {name}"


def rfc3339(instant: int, *, local: bool = True, digits: int = 0) -> str:
    """RFC 3339 with ``digits`` digits of the second's fraction."""
    date, clock, fraction, zone = _fields(instant, local)
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return f"{date}T{clock}{'.' + fraction[:digits] if digits else ''}{zone}"


def ansi_c(instant: int) -> str:
    """``Thu May  7 21:09:36 2026`` in local time."""
    broken = time.localtime(instant // NANOSECONDS)
    return (
        time.strftime("%a %b ", broken)
        + f"{broken.tm_mday:2d}"
        + time.strftime(" %H:%M:%S %Y", broken)
    )


def to_query(text: str, reference: int) -> str:
    """A ``--since`` or ``--until`` value as the API takes it: seconds and nanoseconds.

    ``text`` is a Go duration before ``reference``, a date with or without time and zone (local
    time when there is none), or a Unix time; ``0``, which could be either, is the epoch. Raises
    ``ValueError``.
    """
    from sampan.cli.kinds import parse_duration

    if text == "0":
        return text
    try:
        return _seconds(reference - parse_duration(text))
    except ValueError:
        instant = _parse_partial(text)
    if instant is not None:
        return _seconds(instant)
    seconds, _dot, fraction = text.partition(".")
    if not seconds.removeprefix("-").isdecimal() or (fraction and not fraction.isdecimal()):
        raise ValueError(f'failed to parse value as time or duration: "{text}"')
    return text


def _seconds(instant: int) -> str:
    seconds, nanoseconds = divmod(instant, NANOSECONDS)
    return f"{seconds}.{nanoseconds:09d}"


def _parse_partial(text: str) -> int | None:
    """An instant written with fewer parts than RFC 3339 wants."""
    if len(text) < 10 or text[4:5] != "-" or text[7:8] != "-":
        return None
    date, _separator, rest = text.partition("T")
    clock, zone = _split_zone(rest)
    clock, dot, fraction = clock.partition(".")
    parts = clock.split(":") if clock else []
    full = ":".join([*parts, *("00",) * (3 - len(parts))])
    instant = parse_rfc3339(f"{date}T{full}{dot}{fraction}{zone or 'Z'}")
    if instant is None or zone:
        return instant
    broken = time.gmtime(instant // NANOSECONDS)
    return int(time.mktime((*broken[:8], -1))) * NANOSECONDS + instant % NANOSECONDS
