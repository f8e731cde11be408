"""HCL expressions -> values: text, numbers, bools, None, lists and dictionaries (pure)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from sampan.bake.tree import (
    BakeError,
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

#: What a function of HCL is here.
Function = Callable[..., object]
#: Items one expression may make.
_MOST = 100_000


class Scope(Protocol):
    """Where names and functions are found."""

    def variable(self, name: str) -> object:
        """A variable's value. Raises KeyError."""
        ...

    def function(self, name: str) -> Function:
        """A function. Raises KeyError."""
        ...


class Nested:
    """A scope with some more names."""

    def __init__(self, outer: Scope, names: Mapping[str, object]) -> None:
        self._outer = outer
        self._names = names

    def variable(self, name: str) -> object:
        """See :class:`Scope`."""
        return self._names[name] if name in self._names else self._outer.variable(name)

    def function(self, name: str) -> Function:
        """See :class:`Scope`."""
        return self._outer.function(name)


def evaluate(expression: Expression, scope: Scope) -> object:
    """The value of an expression. Raises :class:`BakeError`."""
    match expression:
        case Literal(value):
            return value
        case Template(parts):
            return "".join(text(evaluate(part, scope)) for part in parts)
        case Name(name, line):
            try:
                return scope.variable(name)
            except KeyError:
                raise BakeError(f"there is no variable named {name!r}", line=line) from None
        case Index(value, key):
            return element(evaluate(value, scope), evaluate(key, scope))
        case Splat(value, keys):
            return _splat(evaluate(value, scope), [evaluate(key, scope) for key in keys])
        case Call():
            return _call(expression, scope)
        case Operation(operator, operands):
            return _operation(operator, operands, scope)
        case Conditional(condition, yes, no):
            return evaluate(yes if truth(evaluate(condition, scope)) else no, scope)
        case Tuple(items):
            return [evaluate(item, scope) for item in items]
        case Object(pairs):
            return {text(evaluate(key, scope)): evaluate(value, scope) for key, value in pairs}
        case For():
            return _for(expression, scope)


def text(value: object) -> str:
    """A value as text. Raises :class:`BakeError` for a list or map."""
    if value is None:
        raise BakeError("null cannot be written as text")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | dict):
        raise BakeError("a list or map cannot be written as text")
    return str(value)


def number(value: object) -> int | float:
    """A value as a number. Raises :class:`BakeError`."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BakeError(f"{value!r} is not a number")
    try:
        found = float(value)
    except ValueError:
        raise BakeError(f"{value!r} is not a number") from None
    return int(found) if found.is_integer() else found


def truth(value: object) -> bool:
    """A value as a bool. Raises :class:`BakeError`."""
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise BakeError(f"{value!r} is neither true nor false")


def element(value: object, key: object) -> object:
    """An element of a list or map. Raises :class:`BakeError`."""
    if isinstance(value, dict):
        name = text(key)
        if name not in value:
            raise BakeError(f"there is no element {name!r}")
        return value[name]
    if isinstance(value, list):
        place = number(key)
        if not isinstance(place, int) or not 0 <= place < len(value):
            raise BakeError(f"there is no element {key} of {len(value)}")
        return value[place]
    raise BakeError("only lists and maps have elements")


def _splat(value: object, keys: Sequence[object]) -> list[object]:
    items = value if isinstance(value, list) else [] if value is None else [value]
    found = []
    for item in items:
        for key in keys:
            item = element(item, key)
        found.append(item)
    return found


def _call(call: Call, scope: Scope) -> object:
    if call.name in ("try", "can"):
        return _attempt(call, scope)
    try:
        function = scope.function(call.name)
    except KeyError:
        raise BakeError(f"there is no function named {call.name!r}", line=call.line) from None
    arguments = [evaluate(one, scope) for one in call.arguments]
    if call.expand:
        last = arguments.pop()
        if not isinstance(last, list):
            raise BakeError("only a list can be spread over arguments", line=call.line)
        arguments += last
    try:
        return function(*arguments)
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise BakeError(f"{call.name}: {error}", line=call.line) from None


def _attempt(call: Call, scope: Scope) -> object:
    """``try``: the first argument that has a value; ``can``: whether there is one."""
    for argument in call.arguments:
        try:
            value = evaluate(argument, scope)
        except BakeError:
            continue
        return True if call.name == "can" else value
    if call.name == "can":
        return False
    raise BakeError("try: no argument has a value", line=call.line)


def _operation(operator: str, operands: Sequence[Expression], scope: Scope) -> object:
    first = evaluate(operands[0], scope)
    if len(operands) == 1:
        return not truth(first) if operator == "!" else -number(first)
    if operator in ("&&", "||"):
        decided = truth(first)
        if decided is (operator == "||"):
            return decided
        return truth(evaluate(operands[1], scope))
    second = evaluate(operands[1], scope)
    if operator in ("==", "!="):
        return _same(first, second) is (operator == "==")
    left, right = number(first), number(second)
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/" | "%":
            if not right:
                raise BakeError("division by zero")
            return number(left / right) if operator == "/" else left % right
        case "<":
            return left < right
        case ">":
            return left > right
        case "<=":
            return left <= right
    return left >= right


def _same(first: object, second: object) -> bool:
    """Equal, and of one kind: ``"1"`` is not ``1``, ``true`` is not ``1``."""
    if isinstance(first, bool) is not isinstance(second, bool):
        return False
    return first == second


def _for(one: For, scope: Scope) -> object:
    collection = evaluate(one.collection, scope)
    if isinstance(collection, dict):
        pairs: list[tuple[object, object]] = [*sorted(collection.items())]
    elif isinstance(collection, list):
        pairs = [*enumerate(collection)]
    else:
        raise BakeError("for needs a list or map")
    items: list[object] = []
    made: dict[str, object] = {}
    for key, value in pairs[:_MOST]:
        names = dict(zip(one.names, (key, value) if len(one.names) == 2 else (value,), strict=True))
        inner = Nested(scope, names)
        if one.condition is not None and not truth(evaluate(one.condition, inner)):
            continue
        found = evaluate(one.value, inner)
        if one.key is None:
            items.append(found)
            continue
        name = text(evaluate(one.key, inner))
        if one.group:
            before = made.setdefault(name, [])
            assert isinstance(before, list)
            before.append(found)
        elif name in made:
            raise BakeError(f"two elements have the key {name!r}")
        else:
            made[name] = found
    if one.text:
        return "".join(text(item) for item in items)
    return items if one.key is None else made
