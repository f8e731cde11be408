"""Filters of list, prune and event requests (pure; dockerd's meaning of each).

A filter maps a key to values; values of one key are alternatives except for labels, where every
one must hold.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from sampan.engine.options import Filters
from sampan.errors import InvalidParameter

_DURATION = re.compile(r"([0-9]*\.?[0-9]+)(ns|us|µs|ms|s|m|h)")  # Go's time.ParseDuration
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_UNIX = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def check_filters(filters: Filters | None, allowed: Collection[str]) -> Filters:
    """``filters``, or none; raises InvalidParameter for a key not allowed."""
    for key in filters or {}:
        if key not in allowed:
            raise InvalidParameter(f"invalid filter '{key}'")
    return filters or {}


def match_labels(labels: Mapping[str, str], filters: Filters) -> bool:
    """Whether ``label`` (all of them) and ``label!`` (none of them) hold."""
    wanted = all(_has_label(labels, text) for text in filters.get("label", ()))
    return wanted and not any(_has_label(labels, text) for text in filters.get("label!", ()))


def _has_label(labels: Mapping[str, str], text: str) -> bool:
    name, equals, value = text.partition("=")
    return name in labels and (not equals or labels[name] == value)


def match_pattern(values: Collection[str], *candidates: str) -> bool:
    """Whether a value equals a candidate or matches inside one as a regular expression."""
    for value in values:
        if value in candidates:
            return True
        try:
            pattern = re.compile(value)
        except re.error as error:
            raise InvalidParameter(f"invalid filter value {value!r}: {error}") from error
        if any(pattern.search(candidate) for candidate in candidates):
            return True
    return not values


def boolean(filters: Filters, key: str, default: bool | None = None) -> bool | None:
    """The truth value of ``key``; raises InvalidParameter unless it is one of Docker's words."""
    values = filters.get(key)
    if not values:
        return default
    words = {word: True for word in ("1", "true", "True", "TRUE", "t")}
    words |= {word: False for word in ("0", "false", "False", "FALSE", "f")}
    found = {words.get(value) for value in values}
    if None in found or len(found) != 1:
        raise InvalidParameter(f"invalid filter '{key}=[{' '.join(values)}]'")
    return found.pop()


def parse_duration(text: str) -> float:
    """Seconds of a Go duration (``1h30m``, ``250ms``); raises InvalidParameter."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text.lstrip("-+"):
        raise InvalidParameter(f"invalid duration {text!r}")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return -seconds if text.startswith("-") else seconds


def parse_time(text: str, now: float) -> float:
    """Unix seconds of a Unix time, an RFC 3339 time or date, or a duration before ``now``."""
    if _UNIX.fullmatch(text):
        return float(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            return now - parse_duration(text)
        except InvalidParameter:
            raise InvalidParameter(f"failed to parse value as time or duration: {text!r}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def until(filters: Filters, now: float) -> float | None:
    """The one ``until`` time in Unix seconds, if any."""
    values = filters.get("until", ())
    if len(values) > 1:
        raise InvalidParameter("more than one until filter specified")
    return parse_time(values[0], now) if values else None
