"""What the Dockerfile frontend answers besides building: checks, outline, targets (pure).

``docker buildx build --call=check|outline|targets`` asks for them and prints ``result.json`` its
own way or ``result.txt`` as it is; spec/dockerfile/reference.md and buildx's manual have the forms.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from sampan.build.checks import Choice, Report, Warning, examine
from sampan.build.stages import Plan, Stage, plan, platform_arguments
from sampan.buildkit.attributes import Attributes
from sampan.buildkit.frontend import Source
from sampan.buildkit.protocol import gateway_pb2 as gateway
from sampan.dockerfile.ignore import IgnoreMatcher
from sampan.dockerfile.instructions import Arg, Run, interpret
from sampan.dockerfile.lexer import expand
from sampan.dockerfile.parser import DockerfileError, Node
from sampan.errors import Unsupported
from sampan.model.platform import Platform

DESCRIBE = "frontend.subrequests.describe"
_LINT, _OUTLINE, _TARGETS = "frontend.lint", "frontend.outline", "frontend.targets"
_VERSION = "1.0.0"
_RULES = "https://docs.docker.com/go/dockerfile/rule/"
_Json: TypeAlias = dict[str, object]
#: Of each rule, what it is about (spec/dockerfile/rules).
DESCRIPTIONS = {
    "StageNameCasing": "Stage names should be lowercase",
    "FromAsCasing": "The 'as' keyword should match the case of the 'from' keyword",
    "NoEmptyContinuation": "Empty continuation lines will become errors in a future release",
    "ConsistentInstructionCasing": (
        "All commands within the Dockerfile should use the same casing (either upper or lower)"
    ),
    "DuplicateStageName": "Stage names should be unique",
    "ReservedStageName": "Reserved words should not be used as stage names",
    "JSONArgsRecommended": (
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to "
        "OS signals"
    ),
    "MaintainerDeprecated": (
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author"
    ),
    "UndefinedArgInFrom": "FROM command must use declared ARGs",
    "WorkdirRelativePath": (
        "Relative workdir without an absolute workdir declared within the build can have "
        "unexpected results if the base image changes"
    ),
    "UndefinedVar": "Variables should be defined before their use",
    "MultipleInstructionsDisallowed": (
        "Multiple instructions of the same type should not be used in the same stage"
    ),
    "LegacyKeyValueFormat": (
        "Legacy key/value format with whitespace separator should not be used"
    ),
    "InvalidBaseImagePlatform": "Base image platform does not match expected target platform",
    "RedundantTargetPlatform": (
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the "
        "default behavior"
    ),
    "SecretsUsedInArgOrEnv": "Sensitive data should not be used in the ARG or ENV commands",
    "InvalidDefaultArgInFrom": (
        "Default value for global ARG results in an empty or invalid base image name"
    ),
    "FromPlatformFlagConstDisallowed": "FROM --platform flag should not use a constant value",
    "CopyIgnoredFile": "Attempting to Copy file that is excluded by .dockerignore",
    "InvalidDefinitionDescription": (
        "Comment for build stage or argument should follow the format: `# <arg/stage name> "
        "<description>`. If this is not intended to be a description comment, add an empty line "
        "or comment between the instruction and the comment."
    ),
    "ExposeProtoCasing": "Protocol in EXPOSE instruction should be lowercase",
    "ExposeInvalidFormat": (
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will "
        "become an error in a future release"
    ),
}
_REQUESTS = {
    _LINT: "Lint a Dockerfile",
    _OUTLINE: "List all parameters current build target supports",
    _TARGETS: "List all targets current build supports",
    DESCRIBE: "List available subrequest types",
}


def slug(rule: str) -> str:
    """A rule's name as addresses have it: ``JSONArgsRecommended`` is ``json-args-recommended``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", rule).lower()


def describe() -> gateway.Result:
    """Which requests there are."""
    requests = [
        {
            "name": name,
            "version": _VERSION,
            "type": "rpc",
            "description": description,
            "opts": (
                [{"name": "target", "description": "Target build stage"}]
                if name == _OUTLINE
                else None
            ),
            "metadata": [{"name": "result.json"}, {"name": "result.txt"}],
        }
        for name, description in _REQUESTS.items()
    ]
    rows = [("NAME", "VERSION", "DESCRIPTION")]
    rows += [(name.removeprefix("frontend."), _VERSION, text) for name, text in _REQUESTS.items()]
    return _result(requests, _table(rows, 1))


