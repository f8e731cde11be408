"""Times as the engine keeps them (Unix nanoseconds) and as the API writes them (RFC 3339)."""

from __future__ import annotations

import time

ZERO = "0001-01-01T00:00:00Z"


def now() -> int:
    """Unix nanoseconds."""
    return time.time_ns()


def rfc3339(nanoseconds: int) -> str:
    """UTC with up to nine fractional digits, trailing zeros cut as Go does; 0 is Go's zero time."""
    if not nanoseconds:
        return ZERO
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"
