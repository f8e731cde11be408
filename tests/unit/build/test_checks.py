"""Each build check on the bad and good Dockerfiles of its own page (spec/dockerfile/rules)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.spec import SPEC

from sampan.build.checks import RULES, Choice, check
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
    base: Config = {"Env": ["PYTHON_VERSION=3"]}
    python = {0: base} if "PYTHON_VERSION" in source else None
    found = {
        warning.rule
        for warning in check(
            parse(source), platform=HOST, ignore=ignore, choice=choice, configs=python
        )
    }
    assert (rule in found) is bad


def test_every_rule_has_a_page_or_is_known_to_have_none() -> None:
    assert {rule for rule, _, _ in examples()} | {"InvalidBaseImagePlatform"} == set(RULES)


def test_base_platform() -> None:
    arm = Platform(os="linux", architecture="arm64")
    (warning,) = check(parse("FROM x\n"), platform=HOST, bases={0: arm})
    assert warning.rule == "InvalidBaseImagePlatform"


def test_directive_chooses() -> None:
    source = "# check=skip=StageNameCasing;error=true\nFROM x AS Y\n"
    assert check(parse(source), platform=HOST) == ()
    assert Choice.parse("skip=all").runs("UndefinedVar") is False
    with pytest.raises(InvalidParameter):
        Choice.parse("nonsense")
