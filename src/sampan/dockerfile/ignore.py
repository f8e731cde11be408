"""``.dockerignore``: which files of a context the builder sees (pure).

Patterns follow Go's ``filepath.Match`` with ``**`` for any number of directories; the last
matching pattern wins, ``!`` includes again, and a matched directory takes its children along
(spec/dockerfile/reference.md and buildx "Dockerignore files"; github.com/moby/patternmatcher).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass

from sampan.errors import InvalidParameter

_BOM = "\ufeff"


def parse_ignore_file(text: str) -> tuple[str, ...]:
    """The patterns of a ``.dockerignore`` file, cleaned; comments only in column zero."""
    patterns: list[str] = []
    for line in text.removeprefix(_BOM).splitlines():
        if line.startswith("#"):
            continue
        pattern = line.strip()
        if not pattern:
            continue
        exclamation = "!" if pattern.startswith("!") else ""
        pattern = pattern.removeprefix("!").strip()
        if pattern:
            pattern = posixpath.normpath(pattern)
            if pattern.startswith("//"):  # normpath keeps two leading slashes (POSIX)
                pattern = pattern[1:]
            if len(pattern) > 1:
                pattern = pattern.removeprefix("/")
        patterns.append(exclamation + pattern)
    return tuple(patterns)


@dataclass(frozen=True, slots=True)
class _Pattern:
    regex: re.Pattern[str]
    includes: bool


class IgnoreMatcher:
    """Decides for slash-separated paths relative to the context's root."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Compile ``patterns``; raises :class:`InvalidParameter` for one that is malformed."""
        self._patterns: list[_Pattern] = []
        self.patterns = tuple(patterns)
        for pattern in self.patterns:
            includes = pattern.startswith("!")
            bare = posixpath.normpath(pattern.removeprefix("!").strip() or ".")
            if pattern.strip() == "!":
                raise InvalidParameter('illegal exclusion pattern: "!"')
            self._patterns.append(_Pattern(_compile(bare), includes))

    @property
    def has_inclusions(self) -> bool:
        """Whether an ignored directory must still be walked because a pattern may re-include."""
        return any(pattern.includes for pattern in self._patterns)

    def ignores(self, path: str) -> bool:
        """Whether the builder may not see ``path``."""
        path = path.strip("/")
        ancestors = [path]
        while parent := posixpath.dirname(ancestors[-1]):
            ancestors.append(parent)
        ignored = False
        for pattern in self._patterns:
            if ignored == pattern.includes and any(
                pattern.regex.fullmatch(ancestor) for ancestor in ancestors
            ):
                ignored = not pattern.includes
        return ignored


def match(pattern: str, path: str) -> bool:
    """Whether one pattern with ``*``, ``?``, ``[...]`` and ``**`` matches the whole path."""
    return _compile(pattern).fullmatch(path) is not None


def _compile(pattern: str) -> re.Pattern[str]:
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            if pattern.startswith("*", at):
                at += 1
                if pattern.startswith("/", at):
                    at += 1
                out.append(".*" if at == len(pattern) else "(?:.*/)?")
            else:
                out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            piece, at = _bracket(pattern, at)
            out.append(piece)
        elif char == "\\":
            if at == len(pattern):
                raise InvalidParameter(f"syntax error in pattern {pattern!r}")
            out.append(re.escape(pattern[at]))
            at += 1
        else:
            out.append(re.escape(char))
    return re.compile("".join(out), re.DOTALL)


def _bracket(pattern: str, at: int) -> tuple[str, int]:
    """A character class from behind its ``[``: the regular expression and where it ends."""
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[str] = []
    while not (ranges and pattern.startswith("]", at)):
        low, at = _class_char(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _class_char(pattern, at + 1)
        if high < low:
            raise InvalidParameter(f"syntax error in pattern {pattern!r}")
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    inside = "".join(ranges)
    return (f"[^/{inside}]" if negated else f"(?!/)[{inside}]"), at + 1


def _class_char(pattern: str, at: int) -> tuple[str, int]:
    if at >= len(pattern) or pattern[at] in "]-":
        raise InvalidParameter(f"syntax error in pattern {pattern!r}")
    if pattern[at] == "\\":
        at += 1
        if at >= len(pattern):
            raise InvalidParameter(f"syntax error in pattern {pattern!r}")
    return pattern[at], at + 1
