"""A whole build: every platform solved, attested, cached and put out as asked (asynchronous).

The doors (``sampan build``, Python) make a :class:`Job` of what they were asked and give it to
:class:`Jobs`; inputs are directories on this host by then.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from sampan.build.assemble import Result
from sampan.build.checks import Choice, examine
from sampan.build.executor import Limits, Secrets
from sampan.build.imports import Imported
from sampan.build.outputs import Attest, Kind, Output
from sampan.build.progress import Progress, Vertex
from sampan.build.provenance import Invocation
from sampan.build.request import BuildRequest, Built, Material
from sampan.build.selection import Tree
from sampan.dockerfile.ignore import IgnoreMatcher
from sampan.dockerfile.parser import Dockerfile
from sampan.engine.buildcache import Caches, everything
from sampan.engine.buildlayouts import (
    DirectoryStore,
    Layouts,
    layout_reference,
)
from sampan.engine.buildoutputs import Made, Outputs
from sampan.engine.builds import Builds
from sampan.engine.buildsteps import Credentials
from sampan.engine.cachestores import BlobStore
from sampan.engine.core import Core
from sampan.errors import InvalidParameter, NotFound
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.model.reference import Reference
from sampan.wire.base import Json

#: Given the number of an output and its bytes, puts them where the client wants them.
Deliver = Callable[[int, AsyncIterator[bytes]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A context: a directory on this host, and what of it is hidden."""

    path: Path
    ignore: IgnoreMatcher | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutPlace:
    """An image in an OCI layout that is in a directory on this host."""

    path: Path
    digest: Digest


Context: TypeAlias = Place | LayoutPlace | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to build and what to make of it.

    ``contexts`` are named contexts: places, images in layouts, or references of images. ``origin``
    tells where a remote context came from. ``multi_platform`` asks for an index even for one.
    ``cache_directories`` are those of local caches by their place in ``cache_from``.
    """

    file: Dockerfile
    filename: str = "Dockerfile"
    context: Place | None = None
    origin: Material | None = None
    contexts: Mapping[str, Context] = field(default_factory=dict)
    target: str = ""
    platforms: tuple[Platform, ...] = ()
    multi_platform: bool | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    ssh: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    pull: bool = False
    network: str = "default"
    extra_hosts: tuple[str, ...] = ()
    entitlements: frozenset[str] = frozenset()
    limits: Limits = field(default_factory=Limits)
    tags: tuple[Reference, ...] = ()
    outputs: tuple[Output, ...] = ()
    attest: Attest = field(default_factory=Attest)
    cache_from: tuple[Mapping[str, str], ...] = ()
    cache_to: tuple[Mapping[str, str], ...] = ()
    cache_directories: Mapping[int, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What came of a job: the id of the image (of the index for several), and its metadata."""

    image_id: str
    metadata: Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """Does jobs on one engine."""

    core: Core
    builds: Builds

    async def run(
        self, job: Job, credentials: Credentials, progress: Progress, deliver: Deliver
    ) -> Finished:
        """Build and put out; nothing is named or sent unless every platform was built.

        Raises DockerfileError, StepFailed, and what bases, copies and registries raise. Cancelling
        the task undoes what is undone.
        """
        started = time.time()
        identity = uuid.uuid4().hex
        outputs = named(job)
        caches = Caches(core=self.core, credentials=credentials, progress=progress)
        async with self.builds.ingesting:
            imports = await caches.imports(job.cache_from, job.cache_directories)
            built = await self._solve(job, credentials, progress, imports)
            invocation = _invocation(job, identity, started)
            maker = Outputs(core=self.core)
            epoch = _epoch(job)
            results = [
                await maker.attested(one, job.attest, invocation, epoch=epoch) for one in built
            ]
            made = []
            for number, wanted in enumerate(outputs):
                made.append(
                    await self._put_out(
                        maker, job, number, wanted, results, credentials, progress, deliver
                    )
                )
            exported = await caches.export(job.cache_to, built)
            for number, chunks in enumerate(exported.archives, len(outputs)):
                await deliver(number, chunks)
        return Finished(
            image_id=_identity(made, built), metadata=_metadata(made, results, identity)
        )

    async def _solve(
        self,
        job: Job,
        credentials: Credentials,
        progress: Progress,
        imports: tuple[Imported, ...],
    ) -> list[Built]:
        platforms = job.platforms or (Platform.host(),)
        tools = self.builds.tools(credentials)
        layouts = Layouts(core=self.core, stores=lambda name: self._layout(job, name))
        tools = replace(
            tools,
            executor=layouts.beside(tools.executor),
            imports=imports,
            whole=everything(job.cache_to),
        )
        built = []
        for platform in platforms:
            with ExitStack() as stack:
                request = _request(job, platform, stack)
                if platform == platforms[0]:
                    warn(job, request, progress)
                view = Prefixed(progress, f"{platform} ") if len(platforms) > 1 else progress
                built.append(await self.builds.solve(request, tools, view))
        return built

    def _layout(self, job: Job, name: str) -> BlobStore:
        place = job.contexts.get(name)
        if not isinstance(place, LayoutPlace):
            raise NotFound(f"no such OCI layout: {name}")
        return DirectoryStore(place.path, self.core.threads)

    async def _put_out(
        self,
        maker: Outputs,
        job: Job,
        number: int,
        wanted: Output,
        results: list[Result],
        credentials: Credentials,
        progress: Progress,
        deliver: Deliver,
    ) -> Made:
        vertex = Vertex(id=f"output/{number}", name=f"exporting to {wanted.kind}")
        progress.started(vertex)
        try:
            made = await maker.make(
                results,
                wanted,
                credentials=credentials,
                report=lambda line: progress.log(vertex, 1, f"{line}\n".encode()),
                epoch=_epoch(job),
                multi_platform=_indexed(job),
            )
            if made.stream is not None:
                await deliver(number, made.stream)
        except BaseException as error:
            progress.completed(vertex, error=str(error) or type(error).__name__)
            raise
        progress.completed(vertex)
        return made


