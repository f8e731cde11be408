"""moby.buildkit.v1.frontend.LLBBridge: clients that drive the frontend themselves (buildx does)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sampan.buildkit.builder import Builder
from sampan.buildkit.jobs import Job, Jobs, cache_entries, part_of
from sampan.buildkit.llb.sources import IMAGE, OCI_LAYOUT
from sampan.buildkit.protocol import caps_pb2 as caps
from sampan.buildkit.protocol import control_pb2 as control
from sampan.buildkit.protocol import gateway_pb2 as gateway
from sampan.buildkit.protocol import ops_pb2 as ops
from sampan.buildkit.protocol import worker_pb2 as worker
from sampan.buildkit.rpc import ServerStream, Service
from sampan.buildkit.sources import entries, read, stat
from sampan.errors import InvalidParameter, Unsupported

_BUILD = "buildkit-controlapi-buildid"
#: The kind of resolver that looks into OCI layouts.
_LAYOUTS = 1
#: What this bridge can do, of frontend/gateway/pb/caps.go.
_GATEWAY = (
    "solve.base",
    "solve.inlinereturn",
    "resolveimage",
    "resolveimage.resolvemode",
    "source.metaresolver",
    "readfile",
    "readdir",
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
    "source.image.layerlimit",
    "source.image.checksum",
    "source.local",
    "source.local.unique",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.local.differ",
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
    "source.git.mtime",
    "source.git.fetchbycommit",
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
    "exec.meta.setsdefaultpath",
    "exec.meta.removemountstubs.recursive",
    "exec.meta.linux.resources",
    "exec.meta.ulimit",
    "exec.mount.bind",
    "exec.mount.bind.readwrite-nooutput",
    "exec.mount.cache",
    "exec.mount.cache.sharing",
    "exec.mount.selector",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.mount.secret",
    "exec.mount.ssh",
    "exec.mount.cache.content",
    "exec.cgroup",
    "exec.secretenv",
    "exec.validexitcode",
    "file.base",
    "file.rm.wildcard",
    "file.rm.nofollowsymlink",
    "file.copy.includeexcludepatterns",
    "file.copy.requiredpaths",
    "file.copy.alwaysreplaceexistingdestpaths",
    "file.copy.modestring",
    "file.symlink.create",
    "mergeop",
    "diffop",
    "passthroughop",
    "constraints",
    "platform",
    "meta.ignorecache",
    "meta.description",
    "meta.exportcache",
    "cache.gha",
    "cache.s3",
    "exporter.image.annotations",
    "exporter.image.attestations",
    "exporter.multiple",
    "exporter.sourcedateepoch",
    "source.policy",
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
                "ResolveImageConfig": self.resolve_image_config,
                "ResolveSourceMeta": self.resolve_source_meta,
                "ReadDir": self.read_dir,
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
        job.cache_imports += cache_entries(request.CacheImports)
        if getattr(request.Definition, "def"):
            result = gateway.Result(ref=self._defined(job, request.Definition))
            if request.Evaluate:
                await self.builder.graphs.value(job, result.ref.id)
        elif not request.Frontend:
            result = gateway.Result(ref=gateway.Ref())
        else:
            inputs = {
                name: await self.builder.graphs.input(job, found)
                for name, found in request.FrontendInputs.items()
            }
            attributes = dict(request.FrontendOpt)
            result = await self.builder.frontend(job, request.Frontend, attributes, inputs)
        await stream.send_message(gateway.SolveResponse(result=result))

    def _defined(self, job: Job, definition: ops.Definition) -> gateway.Ref:
        """The result a graph stands for: what a build made, or one that is made when it is used."""
        identity = part_of(definition) or self.builder.graphs.defined(job, definition)
        found = gateway.Ref(id=identity)
        getattr(found, "def").CopyFrom(definition)
        return found

    async def read_file(self, stream: ServerStream) -> None:
        """A file of a result."""
        job, request = await self._job(stream)
        extent = request.Range
        data = await self.builder.graphs.look(
            job, request.Ref, read, request.FilePath, extent.Offset, extent.Length
        )
        await stream.send_message(gateway.ReadFileResponse(Data=data))

    async def read_dir(self, stream: ServerStream) -> None:
        """What is in a directory of a result."""
        job, request = await self._job(stream)
        found = await self.builder.graphs.look(
            job, request.Ref, entries, request.DirPath, request.IncludePattern
        )
        await stream.send_message(gateway.ReadDirResponse(entries=found))

    async def stat_file(self, stream: ServerStream) -> None:
        """What a path of a result is."""
        job, request = await self._job(stream)
        found = await self.builder.graphs.look(job, request.Ref, stat, request.Path)
        await stream.send_message(gateway.StatFileResponse(stat=found))

    async def resolve_image_config(self, stream: ServerStream) -> None:
        """An image's digest and configuration."""
        job, request = await self._job(stream)
        kind = OCI_LAYOUT if request.ResolverType == _LAYOUTS else IMAGE
        source = ops.SourceOp(identifier=f"{kind}://{request.Ref}")
        if request.StoreID:
            source.attrs["oci.store"] = request.StoreID
        found = await self.builder.graphs.described(
            job, source, request.Platform, request.ResolveMode
        )
        await stream.send_message(
            gateway.ResolveImageConfigResponse(
                Digest=found.Image.Digest, Config=found.Image.Config, Ref=request.Ref
            )
        )

    async def resolve_source_meta(self, stream: ServerStream) -> None:
        """What a source is: an image's configuration, a repository's commit, a file's digest."""
        job, request = await self._job(stream)
        if request.Image.AttestationChain or request.Image.ResolveAttestations:
            raise Unsupported("attestations of images are not looked up")
        found = await self.builder.graphs.described(
            job, request.Source, request.Platform, request.ResolveMode
        )
        if request.Image.NoConfig:
            found.Image.ClearField("Config")
        await stream.send_message(found)

    async def return_(self, stream: ServerStream) -> None:
        """The client is done: what it returns is exported, or is why the build failed."""
        job, request = await self._job(stream)
        if not job.returned.done():
            job.returned.set_result(request)
        await stream.send_message(gateway.ReturnResponse())

    async def evaluate(self, stream: ServerStream) -> None:
        """Make a result, if it is not made yet."""
        job, request = await self._job(stream)
        await self.builder.graphs.value(job, request.Ref)
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
