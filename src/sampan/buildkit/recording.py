"""What a build came to, as its record keeps it: counts, log, trace, provenance, results, error.

Credentials are left out: user names and passwords in addresses, and all of a cache to import from
but where it is.
"""

from __future__ import annotations

import asyncio
import json
import re
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status as StatusMessage
from grpclib.const import Status as Code
from grpclib.exceptions import GRPCError

from sampan import __version__
from sampan.build.outputs import Attest
from sampan.build.provenance import provenance
from sampan.buildkit.errors import grpc_error
from sampan.buildkit.jobs import Job, Part
from sampan.buildkit.protocol import control_pb2 as control
from sampan.buildkit.records import Document, Records
from sampan.buildkit.spans import MEDIA_TYPE as TRACE
from sampan.buildkit.spans import spans
from sampan.buildkit.status import now
from sampan.content import ContentStore
from sampan.engine.threads import Threads
from sampan.errors import NotFound, SampanError
from sampan.image import manifest as manifests
from sampan.image.manifest import Index
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest

STATUS = "application/vnd.buildkit.status.v0"
IN_TOTO = "application/vnd.in-toto+json"
_ERROR = "application/vnd.googleapis.google.rpc.status+proto"
_PREDICATE = "in-toto.io/predicate-type"
_HEAD = struct.Struct("<I")
_ACCOUNT = re.compile(r"(?<=://)[^/@\s]*@")
#: What of a cache to import from is no secret: its place.
_PLACE = ("ref", "scope")
_DEEPEST = 4


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of a build: its parts and outputs, or why it failed.

    ``outputs`` are descriptors of what was made, by the number of the exporter.
    """

    parts: Sequence[Part] = ()
    several: bool = False
    outputs: Mapping[int, Descriptor] = field(default_factory=dict)
    response: dict[str, str] = field(default_factory=dict)
    error: BaseException | None = None


def started(request: control.SolveRequest) -> control.BuildHistoryRecord:
    """The record of a build that begins."""
    attributes = {key: _harmless(key, value) for key, value in request.FrontendAttrs.items()}
    return control.BuildHistoryRecord(
        Ref=request.Ref,
        Frontend=request.Frontend,
        FrontendAttrs=attributes,
        Exporters=request.Exporters,
        CreatedAt=now(),
    )


def _harmless(key: str, value: str) -> str:
    """An option without the credentials it may carry."""
    if key == "cache-imports":
        try:
            entries = json.loads(value)
            kept = [
                {
                    "Type": one["Type"],
                    "Attrs": {name: one["Attrs"][name] for name in _PLACE if name in one["Attrs"]},
                }
                for one in entries
            ]
        except (ValueError, KeyError, TypeError):  # refused by the build itself
            return ""
        return json.dumps(kept)
    return _ACCOUNT.sub("", value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """Completes records; ``content`` has the documents of images."""

    records: Records
    content: ContentStore
    threads: Threads

    async def finish(self, begun: control.BuildHistoryRecord, job: Job, outcome: Outcome) -> None:
        """Keep the record of a build that is over. Raises OSError."""
        record = control.BuildHistoryRecord()
        record.CopyFrom(begun)
        record.CompletedAt.CopyFrom(now())
        record.numTotalSteps, record.numCompletedSteps, record.numCachedSteps = job.status.counts()
        record.numWarnings = job.status.warned
        record.ExporterResponse.update(outcome.response)
        documents: list[Document] = []

        def keep(
            data: bytes, kind: str, annotations: Mapping[str, str] | None = None
        ) -> control.Descriptor:
            document = Document(data=data, media_type=kind)
            documents.append(document)
            return document.descriptor(annotations)

        if outcome.error is not None:
            failure = _failure(outcome.error)
            record.externalError.CopyFrom(keep(failure.SerializeToString(), _ERROR))
            record.error.CopyFrom(StatusMessage(code=failure.code, message=failure.message))
        record.logs.CopyFrom(keep(frames(job.status.responses), STATUS))
        record.trace.CopyFrom(keep(spans(record, job.status.vertexes, __version__), TRACE))
        for part in outcome.parts:
            info = record.Results[part.platform] if outcome.several else record.Result
            kind, predicate = _provenance(part, job.attest)
            info.Attestations.append(keep(predicate, IN_TOTO, {_PREDICATE: kind}))
        for number, target in outcome.outputs.items():
            described = control.Descriptor(
                media_type=target.media_type,
                digest=str(target.digest),
                size=target.size,
                annotations=target.annotations,
            )
            record.Result.Results[number].CopyFrom(described)
            if not record.Result.HasField("ResultDeprecated"):
                record.Result.ResultDeprecated.CopyFrom(described)
            documents += await self.threads.run(self._documents, target)
        await self.records.complete(record, documents)

    def _documents(self, target: Descriptor, depth: int = 0) -> list[Document]:
        """Manifests, configurations and attestations of what was made; no layers."""
        raw = self.content.read(target.digest)
        found = [Document(data=raw, media_type=target.media_type)]
        parsed = manifests.parse(raw)
        if isinstance(parsed, Index):
            for one in parsed.manifests if depth < _DEEPEST else ():
                found += self._documents(one, depth + 1)
            return found
        for blob in parsed.blobs:
            if blob is parsed.config or blob.media_type == IN_TOTO:
                data = self.content.read(blob.digest)
                found.append(Document(data=data, media_type=blob.media_type))
        return found


def _provenance(part: Part, attest: Attest) -> tuple[str, bytes]:
    """All that is known of how a part was built, whatever its image says of it."""
    made = provenance(
        part.result.built, part.invocation, replace(attest, provenance="max", version="v1")
    )
    return made.predicate_type, json.dumps(made.predicate, indent=2).encode()


def _failure(error: BaseException) -> StatusMessage:
    """An error as a status; one without words is told by its name."""
    if isinstance(error, asyncio.CancelledError):
        return StatusMessage(code=Code.CANCELLED.value, message="context canceled")
    if isinstance(error, SampanError):
        error = grpc_error(error)
    if isinstance(error, GRPCError):
        details: Any = error.details
        message = error.message or ""
        return StatusMessage(code=error.status.value, message=message, details=details or ())
    return StatusMessage(
        code=Code.INTERNAL.value, message=f"internal error: {type(error).__name__}"
    )


def frames(responses: Sequence[control.StatusResponse]) -> bytes:
    """News as a log: each message after its length, four bytes, the lowest first."""
    found = bytearray()
    for response in responses:
        data = response.SerializeToString()
        found += _HEAD.pack(len(data)) + data
    return bytes(found)


async def replayed(
    records: Records, record: control.BuildHistoryRecord
) -> AsyncIterator[control.StatusResponse]:
    """What a build told. Raises NotFound when its log is gone."""
    data = await records.read(Digest.parse(record.logs.digest))
    if data is None:
        raise NotFound(f"the log of build {record.Ref} is gone")
    at = 0
    while at < len(data):
        try:
            (size,) = _HEAD.unpack_from(data, at)
            response = control.StatusResponse.FromString(data[at + _HEAD.size :][:size])
        except (struct.error, DecodeError):
            raise NotFound(f"the log of build {record.Ref} is spoilt") from None
        at += _HEAD.size + size
        yield response
