"""Which records of builds a client wants to hear of (pure).

A filter is a line of comma-separated conditions that must all hold; several filters are
alternatives. ``startedAt``, ``completedAt`` (a moment, or how long ago) and ``duration`` compare by
``>= <= > <``; ``ref``, ``status`` and ``repository`` by containerd's ``== != ~=``. What ``~=``
looks for is literal text, as clients send it: a regular expression could keep the daemon busy.
"""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Callable, Iterable
from datetime import datetime

from sampan.buildkit.protocol import control_pb2 as control
from sampan.dockerfile.duration import parse_duration
from sampan.errors import InvalidParameter

Holds = Callable[[control.BuildHistoryRecord], bool]
_SECOND = 1_000_000_000
_TIMED = re.compile(r"(startedAt|completedAt|duration)(>=|<=|>|<)(.*)", re.DOTALL)
_TEXT = re.compile(r"([A-Za-z.]+)(==|!=|~=)(.*)", re.DOTALL)
_LITERAL = re.compile(r"[\w./:@#-]*")
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    ">=": int.__ge__,
    "<=": int.__le__,
    ">": int.__gt__,
    "<": int.__lt__,
}


def chosen(
    records: Iterable[control.BuildHistoryRecord], filters: Iterable[str], limit: int
) -> list[control.BuildHistoryRecord]:
    """The records that pass any filter (there may be none); the newest ``limit`` unless it is 0.

    Raises InvalidParameter.
    """
    if limit < 0:
        raise InvalidParameter(f"invalid limit {limit}")
    alternatives = [_filter(text) for text in filters]
    found = [
        one
        for one in records
        if not alternatives or any(all(holds(one) for holds in each) for each in alternatives)
    ]
    if limit:
        found.sort(key=lambda one: one.CreatedAt.ToNanoseconds(), reverse=True)
        del found[limit:]
    return found


def state(record: control.BuildHistoryRecord) -> str:
    """``running``, ``completed``, ``canceled`` or ``error``."""
    if not record.HasField("CompletedAt"):
        return "running"
    if not record.HasField("error"):
        return "completed"
    return "canceled" if "context canceled" in record.error.message else "error"


def _filter(text: str) -> list[Holds]:
    return [_condition(part.strip(), text) for part in next(csv.reader([text]), []) if part.strip()]


def _condition(text: str, whole: str) -> Holds:
    if timed := _TIMED.fullmatch(text):
        return _by_time(*timed.groups())
    named = _TEXT.fullmatch(text)
    if named is None or named[1] not in _NAMED:
        raise InvalidParameter(f"failed to parse history filters {whole}: parse error: {text!r}")
    value = named[3].strip('"')
    read = _NAMED[named[1]]
    match named[2]:
        case "==":
            return lambda record: read(record) == value
        case "!=":
            return lambda record: read(record) != value
    if not _LITERAL.fullmatch(value):
        raise InvalidParameter(f"invalid history filter {text!r}: only literal text is looked for")
    return lambda record: value in read(record)


def _by_time(name: str, operator: str, value: str) -> Holds:
    compare = _COMPARE[operator]
    length = parse_duration(value)
    if name == "duration":
        if length is None:
            raise InvalidParameter(f"invalid duration {value}")
        return lambda record: compare(_took(record), length)
    moment = int(time.time() - length / _SECOND) if length is not None else _moment(value)
    if name == "startedAt":
        return lambda record: compare(record.CreatedAt.seconds, moment)
    return lambda record: compare(record.CompletedAt.seconds, moment)


def _moment(text: str) -> int:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise InvalidParameter(f"invalid time {text}")
    return int(found.timestamp())


def _took(record: control.BuildHistoryRecord) -> int:
    """Nanoseconds from a build's beginning to its end; 0 while it goes on."""
    if not record.HasField("CompletedAt"):
        return 0
    return record.CompletedAt.ToNanoseconds() - record.CreatedAt.ToNanoseconds()


def _repository(record: control.BuildHistoryRecord) -> str:
    source = record.FrontendAttrs.get("vcs:source", "")
    return source or record.FrontendAttrs.get("context", "").partition("#")[0]


_NAMED: dict[str, Callable[[control.BuildHistoryRecord], str]] = {
    "ref": lambda record: record.Ref,
    "status": state,
    "repository": _repository,
}
