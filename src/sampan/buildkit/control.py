"""moby.buildkit.v1.Control: builds, their news, the cache and the one worker there is."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from grpclib.const import Status as Code
from grpclib.exceptions import GRPCError

from sampan import __version__
from sampan.build.request import entitlements
from sampan.buildkit.builder import Builder
from sampan.buildkit.cache import CacheView
from sampan.buildkit.errors import build_error
from sampan.buildkit.exporters import Exporters, Wanted, wanted
from sampan.buildkit.graphs import caches
from sampan.buildkit.jobs import Job, Jobs, Part, cache_entries, part_of
from sampan.buildkit.policies import source_policy
from sampan.buildkit.protocol import control_pb2 as control
from sampan.buildkit.protocol import gateway_pb2 as gateway
from sampan.buildkit.protocol import ops_pb2 as ops
from sampan.buildkit.protocol import worker_pb2 as worker
from sampan.buildkit.recording import Outcome, Recorder, replayed, started
from sampan.buildkit.records import Records
from sampan.buildkit.rpc import Channel, ServerStream, Service
from sampan.buildkit.sessions import METHOD_HEADER, Session, Sessions
from sampan.buildkit.status import Status
from sampan.buildkit.tunnel import tunnel
from sampan.engine.buildcache import everything
from sampan.engine.buildoutputs import descriptor_document
from sampan.engine.engine import Engine
from sampan.errors import InvalidParameter, SampanError, Unsupported
from sampan.model.platform import Platform

_CACHES = frozenset(("inline", "registry", "local", "gha", "s3"))
#: What a result's metadata calls an image's configuration.
_CONFIG = "containerimage.config"
_PLATFORMS = "refs.platforms"
#: What the answer calls the manifest of an exported cache.
_CACHE_MANIFEST = "cache.manifest"
log = logging.getLogger("sampan.buildkit")

#: The header with the moment of an answer: how long a build goes on is reckoned from it.
_NOW_HEADER = "buildkit-current-timestamp"
_LABELS = "org.mobyproject.buildkit.worker."


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A build that can be followed and is still to be done."""

    job: Job
    request: control.SolveRequest
    outputs: tuple[Wanted, ...]
    record: control.BuildHistoryRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The service of one engine."""

    engine: Engine
    sessions: Sessions
    jobs: Jobs
    builder: Builder
    exporters: Exporters
    cache: CacheView
    records: Records
    recorder: Recorder

    def service(self) -> Service:
        """The methods that are offered."""
        return Service(
            control.DESCRIPTOR.services_by_name["Control"],
            {
                "Solve": self.solve,
                "Status": self.status,
                "Session": self.session,
                "ListWorkers": self.list_workers,
                "Info": self.info,
                "DiskUsage": self.disk_usage,
                "Prune": self.prune,
                "ListenBuildHistory": self.listen_build_history,
                "UpdateBuildHistory": self.update_build_history,
            },
        )

    async def solve(self, stream: ServerStream) -> None:
        """A build from its beginning to what its outputs tell."""
        begun = await self.begin(await _request(stream))
        await stream.send_message(control.SolveResponse(ExporterResponse=await self.finish(begun)))

    async def begin(self, request: control.SolveRequest, uploaded: Path | None = None) -> Begun:
        """Check what is asked for and make it known, so that it can be followed.

        ``uploaded`` is the context when it does not come through the session. Raises SampanError.
        """
        outputs = wanted(request)
        _check(request)
        job = Job(
            ref=request.Ref,
            session=await self.sessions.get(request.Session),
            attributes=dict(request.FrontendAttrs),
            entitlements=entitlements(request.Entitlements),
            status=Status(request.Ref),
            uploaded=uploaded,
            policy=source_policy(request.SourcePolicy),
            whole=everything(cache_entries(request.Cache.Exports)),
            cache_imports=(
                *cache_entries(request.Cache.Imports),
                *({"type": "registry", "ref": ref} for ref in request.Cache.ImportRefsDeprecated),
            ),
        )
        await self.jobs.add(job)
        record = None
        if self.records.enabled and not request.Internal:
            record = started(request)
            self.records.begin(record)
        return Begun(job=job, request=request, outputs=outputs, record=record)

    async def finish(self, begun: Begun) -> dict[str, str]:
        """Do a build that has begun; what its outputs tell. Raises GRPCError, SampanError."""
        job, outcome = begun.job, Outcome()
        try:
            async with self.engine.builds.ingesting:
                try:
                    await self._make(begun, outcome)
                except BaseException as error:
                    outcome.error = error
                    raise
                finally:
                    job.status.close()
                    await self._record(begun, outcome)
                return outcome.response
        finally:
            self.jobs.remove(job)
            if job.solver is not None:
                await job.solver.close()
            await job.stack.aclose()

    async def _make(self, begun: Begun, outcome: Outcome) -> None:
        """Build and export; what has come of it so far is in ``outcome`` even when this fails."""
        job, request = begun.job, begun.request
        result = await self._result(job, request)
        outcome.parts, outcome.several = await self._parts(job, result)
        if not outcome.parts:
            return
        exports = cache_entries(request.Cache.Exports)
        try:
            await self._export(job, begun.outputs, exports, outcome)
        except SampanError as error:
            raise build_error(
                error, file=None, filename="", digest=job.status.failed, line=0
            ) from None

    async def _record(self, begun: Begun, outcome: Outcome) -> None:
        """Keep what came of a build. That this does not work is no reason for a build to fail."""
        if begun.record is None:
            return
        try:
            await self.recorder.finish(begun.record, begun.job, outcome)
        except (OSError, SampanError) as error:
            log.warning("build %s is not recorded: %s", begun.job.ref, error)
        finally:
            self.records.drop(begun.job.ref)

    async def _result(self, job: Job, request: control.SolveRequest) -> gateway.Result:
        """What the frontend made: run here, or by the client through the gateway."""
        if getattr(request.Definition, "def"):
            identity = part_of(request.Definition) or self.builder.graphs.defined(
                job, request.Definition
            )
            return gateway.Result(ref=gateway.Ref(id=identity))
        if request.Frontend:
            inputs = {
                name: await self.builder.graphs.input(job, found)
                for name, found in request.FrontendInputs.items()
            }
            return await self.builder.frontend(job, request.Frontend, job.attributes, inputs)
        returned = await job.returned
        if returned.HasField("error"):
            error = returned.error
            raise GRPCError(_code(error.code), error.message, list(error.details))
        return returned.result

    async def _parts(self, job: Job, result: gateway.Result) -> tuple[list[Part], bool]:
        """The parts a result names, and whether it is one of several platforms by its form."""
        kind = result.WhichOneof("result")
        if kind == "refs":
            found = {name: ref.id for name, ref in sorted(result.refs.refs.items())}
            order = [name for name in _platforms(result.metadata) if name in found]
            named = {name: found[name] for name in (*order, *found)}
        elif kind == "refsDeprecated":
            named = dict(sorted(result.refsDeprecated.refs.items()))
        else:
            named = {"": result.ref.id if kind == "ref" else result.refDeprecated}
        parts = []
        for name, identity in named.items():
            key = f"{_CONFIG}/{name}" if name else _CONFIG
            config = result.metadata.get(key) or result.metadata.get(_CONFIG) or b""
            if identity or config:
                parts.append(await self.builder.graphs.part(job, identity, config, name))
        return parts, kind in ("refs", "refsDeprecated")

    async def _export(
        self,
        job: Job,
        outputs: tuple[Wanted, ...],
        exports: tuple[Mapping[str, str], ...],
        outcome: Outcome,
    ) -> None:
        results = [part.result for part in outcome.parts]
        found = await self.exporters.export(job, results, outputs, several=outcome.several)
        outcome.response, outcome.outputs = found.answer, found.targets
        built = [result.built for result in results]
        exported = await caches(self.engine.core, job).export(exports, built)
        if exported.manifest is not None:
            document = descriptor_document(exported.manifest)
            outcome.response[_CACHE_MANIFEST] = json.dumps(document)

    async def status(self, stream: ServerStream) -> None:
        """Everything a build has told and will tell, until it is over."""
        request: control.StatusRequest = await _request(stream)
        record = None
        if not self.jobs.running(request.Ref):
            record = await self.records.get(request.Ref)
        if record is not None:
            news = replayed(self.records, record)
        else:
            news = aiter((await self.jobs.get(request.Ref)).status)
        async for response in news:
            await stream.send_message(response)

    async def listen_build_history(self, stream: ServerStream) -> None:
        """Builds that go on and records of those that are over, then what becomes of them."""
        request: control.BuildHistoryRequest = await _request(stream)
        async with self.records.listening(request) as events:
            moment = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            await stream.send_initial_metadata(metadata={_NOW_HEADER: moment})
            async for event in events:
                await stream.send_message(event)

    async def update_build_history(self, stream: ServerStream) -> None:
        """Forget a build, or keep its record whatever its age; records are always final."""
        request: control.UpdateBuildHistoryRequest = await _request(stream)
        if request.Delete:
            await self.records.delete(request.Ref)
        elif not request.Finalize:
            await self.records.pin(request.Ref, request.Pinned)
        await stream.send_message(control.UpdateBuildHistoryResponse())

    async def session(self, stream: ServerStream) -> None:
        """A session inside a call, for clients that have only this connection."""
        metadata: Any = stream.metadata or {}
        methods = tuple(str(one) for one in metadata.getall(METHOD_HEADER.lower(), []))
        headers = {name: str(value) for name, value in metadata.items()}
        session = Session.from_headers(headers, methods, Channel())
        await self.sessions.add(session)
        try:
            await tunnel(stream, session.channel.protocol)
        finally:
            self.sessions.remove(session)
            session.channel.shut()

    async def list_workers(self, stream: ServerStream) -> None:
        """The one worker."""
        await _request(stream)
        records = await self.workers()
        await stream.send_message(control.ListWorkersResponse(record=records))

    async def workers(self) -> list[worker.WorkerRecord]:
        """The one worker: this engine."""
        info = await self.engine.system.info()
        host = Platform.host()
        platform = ops.Platform(Architecture=host.architecture, OS=host.os, Variant=host.variant)
        labels = {
            f"{_LABELS}executor": "sampan",
            f"{_LABELS}hostname": os.uname().nodename,
            f"{_LABELS}network": "bridge",
            f"{_LABELS}snapshotter": str(info.driver or ""),
        }
        gateway_address = await self._gateway()
        if gateway_address:
            labels[f"{_LABELS}moby.host-gateway-ip"] = gateway_address
        return [
            worker.WorkerRecord(
                ID=str(info.id or ""),
                Labels=labels,
                platforms=[platform],
                BuildkitVersion=_version(),
            )
        ]

    async def _gateway(self) -> str:
        """The host's address on the default bridge, which ``host-gateway`` stands for."""
        try:
            network = await self.engine.networks.inspect("bridge")
        except SampanError:
            return ""
        for entry in (network.ipam.config if network.ipam else None) or []:
            if entry.gateway:
                return str(entry.gateway)
        return ""

    async def info(self, stream: ServerStream) -> None:
        """Which version this is."""
        await _request(stream)
        await stream.send_message(control.InfoResponse(buildkitVersion=_version()))

    async def disk_usage(self, stream: ServerStream) -> None:
        """The records of the cache."""
        request: control.DiskUsageRequest = await _request(stream)
        records = await self.cache.records(list(request.filter), request.ageLimit)
        await stream.send_message(control.DiskUsageResponse(record=records))

    async def prune(self, stream: ServerStream) -> None:
        """Remove records of the cache, each told once it is gone."""
        request: control.PruneRequest = await _request(stream)
        for record in await self.cache.prune(request):
            await stream.send_message(record)


