"""What stages are made of, told without making them: keys that need no result of any step.

A copy from another stage has a key of the content it brings, so that a stage made anew with the
same result invalidates nothing. But to know that content the stage must be there. Its *definition*
(instructions, base, files of the context, the definitions of other stages) is known without it, as
BuildKit's fast cache keys are: once a copy from a stage of some definition has been made, the same
is taken from the cache by that definition, and the stage is neither built nor fetched.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.build.copying import digest, items
from sampan.build.keys import definition_key
from sampan.build.remote import is_remote
from sampan.build.selection import Tree
from sampan.build.stages import Stage
from sampan.build.steps import CopyStep, MakeDirectoryStep, RunStep, Step, evaluate
from sampan.dockerfile.config import Config
from sampan.errors import SampanError

if TYPE_CHECKING:
    from sampan.build.solver import Build


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """A stage as it would be made.

    ``definitions`` are those of its steps, "" from one on whose inputs cannot be told; ``key`` is
    the last of them, that of the whole.
    """

    steps: tuple[Step, ...]
    config: Config
    arguments: Mapping[str, str]
    author: str
    definitions: tuple[str, ...]
    key: str


class Outlines:
    """The outlines of one build's stages, each made once."""

    def __init__(self, build: Build) -> None:
        self._build = build
        self._tasks: dict[int, asyncio.Task[Outline]] = {}
        #: The definitions of steps that are to be done anew, or take from such.
        self.fresh: set[str] = set()

    async def of(self, stage: Stage) -> Outline:
        """The outline of a stage; images it is based on are found, no step is done."""
        task = self._tasks.get(stage.index)
        if task is None:
            task = self._build.group.create_task(self._make(stage))
            self._tasks[stage.index] = task
        return await asyncio.shield(task)

    async def _make(self, stage: Stage) -> Outline:
        build = self._build
        earlier = build.earlier(stage, build.plan.base_of(stage), base=True)
        config: Config
        arguments: Mapping[str, str] = {}
        if earlier is not None:
            below = await self.of(earlier)
            config, arguments = below.config, below.arguments
            author, key = below.author, below.key
        else:
            root = await build.root(stage)
            config, author, key = root.config, root.author, root.key
        found = evaluate(
            stage.steps,
            config,
            given=build.request.arguments,
            global_arguments=build.plan.arguments,
            inherited=arguments,
            escape=build.request.file.escape,
        )
        definitions = []
        for step in found.steps:
            key = await self._definition(stage, step, key)
            definitions.append(key)
        return Outline(
            steps=found.steps,
            config=found.config,
            arguments=found.arguments,
            author=found.author or author,
            definitions=tuple(definitions),
            key=key,
        )

    async def _definition(self, stage: Stage, step: Step, below: str) -> str:
        build, action = self._build, step.action
        if action is None:
            return below
        if not below:
            return ""
        contents: dict[str, str] = {}
        for name, copy in _inputs(action):
            content = await self._content(stage, name, copy)
            if content is None:
                return ""
            contents[f"{name}:{','.join(copy.sources)}"] = content
        visible = action
        if isinstance(action, RunStep):
            visible = dataclasses.replace(action, hidden_environment=())
            build.reaches(action)
        written = json.dumps(dataclasses.asdict(visible), sort_keys=True)
        circumstances = build.circumstances if isinstance(action, RunStep) else ""
        user = step.config.get("User") if isinstance(action, MakeDirectoryStep) else ""
        kind = type(action).__name__
        around = f"{circumstances}{user}"
        key = definition_key(below, kind, written, contents, around, build.epoch)
        if build.fresh(stage) or not self.fresh.isdisjoint((below, *contents.values())):
            self.fresh.add(key)
        return key

    async def _content(self, stage: Stage, name: str, copy: CopyStep) -> str | None:
        """What a source stands for; None when only making the step can tell."""
        build = self._build
        if copy.add and any(is_remote(path) for path in copy.sources):
            return None  # may be something else today
        earlier = build.earlier(stage, name) if name else None
        if earlier is not None:
            return (await self.of(earlier)).key or None
        try:
            tree = await build.source(stage, name)
            if isinstance(tree, Tree) or tree is None:
                return await build.tools.in_thread(_hashed, copy, tree, build)
        except SampanError:
            return None  # is told when the step is done, with its line
        return tree.key


def _inputs(action: RunStep | CopyStep | MakeDirectoryStep) -> list[tuple[str, CopyStep]]:
    """Where a step takes files from, and which, as copies."""
    match action:
        case CopyStep():
            return [(action.from_, action)]
        case RunStep():
            return [
                (mount.from_, taking(mount.source))
                for mount in action.mounts
                if mount.type == "bind" or (mount.type == "cache" and mount.from_)
            ]
    return []


def taking(path: str) -> CopyStep:
    """A copy of all that is at ``path``."""
    return CopyStep(
        add=False,
        from_="",
        sources=(path or ".",),
        inline=(),
        destination="/",
        chown="",
        chmod="",
        link=False,
        parents=False,
        exclude=(),
        keep_git_dir=False,
        checksum="",
        unpack=None,
    )


def _hashed(copy: CopyStep, tree: Tree | None, build: Build) -> str:
    found = items(
        dataclasses.replace(copy, chmod="", destination="/d/"),
        tree,
        owner=None,
        destination_is_directory=True,
        mtime=0,
    )
    return digest(found, build.tools.hashes)
