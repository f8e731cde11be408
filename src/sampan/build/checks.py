"""Build checks: what is legal in a Dockerfile but better not done (pure).

Which rules run and what they found; the rules themselves are in :mod:`sampan.build.rules`.
``# check=skip=A,B;error=true`` and ``BUILDKIT_DOCKERFILE_CHECK`` choose among them for a whole
file, the same comment right above an instruction for that instruction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sampan.build.rules import BUILT, EXPERIMENTAL, PARSED, PLANNED, WHOLE, Found, Subject
from sampan.build.stages import SCRATCH, Plan, Stage, plan, platform_arguments
from sampan.build.steps import Evaluation, evaluate
from sampan.dockerfile.config import Config
from sampan.dockerfile.ignore import IgnoreMatcher
from sampan.dockerfile.instructions import interpret
from sampan.dockerfile.parser import Dockerfile, DockerfileError, Node
from sampan.errors import InvalidParameter, SampanError
from sampan.model.platform import Platform

RULES = (*PARSED, *PLANNED, *BUILT)
_COMMENT = re.compile(r"check\s*=\s*(\S+)", re.IGNORECASE)
_PATH: Config = {"Env": ["PATH=/bin"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Warning:
    """One finding; ``start`` and ``end`` are lines of the Dockerfile, from one."""

    rule: str
    message: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which rules run: ``skip`` names (or ``all``), and whether findings fail the build."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False

    @classmethod
    def parse(cls, text: str) -> Choice:
        """``skip=A,B;error=true;experimental=all``; raises :class:`InvalidParameter`."""
        found: dict[str, str] = {}
        for part in filter(None, (part.strip() for part in text.split(";"))):
            key, equals, value = part.partition("=")
            if not equals or key.strip() not in ("skip", "error", "experimental"):
                raise InvalidParameter(f"invalid check option {part!r}")
            found[key.strip()] = value.strip()
        if found.get("error", "false") not in ("true", "false", "1", "0"):
            raise InvalidParameter(f"invalid check option error={found['error']!r}")
        return cls(
            skip=_names(found.get("skip", "")),
            experimental=_names(found.get("experimental", "")),
            error=found.get("error") in ("true", "1"),
        )

    def runs(self, rule: str) -> bool:
        """Whether ``rule`` is wanted."""
        if rule in EXPERIMENTAL:
            return bool({"all", rule} & self.experimental)
        return not {"all", rule} & self.skip

    def above(self, comments: Sequence[str]) -> Choice:
        """This choice for one instruction, with what the comments right above it add."""
        for comment in comments:
            if match := _COMMENT.match(comment):
                try:
                    more = Choice.parse(match[1])
                except InvalidParameter:
                    return self
                return replace(
                    self,
                    skip=self.skip | more.skip,
                    experimental=self.experimental | more.experimental,
                )
        return self


def _names(text: str) -> frozenset[str]:
    return frozenset(filter(None, (name.strip() for name in text.split(","))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found, in the order of lines, and why the file cannot be built if it cannot."""

    warnings: tuple[Warning, ...]
    error: SampanError | None = None

    def failure(self, choice: Choice) -> SampanError | None:
        """Why the build must fail: the file is wrong, or findings count as errors."""
        if self.error is None and self.warnings and choice.error:
            rules = ", ".join(dict.fromkeys(one.rule for one in self.warnings))
            return InvalidParameter(f"lint violation found for rules: {rules}")
        return self.error


def examine(
    file: Dockerfile,
    *,
    given: Mapping[str, str] | None = None,
    ignore: IgnoreMatcher | None = None,
    platform: Platform,
    bases: Mapping[int, Platform] | None = None,
    configs: Mapping[int, Config] | None = None,
    choice: Choice | None = None,
    target: str | None = None,
) -> Report:
    """What the wanted rules find before the file turns out to be wrong, if it is.

    ``given`` are build arguments, ``ignore`` the context's ``.dockerignore``, ``bases``
    and ``configs`` the platform and configuration of stages' base images where they are known.
    Of stages that ``target`` ("": the last) is not built from only what they are called and FROM
    is looked at; None looks at all.
    """
    choice = choice or Choice.parse(file.directives.get("check", ""))
    arguments = given or {}
    nodes, error = _interpreted(file)
    subject = Subject(file=file, nodes=nodes, ignore=ignore, platform=platform, bases=bases or {})
    found = list(_run(PARSED, subject, choice))
    try:
        if error is None:
            predefined = platform_arguments(platform, Platform.host(), target or "")
            planned = plan(file, arguments, predefined)
            stages, error = _planned(planned, platform)
            subject = replace(subject, plan=planned, stages=stages)
            found += _run(PLANNED, subject, choice)
        if error is None:
            wanted = planned.stages
            if target is not None:
                wanted = planned.needed(planned.target(target))
            built = _evaluated(file, planned, wanted, arguments, configs or {})
            subject = replace(subject, stages=wanted, built=built)
            subject = replace(subject, unknown=_unknown(planned, wanted, configs or {}))
            found += _run(BUILT, subject, choice)
    except SampanError as wrong:
        error = wrong
    return Report(
        warnings=tuple(sorted(found, key=lambda warning: (warning.start, warning.rule))),
        error=error,
    )


def _interpreted(file: Dockerfile) -> tuple[tuple[Node, ...], SampanError | None]:
    """The instructions up to the first that is wrong, with it, and why it is."""
    for number, node in enumerate(file.nodes, 1):
        try:
            interpret(node)
        except DockerfileError as error:
            return file.nodes[:number], error
    return file.nodes, None


def _planned(planned: Plan, default: Platform) -> tuple[tuple[Stage, ...], SampanError | None]:
    """The stages up to the first whose FROM is wrong, with it, and why it is."""
    for number, stage in enumerate(planned.stages, 1):
        try:
            planned.base_of(stage)
            planned.platform_of(stage, default)
        except SampanError as error:
            return planned.stages[:number], error
    return planned.stages, None


def _evaluated(
    file: Dockerfile,
    planned: Plan,
    wanted: Sequence[Stage],
    given: Mapping[str, str],
    configs: Mapping[int, Config],
) -> dict[int, Evaluation]:
    """What the wanted stages do, by number; each knows what the stage it is FROM does."""
    found: dict[int, Evaluation] = {}
    for stage in wanted:
        parent = planned.find(planned.base_of(stage), before=stage.index)
        before = found.get(parent.index) if parent else None
        found[stage.index] = evaluate(
            stage.steps,
            before.config if before else configs.get(stage.index, _PATH),
            given=given,
            global_arguments=planned.arguments,
            inherited=before.arguments if before else None,
            escape=file.escape,
        )
    return found


def _unknown(
    planned: Plan, wanted: Sequence[Stage], configs: Mapping[int, Config]
) -> frozenset[int]:
    """The stages whose base image's configuration is not known."""
    found: set[int] = set()
    for stage in wanted:
        base = planned.base_of(stage)
        parent = planned.find(base, before=stage.index)
        if parent.index in found if parent else base != SCRATCH and stage.index not in configs:
            found.add(stage.index)
    return frozenset(found)


def _run(rules: Mapping[str, Found], subject: Subject, choice: Choice) -> Iterator[Warning]:
    for rule, find in rules.items():
        for message, node, said in find(subject):
            chosen = choice if rule in WHOLE else choice.above(node.comments)
            if chosen.runs(rule):
                start, end = said or (node.start, node.end)
                yield Warning(rule=rule, message=message, start=start, end=end)