def named(job: Job) -> tuple[Output, ...]:
    """The job's outputs with its tags; the image store when it asks for none."""
    outputs = job.outputs or (Output(kind=Kind.IMAGE),)
    found = tuple(
        replace(
            one,
            names=one.names or job.tags,
            inline_cache=one.inline_cache or _inline(job),
        )
        for one in outputs
    )
    for one in found:
        if one.push and not one.names:
            raise InvalidParameter("tag is needed when pushing to registry")
    return found


def _inline(job: Job) -> bool:
    if any(one.get("type") == "inline" for one in job.cache_to):
        return True
    return job.arguments.get("BUILDKIT_INLINE_CACHE", "").lower() in ("1", "true", "t")


def _indexed(job: Job) -> bool | None:
    """Whether an index is asked for even for one platform."""
    if job.multi_platform is None and job.arguments.get("BUILDKIT_MULTI_PLATFORM"):
        return job.arguments["BUILDKIT_MULTI_PLATFORM"].lower() in ("1", "true", "t")
    return job.multi_platform


def warn(job: Job, request: BuildRequest, progress: Progress) -> None:
    """Tell what the build checks find. Raises InvalidParameter where they count as errors."""
    text = job.arguments.get("BUILDKIT_DOCKERFILE_CHECK")
    choice = Choice.parse(text or job.file.directives.get("check", ""))
    report = examine(
        job.file,
        given=job.arguments,
        ignore=request.context.ignore if request.context else None,
        platform=request.platform,
        choice=choice,
        target=job.target,
    )
    for one in report.warnings:
        progress.warning(None, f"{one.rule}: {one.message} (line {one.start})")
    if failure := report.failure(choice):
        raise failure


