"""From template text to tokens (text/template/parse/lex.go's language).

text    ::= anything up to "{{"
action  ::= "{{" [ "- " ] { token } [ " -" ] "}}"
comment ::= "{{" [ "- " ] "/*" ... "*/" [ " -" ] "}}"
"""

from __future__ import annotations

from typing import NamedTuple

from sampan.cli.gotemplate.fault import ParseError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

KEYWORDS = frozenset(
    (
        "block",
        "break",
        "continue",
        "define",
        "else",
        "end",
        "if",
        "range",
        "nil",
        "template",
        "with",
    )
)
_SPACE = " \t\r\n"
_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", "'": "'", '"': '"',
}  # fmt: skip


class Token(NamedTuple):
    """A token: its kind, its text, where it starts, whether white space precedes it.

    Kinds: text, open, close, field, variable, identifier, keyword, bool, number, string, char,
    dot, and the operators ``| ( ) , := =``.
    """

    kind: str
    text: str
    position: int
    spaced: bool = False
    value: str = ""


class Lexer:
    """One pass over a template's text."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._position = 0

    def tokens(self) -> Iterator[Token]:
        """All tokens. Raises :class:`ParseError`."""
        trim = False
        while self._position < len(self._source):
            start = self._position
            opening = self._source.find("{{", start)
            end = len(self._source) if opening < 0 else opening
            text = self._source[start:end]
            if trim:
                text = text.lstrip(_SPACE)
            self._position = end
            if opening >= 0 and self._trims_left(opening):
                text = text.rstrip(_SPACE)
            if text:
                yield Token("text", text, start)
            trim = False
            if opening >= 0:
                trim = yield from self._action(opening)

    def _trims_left(self, opening: int) -> bool:
        after = self._source[opening + 2 : opening + 4]
        return len(after) == 2 and after[0] == "-" and after[1] in _SPACE

    def _action(self, opening: int) -> Generator[Token, None, bool]:
        self._position = opening + (4 if self._trims_left(opening) else 2)
        if self._source.startswith("/*", self._position):
            return self._comment(opening)
        yield Token("open", "{{", opening)
        depth = 0
        while True:
            spaced = self._skip_space()
            source, at = self._source, self._position
            if at >= len(source):
                raise self._error("unclosed action", opening)
            if spaced and source.startswith("-}}", at):
                self._position += 3
                yield Token("close", "}}", at)
                return True
            if source.startswith("}}", at):
                if depth:
                    raise self._error("unclosed left paren", at)
                self._position += 2
                yield Token("close", "}}", at)
                return False
            token = self._token(spaced)
            depth += {"(": 1, ")": -1}.get(token.kind, 0)
            if depth < 0:
                raise self._error("unexpected right paren", at)
            yield token

    def _comment(self, opening: int) -> bool:
        end = self._source.find("*/", self._position)
        if end < 0:
            raise self._error("unclosed comment", opening)
        rest = self._source[end + 2 : end + 6]
        for close, trims in (("}}", False), *((f"{space}-}}}}", True) for space in _SPACE)):
            if rest.startswith(close):
                self._position = end + 2 + len(close)
                return trims
        raise self._error("comment ends before closing delimiter", opening)

    def _skip_space(self) -> bool:
        start = self._position
        while self._position < len(self._source) and self._source[self._position] in _SPACE:
            self._position += 1
        return self._position > start

    def _token(self, spaced: bool) -> Token:
        source, at = self._source, self._position
        letter = source[at]
        if letter in "|(),":
            return self._take(letter, 1, spaced)
        if source.startswith(":=", at):
            return self._take(":=", 2, spaced)
        if letter == "=":
            return self._take("=", 1, spaced)
        if letter in "\"'`":
            return self._quoted(letter, spaced)
        if letter == ".":
            after = source[at + 1 : at + 2]
            if after.isdecimal():
                return self._number(spaced)
            if not after:
                return self._take("number", 1, spaced)
            length = self._word_length(at + 1)
            if not length:
                return self._take("dot", 1, spaced)
            return self._take("field", length + 1, spaced)
        if letter == "$":
            return self._take("variable", 1 + self._word_length(at + 1), spaced)
        if letter.isdecimal() or letter in "+-":
            return self._number(spaced)
        length = self._word_length(at)
        if not length:
            raise self._error(f"unexpected {_code_point(letter)} in command", at)
        word = source[at : at + length]
        if word in ("true", "false"):
            return self._take("bool", length, spaced)
        return self._take("keyword" if word in KEYWORDS else "identifier", length, spaced)

    def _take(self, kind: str, length: int, spaced: bool) -> Token:
        at = self._position
        self._position += length
        return Token(kind, self._source[at : self._position], at, spaced)

    def _word_length(self, start: int) -> int:
        end = start
        while end < len(self._source) and (self._source[end] == "_" or self._source[end].isalnum()):
            end += 1
        return end - start

    def _number(self, spaced: bool) -> Token:
        at = end = self._position
        while end < len(self._source):
            letter = self._source[end]
            exponent_sign = letter in "+-" and self._source[end - 1] in "eEpP" and end > at
            if not (letter.isalnum() or letter in "._" or exponent_sign or end == at):
                break
            end += 1
        text = self._source[at:end]
        if not any(letter.isdecimal() for letter in text):
            raise self._error(f"bad number syntax: {_quote(text)}", at)
        return self._take("number", end - at, spaced)

    def _quoted(self, quote: str, spaced: bool) -> Token:
        at = self._position
        if quote == "`":
            end = self._source.find("`", at + 1)
            if end < 0:
                raise self._error("unterminated raw quoted string", at)
            value = self._source[at + 1 : end]
        else:
            value, end = self._escaped(quote, at)
        self._position = end + 1
        kind = "char" if quote == "'" else "string"
        return Token(kind, self._source[at : end + 1], at, spaced, value)

    def _escaped(self, quote: str, start: int) -> tuple[str, int]:
        pieces = []
        at = start + 1
        while at < len(self._source) and self._source[at] not in (quote, "\n"):
            letter = self._source[at]
            if letter != "\\":
                pieces.append(letter)
                at += 1
                continue
            piece, length = self._escape(self._source[at + 1 : at + 10], start)
            pieces.append(piece)
            at += 1 + length
        if at >= len(self._source) or self._source[at] == "\n":
            what = "character constant" if quote == "'" else "quoted string"
            raise self._error(f"unterminated {what}", start)
        return "".join(pieces), at

    def _escape(self, rest: str, start: int) -> tuple[str, int]:
        if rest[:1] in _ESCAPES and rest:
            return _ESCAPES[rest[0]], 1
        for mark, digits, base in (("x", 2, 16), ("u", 4, 16), ("U", 8, 16), ("", 3, 8)):
            code = rest[len(mark) : len(mark) + digits]
            if rest.startswith(mark) and len(code) == digits:
                try:
                    return chr(int(code, base)), len(mark) + digits
                except ValueError:
                    break
        raise self._error("invalid syntax", start)

    def _error(self, message: str, position: int) -> ParseError:
        return ParseError(self._source.count("\n", 0, position) + 1, message)


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _code_point(letter: str) -> str:
    return f"U+{ord(letter):04X} '{letter}'"
