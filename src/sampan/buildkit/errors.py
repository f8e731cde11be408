"""Errors as BuildKit's clients read them: a status, and where in the Dockerfile it went wrong.

Details travel in ``grpc-status-details-bin`` as google.rpc.Status, each one an ``Any`` whose value
is JSON (BuildKit's typed errors), from which buildx prints the lines of the Dockerfile.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status as StatusMessage
from grpclib.const import Status
from grpclib.encoding.base import StatusDetailsCodecBase
from grpclib.exceptions import GRPCError

from sampan.build.tools import StepFailed
from sampan.buildkit import definitions
from sampan.buildkit.protocol import ops_pb2 as ops
from sampan.dockerfile.parser import Dockerfile, DockerfileError
from sampan.errors import (
    Conflict,
    Forbidden,
    InvalidParameter,
    NotFound,
    SampanError,
    Unauthorized,
    Unavailable,
    Unsupported,
)

_TYPES = "github.com/moby/buildkit/"
_STATUSES: tuple[tuple[type[SampanError], Status], ...] = (
    (InvalidParameter, Status.INVALID_ARGUMENT),
    (Unauthorized, Status.UNAUTHENTICATED),
    (Forbidden, Status.PERMISSION_DENIED),
    (NotFound, Status.NOT_FOUND),
    (Conflict, Status.ALREADY_EXISTS),
    (Unsupported, Status.UNIMPLEMENTED),
    (Unavailable, Status.UNAVAILABLE),
)


class DetailsCodec(StatusDetailsCodecBase):
    """Puts ``Any`` messages into a status as they are, and reads any status's details."""

    def encode(self, status: Status, message: str | None, details: Any) -> bytes:
        """A google.rpc.Status as bytes."""
        found = StatusMessage(code=status.value, message=message or "", details=details or ())
        data: bytes = found.SerializeToString()
        return data

    def decode(self, status: Status, message: str | None, data: bytes) -> Any:
        """The details of a google.rpc.Status; none when it cannot be read."""
        try:
            return list(StatusMessage.FromString(data).details)
        except DecodeError:
            return []


def typed(name: str, value: dict[str, object]) -> AnyMessage:
    """One typed error of BuildKit's: ``errdefs.Source`` and the like."""
    return AnyMessage(type_url=f"{_TYPES}{name}+json", value=json.dumps(value).encode())


def source_detail(filename: str, source: Sequence[str], start: int, end: int) -> AnyMessage:
    """Where in a Dockerfile it went wrong: its lines, and the first and last of the instruction."""
    data = "\n".join(source).encode(errors="surrogateescape")
    return typed(
        "errdefs.Source",
        {
            "info": {
                "filename": filename,
                "data": base64.b64encode(data).decode(),
                "definition": _graph(definitions.dockerfile(filename)),
                "language": "Dockerfile",
            },
            "ranges": [
                {"start": {"line": line}, "end": {"line": line}} for line in range(start, end + 1)
            ],
        },
    )


def _graph(definition: ops.Definition) -> dict[str, object]:
    """A graph as Go's encoding/json reads it."""
    return {
        "def": [base64.b64encode(one).decode() for one in getattr(definition, "def")],
        "metadata": {digest: {} for digest in definition.metadata},
    }


def status_of(error: BaseException) -> Status:
    """The gRPC code of an error."""
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return status
    return Status.UNKNOWN


def grpc_error(error: SampanError) -> GRPCError:
    """An error of a call, with its code."""
    return GRPCError(status_of(error), error.message)


def build_error(
    error: SampanError, *, file: Dockerfile | None, filename: str, digest: str, line: int
) -> GRPCError:
    """Why a build failed, with the Dockerfile's lines and the failed vertex where known.

    ``line`` is the instruction that failed when the error does not say it. The code is UNKNOWN, as
    BuildKit's is: clients put any other before the sentence.
    """
    details: list[AnyMessage] = []
    if isinstance(error, DockerfileError | StepFailed) and error.line:
        line = error.line
    source = (error.source if isinstance(error, DockerfileError) else ()) or (
        file.source if file else ()
    )
    if line and source:
        details.append(source_detail(filename, source, line, _end(file, line)))
    if digest:
        details.append(typed("errdefs.Vertex", {"digest": digest}))
    return GRPCError(Status.UNKNOWN, error.message, details)


def graph_error(error: SampanError, source: ops.Source, digest: str) -> GRPCError:
    """Why a graph failed, with where the failed vertex comes from in a file of the client's."""
    details: list[AnyMessage] = []
    for location in source.locations[digest].locations if digest in source.locations else ():
        if not 0 <= location.sourceIndex < len(source.infos):
            continue
        info = source.infos[location.sourceIndex]
        told = {
            "filename": info.filename,
            "data": base64.b64encode(info.data).decode(),
            "language": info.language,
        }
        ranges = [
            {"start": {"line": one.start.line}, "end": {"line": one.end.line}}
            for one in location.ranges
        ]
        details.append(typed("errdefs.Source", {"info": told, "ranges": ranges}))
    if digest:
        details.append(typed("errdefs.Vertex", {"digest": digest}))
    return GRPCError(Status.UNKNOWN, error.message, details)


def _end(file: Dockerfile | None, start: int) -> int:
    """The last line of the instruction that begins at ``start``."""
    for node in file.nodes if file else ():
        if node.start == start:
            return node.end
    return start
