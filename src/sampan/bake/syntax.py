"""HCL as bake files use it: text -> tree (the HCL native syntax specification, hclsyntax/spec.md).

body        ::= (attribute | block)*
attribute   ::= identifier "=" expression newline
block       ::= identifier (string | identifier)* "{" body "}"
expression  ::= condition ["?" expression ":" expression]
condition   ::= operators of six levels over terms; "!" and "-" bind tighter
term        ::= (literal | template | name | call | tuple | object | for | "(" expression ")")
                ("." name | "." number | "[" expression "]" | ".*" | "[*]")*
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sampan.bake.tree import (
    BakeError,
    Block,
    Body,
    Call,
    Conditional,
    Expression,
    For,
    Index,
    Literal,
    Name,
    Object,
    Operation,
    Splat,
    Template,
    Tuple,
)

_NAME = re.compile(r"[^\W\d][\w-]*")
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_COMMENT = re.compile(r"(?:#|//)[^\n]*|/\*.*?\*/", re.DOTALL)
_BLANK = re.compile(r"[ \t\r]+")
_HEREDOC = re.compile(r"<<(-?)([^\W\d][\w-]*)[ \t\r]*\n")
_LEVELS = (("||",), ("&&",), ("==", "!="), (">=", "<=", ">", "<"), ("+", "-"), ("*", "/", "%"))
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_DEEPEST = 200


def parse(text: str, file: str = "") -> Body:
    """A file's tree. Raises :class:`BakeError` with the line."""
    parser = _Parser(text.removeprefix("\ufeff"), file)
    body = parser.body(top=True)
    return body


def parse_template(text: str, file: str = "") -> Expression:
    """A string whose ``${…}`` parts are expressions, as in JSON files."""
    return _Parser(text, file).template(lambda parser: parser.at == len(parser.text), raw=True)