def _request(job: Job, platform: Platform, stack: ExitStack) -> BuildRequest:
    """The job for one platform; the contexts stay open as long as ``stack``."""
    clamp = all(one.clamp for one in job.outputs)
    return BuildRequest(
        file=job.file,
        context=_tree(job.context, stack) if job.context else None,
        context_path=str(job.context.path) if job.context else "",
        contexts={name: _context(name, value, stack) for name, value in job.contexts.items()},
        target=job.target,
        platform=platform,
        arguments=job.arguments,
        labels=job.labels,
        secrets=Secrets(values=job.secrets),
        ssh=job.ssh,
        no_cache=job.no_cache,
        no_cache_stages=job.no_cache_stages,
        pull=job.pull,
        network=job.network,
        extra_hosts=job.extra_hosts,
        insecure_allowed="security.insecure" in job.entitlements,
        limits=job.limits,
        now=time.time(),
        epoch=_epoch(job),
        clamp=clamp,
    )


def _context(name: str, value: Context, stack: ExitStack) -> str | Tree:
    if isinstance(value, LayoutPlace):
        return layout_reference(name, value.digest)
    return value if isinstance(value, str) else _tree(value, stack)


def _tree(place: Place, stack: ExitStack) -> Tree:
    root = os.open(place.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, root)
    return Tree(root=root, ignore=place.ignore)


def _epoch(job: Job) -> int | None:
    text = job.arguments.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return next((one.epoch for one in job.outputs if one.epoch is not None), None)
    if not text.isascii() or not text.isdecimal():
        raise InvalidParameter(f"invalid SOURCE_DATE_EPOCH: {text!r}")
    return int(text)


def _invocation(job: Job, identity: str, started: float) -> Invocation:
    arguments = {f"build-arg:{name}": value for name, value in job.arguments.items()}
    arguments |= {f"label:{name}": value for name, value in job.labels.items()}
    if job.target:
        arguments["target"] = job.target
    return Invocation(
        id=identity,
        started=started,
        finished=time.time(),
        dockerfile=job.filename,
        arguments=arguments,
        secrets=tuple(job.secrets),
        ssh=tuple(job.ssh),
        context=job.origin,
        local=job.origin is None,
        source="\n".join(job.file.source),
    )


def _identity(made: list[Made], built: list[Built]) -> str:
    """What ``--iidfile`` and ``-q`` tell."""
    for one in made:
        if one.assembled is not None:
            images = one.assembled.images
            return str(images[0].id if len(images) == 1 else one.assembled.target.digest)
    return str(built[0].image.id)


def _metadata(made: list[Made], results: list[Result], identity: str) -> dict[str, Json]:
    found: dict[str, Json] = {"buildx.build.ref": f"sampan/sampan/{identity}"}
    for result in results:
        suffix = f"/{result.built.image.platform}" if len(results) > 1 else ""
        for one in result.attestations:
            if one.name == "provenance.json":
                found[f"buildx.build.provenance{suffix}"] = one.predicate
    for output in made:
        found |= output.metadata
    return found


class Prefixed:
    """Progress of one platform among several: names and ids say which."""

    def __init__(self, inner: Progress, prefix: str) -> None:
        self._inner = inner
        self._prefix = prefix

    def _own(self, vertex: Vertex) -> Vertex:
        name = vertex.name.replace("[", f"[{self._prefix}", 1)
        return replace(vertex, id=self._prefix + vertex.id, name=name)

    def started(self, vertex: Vertex) -> None:
        """See :class:`sampan.build.progress.Progress`."""
        self._inner.started(self._own(vertex))

    def log(self, vertex: Vertex, stream: int, data: bytes) -> None:
        """See :class:`sampan.build.progress.Progress`."""
        self._inner.log(self._own(vertex), stream, data)

    def completed(self, vertex: Vertex, *, cached: bool = False, error: str = "") -> None:
        """See :class:`sampan.build.progress.Progress`."""
        self._inner.completed(self._own(vertex), cached=cached, error=error)

    def warning(self, vertex: Vertex | None, message: str) -> None:
        """See :class:`sampan.build.progress.Progress`."""
        self._inner.warning(self._own(vertex) if vertex else None, message)


__all__ = ["Deliver", "Finished", "Job", "Jobs", "Place", "named", "warn"]
