"""moby.buildkit.v1.frontend.LLBBridge: clients that drive the frontend themselves (buildx does)."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan.buildkit.builder import Builder
from sampan.buildkit.jobs import Job, Jobs, cache_entries, part_of
from sampan.buildkit.protocol import caps_pb2 as caps
from sampan.buildkit.protocol import control_pb2 as control
from sampan.buildkit.protocol import gateway_pb2 as gateway
from sampan.buildkit.protocol import ops_pb2 as ops
from sampan.buildkit.protocol import worker_pb2 as worker
from sampan.buildkit.rpc import ServerStream, Service
from sampan.buildkit.sources import read, source_of, stat
from sampan.errors import InvalidParameter, NotFound, Unsupported

_BUILD = "buildkit-controlapi-buildid"
#: What this bridge can do, of frontend/gateway/pb/caps.go.
_GATEWAY = (
    "solve.base",
    "solve.inlinereturn",
    "readfile",
    "statfile",
    "return",
    "returnmap",
    "importcaches",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "gateway.solve.metadata",
    "frontend.caps",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
)
#: What builds can do, of solver/pb/caps.go: what clients look at before they send options.
_BUILDS = (
    "source.image",
    "source.image.resolvemode",
    "source.local",
    "source.local.unique",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.ocilayout",
    "source.git",
    "source.git.keepgitdir",
    "source.git.fullurl",
    "source.git.httpauth",
    "source.git.knownsshhosts",
    "source.git.mountsshsock",
    "source.git.subdir",
    "source.git.checksum",
    "source.git.skipsubmodules",
    "source.http",
    "source.http.auth",
    "source.http.checksum",
    "source.http.perm",
    "soruce.http.uidgid",
    "exec.meta.base",
    "exec.meta.cgroup.parent",
    "exec.meta.network",
    "exec.meta.proxyenv",
    "exec.meta.security",
    "exec.meta.ulimit",
    "exec.mount.bind",
    "exec.mount.cache",
    "exec.mount.cache.sharing",
    "exec.mount.tmpfs",
    "exec.mount.secret",
    "exec.mount.ssh",
    "exec.secretenv",
    "file.base",
    "constraints",
    "platform",
    "meta.ignorecache",
    "meta.description",
    "cache.gha",
    "cache.s3",
    "exporter.image.annotations",
    "exporter.image.attestations",
    "exporter.multiple",
    "exporter.sourcedateepoch",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """The service; every call belongs to a build named in its headers."""

    jobs: Jobs
    builder: Builder
    workers: Callable[[], Awaitable[list[worker.WorkerRecord]]]

    def service(self) -> Service:
        """The methods that are offered."""
        descriptor = gateway.DESCRIPTOR.services_by_name["LLBBridge"]
        return Service(
            descriptor,
            {
                "Ping": self.ping,
                "Solve": self.solve,
                "Return": self.return_,
                "Evaluate": self.evaluate,
                "ReadFile": self.read_file,
                "StatFile": self.stat_file,
                "Inputs": self.inputs,
                "Warn": self.warn,
            },
        )

    async def _job(self, stream: ServerStream) -> tuple[Job, Any]:
        request = await stream.recv_message()
        metadata: Any = stream.metadata or {}
        ref = metadata.get(_BUILD)
        if not ref:
            raise InvalidParameter(f"a call of the gateway needs the header {_BUILD}")
        return await self.jobs.get(str(ref)), request

    async def ping(self, stream: ServerStream) -> None:
        """What there is to work with."""
        await self._job(stream)
        await stream.send_message(
            gateway.PongResponse(
                FrontendAPICaps=[caps.APICap(ID=name, Enabled=True) for name in _GATEWAY],
                LLBCaps=[caps.APICap(ID=name, Enabled=True) for name in _BUILDS],
                Workers=await self.workers(),
            )
        )

    async def solve(self, stream: ServerStream) -> None:
        """Run a frontend and answer with references to what it made."""
        job, request = await self._job(stream)
        if getattr(request.Definition, "def"):
            result = await self._defined(job, request.Definition)
        elif not request.Frontend:
            result = gateway.Result(ref=gateway.Ref())
        else:
            inputs = {
                name: self._input(name, part_of(found))
                for name, found in request.FrontendInputs.items()
            }
            attributes = dict(request.FrontendOpt)
            job.cache_imports += cache_entries(request.CacheImports)
            result = await self.builder.frontend(job, request.Frontend, attributes, inputs)
        await stream.send_message(gateway.SolveResponse(result=result))

    async def _defined(self, job: Job, definition: ops.Definition) -> gateway.Result:
        """The result a graph stands for: what a build made, or a source, fetched."""
        identity = part_of(definition)
        if not identity:
            source = source_of(definition)
            directory = await job.stack.enter_async_context(self.builder.contexts.temporary())
            threads = self.builder.builds.threads
            identity = uuid.uuid4().hex
            job.directories[identity] = await threads.run_long(source.fetch, directory)
        return gateway.Result(ref=gateway.Ref(id=identity))

    async def read_file(self, stream: ServerStream) -> None:
        """A file of a source that was fetched."""
        job, request = await self._job(stream)
        extent = request.Range
        data = await self.builder.builds.threads.run_long(
            read, _directory(job, request.Ref), request.FilePath, extent.Offset, extent.Length
        )
        await stream.send_message(gateway.ReadFileResponse(Data=data))

    async def stat_file(self, stream: ServerStream) -> None:
        """What a path of a source that was fetched is."""
        job, request = await self._job(stream)
        found = await self.builder.builds.threads.run_long(
            stat, _directory(job, request.Ref), request.Path
        )
        await stream.send_message(gateway.StatFileResponse(stat=found))

    def _input(self, name: str, identity: str) -> str:
        if not identity:
            raise Unsupported(f"frontend input {name!r}: graphs of LLB are not supported")
        return identity

    async def return_(self, stream: ServerStream) -> None:
        """The client is done: what it returns is exported, or is why the build failed."""
        job, request = await self._job(stream)
        if not job.returned.done():
            job.returned.set_result(request)
        await stream.send_message(gateway.ReturnResponse())

    async def evaluate(self, stream: ServerStream) -> None:
        """Builds are made at once, so there is nothing left to do."""
        await self._job(stream)
        await stream.send_message(gateway.EvaluateResponse())

    async def inputs(self, stream: ServerStream) -> None:
        """A build driven from outside has no inputs of its own."""
        await self._job(stream)
        await stream.send_message(gateway.InputsResponse())

    async def warn(self, stream: ServerStream) -> None:
        """A warning of the client's, for everybody who follows the build."""
        job, request = await self._job(stream)
        warning = control.VertexWarning(
            level=request.level,
            short=request.short,
            detail=list(request.detail),
            url=request.url,
            info=request.info,
            ranges=list(request.ranges),
        )
        job.status.warn(request.digest, warning)
        await stream.send_message(gateway.WarnResponse())


def _directory(job: Job, ref: str) -> Path:
    found = job.directories.get(ref)
    if found is None:
        raise NotFound(f"no such source: {ref}")
    return found