def answer(request: str, source: Source, asked: Attributes, platform: Platform) -> gateway.Result:
    """The answer to a request about a Dockerfile. Raises Unsupported naming an unknown one."""
    match request:
        case "frontend.lint":
            return _lint(source, asked, platform)
        case "frontend.outline":
            return _outline(source, asked, platform)
        case "frontend.targets":
            return _targets(source, asked, platform)
    raise Unsupported(f"unsupported request {request}")


def _result(document: object, text: str, status: int | None = None) -> gateway.Result:
    metadata = {
        "result.json": json.dumps(document, indent=2).encode(),
        "result.txt": text.encode(),
        "version": _VERSION.encode(),
    }
    if status is not None:
        metadata["result.statuscode"] = str(status).encode()
    return gateway.Result(metadata=metadata)


def checks_of(source: Source, asked: Attributes) -> Choice:
    """Which checks the client, or else the Dockerfile, wants."""
    text = asked.arguments.get("BUILDKIT_DOCKERFILE_CHECK")
    return Choice.parse(text or source.file.directives.get("check", ""))


def checked(
    source: Source, asked: Attributes, platform: Platform, choice: Choice, target: str | None
) -> Report:
    """What the build checks find; ``target`` is what is built, None for everything."""
    return examine(
        source.file,
        given=asked.arguments,
        ignore=IgnoreMatcher(source.ignore) if source.ignore else None,
        platform=platform,
        choice=choice,
        target=target,
    )


def _lint(source: Source, asked: Attributes, platform: Platform) -> gateway.Result:
    choice = checks_of(source, asked)
    report = checked(source, asked, platform, choice, asked.target or None)
    found = report.warnings
    failed: _Json | None = None
    if error := report.failure(choice):
        line = error.line if isinstance(error, DockerfileError) else 0
        end = next((node.end for node in source.file.nodes if node.start == line), line)
        failed = {"message": error.message, "location": _location(line, end) if line else {}}
    warnings = [
        {
            "ruleName": one.rule,
            "description": DESCRIPTIONS.get(one.rule, ""),
            "url": f"{_RULES}{slug(one.rule)}/",
            "detail": one.message,
            "location": _location(one.start, one.end),
        }
        for one in found
    ]
    data = _bytes(source)
    document: _Json = {
        "warnings": warnings or None,
        "sources": [
            {
                "filename": source.filename,
                "data": base64.b64encode(data).decode(),
                "language": "Dockerfile",
            }
        ],
    }
    if failed:
        document["buildError"] = failed
    text = "".join(_shown(source, one) for one in found)
    return _result(document, text, int(bool(found or failed)))


def _shown(source: Source, one: Warning) -> str:
    """A warning with the lines it is about, as BuildKit prints it."""
    rows = source.file.source
    start, end = max(1, one.start), min(len(rows), max(one.end, one.start))
    first, last, padded = start, end, 0
    wanted = 4 if start == end else 2
    while padded < wanted:
        if first > 1:
            first -= 1
            padded += 1
        if last < len(rows):
            last += 1
            padded += 1
        padded += 1
    shown = "".join(
        f" {number:3d} | {'>>>' if start <= number <= end else '   '} {rows[number - 1]}\n"
        for number in range(first, last + 1)
    )
    rule = "-" * 20
    return (
        f"\nWARNING: {one.rule} - {_RULES}{slug(one.rule)}/\n{one.message}\n"
        f"{source.filename}:{start}\n{rule}\n{shown}{rule}\n"
    )


def _planned(source: Source, asked: Attributes, platform: Platform) -> Plan:
    predefined = platform_arguments(platform, Platform.host(), asked.target)
    return plan(source.file, asked.arguments, predefined)


def _targets(source: Source, asked: Attributes, platform: Platform) -> gateway.Result:
    planned = _planned(source, asked, platform)
    last = planned.stages[-1]
    targets: list[_Json] = []
    rows = [("TARGET", "DESCRIPTION")]
    for stage in planned.stages:
        if not stage.base.name and stage is not last:
            continue
        entry: _Json = {}
        if stage.base.name:
            entry["name"] = stage.base.name
        if stage is last:
            entry["default"] = True
        description = _about(stage)
        if description:
            entry["description"] = description
        entry["base"] = stage.base.base
        if stage.base.platform:
            entry["platform"] = stage.base.platform
        entry["location"] = _location(stage.base_line, stage.base_line)
        targets.append(entry)
        name = stage.base.name or "(default)"
        default = " (default)" if stage is last and stage.base.name else ""
        rows.append((f"{name}{default}", description))
    document = {"targets": targets, "sources": [base64.b64encode(_bytes(source)).decode()]}
    return _result(document, _table(rows, 1))


