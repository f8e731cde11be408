"""Each build check on the bad and good Dockerfiles of its own page (spec/dockerfile/rules)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.spec import SPEC

from sampan.build.checks import RULES, Choice, examine
from sampan.dockerfile.config import Config
from sampan.dockerfile.ignore import IgnoreMatcher
from sampan.dockerfile.parser import parse
from sampan.errors import InvalidParameter
from sampan.model.platform import Platform

HOST = Platform(os="linux", architecture="amd64")
PAGES = SPEC / "dockerfile" / "rules"
EXAMPLE = re.compile(
    r"^(❌|✅)[^\n]*\n+(?:[^`]*?)```dockerfile\n(.*?)```", re.DOTALL | re.MULTILINE
)


def examples() -> Iterator[tuple[str, bool, str]]:
    for page in sorted(PAGES.glob("[a-z]*.md")):
        text = page.read_text()
        title = re.search(r"^title: (\w+)$", text, re.MULTILINE)
        assert title is not None, page
        for mark, source in EXAMPLE.findall(text):
            body = source.replace("...\n", "RUN true\n")
            if not re.search(r"(?im)^from ", body):
                body = f"FROM scratch\n{body}"
            yield title[1], mark == "❌", body


@pytest.mark.parametrize(("rule", "bad", "source"), list(examples()))
def test_page(rule: str, bad: bool, source: str) -> None:
    ignore = IgnoreMatcher(["tmp/*"]) if rule == "CopyIgnoredFile" else None
    choice = Choice(experimental=frozenset({"all"}))
    base: Config = {"Env": ["PYTHON_VERSION=3", "PATH=/bin"]}
    found = {
        warning.rule
        for warning in examine(
            parse(source), platform=HOST, ignore=ignore, choice=choice, configs={0: base}
        ).warnings
    }
    assert (rule in found) is bad


def test_every_rule_has_a_page_or_is_known_to_have_none() -> None:
    assert {rule for rule, _, _ in examples()} | {"InvalidBaseImagePlatform"} == set(RULES)


def test_base_platform() -> None:
    arm = Platform(os="linux", architecture="arm64")
    (warning,) = examine(parse("FROM x\n"), platform=HOST, bases={0: arm}).warnings
    assert warning.rule == "InvalidBaseImagePlatform"


def test_directive_chooses() -> None:
    source = "# check=skip=StageNameCasing;error=true\nFROM x AS Y\n"
    assert examine(parse(source), platform=HOST).warnings == ()
    assert Choice.parse("skip=all").runs("UndefinedVar") is False
    with pytest.raises(InvalidParameter):
        Choice.parse("nonsense")


def found(
    source: str,
    *,
    ignore: list[str] | None = None,
    check: str | None = None,
    target: str | None = None,
) -> list[str]:
    """What is found, as ``rule@line``, and why the file cannot be built."""
    report = examine(
        parse(source),
        platform=HOST,
        ignore=IgnoreMatcher(ignore) if ignore else None,
        choice=None if check is None else Choice.parse(check),
        target=target,
    )
    error = [report.error.message] if report.error else []
    return [f"{one.rule}@{one.start}" for one in report.warnings] + error


# The cases are those of BuildKit's own tests of its checks (frontend/dockerfile).
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("From scratch as base\nFROM scratch AS b\n", ["ConsistentInstructionCasing@1"]),
        ("frOM scratch as base\nfrom scratch as b\n", ["ConsistentInstructionCasing@1"]),
        ("FROM scratch\nCOPY a \\\n\n/\n", ["NoEmptyContinuation@4"]),
        ("FROM scratch\n# check=skip=JSONArgsRecommended\nCMD a\n", []),
        ("FROM scratch\n# check=skip=JSONArgsRecommended // why\nCMD a\n", []),
        ("FROM scratch\n# check=skip=nothing\nCMD a\n", ["JSONArgsRecommended@3"]),
        ("FROM scratch\nARG a\n# check=skip=all\nMAINTAINER me\n", []),
        ('FROM scratch AS a\nSHELL ["/sh"]\nFROM a\nCMD x\n', []),
        ("FROM scratch\nWORKDIR a\nWORKDIR b\n", ["WorkdirRelativePath@2"]),
        ("FROM scratch AS a\nWORKDIR /app\nFROM a\nWORKDIR b\n", []),
        ("FROM alpine\nCOPY $foo .\nARG foo=bar\n", ["UndefinedVar@2"]),
        ("FROM alpine AS b\nARG foo=x\nFROM b\nCOPY $foo .\n", []),
        ("FROM scratch\nENV PATH=$PAHT:/bin\n", ["UndefinedVar@2"]),
        ("FROM golang\nENV BIN=$GOPATH/bin\nFROM golang AS a\nFROM a\nCOPY x $GOPATH/\n", []),
        ("FROM scratch AS a\nFROM a\nCOPY x $GOPATH/\n", ["UndefinedVar@3"]),
        ("# check=skip=RedundantTargetPlatform\n\nFROM --platform=$TARGETPLATFORM a\n", []),
        ("FROM --platform=linux/amd64 scratch AS my_amd64_stage\n", []),
        (
            "FROM scratch AS A\nMAINTAINER me\nBADCMD\n",
            [
                "StageNameCasing@1",
                "MaintainerDeprecated@2",
                "dockerfile parse error on line 3: unknown instruction: BADCMD",
            ],
        ),
        (
            "FROM --platform=$BULIDPLATFORM scratch\n",
            [
                "UndefinedArgInFrom@1",
                "empty platform value from expression $BULIDPLATFORM (did you mean BUILDPLATFORM?)",
            ],
        ),
        (
            "ARG MY_ARCH=amd64\nFROM --platform=linux/${MYARCH} a\n",
            [
                "UndefinedArgInFrom@2",
                'failed to parse platform linux/${MYARCH}: "" is an invalid component of "linux/": '
                'platform specifier component must match "^[A-Za-z0-9_.-]+$": invalid argument '
                "(did you mean MY_ARCH?)",
            ],
        ),
    ],
)
def test_as_buildkit(source: str, expected: list[str]) -> None:
    assert found(source) == expected


def test_only_stages_that_are_built_are_looked_into() -> None:
    source = "FROM scratch AS B\nENV k value\nFROM scratch\n"
    assert found(source) == ["StageNameCasing@1", "LegacyKeyValueFormat@2"]
    assert found(source, target="") == ["StageNameCasing@1"]
    assert found(source, target="b") == ["StageNameCasing@1", "LegacyKeyValueFormat@2"]


def test_instructions_before_the_first_stage_set_no_casing() -> None:
    assert found("ARG a=1\nARG b=1\nfrom scratch\n") == []


def test_arguments_of_a_stage_are_not_declared_for_the_next_from() -> None:
    assert found("FROM scratch\nARG V=1\nFROM x$V\n") == ["UndefinedArgInFrom@3"]


def test_a_context_is_ignored_only_as_a_whole() -> None:
    source = "FROM scratch\nCOPY . .\n"
    assert found(source, ignore=[".*"]) == []
    assert found(source, ignore=["*"]) == ["CopyIgnoredFile@2"]


def test_what_another_stage_has_is_not_ignored() -> None:
    source = "FROM scratch AS a\nFROM scratch\nCOPY --from=a x .\n"
    assert found(source, ignore=["x"]) == []


def test_the_files_own_choice_is_no_comment_of_its_first_instruction() -> None:
    source = "# check=skip=all\nFROM scratch as base\n"
    assert found(source) == []
    assert found(source, check="skip=StageNameCasing") == ["FromAsCasing@2"]


def test_findings_fail_the_build_where_they_are_to() -> None:
    report = examine(parse("FROM scratch as base\n"), platform=HOST)
    assert report.failure(Choice()) is None
    failure = report.failure(Choice(error=True))
    assert failure is not None
    assert failure.message == "lint violation found for rules: FromAsCasing"
