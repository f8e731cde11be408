"""Executing a template (text/template's exec.go).

Data is looked at the way Go does: a field of a record, an entry of a map, a method with
arguments; ``range`` over lists, maps in key order, and integers.
"""

from __future__ import annotations

from sampan.cli.gotemplate import nodes
from sampan.cli.gotemplate.fault import ParseError, TemplateError
from sampan.cli.gotemplate.functions import FUNCTIONS
from sampan.cli.gotemplate.parser import Parser
from sampan.cli.gotemplate.values import NilPointer, Record, show, truth, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sampan.cli.gotemplate.nodes import Node, Operand
    from sampan.cli.gotemplate.values import Value

_MAX_DEPTH = 100
_NOTHING = object()


class _BreakLoop(Exception):
    """``{{break}}`` on its way to its ``range``."""


class _ContinueLoop(Exception):
    """``{{continue}}`` on its way to its ``range``."""


class Template:
    """A parsed template."""

    def __init__(
        self,
        source: str,
        body: tuple[Node, ...],
        templates: Mapping[str, tuple[Node, ...]],
        name: str,
    ) -> None:
        self.name = name
        self.source = source
        self.body = body
        self.templates = templates

    @classmethod
    def parse(cls, source: str, name: str = "") -> Template:
        """The template in ``source``; ``name`` is for messages.

        Raises :class:`TemplateError`.
        """
        parser = Parser(source)
        try:
            body = parser.parse()
        except ParseError as error:
            raise error.named(name) from error
        return cls(source, body, parser.templates, name)

    def execute(
        self,
        data: Value,
        *,
        missing_key_error: bool = False,
        functions: Mapping[str, Callable[..., Value]] | None = None,
    ) -> str:
        """The text the template makes of ``data``.

        ``missing_key_error``: a missing key of a map is an error instead of no value.
        ``functions`` replace functions of the same names. Raises :class:`TemplateError`.
        """
        table = {**FUNCTIONS, **(functions or {})}
        execution = _Execution(self, table, missing_key_error)
        execution.run(self.body, data, [("$", data)], 0)
        return "".join(execution.output)


