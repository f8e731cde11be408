"""Dockerfile -> nodes: lines joined, heredocs collected, flags and arguments split (pure).

dockerfile   ::= { directive } { comment | blank | instruction }
directive    ::= "#" name "=" value                      (only at the top, each at most once)
instruction  ::= keyword { "--" flag } arguments { heredoc-body }
continuation ::= escape at the end of a line; comments and empty lines inside are dropped

Spec: spec/dockerfile/reference.md and syntax.md; BuildKit's cases in testfiles/parser. What an
instruction *means* is in :mod:`sampan.dockerfile.instructions`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from sampan.dockerfile.heredoc import Heredoc, heredocs_of
from sampan.errors import InvalidParameter

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_DIRECTIVES = ("syntax", "escape", "check")
_SPACE = " \t\v\f\r"
_BOM = "\ufeff"
#: Names BuildKit knows; others are an error when the instruction is interpreted.
KEYWORDS = frozenset(
    {"add", "arg", "cmd", "copy", "entrypoint", "env", "expose", "from", "healthcheck"}
    | {"label", "maintainer", "onbuild", "run", "shell", "stopsignal", "user", "volume", "workdir"}
)


class DockerfileError(InvalidParameter):
    """A Dockerfile is wrong at some line; ``line`` counts from one."""

    def __init__(self, message: str, line: int = 0, *, bare: bool = False) -> None:
        """``bare`` leaves the line out of the sentence, as BuildKit does once stages are known."""
        said = bool(line) and not bare
        super().__init__(f"dockerfile parse error on line {line}: {message}" if said else message)
        self.reason = message
        self.line = line
        #: The lines of the Dockerfile, where whoever raised or passed on the error had them.
        self.source: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One instruction as written.

    ``arguments`` are the words, or one string for shell forms; ``json`` says that they came as a
    JSON array; ``pairs`` holds ENV and LABEL as (key, value, separator) with quotes kept;
    ``child`` is what ONBUILD holds back. Lines count from one, inclusive.
    """

    keyword: str
    original: str
    start: int
    end: int
    flags: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    json: bool = False
    pairs: tuple[tuple[str, str, str], ...] = ()
    heredocs: tuple[Heredoc, ...] = ()
    child: Node | None = None
    comments: tuple[str, ...] = ()
    spelled: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    """A parsed Dockerfile; ``source`` its lines, for error excerpts."""

    nodes: tuple[Node, ...]
    escape: str
    directives: Mapping[str, str]
    source: tuple[str, ...]
    empty_continuations: tuple[int, ...] = ()


def parse(text: str) -> Dockerfile:
    """Parse a whole Dockerfile. Raises :class:`DockerfileError` naming the line."""
    lines = text.removeprefix(_BOM).replace("\r\n", "\n").split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    try:
        return _parse(lines)
    except DockerfileError as error:
        error.source = tuple(lines)
        raise


def _parse(lines: list[str]) -> Dockerfile:
    directives, count = _directives(lines)
    reader = _Reader(lines=lines, escape=directives.get("escape", "\\"), at=count)
    nodes = tuple(reader.nodes())
    if not nodes:
        raise DockerfileError("file with no instructions")
    return Dockerfile(
        nodes=nodes,
        escape=reader.escape,
        directives=directives,
        source=tuple(lines),
        empty_continuations=tuple(reader.empty_continuations),
    )


def parse_instruction(line: str, escape: str = "\\") -> Node:
    """One instruction alone, as ``docker commit --change`` and ONBUILD triggers give it."""
    return _node(line.strip(), escape, start=0, end=0)


def excerpt(source: tuple[str, ...], start: int, end: int, context: int = 2) -> str:
    """The lines around an instruction, those of it marked, as BuildKit's errors show them."""
    first, last = max(1, start - context), min(len(source), end + context)
    rows = [
        f"{number:4d} | {'>>>' if start <= number <= end else '   '} {source[number - 1]}"
        for number in range(first, last + 1)
    ]
    return "\n".join(["-" * 20, *rows, "-" * 20])


