"""What a build did when, as OpenTelemetry spans in the JSON that ``buildx history trace`` reads
(pure): Go's ``tracetest.SpanStub``, one object after another.

The whole build is the root; every vertex that ran is a span below it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from sampan.buildkit.protocol import control_pb2 as control

MEDIA_TYPE = "application/vnd.buildkit.otlp.json.v0"
_NOBODY = {"TraceID": "0" * 32, "SpanID": "0" * 16, "TraceFlags": "00"}
#: OpenTelemetry's SpanKind of work inside a process
_INTERNAL = 1
_NAME = "sampan"


def spans(
    record: control.BuildHistoryRecord, vertexes: Iterable[control.Vertex], version: str
) -> bytes:
    """The trace of a finished build; ``version`` is this engine's."""
    trace = _hash(record.Ref)[:32]
    done = [one for one in vertexes if one.HasField("started") and one.HasField("completed")]
    found = [
        _span(trace, f"{record.Ref}\0{one.digest}", one.name, one.started, one.completed, one.error)
        | {
            "Parent": _context(trace, record.Ref),
            "Attributes": [
                _attribute("vertex", "STRING", one.digest),
                _attribute("cached", "BOOL", one.cached),
            ],
        }
        for one in done
    ]
    error = record.error.message if record.HasField("error") else ""
    root = _span(trace, record.Ref, "build", record.CreatedAt, record.CompletedAt, error) | {
        "Attributes": [_attribute("ref", "STRING", record.Ref)],
        "ChildSpanCount": len(found),
    }
    for one in (root, *found):
        one["Resource"] = [
            _attribute("service.name", "STRING", _NAME),
            _attribute("service.version", "STRING", version),
        ]
    return b"".join(json.dumps(one, indent=2).encode() + b"\n" for one in (*found, root))


def _span(
    trace: str, identity: str, name: str, start: Timestamp, end: Timestamp, error: str
) -> dict[str, Any]:
    return {
        "Name": name,
        "SpanContext": _context(trace, identity),
        "Parent": {**_NOBODY, "TraceState": "", "Remote": False},
        "SpanKind": _INTERNAL,
        "StartTime": start.ToJsonString(),
        "EndTime": end.ToJsonString(),
        "Attributes": [],
        "Events": None,
        "Links": None,
        "Status": {"Code": "Error" if error else "Unset", "Description": error},
        "DroppedAttributes": 0,
        "DroppedEvents": 0,
        "DroppedLinks": 0,
        "ChildSpanCount": 0,
        "InstrumentationLibrary": {"Name": _NAME, "Version": "", "SchemaURL": ""},
    }


def _context(trace: str, identity: str) -> dict[str, Any]:
    return {
        "TraceID": trace,
        "SpanID": _hash(identity)[:16],
        "TraceFlags": "01",
        "TraceState": "",
        "Remote": False,
    }


def _attribute(key: str, kind: str, value: object) -> dict[str, Any]:
    return {"Key": key, "Value": {"Type": kind, "Value": value}}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
