"""Variable expansion and word splitting as Dockerfiles do it.

A small subset of the POSIX shell's word expansion (spec/dockerfile/reference.md, "Environment
replacement"; the cases of testfiles/shell):

word         ::= { char | escape char | "'" raw "'" | '"' { char | escape char | parameter } '"'
                 | parameter }
parameter    ::= "$" name | "${" name [ operation ] "}"
operation    ::= ":-" word | "-" word | ":+" word | "+" word | ":?" word | "?" word
                 | "#" pattern | "##" pattern | "%" pattern | "%%" pattern
                 | "/" pattern "/" word | "//" pattern "/" word
name         ::= letter { letter | digit | "_" } | digit { digit } | special
special      ::= "@" | "*" | "#" | "?" | "-" | "$" | "!"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sampan.errors import InvalidParameter

_SPECIAL = frozenset("@*#?-$!")
#: How deep substitutions may nest; far beyond any sensible word, within Python's own stack.
_DEPTH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """What a word became.

    ``text`` is the whole word, ``words`` the same split at unquoted white space; ``used`` and
    ``undefined`` are the variables that were and were not set.
    """

    text: str
    words: tuple[str, ...]
    used: frozenset[str]
    undefined: frozenset[str]


def expand(
    word: str,
    environment: Mapping[str, str],
    escape: str = "\\",
    *,
    raw_quotes: bool = False,
    plain_quotes: bool = False,
) -> Expansion:
    """Expand ``word`` with the variables of ``environment``.

    With ``raw_quotes`` the quotes and escapes stay in the text; with ``plain_quotes`` quotes are
    letters like others, as in a here-document. Raises
    :class:`InvalidParameter` for an unfinished quote or substitution and for ``${name?}``.
    """
    state = _State(
        word=word,
        environment=environment,
        escape=escape,
        raw_quotes=raw_quotes,
        plain_quotes=plain_quotes,
    )
    text = state.until("")
    return Expansion(
        text=text,
        words=tuple(state.split.finish()),
        used=frozenset(state.used),
        undefined=frozenset(state.undefined),
    )


@dataclass(slots=True)
class _Words:
    """Splits what is added at white space, unless it was quoted."""

    words: list[str] = field(default_factory=list)
    current: list[str] = field(default_factory=list)
    open: bool = False

    def add(self, text: str) -> None:
        for char in text:
            if char.isspace():
                self._close()
            else:
                self.quoted(char)

    def quoted(self, text: str) -> None:
        self.current.append(text)
        self.open = True

    def _close(self) -> None:
        if self.open:
            self.words.append("".join(self.current))
            self.current, self.open = [], False

    def finish(self) -> list[str]:
        self._close()
        return self.words


@dataclass(slots=True, kw_only=True)
class _State:
    word: str
    environment: Mapping[str, str]
    escape: str
    raw_quotes: bool
    plain_quotes: bool
    at: int = 0
    depth: int = 0
    split: _Words = field(default_factory=_Words)
    used: set[str] = field(default_factory=set)
    undefined: set[str] = field(default_factory=set)

    def peek(self) -> str:
        return self.word[self.at : self.at + 1]

    def next(self) -> str:
        char = self.peek()
        self.at += 1
        return char

    def until(self, stop: str, *, raw_escapes: bool = False) -> str:
        """Everything up to ``stop`` (consumed), or to the end if ``stop`` is empty."""
        out: list[str] = []
        while (char := self.peek()) != "":
            if stop and char == stop:
                self.at += 1
                return "".join(out)
            if char == "'" and not self.plain_quotes:
                piece = self.single_quoted()
                self.split.quoted(piece)
            elif char == '"' and not self.plain_quotes:
                piece = self.double_quoted()
                self.split.quoted(piece)
            elif char == "$":
                piece = self.parameter()
                self.split.add(piece)
            elif char == self.escape:
                piece = self.escaped(raw_escapes or self.raw_quotes)
            else:
                piece = self.next()
                self.split.add(piece)
            out.append(piece)
        if stop:
            raise InvalidParameter(
                f"unexpected end of statement while looking for matching {stop} in {self.word!r}"
            )
        return "".join(out)

    def escaped(self, raw: bool) -> str:
        self.at += 1
        char = self.next()
        if char == "":
            return ""
        self.split.quoted(char)
        return self.escape + char if raw else char

    def single_quoted(self) -> str:
        end = self.word.find("'", self.at + 1)
        if end < 0:
            raise InvalidParameter(
                "unexpected end of statement while looking for matching single-quote in "
                f"{self.word!r}"
            )
        text = self.word[self.at + 1 : end]
        self.at = end + 1
        return f"'{text}'" if self.raw_quotes else text

    def double_quoted(self) -> str:
        self.at += 1
        out: list[str] = []
        while (char := self.peek()) != "":
            if char == '"':
                self.at += 1
                text = "".join(out)
                return f'"{text}"' if self.raw_quotes else text
            if char == "$":
                out.append(self.parameter())
                continue
            self.at += 1
            if char == self.escape:
                following = self.next()
                if following == "":
                    break
                if following in ('"', "$", self.escape) and not self.raw_quotes:
                    char = following
                else:
                    char += following
            out.append(char)
        raise InvalidParameter(
            f"unexpected end of statement while looking for matching double-quote in {self.word!r}"
        )

    def parameter(self) -> str:
        self.at += 1
        if self.peek() != "{":
            name = self.name()
            return self.value(name) if name else "$"
        self.at += 1
        name = self.name()
        if not name:
            raise InvalidParameter(f"syntax error: bad substitution in {self.word!r}")
        operator = self.next()
        if operator == "}":
            return self.value(name)
        if operator == ":":
            operator += self.next()
            if operator[1:] not in ("-", "+", "?"):
                raise InvalidParameter(
                    f"unsupported modifier ({operator[1:]}) in substitution of {self.word!r}"
                )
        if operator in ("#", "%", "/"):
            return self.pattern(name, operator)
        if operator.removeprefix(":") in ("-", "+", "?") and operator:
            return self.conditional(name, operator)
        raise InvalidParameter(
            "syntax error: missing ':' in substitution"
            if operator
            else f"unexpected end of statement while looking for matching }} in {self.word!r}"
        )

    def inner(self, stop: str, *, raw_escapes: bool = False) -> str:
        """A word inside a substitution, whose characters are not split here but as its result."""
        if self.depth == _DEPTH:
            raise InvalidParameter(f"substitutions nest deeper than {_DEPTH} levels")
        outer, self.split = self.split, _Words()
        self.depth += 1
        try:
            return self.until(stop, raw_escapes=raw_escapes)
        finally:
            self.depth -= 1
            self.split = outer

    def conditional(self, name: str, operator: str) -> str:
        undefined = set(self.undefined)
        word = self.inner("}")
        value = self.lookup(name)
        present = bool(value) if operator.startswith(":") else value is not None
        match operator[-1]:
            case "-":
                if present:
                    self.undefined = undefined
                return (value or "") if present else word
            case "+":
                if not present:
                    self.undefined = undefined
                return word if present else ""
        if present:
            return value or ""
        state = "empty" if operator == ":?" else "unset"
        raise InvalidParameter(f"{name}: {word or f'not allowed to be {state}'}")

    def pattern(self, name: str, operator: str) -> str:
        if self.peek() == operator:
            self.at += 1
            operator *= 2
        value = self.value(name)
        if operator.startswith("/"):
            glob = self.inner("/", raw_escapes=True)
            replacement = _unescape(self.inner("}", raw_escapes=True), self.escape)
            found = re.compile(_regex(glob, self.escape, greedy=True), re.DOTALL)
            count = 1 if operator == "/" else 0
            return found.sub(lambda _: replacement, value, count=count)
        glob = self.inner("}", raw_escapes=True)
        return _trim(value, glob, operator, self.escape)

    def name(self) -> str:
        char = self.peek()
        if char in _SPECIAL and char:
            self.at += 1
            return char
        start = self.at
        if char.isdigit():
            while self.peek().isdigit():
                self.at += 1
        elif char == "_" or char.isalpha():
            while (char := self.peek()) == "_" or char.isalnum():
                self.at += 1
        return self.word[start : self.at]

    def lookup(self, name: str) -> str | None:
        value = self.environment.get(name)
        if value is not None:
            self.used.add(name)
        return value

    def value(self, name: str) -> str:
        value = self.lookup(name)
        if value is None:
            self.undefined.add(name)
            return ""
        return value


def _trim(value: str, glob: str, operator: str, escape: str) -> str:
    """``value`` less the shortest or longest prefix or suffix that ``glob`` matches."""
    whole = re.compile(_regex(glob, escape, greedy=True), re.DOTALL)
    lengths = range(len(value) + 1)
    for length in reversed(lengths) if len(operator) == 2 else lengths:
        if operator.startswith("#"):
            if whole.fullmatch(value, 0, length):
                return value[length:]
        elif whole.fullmatch(value, len(value) - length):
            return value[: len(value) - length]
    return value


def _regex(glob: str, escape: str, *, greedy: bool) -> str:
    out: list[str] = []
    chars = iter(glob)
    for char in chars:
        if char == escape:
            out.append(re.escape(next(chars, "")))
        elif char == "*":
            out.append(".*" if greedy else ".*?")
        elif char == "?":
            out.append(".")
        else:
            out.append(re.escape(char))
    return "".join(out)


def _unescape(text: str, escape: str) -> str:
    chars = iter(text)
    return "".join(next(chars, "") if char == escape else char for char in chars)
