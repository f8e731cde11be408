"""From tokens to the syntax tree (text/template/parse).

node     ::= literal | action
action   ::= pipeline | "if" pipeline body | "range" pipeline body | "with" pipeline body
           | "template" string [ pipeline ] | "define" string body | "block" string pipeline body
           | "break" | "continue"
body     ::= { node } [ "else" [ ("if" | "with") pipeline ] { node } ] "end"
pipeline ::= [ variable [ "," variable ] ( ":=" | "=" ) ] command { "|" command }
command  ::= operand { operand }
operand  ::= ( field | variable | "." | constant | function | "(" pipeline ")" ) { field }
"""

from __future__ import annotations

from sampan.cli.gotemplate import nodes
from sampan.cli.gotemplate.fault import ParseError
from sampan.cli.gotemplate.functions import NAMES
from sampan.cli.gotemplate.tokens import Lexer, Token

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.gotemplate.nodes import Node, Operand

_OPERANDS = frozenset(
    ("field", "variable", "identifier", "bool", "number", "string", "char", "dot", "(")
)
_END = Token("end", "EOF", -1)


class Parser:
    """Parses one text; definitions of named templates are collected in ``templates``."""

    def __init__(self, source: str) -> None:
        self._source = source
        # Read as needed: of two mistakes the first one is told, whoever finds it.
        self._lexer = Lexer(source).tokens()
        self._tokens: list[Token] = []
        self._index = 0
        self._variables: list[str] = ["$"]
        self._loops = 0
        self.templates: dict[str, tuple[Node, ...]] = {}

    def parse(self) -> tuple[Node, ...]:
        """The nodes of the text itself. Raises :class:`ParseError`."""
        body, stop = self._body()
        if stop.kind == "keyword":
            raise self._error(f"unexpected {{{{{stop.text}}}}}", stop)
        return body

    def _body(self) -> tuple[tuple[Node, ...], Token]:
        """Nodes up to ``end``, ``else`` or the end of the text, and that token."""
        found: list[Node] = []
        while True:
            token = self._next()
            if token.kind == "end":
                return tuple(found), token
            if token.kind == "text":
                found.append(nodes.Literal(token.text))
                continue
            keyword = self._peek()
            if keyword.kind == "keyword" and keyword.text in ("end", "else"):
                return tuple(found), self._next()
            node = self._action()
            if node is not None:
                found.append(node)

    def _action(self) -> Node | None:
        token = self._peek()
        if token.kind == "keyword" and token.text != "nil":
            self._next()
            if token.text in ("if", "with", "range"):
                return self._control(token)
            if token.text in ("break", "continue"):
                return self._loop_exit(token)
            if token.text == "template":
                return self._include(token)
            if token.text == "define":
                self._define()
                return None
            return self._block(token)
        pipe = self._pipeline("command")
        self._expect_close("command")
        return nodes.Action(pipe.position, pipe)

    def _control(self, token: Token) -> Node:
        scope = len(self._variables)
        pipe = self._pipeline(token.text)
        self._expect_close(token.text)
        self._loops += token.text == "range"
        body, stop = self._body()
        self._loops -= token.text == "range"
        otherwise: tuple[Node, ...] = ()
        if stop.text == "else" and stop.kind == "keyword":
            otherwise = self._else(token)
        elif stop.kind == "end":
            raise self._error("unexpected EOF", stop)
        else:
            self._expect_close("end")
        del self._variables[scope:]
        if token.text == "range":
            return nodes.Range(token.position, pipe, body, otherwise)
        if token.text == "with":
            return nodes.With(token.position, pipe, body, otherwise)
        return nodes.If(token.position, pipe, body, otherwise)

    def _else(self, token: Token) -> tuple[Node, ...]:
        """What follows ``else``, the closing ``end`` included."""
        chained = self._peek()
        if chained.kind == "keyword" and chained.text in ("if", "with"):
            if chained.text != token.text:
                raise self._error(f"unexpected <{chained.text}> in else", chained)
            self._next()
            return (self._control(chained),)
        self._expect_close("else")
        body, stop = self._body()
        if stop.kind == "end":
            raise self._error("unexpected EOF", stop)
        if stop.text == "else":
            raise self._error("expected end; found {{else}}", stop)
        self._expect_close("end")
        return body

    def _loop_exit(self, token: Token) -> Node:
        if not self._loops:
            raise self._error(f"{{{{{token.text}}}}} outside {{{{range}}}}", token)
        self._expect_close(token.text)
        if token.text == "break":
            return nodes.Break(token.position)
        return nodes.Continue(token.position)

    def _include(self, token: Token) -> Node:
        name = self._name("template clause")
        pipe = None
        if self._peek().kind != "close":
            pipe = self._pipeline("template clause")
        self._expect_close("template clause")
        return nodes.Include(token.position, name, pipe)

    def _define(self) -> None:
        name = self._name("define clause")
        self._expect_close("define clause")
        self.templates[name] = self._named_body()

    def _block(self, token: Token) -> Node:
        name = self._name("block clause")
        pipe = self._pipeline("block clause")
        self._expect_close("block clause")
        self.templates[name] = self._named_body()
        return nodes.Include(token.position, name, pipe)

    def _named_body(self) -> tuple[Node, ...]:
        outer, self._variables = self._variables, ["$"]
        body, stop = self._body()
        self._variables = outer
        if stop.kind == "end":
            raise self._error("unexpected EOF", stop)
        self._expect_close("end")
        return body

    def _name(self, context: str) -> str:
        token = self._next()
        if token.kind != "string":
            raise self._unexpected(token, context)
        return token.value

    def _pipeline(self, context: str) -> nodes.Pipe:
        position = self._peek().position
        variables, assigns = self._declaration(context)
        calls: list[nodes.Call] = []
        while True:
            if self._peek().kind in ("close", ")"):
                if not calls:
                    raise self._error(f"missing value for {context}", self._peek())
                break
            calls.append(self._command())
            if self._peek().kind != "|":
                break
            self._next()
        for number, call in enumerate(calls[1:], 2):
            first = call.operands[0]
            if not isinstance(first, nodes.Identifier | nodes.Field | nodes.Variable | nodes.Chain):
                message = f"non executable command in pipeline stage {number}"
                raise self._error(message, self._peek())
        if not assigns:
            self._variables += variables
        return nodes.Pipe(position, tuple(calls), tuple(variables), assigns)

    def _declaration(self, context: str) -> tuple[list[str], bool]:
        """The variables a pipeline sets, and whether it assigns rather than declares."""
        start = self._index
        names: list[str] = []
        while self._peek().kind == "variable":
            names.append(self._next().text)
            sign = self._next()
            if sign.kind in (":=", "="):
                return names, sign.kind == "="
            if sign.kind != "," or context != "range" or len(names) == 2:
                break
        self._index = start
        return [], False

    def _command(self) -> nodes.Call:
        position = self._peek().position
        operands: list[Operand] = []
        while True:
            token = self._peek()
            nil = token.kind == "keyword" and token.text == "nil"
            if token.kind not in _OPERANDS and not nil:
                break
            if operands and not token.spaced and token.kind != "(":
                raise self._unexpected(token, "operand")
            operands.append(self._operand())
        token = self._peek()
        if token.kind not in ("close", ")", "|"):
            raise self._unexpected(token, "operand" if operands else "command")
        if not operands:
            raise self._error("empty command", token)
        if isinstance(operands[0], nodes.Nil) and len(operands) == 1:
            raise self._error("nil is not a command", token)
        return nodes.Call(position, tuple(operands))

    def _operand(self) -> Operand:
        operand = self._term()
        names: list[str] = []
        position = self._peek().position
        while self._peek().kind == "field" and not self._peek().spaced:
            names.append(self._next().text[1:])
        if not names:
            return operand
        if isinstance(operand, nodes.Field):
            return nodes.Field(position, (*operand.names, *names))
        if isinstance(operand, nodes.Variable):
            return nodes.Variable(position, operand.name, tuple(names))
        if isinstance(operand, nodes.Bool | nodes.Text | nodes.Number | nodes.Nil | nodes.Dot):
            raise self._error(f"unexpected . after term {_quoted(str(operand))}", self._peek())
        return nodes.Chain(position, operand, tuple(names))

    def _term(self) -> Operand:
        token = self._next()
        at = token.position
        if token.kind == "identifier":
            if token.text not in NAMES:
                raise self._error(f'function "{token.text}" not defined', token)
            return nodes.Identifier(at, token.text)
        if token.kind == "field":
            return nodes.Field(at, (token.text[1:],))
        if token.kind == "variable":
            if token.text not in self._variables:
                raise self._error(f'undefined variable "{token.text}"', token)
            return nodes.Variable(at, token.text, ())
        if token.kind == "dot":
            return nodes.Dot(at)
        if token.kind == "bool":
            return nodes.Bool(at, token.text == "true")
        if token.kind == "string":
            return nodes.Text(at, token.text, token.value)
        if token.kind == "(":
            pipe = self._pipeline("parenthesized pipeline")
            self._next()
            return pipe
        if token.kind == "keyword":
            return nodes.Nil(at)
        return self._number(token)

    def _number(self, token: Token) -> nodes.Number:
        if token.kind == "char":
            if len(token.value) != 1:
                raise self._error(f"malformed character constant: {token.text}", token)
            return nodes.Number(token.position, token.text, ord(token.value))
        text = token.text
        value: int | float
        try:
            octal = text.lstrip("+-")
            if len(octal) > 1 and octal[0] == "0" and octal.isdecimal():
                value = int(text, 8)
            else:
                value = int(text, 0)
        except ValueError:
            try:
                value = float(text)
            except ValueError:
                message = f"illegal number syntax: {_quoted(text)}"
                raise self._error(message, token) from None
        return nodes.Number(token.position, text, value)

    def _next(self) -> Token:
        token = self._peek()
        self._index += 1
        return token

    def _peek(self) -> Token:
        while self._index >= len(self._tokens):
            token = next(self._lexer, _END)
            if token is _END:
                return _END
            self._tokens.append(token)
        return self._tokens[self._index]

    def _expect_close(self, context: str) -> None:
        token = self._next()
        if token.kind != "close":
            raise self._unexpected(token, context)

    def _unexpected(self, token: Token, context: str) -> ParseError:
        if token.kind == "end":
            return self._error("unexpected EOF", token)
        shown = f"<{token.text}>" if token.kind == "keyword" else _quoted(token.text)
        return self._error(f"unexpected {shown} in {context}", token)

    def _error(self, message: str, token: Token) -> ParseError:
        position = token.position if token.position >= 0 else len(self._source)
        return ParseError(self._source.count("\n", 0, position) + 1, message)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
