"""Run the frontend for a job: inputs, checks, the solver, once for every platform asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from sampan.build.checks import Choice, check
from sampan.build.executor import Executor, Output, RunRequest
from sampan.buildkit import calls
from sampan.buildkit.attributes import Attributes, parse
from sampan.buildkit.caller import credentials
from sampan.buildkit.contexts import Contexts
from sampan.buildkit.errors import build_error
from sampan.buildkit.frontend import RESULT, Frontend, Source
from sampan.buildkit.jobs import Job, Jobs, Part, definition
from sampan.buildkit.protocol import control_pb2 as control
from sampan.buildkit.protocol import gateway_pb2 as gateway
from sampan.buildkit.protocol import ops_pb2 as ops
from sampan.buildkit.status import lines
from sampan.dockerfile.ignore import IgnoreMatcher
from sampan.engine.builds import Builds
from sampan.engine.options import RegistryAuth
from sampan.errors import SampanError, Unsupported
from sampan.image import Image
from sampan.model.platform import Platform

FRONTENDS = ("dockerfile.v0", "gateway.v0")
_RULES = "https://docs.docker.com/go/dockerfile/rule/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """Builds on one engine."""

    builds: Builds
    contexts: Contexts
    jobs: Jobs

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
                    inputs={name: f"{RESULT}{part}" for name, part in inputs.items()},
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
        return calls.answer(asked.request, source, asked, Platform.host())

    async def _build(
        self, job: Job, front: Frontend, asked: Attributes, source: Source
    ) -> gateway.Result:
        if asked.attestations:
            job.attestations.update(asked.attestations)
        platforms = asked.platforms or (Platform.host(),)
        several = len(platforms) > 1 or asked.multi_platform
        requests = [await front.request(source, platform) for platform in platforms]
        self._warn(job, asked, source, platforms[0])
        tools = self.builds.tools(lambda domain: _credentials(job, domain))
        tools = replace(tools, executor=_Executor(tools.executor, self.jobs))
        parts: list[Part] = []
        for request in requests:
            allowed = "security.insecure" in job.entitlements
            request = replace(request, insecure_allowed=allowed)
            built = await self.builds.solve(request, tools, job.status)
            parts.append(job.keep(built, str(request.platform)))
        return _several(parts) if several else _single(parts[0])

    def _warn(self, job: Job, asked: Attributes, source: Source, platform: Platform) -> None:
        """Tell what the build checks find; raises when the Dockerfile says that is an error."""
        text = asked.arguments.get("BUILDKIT_DOCKERFILE_CHECK")
        choice = Choice.parse(text or source.file.directives.get("check", ""))
        found = check(
            source.file,
            given=asked.arguments,
            ignore=IgnoreMatcher(source.ignore) if source.ignore else None,
            platform=platform,
            choice=choice,
        )
        info = ops.SourceInfo(
            filename=source.filename,
            data="\n".join(source.file.source).encode(errors="surrogateescape"),
            language="Dockerfile",
        )
        digest = job.status.digest(
            f"internal/[internal] load build definition from {source.filename}"
        )
        for one in found:
            warning = control.VertexWarning(
                level=1,
                short=f"{one.rule}: {one.message} (line {one.start})".encode(),
                detail=[calls.DESCRIPTIONS.get(one.rule, "").encode()],
                url=f"{_RULES}{calls.slug(one.rule)}/",
                info=info,
                ranges=[lines(one.start, one.end)],
            )
            job.status.warn(digest, warning)
        if found and choice.error:
            raise SampanError(
                "lint violation found for rules: "
                + ", ".join(dict.fromkeys(one.rule for one in found))
            )


def parse_name(attributes: Mapping[str, str]) -> str:
    """The Dockerfile's name as errors show it."""
    return attributes.get("filename", "Dockerfile").rpartition("/")[2]


async def _credentials(job: Job, domain: str) -> RegistryAuth | None:
    return await credentials(job.session, domain)


@dataclass(frozen=True, slots=True)
class _Executor:
    """An executor that also knows what other builds made; see :class:`Executor`."""

    inner: Executor
    jobs: Jobs

    async def base(self, reference: str, platform: Platform, *, pull: bool) -> Image:
        """See :meth:`sampan.build.executor.Executor.base`."""
        if reference.startswith(RESULT):
            return self.jobs.part(reference.removeprefix(RESULT)).built.image
        return await self.inner.base(reference, platform, pull=pull)

    async def run(self, request: RunRequest, output: Output) -> int:
        """See :meth:`sampan.build.executor.Executor.run`."""
        return await self.inner.run(request, output)


def _ref(part: Part) -> gateway.Ref:
    found = gateway.Ref(id=part.id)
    getattr(found, "def").CopyFrom(definition(part))
    return found


def _single(part: Part) -> gateway.Result:
    metadata = {"containerimage.config": part.built.image.config.raw}
    return gateway.Result(ref=_ref(part), metadata=metadata)


def _several(parts: list[Part]) -> gateway.Result:
    platforms = [
        {"ID": part.platform, "Platform": _document(Platform.parse(part.platform))}
        for part in parts
    ]
    metadata = {"refs.platforms": json.dumps({"Platforms": platforms}).encode()}
    for part in parts:
        metadata[f"containerimage.config/{part.platform}"] = part.built.image.config.raw
    refs = {part.platform: _ref(part) for part in parts}
    return gateway.Result(refs=gateway.RefMap(refs=refs), metadata=metadata)


def _document(platform: Platform) -> dict[str, str]:
    found = {"architecture": platform.architecture, "os": platform.os}
    return {**found, "variant": platform.variant} if platform.variant else found