def _directives(lines: list[str]) -> tuple[dict[str, str], int]:
    """The directives, and how many lines they are: no comments of the first instruction."""
    found: dict[str, str] = {}
    count = 0
    for number, line in enumerate(lines, 1):
        if number == 1 and line.startswith("#!"):
            continue
        match = _DIRECTIVE.fullmatch(line.strip(_SPACE))
        if match is None or (name := match[1].lower()) not in _DIRECTIVES:
            break
        if name in found:
            raise DockerfileError(f"only one {name} parser directive can be used", number)
        found[name] = match[2]
        count = number
    if found.get("escape", "\\") not in ("\\", "`"):
        raise DockerfileError(f"invalid escape token {found['escape']!r} does not match ` or \\", 1)
    return found, count


@dataclass(slots=True, kw_only=True)
class _Reader:
    lines: list[str]
    escape: str
    at: int = 0
    empty_continuations: list[int] = field(default_factory=list)

    def nodes(self) -> Iterator[Node]:
        comments: list[str] = []
        while self.at < len(self.lines):
            line = self.lines[self.at].lstrip(_SPACE)
            if line.startswith("#"):
                text = line[1:].strip()
                if text:
                    comments.append(text)
                else:
                    comments.clear()
                self.at += 1
            elif not line.strip():
                comments.clear()
                self.at += 1
            else:
                yield replace(self.instruction(), comments=tuple(comments))
                comments.clear()

    def instruction(self) -> Node:
        start = self.at + 1
        line, goes_on = self.trimmed(self.lines[self.at].lstrip(_SPACE))
        self.at += 1
        while goes_on and self.at < len(self.lines):
            following = self.lines[self.at]
            self.at += 1
            if following.lstrip(_SPACE).startswith("#"):
                continue
            if not following.strip():
                self.empty_continuations.append(self.at)
                continue
            following, goes_on = self.trimmed(following)
            line += following
        original = line.strip()
        heredocs = tuple(
            self.body(heredoc, start) for heredoc in heredocs_of(original, self.escape)
        )
        node = _node(original, self.escape, start=start, end=self.at)
        if heredocs and _takes_heredocs(node):
            node = replace(node, heredocs=heredocs)
        return node

    def trimmed(self, line: str) -> tuple[str, bool]:
        """The line without its continuation mark, and whether it had one."""
        stripped = line.rstrip(" \t\r")
        before = stripped[:-1]
        if stripped.endswith(self.escape) and not before.endswith(self.escape):
            return before, True
        return line, False

    def body(self, heredoc: Heredoc, start: int) -> Heredoc:
        content: list[str] = []
        while self.at < len(self.lines):
            line = self.lines[self.at]
            self.at += 1
            if heredoc.strip_tabs:
                line = line.lstrip("\t")
            if line == heredoc.name:
                return replace(heredoc, content="".join(f"{text}\n" for text in content))
            content.append(line)
        raise DockerfileError(f"unterminated heredoc {heredoc.name}", start)


def _takes_heredocs(node: Node) -> bool:
    inner = node.child or node
    return inner.keyword in ("add", "copy", "run") and not inner.json


def _node(line: str, escape: str, *, start: int, end: int) -> Node:
    keyword, _, rest = _cut(line)
    flags, arguments = _flags(rest.strip(), escape)
    node = Node(
        keyword=keyword.lower(),
        spelled=keyword,
        original=line,
        start=start,
        end=end,
        flags=tuple(flags),
    )
    split = _SPLITTERS.get(node.keyword, _ignore)
    try:
        return split(node, arguments, escape)
    except DockerfileError as error:
        raise DockerfileError(error.reason, error.line or start) from None


def _cut(line: str) -> tuple[str, str, str]:
    match = re.search(rf"[{_SPACE}]+", line)
    return (line[: match.start()], match[0], line[match.end() :]) if match else (line, "", "")


