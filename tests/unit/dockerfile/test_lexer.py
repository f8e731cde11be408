"""The shell lexer against BuildKit's own cases (spec/dockerfile/testfiles/shell)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.spec import SPEC

from sampan.dockerfile.lexer import expand
from sampan.errors import InvalidParameter

CASES = SPEC / "dockerfile" / "testfiles" / "shell"
ENVIRONMENT = {"PWD": "/home", "SHELL": "bash", "KOREAN": "한국어", "NULL": ""}


def expansions() -> Iterator[tuple[str, str]]:
    for line in (CASES / "envVarTest").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            systems, word, expected = (part.strip() for part in line.split("|"))
            if systems in "AU":
                yield word, expected


@pytest.mark.parametrize(("word", "expected"), list(expansions()))
def test_expansion(word: str, expected: str) -> None:
    if expected == "error":
        with pytest.raises(InvalidParameter):
            expand(word, ENVIRONMENT)
    else:
        assert expand(word, ENVIRONMENT).text == expected


def splittings() -> Iterator[tuple[str, str, dict[str, str]]]:
    environment: dict[str, str] = {}
    for line in (CASES / "wordsTest").read_text().split("\n"):
        if line.startswith("ENV "):
            name, _, value = line.removeprefix("ENV ").lstrip().partition("=")
            environment = {**environment, name: value}
        elif line.strip() and not line.startswith("#"):
            word, _, expected = line.partition("|")
            yield word.strip(), expected.lstrip(), environment


@pytest.mark.parametrize(("word", "expected", "environment"), list(splittings()))
def test_splitting(word: str, expected: str, environment: dict[str, str]) -> None:
    if expected == "error":
        with pytest.raises(InvalidParameter):
            expand(word, environment)
    else:
        assert list(expand(word, environment).words) == expected.split(",")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("${v#*o}", "obar-foo.tar.gz"),
        ("${v##*o}", ".tar.gz"),
        ("${v%.*}", "foobar-foo.tar"),
        ("${v%%.*}", "foobar-foo"),
        ("${v/foo/x}", "xbar-foo.tar.gz"),
        ("${v//foo/x}", "xbar-x.tar.gz"),
        ("${v/fo?b/x}", "xar-foo.tar.gz"),
        (r"${v/\./\/}", "foobar-foo/tar.gz"),
        ("${v%nothing}", "foobar-foo.tar.gz"),
        ("${unset#x}", ""),
        ("${v-$w}", "foobar-foo.tar.gz"),
        ("${unset-a b}", "a b"),
    ],
)
def test_patterns(word: str, expected: str) -> None:
    assert expand(word, {"v": "foobar-foo.tar.gz"}).text == expected


def test_undefined_names_are_reported() -> None:
    expansion = expand("$a ${b:-$c} ${d:-x}", {"a": "1", "b": "2"})
    assert expansion.used == {"a", "b"}
    assert expansion.undefined == frozenset()
    assert expand("$x$y", {"y": ""}).undefined == {"x"}


def test_a_required_variable_names_itself() -> None:
    with pytest.raises(InvalidParameter, match=r"^VERSION: give one$"):
        expand("${VERSION:?give one}", {})
