"""Graphs of LLB that clients send: solved for a job, looked into, made results of.

A result that a client is told of is solved when somebody needs it: when it is read, asked to be
evaluated, or exported.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from sampan.build.executor import Executor, Secrets
from sampan.build.imports import Imported
from sampan.build.outputs import Attest, attest
from sampan.build.provenance import Invocation
from sampan.build.request import Built
from sampan.build.tools import Tools
from sampan.buildkit.attributes import flag
from sampan.buildkit.caller import agent, credentials, secret
from sampan.buildkit.clientstore import SessionStore
from sampan.buildkit.contexts import Contexts
from sampan.buildkit.errors import graph_error
from sampan.buildkit.jobs import Job, Jobs, Part, identity_of, part_of
from sampan.buildkit.llb.graph import Graph, graph, platform_of
from sampan.buildkit.llb.images import image_of
from sampan.buildkit.llb.solver import Solver
from sampan.buildkit.llb.sources import IMAGE, LOCAL, OCI_LAYOUT, Sources, image_root
from sampan.buildkit.llb.values import EMPTY, Root, Value, tree
from sampan.buildkit.policies import PolicedExecutor
from sampan.buildkit.protocol import gateway_pb2 as gateway
from sampan.buildkit.protocol import ops_pb2 as ops
from sampan.engine.buildcache import Caches
from sampan.engine.buildlayouts import Layouts
from sampan.engine.buildoutputs import Outputs
from sampan.engine.builds import Builds
from sampan.engine.core import Core
from sampan.errors import InvalidParameter, NotFound, SampanError, Unsupported
from sampan.image import Image
from sampan.model.platform import Platform

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobClient:
    """What programs get of the client of a job. See :class:`sampan.buildkit.llb.execs.Client`."""

    job: Job
    scratch: Path

    @property
    def entitlements(self) -> frozenset[str]:
        """See :class:`sampan.buildkit.llb.execs.Client`."""
        return self.job.entitlements

    async def secrets(self, identities: Sequence[str]) -> Secrets:
        """See :class:`sampan.buildkit.llb.execs.Client`."""
        values = {}
        for identity in dict.fromkeys(identities):
            value = await secret(self.job.session, identity)
            if value is not None:
                values[identity] = value
        return Secrets(values=values)

    async def agents(self, identities: Sequence[str]) -> Mapping[str, str]:
        """See :class:`sampan.buildkit.llb.execs.Client`."""
        found = {}
        for identity in dict.fromkeys(identities):
            with suppress(NotFound, Unsupported, SampanError):  # may not be required
                made = agent(self.job.session, identity, self.scratch)
                found[identity] = await self.job.stack.enter_async_context(made)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Graphs:
    """The graphs of the jobs of one engine."""

    core: Core
    builds: Builds
    contexts: Contexts
    jobs: Jobs

    def tools(self, job: Job, imports: tuple[Imported, ...] = ()) -> Tools:
        """What a solver of a job works with."""
        tools = self.builds.tools(lambda domain: credentials(job.session, domain))
        layouts = Layouts(
            core=self.core, stores=lambda name: SessionStore(job.session, name, kind="oci")
        )
        executor: Executor = PolicedExecutor(tools.executor, job.policy)
        return replace(
            tools,
            executor=layouts.beside(executor),
            imports=imports,
            whole=job.whole,
            policy=job.policy,
        )

    async def solver(self, job: Job) -> Solver:
        """The solver of a job; whoever ends the job closes it before what it works with."""
        async with job.solving:
            if job.solver is None:
                imports = await caches(self.core, job).imports(job.cache_imports, {})
                job.epoch = _epoch(job.attributes)
                job.solver = self._solver(job, self.tools(job, imports))
        return job.solver

    def _solver(self, job: Job, tools: Tools) -> Solver:
        return Solver(
            tools=tools,
            sources=Sources(
                tools=tools,
                session=job.session,
                contexts=self.contexts,
                threads=self.builds.threads,
                status=job.status,
                stack=job.stack,
                built=self._built,
            ),
            status=job.status,
            client=JobClient(job=job, scratch=self.builds.scratch),
            latest=job.epoch,
        )

    def _built(self, source: ops.SourceOp) -> Built | None:
        identity = identity_of(source)
        return self.jobs.part(identity).result.built if identity else None

    def defined(self, job: Job, definition: ops.Definition) -> str:
        """The id of the result a definition stands for, which is not made yet; "" for nothing.

        Raises InvalidParameter.
        """
        found = graph(definition)
        if found is None:
            return ""
        identity = uuid.uuid4().hex
        job.graphs[identity] = found
        return identity

    async def input(self, job: Job, definition: ops.Definition) -> str:
        """The part that an input of a frontend is, made if it has to be."""
        if not getattr(definition, "def"):
            raise InvalidParameter("invalid nil input definition to definition op")
        identity = part_of(definition) or self.defined(job, definition)
        return (await self.part(job, identity)).id

    async def value(self, job: Job, identity: str) -> Value:
        """What a result holds. Raises NotFound, GRPCError with the place in the client's file."""
        if not identity:
            return EMPTY
        if identity not in job.graphs:
            return image_root(self.jobs.part(identity).result.built.image)
        return await self._solved(job, job.graphs[identity])

    async def _solved(self, job: Job, found: Graph) -> Value:
        try:
            return await (await self.solver(job)).value(found)
        except SampanError as error:
            raise graph_error(error, found.source, job.status.failed) from error

    async def described(
        self, job: Job, source: ops.SourceOp, platform: ops.Platform, mode: str
    ) -> gateway.ResolveSourceMetaResponse:
        """What a source is, without what it holds. Raises what fetching it raises."""
        found = gateway.ResolveSourceMetaResponse(Source=source)
        sources = (await self.solver(job)).sources
        kind = source.identifier.partition("://")[0]
        if kind in (IMAGE, OCI_LAYOUT):
            image = await sources.named(source, platform_of(platform), pull=mode == "pull")
            found.Image.Digest = str(image.target.digest)
            found.Image.Config = image.config.raw
        elif kind != LOCAL:
            fetched = await sources.fetched(source)
            if kind == "git":
                found.Git.Checksum = fetched.digest
                found.Git.Ref = source.identifier.partition("#")[2].partition(":")[0]
            else:
                (file,) = os.listdir(fetched.directory)
                found.HTTP.Checksum = f"{fetched.algorithm}:{fetched.digest}"
                found.HTTP.Filename = file
        return found

    async def look(
        self, job: Job, identity: str, function: Callable[..., T], *arguments: object
    ) -> T:
        """Call ``function`` with the descriptor of a result's root, and ``arguments``."""
        value = await self.value(job, identity)

        def looked() -> T:
            with tree(value, self.builds.workspace) as found:
                return function(found.root, *arguments)

        return await self.builds.threads.run_long(looked)

    async def part(self, job: Job, identity: str, config: bytes = b"", platform: str = "") -> Part:
        """A result as an image; ``config`` is what the client says of it."""
        if identity and identity not in job.graphs:
            return self.jobs.part(identity)
        solver = await self.solver(job)
        root, own = EMPTY, Platform.host()
        if identity:
            found = job.graphs[identity]
            root = await solver.rooted(await self._solved(job, found))
            own = found.nodes[found.target.digest].platform
        if platform:
            own = Platform.parse(platform)
        image = await self.builds.threads.run_long(
            image_of, self.core.content, root, config, own, job.epoch
        )
        asked = {
            key.partition(":")[2]: value
            for key, value in job.attributes.items()
            if key.startswith("attest:")
        }
        job.attest, job.inline_only = attestations(asked)
        built = _built_of(root, image, solver)
        invocation = _invocation(job)
        made = await Outputs(core=self.core).attested(
            built, job.attest, invocation, epoch=job.epoch
        )
        return job.keep(made, platform or str(image.platform), invocation)


