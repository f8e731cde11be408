"""Times as the engine keeps them (Unix nanoseconds) and as the API writes them (RFC 3339)."""

from __future__ import annotations

import time

ZERO = "0001-01-01T00:00:00Z"


def now() -> int:
    """Unix nanoseconds."""
    return time.time_ns()


def go_duration(seconds: float) -> str:
    """A length of time as Go writes it: ``50ms``, ``1.5s``, ``1m30s``, ``1h0m0s``."""
    nanoseconds = round(seconds * 1e9)
    if nanoseconds < 1_000_000_000:
        unit, name = next(
            ((u, n) for u, n in ((1_000_000, "ms"), (1000, "µs")) if nanoseconds >= u), (1, "ns")
        )
        return f"{nanoseconds / unit:.10g}{name}" if nanoseconds else "0s"
    minutes, rest = divmod(nanoseconds, 60_000_000_000)
    text = f"{rest / 1e9:.11g}s"
    if not minutes:
        return text
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"


def rfc3339(nanoseconds: int) -> str:
    """UTC with up to nine fractional digits, trailing zeros cut as Go does; 0 is Go's zero time."""
    if not nanoseconds:
        return ZERO
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"