def _flags(line: str, escape: str) -> tuple[list[str], str]:
    """The leading ``--flag`` words, unquoted, and what follows them."""
    flags: list[str] = []
    at = 0
    while True:
        while at < len(line) and line[at].isspace():
            at += 1
        if not line.startswith("--", at):
            return flags, line[at:]
        word: list[str] = []
        quote = ""
        while at < len(line) and (quote or not line[at].isspace()):
            char = line[at]
            at += 1
            if char == escape and at < len(line):
                word.append(line[at])
                at += 1
            elif quote and char == quote:
                quote = ""
            elif not quote and char in "'\"":
                quote = char
            else:
                word.append(char)
        flag = "".join(word)
        if flag == "--":
            return flags, line[at:].lstrip()
        flags.append(flag)


def _json_strings(text: str) -> tuple[str, ...] | None:
    """The strings of a JSON array, or None when the text is not one (then it is a shell form)."""
    if not text.startswith("["):
        return None
    try:
        decoded: object = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    if not isinstance(decoded, list):
        return None
    strings = tuple(item for item in decoded if isinstance(item, str))
    if len(strings) != len(decoded):
        raise DockerfileError(
            "when using JSON array syntax, arrays must be comprised of strings only"
        )
    return strings


def words(text: str, escape: str) -> list[str]:
    """Split at white space outside quotes; quotes and escapes stay (ENV, LABEL, ARG)."""
    out: list[str] = []
    current = ""
    quote = ""
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if not quote and char.isspace():
            if current:
                out.append(current)
            current = ""
            continue
        if char == escape and quote != "'" and at < len(text):
            char += text[at]
            at += 1
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        current += char
    return [*out, current] if current else out


def _ignore(node: Node, rest: str, escape: str) -> Node:
    return replace(node, arguments=(rest,) if rest else ())


def _maybe_json(node: Node, rest: str, escape: str) -> Node:
    strings = _json_strings(rest)
    if strings is not None:
        return replace(node, arguments=strings, json=True)
    return replace(node, arguments=(rest,) if rest else ())


def _maybe_json_list(node: Node, rest: str, escape: str) -> Node:
    strings = _json_strings(rest)
    if strings is not None:
        return replace(node, arguments=strings, json=True)
    return replace(node, arguments=tuple(rest.split()))


def _whitespace(node: Node, rest: str, escape: str) -> Node:
    return replace(node, arguments=tuple(rest.split()))


def _arg(node: Node, rest: str, escape: str) -> Node:
    return replace(node, arguments=tuple(words(rest, escape)))


def _pairs(node: Node, rest: str, escape: str) -> Node:
    found = words(rest, escape)
    name = node.keyword.upper()
    if not found:
        return node
    if "=" not in found[0]:
        key, _, value = _cut(rest)
        if not value:
            raise DockerfileError(f"{name} must have two arguments")
        return replace(node, pairs=((key, value, ""),))
    pairs: list[tuple[str, str, str]] = []
    for word in found:
        key, equals, value = word.partition("=")
        if not equals:
            raise DockerfileError(
                f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value'
            )
        pairs.append((key, value, "="))
    return replace(node, pairs=tuple(pairs))


def _onbuild(node: Node, rest: str, escape: str) -> Node:
    if not rest:
        return node
    if _cut(rest)[0].lower() == "onbuild":
        raise DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    return replace(node, child=_node(rest, escape, start=node.start, end=node.end))


def _health(node: Node, rest: str, escape: str) -> Node:
    kind, _, command = _cut(rest)
    if not kind:
        return node
    strings = _json_strings(command)
    if strings is not None:
        return replace(node, arguments=(kind, *strings), json=True)
    return replace(node, arguments=(kind, command) if command else (kind,))


_SPLITTERS: Mapping[str, Callable[[Node, str, str], Node]] = {
    "add": _maybe_json_list,
    "arg": _arg,
    "cmd": _maybe_json,
    "copy": _maybe_json_list,
    "entrypoint": _maybe_json,
    "env": _pairs,
    "expose": _whitespace,
    "from": _whitespace,
    "healthcheck": _health,
    "label": _pairs,
    "onbuild": _onbuild,
    "run": _maybe_json,
    "shell": _maybe_json,
    "volume": _maybe_json_list,
}