class _Parser:
    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.at = 0
        self._inside = 0  # brackets: newlines mean nothing there
        self._depth = 0

    def fail(self, message: str) -> BakeError:
        return BakeError(message, self.file, self.text.count("\n", 0, self.at) + 1)

    @property
    def line(self) -> int:
        return self.text.count("\n", 0, self.at) + 1

    # -- tokens

    def skip(self, *, newlines: bool = False) -> None:
        """Past blanks and comments; past newlines inside brackets or when asked."""
        while self.at < len(self.text):
            for pattern in (_BLANK, _COMMENT):
                if found := pattern.match(self.text, self.at):
                    self.at = found.end()
                    break
            else:
                if self.text[self.at] == "\n" and (newlines or self._inside):
                    self.at += 1
                    continue
                return

    def peek(self, token: str) -> bool:
        self.skip()
        return self.text.startswith(token, self.at)

    def take(self, token: str) -> bool:
        if self.peek(token):
            self.at += len(token)
            return True
        return False

    def expect(self, token: str) -> None:
        if not self.take(token):
            found = self.text[self.at : self.at + 10].split("\n")[0] or "the end of the line"
            raise self.fail(f"expected {token!r}, found {found!r}")

    def name(self) -> str:
        self.skip()
        found = _NAME.match(self.text, self.at)
        if found is None:
            raise self.fail("expected a name")
        self.at = found.end()
        return found[0]

    # -- bodies

    def body(self, *, top: bool) -> Body:
        body = Body()
        while True:
            self.skip(newlines=True)
            if self.at == len(self.text):
                if top:
                    return body
                raise self.fail("the file ends inside a block")
            if not top and self.take("}"):
                return body
            self._item(body)

    def _item(self, body: Body) -> None:
        line = self.line
        name = self._label() if self.peek('"') else self.name()
        if self.peek("=") and not self.peek("=="):
            self.expect("=")
            if name in body.attributes:
                raise self.fail(f"attribute {name!r} is set twice")
            body.attributes[name] = self.expression()
            self.skip()
            if self.at < len(self.text) and self.text[self.at] not in "\n}":
                raise self.fail("expected a new line after an attribute")
            return
        labels: list[str] = []
        while not self.peek("{"):
            labels.append(self._label() if self.peek('"') else self.name())
        self.expect("{")
        outer, self._inside = self._inside, 0
        body.blocks.append(Block(name, tuple(labels), self.body(top=False), line))
        self._inside = outer

    def _label(self) -> str:
        self.expect('"')
        end = self.text.find('"', self.at)
        if end < 0 or "\n" in self.text[self.at : end]:
            raise self.fail("a label is not closed")
        label, self.at = self.text[self.at : end], end + 1
        return label

    # -- expressions

    def expression(self) -> Expression:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self.fail("expressions nest too deeply")
        try:
            value = self._level(0)
            if self.take("?"):
                yes = self.expression()
                self.skip(newlines=True)
                self.expect(":")
                return Conditional(value, yes, self.expression())
            return value
        finally:
            self._depth -= 1

    def _level(self, level: int) -> Expression:
        if level == len(_LEVELS):
            return self._unary()
        value = self._level(level + 1)
        while True:
            for operator in _LEVELS[level]:
                if self.take(operator):
                    self.skip(newlines=True)
                    value = Operation(operator, (value, self._level(level + 1)))
                    break
            else:
                return value

    def _unary(self) -> Expression:
        for operator in ("!", "-"):
            if self.take(operator):
                return Operation(operator, (self._unary(),))
        return self._suffixed(self._term())

    def _suffixed(self, value: Expression) -> Expression:
        while True:
            if self.text.startswith(".*", self.at) or self.text.startswith("[*]", self.at):
                self.at += 2 if self.text[self.at] == "." else 3
                keys: list[Expression] = []
                while (key := self._key()) is not None:
                    keys.append(key)
                value = Splat(value, tuple(keys))
            elif (key := self._key()) is not None:
                value = Index(value, key)
            else:
                return value

    def _key(self) -> Expression | None:
        """One ``.name``, ``.0`` or ``[expression]``, directly behind what it belongs to."""
        text, at = self.text, self.at
        if text.startswith(".", at) and not text.startswith("...", at):
            self.at += 1
            if number := re.compile(r"\d+").match(text, self.at):
                self.at = number.end()
                return Literal(int(number[0]))
            return Literal(self.name())
        if text.startswith("[", at) and not text.startswith("[*]", at):
            self.at += 1
            return self._bracketed("]", self.expression)
        return None

    def _bracketed(self, close: str, inner: Callable[[], Expression]) -> Expression:
        self._inside += 1
        value = inner()
        self.skip()
        self._inside -= 1
        if not self.text.startswith(close, self.at):
            raise self.fail(f"expected {close!r}")
        self.at += len(close)
        return value

    def _term(self) -> Expression:
        self.skip()
        if self.take("("):
            return self._bracketed(")", self.expression)
        if self.take("["):
            return self._bracketed("]", self._tuple)
        if self.take("{"):
            return self._bracketed("}", self._object)
        if self.take('"'):
            return self._quoted()
        if found := _HEREDOC.match(self.text, self.at):
            return self._heredoc(found)
        if found := _NUMBER.match(self.text, self.at):
            self.at = found.end()
            number = float(found[0])
            return Literal(int(number) if number.is_integer() else number)
        line, name = self.line, self.name()
        if self.text.startswith("(", self.at):
            self.at += 1
            return self._call(name, line)
        known = {"true": True, "false": False, "null": None}
        return Literal(known[name]) if name in known else Name(name, line)

    def _call(self, name: str, line: int) -> Expression:
        arguments: list[Expression] = []
        expand = False

        def inner() -> Expression:
            nonlocal expand
            while not self.peek(")"):
                arguments.append(self.expression())
                if self.take("..."):
                    expand = True
                if not self.take(","):
                    break
            return Call(name, tuple(arguments), expand, line)

        return self._bracketed(")", inner)

    def _tuple(self) -> Expression:
        if self._is_for():
            return self._for(close="]")
        items: list[Expression] = []
        while not self.peek("]"):
            items.append(self.expression())
            if not self.take(","):
                break
        return Tuple(tuple(items))

    def _object(self) -> Expression:
        if self._is_for():
            return self._for(close="}")
        pairs: list[tuple[Expression, Expression]] = []
        while not self.peek("}"):
            key = self.expression()
            if isinstance(key, Name):
                key = Literal(key.name)
            if not (self.take("=") or self.take(":")):
                raise self.fail("expected '=' or ':' after a key")
            pairs.append((key, self.expression()))
            self.take(",")
        return Object(tuple(pairs))

    def _is_for(self) -> bool:
        self.skip()
        return re.compile(r"for\s").match(self.text, self.at) is not None

    def _for(self, close: str) -> Expression:
        names, collection = self._for_head()
        self.expect(":")
        key: Expression | None = None
        value = self.expression()
        group = False
        if close == "}":
            self.expect("=>")
            key, value = value, self.expression()
            group = self.take("...")
        condition = None
        if self._word("if"):
            condition = self.expression()
        return For(names, collection, key, value, condition, group)

    def _for_head(self) -> tuple[tuple[str, ...], Expression]:
        self.name()
        names = [self.name()]
        if self.take(","):
            names.append(self.name())
        if not self._word("in"):
            raise self.fail("expected 'in'")
        return tuple(names), self.expression()

    def _word(self, word: str) -> bool:
        self.skip()
        found = _NAME.match(self.text, self.at)
        if found is None or found[0] != word:
            return False
        self.at = found.end()
        return True

    # -- templates

    def _quoted(self) -> Expression:
        value = self.template(lambda parser: parser.text.startswith('"', parser.at), raw=False)
        self.at += 1
        return value

    def _heredoc(self, found: re.Match[str]) -> Expression:
        flush, word = found[1], found[2]
        closing = re.compile(rf"^[ \t]*{re.escape(word)}[ \t\r]*$", re.MULTILINE)
        end = closing.search(self.text, found.end())
        if end is None:
            raise self.fail(f"the here-document {word} is not closed")
        lines = self.text[found.end() : end.start()].splitlines(keepends=True)
        if flush:
            filled = [line for line in lines if line.strip()]
            indent = min((len(line) - len(line.lstrip(" \t")) for line in filled), default=0)
            lines = [line[indent:] if line.strip() else line.lstrip(" \t") for line in lines]
        self.at = end.end()
        inner = _Parser("".join(lines), self.file)
        return inner.template(lambda parser: parser.at == len(parser.text), raw=True)

    def template(self, ended: Callable[[_Parser], bool], *, raw: bool) -> Expression:
        """Text up to where ``ended`` says; ``raw``: backslashes stand for themselves."""
        parts, stopped = self._parts(ended, raw=raw)
        if stopped:
            raise self.fail(f"unexpected %{{ {stopped} }}")
        if not parts:
            return Literal("")
        if len(parts) == 1 and not isinstance(parts[0], Template):
            return parts[0]
        return Template(tuple(parts))

    def _parts(
        self, ended: Callable[[_Parser], bool], *, raw: bool
    ) -> tuple[list[Expression], str]:
        """Parts up to the end, or to a directive that ends or divides an enclosing one."""
        parts: list[Expression] = []
        text: list[str] = []

        def flush() -> None:
            if text:
                parts.append(Literal("".join(text)))
                text.clear()

        strip = False
        while not ended(self):
            if self.at >= len(self.text) or (not raw and self.text[self.at] == "\n"):
                raise self.fail("a string is not closed")
            two = self.text[self.at : self.at + 2]
            if self.text[self.at : self.at + 3] in ("$${", "%%{"):
                text.append(two[1:] + "{")
                self.at += 3
            elif two in ("${", "%{"):
                self.at += 2
                if self.take("~"):
                    text[:] = ["".join(text).rstrip()]
                flush()
                if two == "${":
                    parts.append(self._bracketed_interpolation())
                else:
                    directive, part = self._directive(ended, raw=raw)
                    if part is None:
                        return parts, directive
                    parts.append(part)
                strip = self.text[self.at - 2 : self.at - 1] == "~"
            elif two[0] == "\\" and not raw:
                text.append(self._escape())
            else:
                character = two[0]
                self.at += 1
                if strip and character.isspace():
                    continue
                strip = False
                text.append(character)
        flush()
        return parts, ""

    def _bracketed_interpolation(self) -> Expression:
        self._inside += 1
        value = self.expression()
        self.take("~")
        self.expect("}")
        self._inside -= 1
        # so that a lone interpolation is told from text: it keeps its type
        return value

    def _directive(
        self, ended: Callable[[_Parser], bool], *, raw: bool
    ) -> tuple[str, Expression | None]:
        self._inside += 1
        word = self.name()
        if word == "if":
            condition = self.expression()
            self._close()
            yes, stopped = self._parts(ended, raw=raw)
            no: list[Expression] = []
            if stopped == "else":
                no, stopped = self._parts(ended, raw=raw)
            if stopped != "endif":
                raise self.fail("%{ if } without %{ endif }")
            return word, Conditional(condition, Template(tuple(yes)), Template(tuple(no)))
        if word == "for":
            self.at -= len(word)
            names, collection = self._for_head()
            self._close()
            inner, stopped = self._parts(ended, raw=raw)
            if stopped != "endfor":
                raise self.fail("%{ for } without %{ endfor }")
            return word, For(names, collection, None, Template(tuple(inner)), None, text=True)
        if word not in ("else", "endif", "endfor"):
            raise self.fail(f"unknown directive {word!r}")
        self._close()
        return word, None

    def _close(self) -> None:
        self.take("~")
        self.expect("}")
        self._inside -= 1

    def _escape(self) -> str:
        letter = self.text[self.at + 1 : self.at + 2]
        if letter in _ESCAPES:
            self.at += 2
            return _ESCAPES[letter]
        digits = {"u": 4, "U": 8}.get(letter)
        if digits is None:
            raise self.fail(f"invalid escape \\{letter}")
        try:
            found = chr(int(self.text[self.at + 2 : self.at + 2 + digits], 16))
        except (ValueError, OverflowError):
            raise self.fail("invalid escape") from None
        self.at += 2 + digits
        return found