def _outline(source: Source, asked: Attributes, platform: Platform) -> gateway.Result:
    planned = _planned(source, asked, platform)
    target = planned.target(asked.target)
    arguments, secrets, agents = _parameters(source, asked, planned, target)
    document: _Json = {}
    text = ""
    if target.base.name:
        document["name"] = target.base.name
    description = _about(target)
    if description:
        document["description"] = description
    if document:
        heads = [("TARGET:", target.base.name or "(default)")]
        if description:
            heads.append(("DESCRIPTION:", description))
        text += _table(heads, 1) + "\n"
    if arguments:
        document["args"] = arguments
        rows = [("BUILD ARG", "VALUE", "DESCRIPTION")]
        rows += [
            (str(one["name"]), str(one.get("value", "")), str(one.get("description", "")))
            for one in arguments
        ]
        text += _table(rows, 3) + "\n"
    for key, title, found in (("secrets", "SECRET", secrets), ("ssh", "SSH", agents)):
        if found:
            document[key] = found
            rows2 = [(title, "REQUIRED")]
            rows2 += [(str(one["name"]), "true" if one.get("required") else "") for one in found]
            text += _table(rows2, 3) + "\n"
    document["sources"] = [base64.b64encode(_bytes(source)).decode()]
    return _result(document, text)


def _parameters(
    source: Source, asked: Attributes, planned: Plan, target: Stage
) -> tuple[list[_Json], list[_Json], list[_Json]]:
    """The arguments, secrets and agents that a target's stages name."""
    arguments: dict[str, _Json] = {}
    mounts: dict[str, dict[str, _Json]] = {"secret": {}, "ssh": {}}
    scope = dict(planned.arguments)
    for node, instruction in (
        *_globals(source.file.nodes),
        *(step for stage in planned.needed(target) for step in stage.steps),
    ):
        if isinstance(instruction, Arg):
            for name, default in instruction.pairs:
                value = asked.arguments.get(name)
                if value is None and default is not None:
                    value = expand(default, scope, source.file.escape).text
                if value is not None:
                    scope[name] = value
                arguments.setdefault(name, _argument(node, name, scope.get(name, "")))
        elif isinstance(instruction, Run):
            for mount in instruction.parsed_mounts(str):
                if mount.type in mounts:
                    entry: _Json = {"name": mount.id}
                    if mount.required:
                        entry["required"] = True
                    entry["location"] = _location(node.start, node.end)
                    mounts[mount.type].setdefault(mount.id, entry)
    return list(arguments.values()), list(mounts["secret"].values()), list(mounts["ssh"].values())


def _globals(nodes: Iterable[Node]) -> Iterable[tuple[Node, object]]:
    for node in nodes:
        if node.keyword == "from":
            return
        yield node, interpret(node)


def _argument(node: Node, name: str, value: str) -> _Json:
    found: _Json = {"name": name}
    description = _described(node.comments, name)
    if description:
        found["description"] = description
    if value:
        found["value"] = value
    found["location"] = _location(node.start, node.end)
    return found


def _described(comments: Iterable[str], name: str) -> str:
    """The comment above an instruction that describes ``name`` (``# name what it is``)."""
    for comment in comments:
        first, _, rest = comment.strip().partition(" ")
        if name and first.lower() == name.lower():
            return rest.strip()
    return ""


def _about(stage: Stage) -> str:
    return _described((stage.base.comment,), stage.base.name)


def _bytes(source: Source) -> bytes:
    return "\n".join(source.file.source).encode(errors="surrogateescape")


def _location(start: int, end: int) -> _Json:
    """Where something is: BuildKit's clients want a range for each line."""
    lines = range(start, max(start, end) + 1)
    return {"ranges": [{"start": {"line": line}, "end": {"line": line}} for line in lines]}


def _table(rows: Sequence[tuple[str, ...]], gap: int) -> str:
    """Columns as wide as their widest cell and a gap, the last as it is."""
    widths = [max(len(row[column]) for row in rows) + gap for column in range(len(rows[0]))]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False))
        + row[-1]
        + "\n"
        for row in rows
    )
