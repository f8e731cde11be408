"""The rules of build checks, with their messages (pure).

The 22 rules of spec/dockerfile/rules, by when BuildKit comes to them: while instructions are read,
once the stages are known, and as the stages that are built are gone through.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

from sampan.build.stages import RESERVED, SCRATCH, Plan, Stage, plan, platform_arguments
from sampan.build.steps import Evaluation
from sampan.dockerfile.config import strings
from sampan.dockerfile.ignore import IgnoreMatcher
from sampan.dockerfile.instructions import Arg, Copy, Health, Instruction, Pairs, Program
from sampan.dockerfile.lexer import expand
from sampan.dockerfile.parser import Dockerfile, Node
from sampan.dockerfile.suggest import hint
from sampan.errors import InvalidParameter
from sampan.model.platform import Platform
from sampan.model.reference import Reference

_SECRET = re.compile(
    r"(?i)(?:_|^)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)"
    r"(?:_|$)"
)
_PUBLIC = re.compile(r"(?i)(?:_|^)(?:public|file|version)(?:_|$)")
#: Rules that run only when asked for.
EXPERIMENTAL = frozenset({"InvalidDefinitionDescription"})
#: Rules about a file as a whole, which a comment above an instruction does not choose.
WHOLE = frozenset(
    {"NoEmptyContinuation", "ConsistentInstructionCasing", "DuplicateStageName"}
    | {"ReservedStageName", "InvalidDefaultArgInFrom"}
)
_ALL = frozenset(("*", "**", "**/*"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What rules look at.

    ``nodes`` are the instructions that could be read, ``stages`` those to look at, ``built`` what
    they do by number, ``bases`` the platforms of their base images where they are known,
    ``unknown`` the stages whose base image's environment is not.
    """

    file: Dockerfile
    nodes: Sequence[Node]
    ignore: IgnoreMatcher | None
    platform: Platform
    bases: Mapping[int, Platform]
    plan: Plan = field(default_factory=lambda: Plan(stages=(), arguments={}))
    stages: Sequence[Stage] = ()
    built: Mapping[int, Evaluation] = field(default_factory=dict)
    unknown: frozenset[int] = frozenset()

    def base_node(self, stage: Stage) -> Node:
        """The FROM of a stage."""
        return next(node for node in self.nodes if node.start == stage.base_line)

    @property
    def steps(self) -> Iterator[tuple[Node, Instruction]]:
        """The instructions of the stages."""
        for stage in self.stages:
            yield from stage.steps


#: A message, the instruction whose comments count, and the lines it is about where others.
Finding: TypeAlias = tuple[str, Node, tuple[int, int] | None]
Found: TypeAlias = Callable[[Subject], Iterator[Finding]]


def _no_empty_continuation(subject: Subject) -> Iterator[Finding]:
    for node in subject.file.nodes:
        if any(node.start <= line <= node.end for line in subject.file.empty_continuations):
            yield "Empty continuation line", node, (node.end, node.end)


def _stage_name_casing(subject: Subject) -> Iterator[Finding]:
    for node in subject.nodes:
        if node.keyword == "from" and len(node.arguments) == 3:
            name = node.arguments[2]
            if name != name.lower():
                yield f"Stage name '{name}' should be lowercase", node, None


def _from_as_casing(subject: Subject) -> Iterator[Finding]:
    for node in subject.nodes:
        if node.keyword != "from" or len(node.arguments) != 3:
            continue
        word, spelled = node.arguments[1], node.spelled
        if spelled not in (spelled.lower(), spelled.upper()):
            continue  # no casing to follow
        if word != (word.lower() if spelled == spelled.lower() else word.upper()):
            yield f"'{word}' and '{spelled}' keywords' casing do not match", node, None


def _consistent_casing(subject: Subject) -> Iterator[Finding]:
    first = next(at for at, node in enumerate(subject.nodes) if node.keyword == "from")
    nodes = subject.nodes[first:]
    lower = sum(node.spelled == node.spelled.lower() for node in nodes)
    upper = sum(node.spelled == node.spelled.upper() for node in nodes)
    for node in nodes:
        word, majority = node.spelled.upper(), "uppercase"
        if lower > upper:
            word, majority = node.spelled.lower(), "lowercase"
        if node.spelled != word:
            message = (
                f"Command '{node.spelled}' should match the case of the command majority "
                f"({majority})"
            )
            yield message, node, None


def _duplicate_stage_name(subject: Subject) -> Iterator[Finding]:
    seen: set[str] = set()
    for stage in subject.plan.stages:
        name = stage.base.name
        if name and name in seen:
            message = f'Duplicate stage name "{name}", stage names should be unique'
            yield message, subject.base_node(stage), None
        seen.add(name)