def _epoch(attributes: Mapping[str, str]) -> int | None:
    text = attributes.get("build-arg:SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not text.isdecimal():
        raise InvalidParameter(f"invalid SOURCE_DATE_EPOCH: {text!r}")
    return int(text)


def _built_of(root: Root, image: Image, solver: Solver) -> Built:
    return Built(
        image=image,
        layers=root.layers,
        cached=False,
        inherited=root.inherited,
        materials=tuple(sorted(solver.sources.materials, key=lambda one: one.uri)),
        records=root.records,
        all_records=root.records,
    )


def _invocation(job: Job) -> Invocation:
    """The build as its provenance tells it: what the client's own frontend was asked for."""
    kept = ("build-arg:", "label:", "target")
    arguments = {key: value for key, value in job.attributes.items() if key.startswith(kept)}
    return Invocation(
        id=job.ref,
        started=job.started,
        finished=time.time(),
        dockerfile=job.attributes.get("filename", "Dockerfile").rpartition("/")[2],
        arguments=arguments,
    )


def caches(core: Core, job: Job) -> Caches:
    """The caches a job may import and export; directories are its client's."""
    return Caches(
        core=core,
        credentials=lambda domain: credentials(job.session, domain),
        progress=job.status,
        stores=lambda directory: SessionStore(job.session, directory),
    )


def attestations(asked: Mapping[str, str]) -> tuple[Attest, bool]:
    """Which attestations are asked for, and whether provenance is only for what leaves here."""
    found: dict[str, str] = {}
    inline_only = False
    for kind, text in asked.items():
        fields = [field for field in text.split(",") if field and field != f"type={kind}"]
        inline = [field for field in fields if field.partition("=")[0] == "inline-only"]
        inline_only |= any(flag("inline-only", field.partition("=")[2]) for field in inline)
        found[kind] = ",".join(field for field in fields if field not in inline)
    return attest(found), inline_only
