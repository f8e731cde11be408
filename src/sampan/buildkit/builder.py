"""Run the frontend for a job: inputs, checks, the solver, once for every platform asked for."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from sampan.build.executor import FindingExecutor
from sampan.build.imports import Imported
from sampan.build.provenance import Invocation
from sampan.build.request import BuildRequest
from sampan.buildkit import calls, definitions
from sampan.buildkit.attributes import Attributes, parse
from sampan.buildkit.contexts import Contexts
from sampan.buildkit.errors import build_error
from sampan.buildkit.frontend import RESULT, Frontend, Source
from sampan.buildkit.graphs import Graphs, attestations, caches
from sampan.buildkit.jobs import Job, Jobs, Part, definition
from sampan.buildkit.protocol import control_pb2 as control
from sampan.buildkit.protocol import gateway_pb2 as gateway
from sampan.buildkit.protocol import ops_pb2 as ops
from sampan.buildkit.status import lines
from sampan.engine.buildjob import Prefixed
from sampan.engine.buildoutputs import Outputs
from sampan.engine.builds import Builds
from sampan.engine.core import Core
from sampan.errors import SampanError, Unsupported
from sampan.image import Image
from sampan.model.platform import Platform

FRONTENDS = ("dockerfile.v0", "gateway.v0")
_RULES = "https://docs.docker.com/go/dockerfile/rule/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """Builds on one engine."""

    core: Core
    builds: Builds
    contexts: Contexts
    jobs: Jobs
    graphs: Graphs

    async def frontend(
        self, job: Job, frontend: str, attributes: Mapping[str, str], inputs: Mapping[str, str]
    ) -> gateway.Result:
        """What a frontend makes of its options; ``inputs`` are ids of parts by name.

        Raises GRPCError with the place in the Dockerfile.
        """
        if frontend not in FRONTENDS:
            raise Unsupported(f"frontend {frontend!r} is not supported")
        source: Source | None = None
        try:
            if frontend == "gateway.v0" and "source" not in attributes:
                raise Unsupported("frontend gateway.v0 needs a source")
            asked = parse(attributes)
            async with AsyncExitStack() as stack:
                front = Frontend(
                    attributes=asked,
                    session=job.session,
                    status=job.status,
                    contexts=self.contexts,
                    builds=self.builds,
                    stack=stack,
                    uploaded=job.uploaded,
                    policy=job.policy,
                    inputs={name: f"{RESULT}{part}" for name, part in inputs.items()},
                    roots={
                        name: self.jobs.part(part).result.built.image.chain_id
                        for name, part in inputs.items()
                    },
                )
                if asked.request:
                    return await self._call(front, asked)
                source = await front.source()
                return await self._build(job, front, asked, source)
        except SampanError as error:
            raise build_error(
                error,
                file=source.file if source else None,
                filename=source.filename if source else parse_name(attributes),
                digest=job.status.failed,
                line=job.status.failed_line,
            ) from error

    async def _call(self, front: Frontend, asked: Attributes) -> gateway.Result:
        """A request for something else than a build: checks, outline, targets."""
        if asked.request == calls.DESCRIBE:
            return calls.describe()
        source = await front.source()
        await front.ignore(source)
        return calls.answer(asked.request, source, asked, Platform.host())

    async def _made(self, reference: str, _: Platform) -> Image:
        """What another build made."""
        return self.jobs.part(reference.removeprefix(RESULT)).result.built.image

    async def _build(
        self, job: Job, front: Frontend, asked: Attributes, source: Source
    ) -> gateway.Result:
        started = time.time()
        job.attest, job.inline_only = attestations(asked.attestations)
        platforms = asked.platforms or (Platform.host(),)
        several = len(platforms) > 1 or asked.multi_platform
        await front.ignore(source)
        self._warn(job, asked, source, platforms[0])
        requests = [await front.request(source, platform) for platform in platforms]
        job.epoch = requests[0].epoch
        tools = self.graphs.tools(job, await self._imports(job, asked))
        tools = replace(tools, executor=FindingExecutor(tools.executor, RESULT, self._made))
        parts: list[Part] = []
        for request in requests:
            allowed = "security.insecure" in job.entitlements
            request = replace(request, insecure_allowed=allowed)
            view = Prefixed(job.status, f"{request.platform} ") if several else job.status
            built = await self.builds.solve(request, tools, view)
            invocation = _invocation(job, asked, source, request, started)
            result = await Outputs(core=self.core).attested(
                built, job.attest, invocation, epoch=request.epoch
            )
            parts.append(job.keep(result, str(request.platform), invocation))
        return _several(parts) if several else _single(parts[0])

    async def _imports(self, job: Job, asked: Attributes) -> tuple[Imported, ...]:
        """The caches to take steps from: the build's, then those only the frontend is told of."""
        given = [*job.cache_imports, *asked.cache_imports]
        once = [one for number, one in enumerate(given) if one not in given[:number]]
        return await caches(self.core, job).imports(once, {})

    def _warn(self, job: Job, asked: Attributes, source: Source, platform: Platform) -> None:
        """Tell what the build checks find; raises what is wrong with the Dockerfile after it."""
        choice = calls.checks_of(source, asked)
        report = calls.checked(source, asked, platform, choice, asked.target)
        info = ops.SourceInfo(
            filename=source.filename,
            data="\n".join(source.file.source).encode(errors="surrogateescape"),
            language="Dockerfile",
            definition=definitions.dockerfile(source.filename),
        )
        digest = job.status.digest(
            f"internal/[internal] load build definition from {source.filename}"
        )
        for one in report.warnings:
            warning = control.VertexWarning(
                level=1,
                short=f"{one.rule}: {one.message} (line {one.start})".encode(),
                detail=[calls.DESCRIPTIONS.get(one.rule, "").encode()],
                url=f"{_RULES}{calls.slug(one.rule)}/",
                info=info,
                ranges=lines(one.start, one.end),
            )
            job.status.warn(digest, warning)
        if failure := report.failure(choice):
            raise failure