def _reserved_stage_name(subject: Subject) -> Iterator[Finding]:
    for stage in subject.plan.stages:
        if stage.base.name in RESERVED:
            message = (
                f'Stage name should not use the same name as reserved stage "{stage.base.name}"'
            )
            yield message, subject.base_node(stage), None


def _json_recommended(subject: Subject) -> Iterator[Finding]:
    for stage in subject.stages:
        programs = {
            node.start
            for node, instruction in stage.steps
            if isinstance(instruction, Program) and instruction.command.shell
        }
        for step in subject.built[stage.index].steps:
            if step.node.start in programs and not strings(step.config, "Shell"):
                message = (
                    f"JSON arguments recommended for {step.node.keyword.upper()} to prevent "
                    "unintended behavior related to OS signals"
                )
                yield message, step.node, None


def _maintainer(subject: Subject) -> Iterator[Finding]:
    for node in subject.nodes:
        if node.keyword == "maintainer":
            yield "Maintainer instruction is deprecated in favor of using label", node, None


def _undefined_in_from(subject: Subject) -> Iterator[Finding]:
    declared = set(subject.plan.arguments)
    for node in subject.nodes:
        if node.keyword == "from":
            break
        declared.update(_arg_of(node) or ())
    for stage in subject.stages:
        for text in (stage.base.base, stage.base.platform):
            unknown = expand(text, subject.plan.arguments, subject.file.escape).undefined
            for name in sorted(unknown - declared):
                message = f"FROM argument '{name}' is not declared{hint(name, sorted(declared))}"
                yield message, subject.base_node(stage), None


def _arg_of(node: Node) -> list[str] | None:
    if node.keyword != "arg":
        return None
    return [word.partition("=")[0] for word in node.arguments]


def _workdir_relative(subject: Subject) -> Iterator[Finding]:
    settled: set[int] = set()
    for stage in subject.stages:
        parent = subject.plan.find(subject.plan.base_of(stage), before=stage.index)
        node = next((node for node, _ in stage.steps if node.keyword == "workdir"), None)
        if parent is not None and parent.index in settled:
            settled.add(stage.index)
        elif node is not None:
            settled.add(stage.index)
            path = node.arguments[0]
            if not path.startswith(("/", "$")):
                message = (
                    f'Relative workdir "{path}" can have unexpected results if the base image '
                    "changes"
                )
                yield message, node, None


def _undefined_variable(subject: Subject) -> Iterator[Finding]:
    nodes = {node.start: node for node in subject.nodes}
    names = set(_declared(subject))
    for stage in subject.stages:
        for line, name, like in subject.built[stage.index].undefined:
            # A base image nobody has looked at may well set it, unless the file itself does later.
            if stage.index in subject.unknown and name not in names:
                continue
            yield f"Usage of undefined variable '${name}'{like}", nodes[line], None


def _declared(subject: Subject) -> Iterator[str]:
    """The variables the file declares anywhere."""
    for _, instruction in subject.steps:
        if isinstance(instruction, Arg | Pairs) and not getattr(instruction, "label", False):
            yield from (name for name, _ in instruction.pairs)


def _multiple(subject: Subject) -> Iterator[Finding]:
    for stage in subject.stages:
        for keyword, kind in (("cmd", Program), ("entrypoint", Program), ("healthcheck", Health)):
            nodes = [
                node
                for node, instruction in stage.steps
                if node.keyword == keyword and isinstance(instruction, kind)
            ]
            for node, after in pairwise(nodes):
                message = (
                    f"Multiple {keyword.upper()} instructions should not be used in the same "
                    "stage because only the last one will be used"
                )
                yield message, after, (node.start, node.end)


def _legacy_pairs(subject: Subject) -> Iterator[Finding]:
    for node, instruction in subject.steps:
        bare_words = isinstance(instruction, Arg) and [
            default for _, default in instruction.pairs
        ] == [None, None]
        if bare_words or (isinstance(instruction, Pairs) and instruction.legacy):
            word = node.keyword.upper()
            message = (
                f'"{word} key=value" should be used instead of legacy "{word} key value" format'
            )
            yield message, node, None


def _base_platform(subject: Subject) -> Iterator[Finding]:
    for stage in subject.stages:
        actual = subject.bases.get(stage.index)
        wanted = subject.plan.platform_of(stage, subject.platform)
        if actual is not None and actual.normalized() != wanted.normalized():
            message = (
                f'Base image {stage.base.base} was pulled with platform "{actual}", expected '
                f'"{wanted}" for current build'
            )
            yield message, subject.base_node(stage), None


def _redundant_platform(subject: Subject) -> Iterator[Finding]:
    for stage in subject.stages:
        if stage.base.platform in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
            message = (
                f"Setting platform to predefined {stage.base.platform} in FROM is redundant as "
                "this is the default behavior"
            )
            yield message, subject.base_node(stage), None