def _platforms(metadata: Mapping[str, bytes]) -> list[str]:
    """The names of a result's platforms, in the client's order."""
    try:
        told = json.loads(metadata.get(_PLATFORMS, b"{}"))
        return [str(one["ID"]) for one in told.get("Platforms") or []]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InvalidParameter(f"malformed {_PLATFORMS} of a result") from None


async def _request(stream: ServerStream) -> Any:
    request = await stream.recv_message()
    if request is None:
        raise GRPCError(Code.INVALID_ARGUMENT, "the request has no message")
    return request


def _code(number: int) -> Code:
    try:
        found = Code(number)
    except ValueError:
        return Code.UNKNOWN
    return Code.UNKNOWN if found is Code.OK else found


def _check(request: control.SolveRequest) -> None:
    """Refuse by name what is asked for and not done."""
    if request.SourcePolicySession:
        raise Unsupported("source policies that the client decides while it builds")
    if request.ProxyNetwork:
        raise Unsupported("builds through a network proxy are not supported")
    for entry in request.Cache.Exports:
        if entry.Type not in _CACHES:
            raise Unsupported(f"cache exports of type {entry.Type!r} are not supported")
    if not request.Ref:
        raise InvalidParameter("a build needs a ref")


def _version() -> worker.BuildkitVersion:
    return worker.BuildkitVersion(package="sampan", version=__version__, dockerfileVersion="1.20")