def parse_name(attributes: Mapping[str, str]) -> str:
    """The Dockerfile's name as errors show it."""
    return attributes.get("filename", "Dockerfile").rpartition("/")[2]


def _invocation(
    job: Job, asked: Attributes, source: Source, request: BuildRequest, started: float
) -> Invocation:
    """The build as its provenance tells it."""
    arguments = {f"build-arg:{name}": value for name, value in asked.arguments.items()}
    arguments |= {f"label:{name}": value for name, value in asked.labels.items()}
    if asked.target:
        arguments["target"] = asked.target
    return Invocation(
        id=job.ref,
        started=started,
        finished=time.time(),
        dockerfile=source.filename,
        arguments=arguments,
        secrets=tuple(request.secrets.values),
        ssh=tuple(request.ssh),
        context=source.material,
        local=source.directory is None,
        source="\n".join(source.file.source),
    )


def _ref(part: Part) -> gateway.Ref:
    found = gateway.Ref(id=part.id)
    getattr(found, "def").CopyFrom(definition(part))
    return found


def _single(part: Part) -> gateway.Result:
    metadata = {"containerimage.config": part.result.built.image.config.raw}
    return gateway.Result(ref=_ref(part), metadata=metadata)


def _several(parts: list[Part]) -> gateway.Result:
    platforms = [
        {"ID": part.platform, "Platform": _document(Platform.parse(part.platform))}
        for part in parts
    ]
    metadata = {"refs.platforms": json.dumps({"Platforms": platforms}).encode()}
    for part in parts:
        metadata[f"containerimage.config/{part.platform}"] = part.result.built.image.config.raw
    refs = {part.platform: _ref(part) for part in parts}
    return gateway.Result(refs=gateway.RefMap(refs=refs), metadata=metadata)


def _document(platform: Platform) -> dict[str, str]:
    found = {"architecture": platform.architecture, "os": platform.os}
    return {**found, "variant": platform.variant} if platform.variant else found
