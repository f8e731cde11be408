"""``.dockerignore`` semantics as the builder reference states them."""

from __future__ import annotations

import pytest

from sampan.dockerfile.ignore import IgnoreMatcher, match, parse_ignore_file
from sampan.errors import InvalidParameter


def test_file_syntax() -> None:
    text = "\ufeff# comment\n  # not a comment\n\n /a/b/ \n!  c/../d\n/\n//x\n"
    assert parse_ignore_file(text) == ("# not a comment", "a/b", "!d", "/", "x")


@pytest.mark.parametrize(
    ("patterns", "path", "ignored"),
    [
        (["a"], "a", True),
        (["a"], "a/b/c", True),
        (["a"], "b/a", False),
        (["*/a"], "b/a", True),
        (["*/a"], "c/b/a", False),
        (["**/a"], "a", True),
        (["**/a"], "c/b/a", True),
        (["**"], "x/y", True),
        (["**/*.go"], "a/b.go", True),
        (["**/*.go"], "b.go", True),
        (["a/**/z"], "a/z", True),
        (["a/**/z"], "a/b/c/z", True),
        (["a/**"], "a/b", True),
        (["*.md", "!README.md"], "README.md", False),
        (["*.md", "!README*.md", "README-secret.md"], "README-secret.md", True),
        (["a", "!a/keep"], "a/keep", False),
        (["a", "!a/keep"], "a/keep/child", False),
        (["a", "!a/keep"], "a/other", True),
        (["temp?"], "tempa", True),
        (["temp?"], "temp/a", False),
        (["[a-c]x"], "bx", True),
        (["[^a-c]x"], "bx", False),
        (["[^a-c]x"], "dx", True),
        ([r"a\*"], "a*", True),
        ([r"a\*"], "ab", False),
        ([".git"], ".gitignore", False),
        (["a.b"], "axb", False),
    ],
)
def test_matching(patterns: list[str], path: str, ignored: bool) -> None:
    assert IgnoreMatcher(patterns).ignores(path) is ignored


def test_inclusions_are_announced() -> None:
    assert IgnoreMatcher(["a", "!a/b"]).has_inclusions
    assert not IgnoreMatcher(["a"]).has_inclusions


@pytest.mark.parametrize("pattern", ["[", "[a", "[]a", "[a-]", "a\\", "[z-a]", "!"])
def test_malformed_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidParameter):
        IgnoreMatcher([pattern])


def test_single_pattern() -> None:
    assert match("a*/b", "ac/b")
    assert not match("a*", "a/b")
