"""Solve a build: stages in parallel, each step from the cache or done anew.

A step's key is known before it runs: its parent's key, what it says, and the content it sees.
Stages that nothing needs are never touched; when a step fails the others are cancelled and the
step's last output is part of the error.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.parse
from dataclasses import replace

import msgspec

from sampan.build import work
from sampan.build.cache import Layer, Record
from sampan.build.finish import Outcome, finish, moment
from sampan.build.imports import defined, find
from sampan.build.keys import base_key, setting_key
from sampan.build.outline import Outlines
from sampan.build.progress import Progress, Vertex
from sampan.build.request import BuildRequest, Built, Material
from sampan.build.selection import Tree
from sampan.build.stages import SCRATCH, Plan, Stage, plan, platform_arguments, sources
from sampan.build.steps import DEFAULT_PATH, CopyStep, RunStep, Step, evaluate
from sampan.build.tools import StageResult, Tools
from sampan.dockerfile.config import Config
from sampan.dockerfile.instructions import Copy, Instruction, Run, Setting
from sampan.errors import SampanError, Unsupported
from sampan.image import Image
from sampan.image.document import History
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.model.reference import Reference


async def solve(request: BuildRequest, tools: Tools, progress: Progress) -> Built:
    """Build one image for one platform.

    Raises DockerfileError, StepFailed, and what bases, copies and the executor raise. Cancelling
    the task stops running steps; nothing of them stays.
    """
    build = Build(request, tools, progress)
    target = build.plan.target(request.target)
    try:
        async with asyncio.TaskGroup() as group:
            build.group = group
            result = await build.stage(target)
    except BaseExceptionGroup as errors:
        raise _first(errors) from None
    image = await tools.in_thread(
        finish,
        tools.workspace.content,
        Outcome(
            layers=result.layers,
            config=result.config,
            history=result.history,
            platform=result.platform,
            author=result.author,
        ),
        labels=request.labels,
        created=result.created if request.epoch is None else moment(request.epoch),
    )
    return Built(
        image=image,
        layers=result.layers,
        cached=not build.ran,
        inherited=result.inherited,
        materials=tuple(sorted(build.materials, key=lambda one: one.uri)),
        hermetic=build.hermetic,
        records=result.records,
        all_records=tuple(build.records.values()),
    )


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that made the others: a group's first leaf."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class Build:
    """The state of one build: its plan and the stages being made."""

    group: asyncio.TaskGroup

    def __init__(self, request: BuildRequest, tools: Tools, progress: Progress) -> None:
        self.request = request
        self.tools = tools
        self.progress = progress
        self.plan: Plan = plan(
            request.file,
            request.arguments,
            platform_arguments(request.platform, Platform.host(), request.target),
        )
        self.epoch = (
            "" if request.epoch is None else f"{request.epoch}{'' if request.clamp else '+'}"
        )
        self.ran = False
        self.hermetic = True
        self.materials: set[Material] = set()
        self.records: dict[str, Record] = {}
        self._stages: dict[int, asyncio.Task[StageResult]] = {}
        self._roots: dict[int, asyncio.Task[StageResult]] = {}
        self._bases: dict[tuple[str, str], asyncio.Task[StageResult]] = {}
        self._outlines = Outlines(self)
        needed = self.plan.needed(self.plan.target(request.target))
        self._steps = sum(len(stage.steps) + 1 for stage in needed)
        self._numbers = {}
        number = 0
        for stage in needed:
            self._numbers[stage.index] = number
            number += len(stage.steps) + 1

    async def stage(self, stage: Stage) -> StageResult:
        """The finished stage; made once, however many need it."""
        return await asyncio.shield(self._start(stage))

    def _start(self, stage: Stage) -> asyncio.Task[StageResult]:
        task = self._stages.get(stage.index)
        if task is None:
            task = self.group.create_task(self._make(stage))
            self._stages[stage.index] = task
        return task

    async def _make(self, stage: Stage) -> StageResult:
        platform = self.plan.platform_of(stage, self.request.platform)
        definitions = await self._ahead(stage)
        base = await self._from(stage, platform)
        found = evaluate(
            stage.steps,
            base.config,
            given=self.request.arguments,
            global_arguments=self.plan.arguments,
            inherited=base.arguments,
            escape=self.request.file.escape,
        )
        result = replace(base, arguments=found.arguments, author=found.author or base.author)
        shown = int(self._base_counts(stage))
        total = shown + sum(step.action is not None for step in found.steps)
        for position, step in enumerate(found.steps, 2):
            shown += step.action is not None
            vertex = self._vertex(stage, step, position, f"{shown}/{total}")
            definition = definitions[position - 2] if definitions else ""
            result = await self._step(stage, vertex, step, result, definition)
        return replace(result, config=found.config)

    async def _ahead(self, stage: Stage) -> tuple[str, ...]:
        """Start the stages this one will wait for, so that they are made at the same time.

        A step that the cache knows by its definition waits for none; the definitions are returned,
        of a stage that takes from others.
        """
        earlier = self.earlier(stage, self.plan.base_of(stage), base=True)
        if earlier is not None:
            self._start(earlier)
        if not any(
            self.earlier(stage, name) is not None
            for _, instruction in stage.steps
            for name in sources(instruction)
        ):
            return ()
        outline = await self._outlines.of(stage)
        for step, definition in zip(outline.steps, outline.definitions, strict=True):
            if self._defined(definition) is None:
                for one in self._taken_from(stage, step):
                    self._start(one)
        return outline.definitions

    def earlier(self, stage: Stage, name: str, *, base: bool = False) -> Stage | None:
        """The stage before ``stage`` that ``name`` means there; a ``base`` has no number."""
        if base and name.isdecimal():
            return None
        return self.plan.find(name, before=stage.index)

    def _taken_from(self, stage: Stage, step: Step) -> list[Stage]:
        """The stages a step takes from."""
        names: list[str] = []
        if isinstance(step.action, CopyStep):
            names = [step.action.from_]
        elif isinstance(step.action, RunStep):
            names = [mount.from_ for mount in step.action.mounts]
        found = (self.earlier(stage, name) for name in names if name)
        return [one for one in found if one is not None]

    def _defined(self, definition: str) -> str | None:
        """The key of the step that was made of ``definition`` before, unless all is wanted."""
        if not definition or self.tools.whole or definition in self._outlines.fresh:
            return None
        key = self.tools.cache.defined(definition)
        return key or defined(self.tools.imports, definition)

    def _base_counts(self, stage: Stage) -> bool:
        """Whether FROM is a step to show: an earlier stage has been shown, scratch is nothing."""
        name = self.plan.base_of(stage)
        return self.earlier(stage, name, base=True) is None and name != SCRATCH

    def _name(self, stage: Stage, count: str, text: str) -> str:
        """A step as BuildKit names it; a stage alone in its file has no title."""
        title = stage.base.name or (stage.title if len(self.plan.stages) > 1 else "")
        return f"[{title} {count}] {text}" if title else f"[{count}] {text}"

    def _vertex(self, stage: Stage, step: Step, position: int, count: str) -> Vertex:
        text = " ".join(step.node.original.split())
        return Vertex(
            id=f"{stage.index}/{position}",
            name=self._name(stage, count, text),
            stage=stage.title,
            step=self._numbers[stage.index] + position,
            steps=self._steps,
            instruction=text,
            metadata=step.action is None,
            line=step.node.start,
        )

    async def root(self, stage: Stage) -> StageResult:
        """The image a stage is based on; found and shown once."""
        task = self._roots.get(stage.index)
        if task is None:
            platform = self.plan.platform_of(stage, self.request.platform)
            task = self.group.create_task(self._shown_base(stage, platform))
            self._roots[stage.index] = task
        return await asyncio.shield(task)

    async def _from(self, stage: Stage, platform: Platform) -> StageResult:
        if self.earlier(stage, self.plan.base_of(stage), base=True) is None:
            return await self.root(stage)
        return await self._shown_base(stage, platform)

    async def _shown_base(self, stage: Stage, platform: Platform) -> StageResult:
        name = self.plan.base_of(stage)
        earlier = self.earlier(stage, name, base=True)
        acting = sum(isinstance(one, Run | Copy) or _is_workdir(one) for _, one in stage.steps)
        vertex = Vertex(
            id=f"{stage.index}/1",
            name=self._name(stage, f"1/{1 + acting}", f"FROM {name}"),
            stage=stage.title,
            step=self._numbers[stage.index] + 1,
            steps=self._steps,
            instruction=f"FROM {name}" + (f" AS {stage.base.name}" if stage.base.name else ""),
            metadata=not self._base_counts(stage),
            line=stage.base_line,
        )
        self.progress.started(vertex)
        try:
            if earlier is not None:
                result = await self.stage(earlier)
            else:
                result = await self._reference(name, platform)
        except BaseException as error:
            self.progress.completed(vertex, error=str(error) or type(error).__name__)
            raise
        self.progress.completed(vertex, cached=False)
        return result

    async def _reference(self, name: str, platform: Platform) -> StageResult:
        """The root of an image (or of nothing) as a stage to go on from; found once."""
        task = self._bases.get((name, str(platform)))
        if task is None:
            task = self.group.create_task(self._image(name, platform))
            self._bases[name, str(platform)] = task
        return await asyncio.shield(task)

    async def _image(self, name: str, platform: Platform) -> StageResult:
        named = self.request.contexts.get(name, name)
        if isinstance(named, Tree):
            raise Unsupported(f"FROM {name}: a local directory cannot be the base of a stage")
        if named == SCRATCH:
            return StageResult(
                key=base_key("", str(platform)),
                platform=platform,
                config={"Env": [f"PATH={DEFAULT_PATH}"], "WorkingDir": "/"},
                arguments={},
            )
        image = await self.tools.executor.base(named, platform, pull=self.request.pull)
        target = image.target.digest
        self.materials.add(
            Material(
                uri=package_url(named, platform), algorithm=target.algorithm, digest=target.hex
            )
        )
        return _of_image(image)

    async def source(self, stage: Stage, name: str) -> StageResult | Tree | None:
        """What COPY --from or a mount's ``from`` names; the main context for ""."""
        if not name:
            return self.request.context
        earlier = self.earlier(stage, name)
        if earlier is not None:
            return await self.stage(earlier)
        named = self.request.contexts.get(name)
        if isinstance(named, Tree):
            return named
        return await self._reference(name, self.request.platform)

    async def _step(
        self, stage: Stage, vertex: Vertex, step: Step, result: StageResult, definition: str
    ) -> StageResult:
        author = step.author or result.author
        record = await self._known(stage, step, result, definition)
        if record is None:
            for one in self._taken_from(stage, step):
                await self.stage(one)  # so that the step is not told to go on meanwhile
        self.progress.started(vertex)
        if step.action is None:
            key = setting_key(result.key, step.config, step.created_by)
            seen = self.tools.cache.seen(key) and not self.fresh(stage)
            self.progress.completed(vertex, cached=seen)
            history = result.history
            if step.created_by:
                history = (*history, self._history(step, result.created, empty=True))
            return replace(result, config=step.config, history=history)
        cached = True
        try:
            if record is None:
                record, cached = await work.perform(self, stage, vertex, step, result)
        except BaseException as error:
            if isinstance(error, SampanError) and error.lines is None:
                error.lines = (step.node.start, step.node.end)
            self.progress.completed(vertex, error=str(error) or type(error).__name__)
            raise
        self.progress.completed(vertex, cached=cached)
        self.ran |= not cached
        if definition and self._taken_from(stage, step):
            record = replace(record, definition=definition)
            self.tools.cache.define(definition, record.key)
        layers = (*result.layers, record.layer) if record.layer else result.layers
        created = moment(record.created)
        self.records[record.key] = record
        return replace(
            result,
            key=record.key,
            records=(*result.records, record),
            layers=layers,
            config=step.config,
            author=author,
            created=created,
            history=(
                *result.history,
                self._history(step, created, empty=record.layer is None),
            ),
        )

    async def _known(
        self, stage: Stage, step: Step, result: StageResult, definition: str
    ) -> Record | None:
        """The record of a step that takes from other stages, if the cache knows what came of it."""
        key = self._defined(definition) if self._taken_from(stage, step) else None
        if key is None:
            return None
        return await self.tools.in_thread(work.cached, self, stage, key, result)

    def _history(self, step: Step, created: str, *, empty: bool) -> History:
        epoch = self.request.epoch
        return History(
            created=created if epoch is None else moment(epoch),
            created_by=step.created_by,
            comment="buildkit.dockerfile.v0",
            author=step.author or None,
            empty_layer=True if empty else None,
        )

    def cached(self, key: str, stage: Stage, below: Digest | None) -> Record | None:
        """The record of ``key`` if the cache may be used and its layer is still there.

        What only an imported cache has is taken in, on top of chain ``below``. Blocking.
        """
        tools = self.tools
        if self.fresh(stage):
            return None
        record = tools.cache.find(key, int(time.time()))
        if (
            record
            and record.layer
            and not tools.workspace.content.exists(record.layer.descriptor.digest)
        ):
            record = None
        if record is None and tools.imports:
            record = find(tools.imports, key, below, tools.workspace)
            if record is not None:
                tools.cache.store(record)
        return record

    def reaches(self, action: RunStep) -> None:
        """Note whether a program that was run for this build could reach a network."""
        self.hermetic &= action.network == "none" or (
            action.network == "default" and self.request.network == "none"
        )

    @property
    def circumstances(self) -> str:
        """What of the request programs see, besides what their steps say."""
        hostname = self.request.arguments.get("BUILDKIT_SANDBOX_HOSTNAME", "")
        return self.request.network + json.dumps(self.request.extra_hosts) + hostname

    def fresh(self, stage: Stage) -> bool:
        """Whether a stage is to be built without the cache."""
        request = self.request
        return request.no_cache or stage.title.lower() in request.no_cache_stages

    def keep(self, key: str, result: StageResult, step: Step, layer: Layer | None) -> Record:
        """Record what a step made."""
        record = Record(
            key=key,
            parent=result.key,
            kind="regular",
            description=step.created_by,
            layer=layer,
            size=layer.descriptor.size if layer else 0,
            created=int(self.request.now),
        )
        self.tools.cache.store(record)
        return record


def _is_workdir(instruction: Instruction) -> bool:
    return isinstance(instruction, Setting) and instruction.keyword == "workdir"


def _of_image(image: Image) -> StageResult:
    layers = tuple(
        Layer(diff_id=diff_id, descriptor=descriptor, chain_id=chain)
        for diff_id, descriptor, chain in zip(
            image.config.diff_ids, image.manifest.layers, image.chain_ids, strict=True
        )
    )
    config: Config = msgspec.to_builtins(image.config.defaults)
    return StageResult(
        key=base_key(str(image.chain_id or ""), str(image.platform)),
        platform=image.platform,
        layers=layers,
        config=config,
        history=image.config.history,
        arguments={},
        author=image.config.document.author or "",
        created=image.config.created,
        inherited=len(layers),
    )


def package_url(reference: str, platform: Platform) -> str:
    """The package URL of an image (https://github.com/package-url/purl-spec, docker)."""
    name = Reference.parse(reference).with_default_tag()
    version = str(name.digest) if name.digest else name.tag
    where = urllib.parse.quote(str(platform), safe="")
    return f"pkg:docker/{name.familiar_name}@{version}?platform={where}"