def _secrets(subject: Subject) -> Iterator[Finding]:
    for node in subject.nodes:
        if node.keyword not in ("arg", "env"):
            continue
        names = _arg_of(node) or [key for key, _, _ in node.pairs]
        for name in names:
            if _SECRET.search(name) and not _PUBLIC.search(name):
                where = f'({node.keyword.upper()} "{name}")'
                message = f"Do not use ARG or ENV instructions for sensitive data {where}"
                yield message, node, None


def _default_in_from(subject: Subject) -> Iterator[Finding]:
    bare = plan(subject.file, {}, platform_arguments(subject.platform, Platform.host()))
    for stage in bare.stages:
        base = expand(stage.base.base, bare.arguments, subject.file.escape).text
        try:
            if base != SCRATCH and bare.find(base, before=stage.index) is None:
                Reference.parse(base)
        except InvalidParameter:
            message = (
                f"Default value for ARG {stage.base.base} results in empty or invalid base image "
                "name"
            )
            yield message, subject.base_node(stage), None


def _constant_platform(subject: Subject) -> Iterator[Finding]:
    for stage in subject.stages:
        text = stage.base.platform
        if not text or "$" in text:
            continue
        parts = Platform.parse(text)
        if parts.os not in stage.base.name and parts.architecture not in stage.base.name:
            message = f'FROM --platform flag should not use constant value "{text}"'
            yield message, subject.base_node(stage), None


def _ignored_copy(subject: Subject) -> Iterator[Finding]:
    if subject.ignore is None or subject.ignore.has_inclusions:
        return  # below an ignored directory may lie what is not
    everything = not _ALL.isdisjoint(subject.ignore.patterns)
    for node, instruction in subject.steps:
        if not isinstance(instruction, Copy) or instruction.from_:
            continue
        for source in instruction.sources:
            path = posixpath.normpath(source)
            ignored = everything if path in (".", "/") else subject.ignore.ignores(path)
            if ignored and "://" not in source:
                message = (
                    f'Attempting to {node.keyword.capitalize()} file "{path}" that is '
                    "excluded by .dockerignore"
                )
                yield message, node, None


def _description(subject: Subject) -> Iterator[Finding]:
    for node in subject.nodes:
        names: Sequence[str] = _arg_of(node) or ()
        if node.keyword == "from" and len(node.arguments) == 3:
            names = (node.arguments[2].lower(),)
        if node.comments and names and node.comments[-1].split(" ")[0] not in names:
            example = names[0] if len(names) == 1 else "<arg_key>"
            message = (
                f"Comment for {node.keyword.upper()} should follow the format: "
                f"`# {example} <description>`"
            )
            yield message, node, None


def _expose_protocol(subject: Subject) -> Iterator[Finding]:
    for node, _ in subject.steps:
        if node.keyword == "expose":
            for value in node.arguments:
                protocol = value.partition("/")[2]
                if protocol and protocol != protocol.lower() and "$" not in protocol:
                    message = (
                        f"Defined protocol '{value}' in EXPOSE instruction should be lowercase"
                    )
                    yield message, node, None


def _expose_format(subject: Subject) -> Iterator[Finding]:
    for node, _ in subject.steps:
        if node.keyword == "expose":
            for value in node.arguments:
                if ":" in value and "$" not in value:
                    message = (
                        "EXPOSE instruction should not define an IP address or host-port mapping, "
                        f"found '{value}'"
                    )
                    yield message, node, None


#: Rules about instructions as they are read.
PARSED: Mapping[str, Found] = {
    "NoEmptyContinuation": _no_empty_continuation,
    "StageNameCasing": _stage_name_casing,
    "FromAsCasing": _from_as_casing,
    "MaintainerDeprecated": _maintainer,
    "SecretsUsedInArgOrEnv": _secrets,
    "InvalidDefinitionDescription": _description,
}
#: Rules about stages and what they are FROM, whether they are built or not.
PLANNED: Mapping[str, Found] = {
    "ReservedStageName": _reserved_stage_name,
    "DuplicateStageName": _duplicate_stage_name,
    "ConsistentInstructionCasing": _consistent_casing,
    "InvalidDefaultArgInFrom": _default_in_from,
    "UndefinedArgInFrom": _undefined_in_from,
    "RedundantTargetPlatform": _redundant_platform,
    "FromPlatformFlagConstDisallowed": _constant_platform,
}
#: Rules about what stages do.
BUILT: Mapping[str, Found] = {
    "InvalidBaseImagePlatform": _base_platform,
    "JSONArgsRecommended": _json_recommended,
    "WorkdirRelativePath": _workdir_relative,
    "UndefinedVar": _undefined_variable,
    "MultipleInstructionsDisallowed": _multiple,
    "LegacyKeyValueFormat": _legacy_pairs,
    "CopyIgnoredFile": _ignored_copy,
    "ExposeProtoCasing": _expose_protocol,
    "ExposeInvalidFormat": _expose_format,
}