class _Execution:
    """One execution: output, variables in scope, the template it belongs to."""

    def __init__(
        self,
        template: Template,
        functions: Mapping[str, Callable[..., Value]],
        missing_key_error: bool,
    ) -> None:
        self._template = template
        self._functions = functions
        self._missing_key_error = missing_key_error
        self.output: list[str] = []

    def run(
        self, body: Iterable[Node], dot: Value, scope: list[tuple[str, Value]], depth: int
    ) -> None:
        """Execute nodes; variables they declare are gone afterwards."""
        mark = len(scope)
        for node in body:
            if isinstance(node, nodes.Literal):
                self.output.append(node.text)
            elif isinstance(node, nodes.Action):
                value = self._pipe(node.pipe, dot, scope)
                if not node.pipe.variables:
                    self.output.append(show(value))
            elif isinstance(node, nodes.Range):
                self._range(node, dot, scope, depth)
            elif isinstance(node, nodes.If | nodes.With):
                self._branch(node, dot, scope, depth)
            elif isinstance(node, nodes.Include):
                self._include(node, dot, scope, depth)
            else:
                raise _BreakLoop if isinstance(node, nodes.Break) else _ContinueLoop
        del scope[mark:]

    def _branch(
        self, node: nodes.If | nodes.With, dot: Value, scope: list[tuple[str, Value]], depth: int
    ) -> None:
        mark = len(scope)
        value = self._pipe(node.pipe, dot, scope)
        if truth(value):
            inner = value if isinstance(node, nodes.With) else dot
            self.run(node.body, inner, scope, depth)
        else:
            self.run(node.otherwise, dot, scope, depth)
        del scope[mark:]

    def _range(
        self, node: nodes.Range, dot: Value, scope: list[tuple[str, Value]], depth: int
    ) -> None:
        mark = len(scope)
        value = self._pipe(node.pipe, dot, scope, declare=False)
        pairs = self._pairs(node, value)
        for key, item in pairs:
            names = node.pipe.variables
            values: tuple[Value, ...] = (item,) if len(names) == 1 else (key, item)
            for name, element in zip(names, values, strict=False):
                if node.pipe.assigns:
                    _assign(scope, name, element)
                else:
                    scope.append((name, element))
            try:
                self.run(node.body, item, scope, depth)
            except _ContinueLoop:
                pass  # the rest of the body is what is left out
            except _BreakLoop:
                break
            finally:
                del scope[mark:]
        if not pairs:
            self.run(node.otherwise, dot, scope, depth)

    def _pairs(self, node: nodes.Range, value: Value) -> list[tuple[Value, Value]]:
        if isinstance(value, list):
            return list(enumerate(value))
        if isinstance(value, dict):
            return [(key, value[key]) for key in sorted(value)]
        if isinstance(value, int) and not isinstance(value, bool):
            return [(number, number) for number in range(value)]
        if value is None:
            return []
        raise self._error(node.pipe, f"range can't iterate over {show(value)}")

    def _include(
        self, node: nodes.Include, dot: Value, scope: list[tuple[str, Value]], depth: int
    ) -> None:
        body = self._template.templates.get(node.name)
        if body is None:
            raise self._error_at(node.position, node.name, f'template "{node.name}" not defined')
        if depth >= _MAX_DEPTH:
            message = f"exceeded maximum template depth ({_MAX_DEPTH})"
            raise self._error_at(node.position, node.name, message)
        data = self._pipe(node.pipe, dot, scope) if node.pipe else None
        self.run(body, data, [("$", data)], depth + 1)

    def _pipe(
        self,
        pipe: nodes.Pipe,
        dot: Value,
        scope: list[tuple[str, Value]],
        *,
        declare: bool = True,
    ) -> Value:
        value: Value = None
        final: object = _NOTHING
        for call in pipe.calls:
            value = self._call(call, dot, scope, final)
            final = value
        if declare:
            for name in pipe.variables:
                if pipe.assigns:
                    _assign(scope, name, value)
                else:
                    scope.append((name, value))
        return value

    def _call(
        self, call: nodes.Call, dot: Value, scope: list[tuple[str, Value]], final: object
    ) -> Value:
        first, *rest = call.operands
        if isinstance(first, nodes.Identifier):
            return self._function(call, first.name, rest, dot, scope, final)
        if isinstance(first, nodes.Field | nodes.Variable | nodes.Chain):
            extra = [self._operand(operand, dot, scope) for operand in rest]
            if final is not _NOTHING:
                extra.append(final)  # type: ignore[arg-type]
            return self._operand(first, dot, scope, extra)
        if rest or final is not _NOTHING:
            raise self._error(first, f"can't give argument to non-function {first}")
        return self._operand(first, dot, scope)

    def _function(
        self,
        call: nodes.Call,
        name: str,
        operands: list[Operand],
        dot: Value,
        scope: list[tuple[str, Value]],
        final: object,
    ) -> Value:
        if name in ("and", "or"):
            return self._logic(call, name, operands, dot, scope, final)
        values = [self._operand(operand, dot, scope) for operand in operands]
        if final is not _NOTHING:
            values.append(final)  # type: ignore[arg-type]
        try:
            return self._functions[name](*values)
        except ValueError as error:
            message = f"error calling {name}: {error}"
            raise self._error(call, message) from error
        except TypeError as error:
            message = f"wrong number of args for {name}: got {len(values)}"
            raise self._error(call, message) from error

    def _logic(
        self,
        call: nodes.Call,
        name: str,
        operands: list[Operand],
        dot: Value,
        scope: list[tuple[str, Value]],
        final: object,
    ) -> Value:
        value: Value = None
        if not operands and final is _NOTHING:
            raise self._error(call, f"wrong number of args for {name}: want at least 1 got 0")
        for operand in operands:
            value = self._operand(operand, dot, scope)
            if truth(value) == (name == "or"):
                return value
        return value if final is _NOTHING else final  # type: ignore[return-value]

    def _operand(
        self,
        operand: Operand,
        dot: Value,
        scope: list[tuple[str, Value]],
        extra: list[Value] | None = None,
    ) -> Value:
        if isinstance(operand, nodes.Field):
            return self._members(operand, dot, operand.names, extra)
        if isinstance(operand, nodes.Variable):
            value = next(item for name, item in reversed(scope) if name == operand.name)
            return self._members(operand, value, operand.names, extra)
        if isinstance(operand, nodes.Chain):
            value = self._operand(operand.operand, dot, scope)
            return self._members(operand, value, operand.names, extra)
        if isinstance(operand, nodes.Pipe):
            return self._pipe(operand, dot, scope)
        if isinstance(operand, nodes.Identifier):
            call = nodes.Call(operand.position, (operand,))
            return self._function(call, operand.name, [], dot, scope, _NOTHING)
        if isinstance(operand, nodes.Dot):
            return dot
        return None if isinstance(operand, nodes.Nil) else operand.value

    def _members(
        self, node: Operand, value: Value, names: tuple[str, ...], extra: list[Value] | None
    ) -> Value:
        for place, name in enumerate(names):
            last = place == len(names) - 1
            value = self._member(node, value, name, (extra or []) if last else [])
        if not names and extra:
            raise self._error(node, f"can't give argument to non-function {node}")
        return value

    def _member(self, node: Operand, value: Value, name: str, extra: list[Value]) -> Value:
        if isinstance(value, NilPointer):
            raise self._error(node, f"nil pointer evaluating *struct.{name}")
        if isinstance(value, Record):
            try:
                member = value.member(name)
            except KeyError:
                message = f"can't evaluate field {name} in type {value.type_name}"
                raise self._error(node, message) from None
            if callable(member):
                return member(*extra)
        elif isinstance(value, dict):
            if name not in value and self._missing_key_error:
                raise self._error(node, f'map has no entry for key "{name}"')
            member = value.get(name)
        elif value is None:
            raise self._error(node, f"nil pointer evaluating interface {{}}.{name}")
        else:
            message = f"can't evaluate field {name} in type {type_name(value)}"
            raise self._error(node, message)
        if extra:
            message = f"{name} has arguments but cannot be invoked as function"
            raise self._error(node, message)
        return member

    def _error(self, node: Operand | nodes.Call, message: str) -> TemplateError:
        return self._error_at(node.position, str(node), message)

    def _error_at(self, position: int, context: str, message: str) -> TemplateError:
        before = self._template.source[:position]
        line = before.count("\n") + 1
        column = len(before) - (before.rfind("\n") + 1)
        name = self._template.name
        where = f'template: {name}:{line}:{column}: executing "{name}"'
        return TemplateError(f"{where} at <{context}>: {message}")


def _assign(scope: list[tuple[str, Value]], name: str, value: Value) -> None:
    for place in range(len(scope) - 1, -1, -1):
        if scope[place][0] == name:
            scope[place] = (name, value)
            return
