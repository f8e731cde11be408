"""Build checks: what is legal in a Dockerfile but better not done (pure).

The 22 rules of spec/dockerfile/rules with their messages; ``# check=skip=A,B;error=true`` and
``BUILDKIT_DOCKERFILE_CHECK`` choose among them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sampan.build.stages import RESERVED, SCRATCH, Plan, Stage, plan, platform_arguments
from sampan.build.steps import evaluate
from sampan.dockerfile.config import Config
from sampan.dockerfile.ignore import IgnoreMatcher
from sampan.dockerfile.instructions import Arg, Copy, Health, Pairs, Program
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
            skip=frozenset(filter(None, found.get("skip", "").split(","))),
            experimental=frozenset(filter(None, found.get("experimental", "").split(","))),
            error=found.get("error") in ("true", "1"),
        )

    def runs(self, rule: str) -> bool:
        """Whether ``rule`` is wanted."""
        if rule in EXPERIMENTAL:
            return bool({"all", rule} & self.experimental)
        return not {"all", rule} & self.skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    file: Dockerfile
    plan: Plan
    given: Mapping[str, str]
    ignore: IgnoreMatcher | None
    platform: Platform
    bases: Mapping[int, Platform] = field(default_factory=dict)
    configs: Mapping[int, Config] = field(default_factory=dict)


_Found = Iterator[tuple[str, int, int]]


def check(
    file: Dockerfile,
    *,
    given: Mapping[str, str] | None = None,
    ignore: IgnoreMatcher | None = None,
    platform: Platform,
    bases: Mapping[int, Platform] | None = None,
    configs: Mapping[int, Config] | None = None,
    choice: Choice | None = None,
) -> tuple[Warning, ...]:
    """All findings of the wanted rules, by line.

    ``given`` are build arguments, ``ignore`` the context's ``.dockerignore``, ``bases``
    and ``configs`` the platform and configuration of stages' base images where they are known.
    """
    choice = choice or Choice.parse(file.directives.get("check", ""))
    arguments = given or {}
    subject = _Subject(
        file=file,
        plan=plan(file, arguments, platform_arguments(platform, Platform.host())),
        given=arguments,
        ignore=ignore,
        platform=platform,
        bases=bases or {},
        configs=configs or {},
    )
    found = (
        Warning(rule=rule, message=message, start=start, end=end)
        for rule, find in RULES.items()
        if choice.runs(rule)
        for message, start, end in find(subject)
    )
    return tuple(sorted(found, key=lambda warning: (warning.start, warning.rule)))


def _stage_lines(subject: _Subject) -> Iterator[Stage]:
    yield from subject.plan.stages


def _spelled_name(subject: _Subject, stage: Stage) -> str:
    node = next(node for node in subject.file.nodes if node.start == stage.base_line)
    return node.arguments[2] if len(node.arguments) == 3 else ""


def _stage_name_casing(subject: _Subject) -> _Found:
    for stage in _stage_lines(subject):
        name = _spelled_name(subject, stage)
        if name != name.lower():
            line = stage.base_line
            yield f"Stage name '{name}' should be lowercase", line, line


def _from_as_casing(subject: _Subject) -> _Found:
    for node in subject.file.nodes:
        if node.keyword == "from" and len(node.arguments) == 3:
            word = node.arguments[1]
            if node.spelled.isupper() != word.isupper() or node.spelled.islower() != word.islower():
                message = f"'{word}' and '{node.spelled}' keywords' casing do not match"
                yield message, node.start, node.end


def _no_empty_continuation(subject: _Subject) -> _Found:
    for node in subject.file.nodes:
        if any(node.start <= line <= node.end for line in subject.file.empty_continuations):
            message = "Empty continuation line"
            yield message, node.start, node.end


def _consistent_casing(subject: _Subject) -> _Found:
    upper = sum(node.spelled.isupper() for node in subject.file.nodes)
    lower = sum(node.spelled.islower() for node in subject.file.nodes)
    majority = "lowercase" if lower > upper else "uppercase"
    for node in subject.file.nodes:
        mixed = not (node.spelled.isupper() or node.spelled.islower())
        if mixed or node.spelled.islower() != (majority == "lowercase"):
            message = (
                f"Command '{node.spelled}' should match the case of the command majority "
                f"({majority})"
            )
            yield message, node.start, node.end


def _duplicate_stage_name(subject: _Subject) -> _Found:
    seen: set[str] = set()
    for stage in _stage_lines(subject):
        name = stage.base.name
        if name and name in seen:
            message = f'Duplicate stage name "{name}", stage names should be unique'
            yield message, stage.base_line, stage.base_line
        seen.add(name)


def _reserved_stage_name(subject: _Subject) -> _Found:
    for stage in _stage_lines(subject):
        if stage.base.name in RESERVED:
            message = (
                f'Stage name should not use the same name as reserved stage "{stage.base.name}"'
            )
            yield message, stage.base_line, stage.base_line


def _json_recommended(subject: _Subject) -> _Found:
    for stage in _stage_lines(subject):
        if any(node.keyword == "shell" for node, _ in stage.steps):
            continue
        for node, instruction in stage.steps:
            if isinstance(instruction, Program) and instruction.command.shell:
                message = (
                    f"JSON arguments recommended for {node.keyword.upper()} to prevent unintended "
                    "behavior related to OS signals"
                )
                yield message, node.start, node.end


def _maintainer(subject: _Subject) -> _Found:
    for node in subject.file.nodes:
        if node.keyword == "maintainer":
            message = "Maintainer instruction is deprecated in favor of using label"
            yield message, node.start, node.end


def _undefined_in_from(subject: _Subject) -> _Found:
    names = set(subject.plan.arguments)
    for stage in _stage_lines(subject):
        for text in (stage.base.base, stage.base.platform):
            for name in sorted(expand(text, subject.plan.arguments).undefined - names):
                declared = any(
                    isinstance(found := _arg_of(node), list) and name in found
                    for node in subject.file.nodes[: stage.base_line]
                    if node.start < subject.plan.stages[0].base_line
                )
                if not declared:
                    message = f"FROM argument '{name}' is not declared{hint(name, names)}"
                    yield message, stage.base_line, stage.base_line


def _arg_of(node: Node) -> list[str] | None:
    if node.keyword != "arg":
        return None
    return [word.partition("=")[0] for word in node.arguments]


def _workdir_relative(subject: _Subject) -> _Found:
    for stage in _stage_lines(subject):
        if subject.plan.find(stage.base.base, before=stage.index):
            continue
        for node, _ in stage.steps:
            if node.keyword != "workdir":
                continue
            path = node.arguments[0] if node.arguments else ""
            if path.startswith(("/", "$")):
                break
            message = (
                f'Relative workdir "{path}" can have unexpected results if the base image changes'
            )
            yield message, node.start, node.end


def _undefined_variable(subject: _Subject) -> _Found:
    for stage in _stage_lines(subject):
        if subject.plan.find(stage.base.base, before=stage.index) is not None:
            continue
        base = {} if stage.base.base == SCRATCH else subject.configs.get(stage.index, _PATH)
        found = evaluate(
            stage.steps,
            base,
            given=subject.given,
            global_arguments=subject.plan.arguments,
            escape=subject.file.escape,
        )
        declared = {
            name
            for _, instruction in stage.steps
            if isinstance(instruction, Arg)
            for name, _ in instruction.pairs
        }
        for line, name in found.undefined:
            if name not in declared:
                like = hint(name, ("PATH", *sorted(declared)), "$")
                yield f"Usage of undefined variable '${name}'{like}", line, line


def _multiple(subject: _Subject) -> _Found:
    for stage in _stage_lines(subject):
        for keyword, kind in (("cmd", Program), ("entrypoint", Program), ("healthcheck", Health)):
            nodes = [
                node
                for node, instruction in stage.steps
                if node.keyword == keyword and isinstance(instruction, kind)
            ]
            for node in nodes[:-1]:
                message = (
                    f"Multiple {keyword.upper()} instructions should not be used in the same "
                    "stage because only the last one will be used"
                )
                yield message, node.start, node.end


def _legacy_pairs(subject: _Subject) -> _Found:
    for stage in _stage_lines(subject):
        for node, instruction in stage.steps:
            bare_words = isinstance(instruction, Arg) and [
                default for _, default in instruction.pairs
            ] == [None, None]
            if bare_words or (isinstance(instruction, Pairs) and instruction.legacy):
                word = node.keyword.upper()
                message = (
                    f'"{word} key=value" should be used instead of legacy "{word} key value" format'
                )
                yield message, node.start, node.end


def _base_platform(subject: _Subject) -> _Found:
    for stage in _stage_lines(subject):
        actual = subject.bases.get(stage.index)
        wanted = subject.plan.platform_of(stage, subject.platform)
        if actual is not None and actual.normalized() != wanted.normalized():
            message = (
                f'Base image {stage.base.base} was pulled with platform "{actual}", expected '
                f'"{wanted}" for current build'
            )
            yield message, stage.base_line, stage.base_line


def _redundant_platform(subject: _Subject) -> _Found:
    for stage in _stage_lines(subject):
        if stage.base.platform in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
            message = (
                f"Setting platform to predefined {stage.base.platform} in FROM is redundant as "
                "this is the default behavior"
            )
            yield message, stage.base_line, stage.base_line


def _secrets(subject: _Subject) -> _Found:
    for node in subject.file.nodes:
        if node.keyword not in ("arg", "env"):
            continue
        names = _arg_of(node) or [key for key, _, _ in node.pairs]
        for name in names:
            if _SECRET.search(name) and not _PUBLIC.search(name):
                where = f'({node.keyword.upper()} "{name}")'
                message = f"Do not use ARG or ENV instructions for sensitive data {where}"
                yield message, node.start, node.end


def _default_in_from(subject: _Subject) -> _Found:
    bare = plan(subject.file, {}, platform_arguments(subject.platform, Platform.host()))
    for stage in bare.stages:
        base = expand(stage.base.base, bare.arguments).text
        try:
            if base != SCRATCH and bare.find(base, before=stage.index) is None:
                Reference.parse(base)
        except InvalidParameter:
            message = (
                f"Default value for ARG {stage.base.base} results in empty or invalid base image "
                "name"
            )
            yield message, stage.base_line, stage.base_line


def _constant_platform(subject: _Subject) -> _Found:
    names = {stage.base.base for stage in subject.plan.stages}
    for stage in _stage_lines(subject):
        text = stage.base.platform
        if not text or "$" in text:
            continue
        parts = Platform.parse(text)
        title = stage.base.name
        if {parts.os, parts.architecture} & set(re.split(r"[-_.]", title)) and (
            title in names or any("$" in name for name in names)
        ):
            continue
        message = f'FROM --platform flag should not use constant value "{text}"'
        yield message, stage.base_line, stage.base_line


def _ignored_copy(subject: _Subject) -> _Found:
    if subject.ignore is None or subject.ignore.has_inclusions:
        return  # below an ignored directory may lie what is not
    for stage in _stage_lines(subject):
        for node, instruction in stage.steps:
            if not isinstance(instruction, Copy) or instruction.from_:
                continue
            for source in instruction.sources:
                path = posixpath.normpath(source)
                whole = path in (".", "/") and not subject.ignore.ignores("x")
                if not whole and "://" not in source and subject.ignore.ignores(path):
                    message = (
                        f'Attempting to {node.keyword.capitalize()} file "{path}" that is '
                        "excluded by .dockerignore"
                    )
                    yield message, node.start, node.end


def _description(subject: _Subject) -> _Found:
    for node in subject.file.nodes:
        names: Sequence[str] = _arg_of(node) or ()
        if node.keyword == "from" and len(node.arguments) == 3:
            names = (node.arguments[2],)
        if node.comments and names and node.comments[-1].split(" ")[0] not in names:
            example = names[0] if len(names) == 1 else "<arg_key>"
            message = (
                f"Comment for {node.keyword.upper()} should follow the format: "
                f"`# {example} <description>`"
            )
            yield message, node.start, node.end


def _expose_protocol(subject: _Subject) -> _Found:
    for node in subject.file.nodes:
        if node.keyword == "expose":
            for value in node.arguments:
                protocol = value.partition("/")[2]
                if protocol and protocol != protocol.lower() and "$" not in protocol:
                    message = (
                        f"Defined protocol '{value}' in EXPOSE instruction should be lowercase"
                    )
                    yield message, node.start, node.end


def _expose_format(subject: _Subject) -> _Found:
    for node in subject.file.nodes:
        if node.keyword == "expose":
            for value in node.arguments:
                if ":" in value and "$" not in value:
                    message = (
                        "EXPOSE instruction should not define an IP address or host-port mapping, "
                        f"found '{value}'"
                    )
                    yield message, node.start, node.end


RULES: Mapping[str, Callable[[_Subject], _Found]] = {
    "StageNameCasing": _stage_name_casing,
    "FromAsCasing": _from_as_casing,
    "NoEmptyContinuation": _no_empty_continuation,
    "ConsistentInstructionCasing": _consistent_casing,
    "DuplicateStageName": _duplicate_stage_name,
    "ReservedStageName": _reserved_stage_name,
    "JSONArgsRecommended": _json_recommended,
    "MaintainerDeprecated": _maintainer,
    "UndefinedArgInFrom": _undefined_in_from,
    "WorkdirRelativePath": _workdir_relative,
    "UndefinedVar": _undefined_variable,
    "MultipleInstructionsDisallowed": _multiple,
    "LegacyKeyValueFormat": _legacy_pairs,
    "InvalidBaseImagePlatform": _base_platform,
    "RedundantTargetPlatform": _redundant_platform,
    "SecretsUsedInArgOrEnv": _secrets,
    "InvalidDefaultArgInFrom": _default_in_from,
    "FromPlatformFlagConstDisallowed": _constant_platform,
    "CopyIgnoredFile": _ignored_copy,
    "InvalidDefinitionDescription": _description,
    "ExposeProtoCasing": _expose_protocol,
    "ExposeInvalidFormat": _expose_format,
}
