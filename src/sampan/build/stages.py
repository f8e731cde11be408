"""A Dockerfile's stages, which of them a target needs, and its global arguments (pure).

Spec: spec/dockerfile/reference.md, "FROM", "Understand how ARG and FROM interact" and "Automatic
platform ARGs in the global scope".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sampan.dockerfile.instructions import Arg, Copy, From, Instruction, Run, interpret
from sampan.dockerfile.lexer import expand
from sampan.dockerfile.parser import Dockerfile, DockerfileError, Node
from sampan.dockerfile.suggest import hint
from sampan.errors import InvalidParameter
from sampan.model.platform import Platform

SCRATCH = "scratch"
RESERVED = frozenset({SCRATCH, "context"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One build stage as written: FROM and what follows, up to the next FROM."""

    index: int
    base: From
    base_line: int
    steps: tuple[tuple[Node, Instruction], ...]

    @property
    def title(self) -> str:
        """How progress names the stage."""
        return self.base.name or f"stage-{self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The stages of a file, and the values FROM lines are expanded with."""

    stages: tuple[Stage, ...]
    arguments: Mapping[str, str]

    def find(self, name: str, before: int | None = None) -> Stage | None:
        """The stage called ``name`` or numbered so, among those before stage ``before``."""
        candidates = self.stages[: len(self.stages) if before is None else before]
        for stage in reversed(candidates):
            if stage.base.name and stage.base.name == name.lower():
                return stage
        if name.isdecimal() and int(name) < len(candidates):
            return candidates[int(name)]
        return None

    def target(self, name: str = "") -> Stage:
        """The stage to build: the named one, else the last. Raises :class:`InvalidParameter`."""
        if not name:
            return self.stages[-1]
        stage = self.find(name)
        if stage is None:
            like = hint(name.lower(), [one.base.name for one in self.stages if one.base.name])
            raise InvalidParameter(f'target stage "{name}" could not be found{like}')
        return stage

    def base_of(self, stage: Stage) -> str:
        """What the stage is FROM, variables replaced."""
        base = expand(stage.base.base, self.arguments).text
        if not base:
            raise DockerfileError(
                f"base name ({stage.base.base}) should not be blank", stage.base_line, bare=True
            )
        return base

    def platform_of(self, stage: Stage, default: Platform) -> Platform:
        """The platform of the stage: ``--platform`` with variables replaced, else the default."""
        written = stage.base.platform
        if not written:
            return default
        expansion = expand(written, self.arguments)
        like = "".join(hint(name, self.arguments) for name in sorted(expansion.undefined))
        if not expansion.text:
            message = f"empty platform value from expression {written}{like}"
            raise DockerfileError(message, stage.base_line, bare=True)
        try:
            return Platform.parse(expansion.text)
        except InvalidParameter as error:
            message = f"failed to parse platform {written}: {error.message}{like}"
            raise DockerfileError(message, stage.base_line, bare=True) from error

    def needed(self, target: Stage) -> tuple[Stage, ...]:
        """The stages ``target`` is built from, itself last, each after what it needs."""
        order: list[Stage] = []

        def visit(stage: Stage) -> None:
            if stage in order:
                return
            for name in self._sources(stage):
                source = self.find(name, before=stage.index)
                if source is not None:
                    visit(source)
                elif name.isdecimal():
                    raise InvalidParameter(f"invalid from flag value {name}: no such stage before")
            order.append(stage)

        visit(target)
        return tuple(order)

    def _sources(self, stage: Stage) -> Iterator[str]:
        base = self.base_of(stage)
        if not base.isdecimal():
            yield base
        for _, instruction in stage.steps:
            yield from sources(instruction)


def sources(instruction: Instruction) -> Iterator[str]:
    """What COPY --from and RUN --mount=from name, unexpanded."""
    if isinstance(instruction, Copy) and instruction.from_:
        yield instruction.from_
    elif isinstance(instruction, Run):
        for mount in instruction.parsed_mounts(str):
            if mount.from_:
                yield mount.from_


def platform_arguments(target: Platform, build: Platform, stage: str = "") -> dict[str, str]:
    """The arguments every FROM line may use: those of platforms, and ``TARGETSTAGE``.

    ``stage`` is the target as the caller named it; :func:`plan` fills in the last stage's name.
    """
    found = {"TARGETSTAGE": stage}
    for prefix, platform in (("TARGET", target), ("BUILD", build)):
        found |= {
            f"{prefix}PLATFORM": str(platform),
            f"{prefix}OS": platform.os,
            f"{prefix}OSVERSION": platform.os_version,
            f"{prefix}ARCH": platform.architecture,
            f"{prefix}VARIANT": platform.variant,
        }
    return found


def _last_name(file: Dockerfile) -> str:
    """The name of the last stage, which is built when nothing else is asked for."""
    froms = [node for node in file.nodes if node.keyword == "from"]
    instruction = interpret(froms[-1]) if froms else None
    return instruction.name if isinstance(instruction, From) else ""


def plan(file: Dockerfile, given: Mapping[str, str], predefined: Mapping[str, str]) -> Plan:
    """Group a file into stages.

    ``given`` are the caller's build arguments; ``predefined`` those of the platform, which the
    caller's replace. Raises :class:`DockerfileError` for an instruction that is wrong or stands
    before the first FROM.
    """
    arguments = dict(predefined)
    if arguments.get("TARGETSTAGE") == "":
        arguments["TARGETSTAGE"] = _last_name(file) or "default"
    arguments |= {name: given[name] for name in predefined if name in given}
    stages: list[Stage] = []
    steps: list[tuple[Node, Instruction]] = []
    for node in file.nodes:
        instruction = interpret(node)
        if isinstance(instruction, From):
            steps = []
            stages.append(
                Stage(index=len(stages), base=instruction, base_line=node.start, steps=())
            )
        elif stages:
            steps.append((node, instruction))
            last = stages[-1]
            stages[-1] = Stage(
                index=last.index, base=last.base, base_line=last.base_line, steps=tuple(steps)
            )
        elif isinstance(instruction, Arg):
            for name, default in instruction.pairs:
                value = given.get(name)
                if value is None and default is not None:
                    value = expand(default, arguments, file.escape).text
                if value is not None:
                    arguments[name] = value
        else:
            raise DockerfileError("no build stage in current context", node.start)
    if not stages:
        raise DockerfileError("dockerfile contains no stages to build", file.nodes[0].start)
    return Plan(stages=tuple(stages), arguments=arguments)
