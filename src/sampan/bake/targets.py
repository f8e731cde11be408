"""A definition's targets, ready to build: variables, functions, matrices, inheritance, overrides.

Reference: buildx's bake reference (reference/build.md section 14).
"""

from __future__ import annotations

import fnmatch
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sampan.bake.evaluate import Function, Nested, Scope, evaluate, number, text, truth
from sampan.bake.files import Definition
from sampan.bake.functions import FUNCTIONS
from sampan.bake.tree import (
    BakeError,
    Body,
    Call,
    Expression,
    Literal,
    Name,
    Tuple,
)

Target = dict[str, Any]
_MAPS = frozenset(("args", "contexts", "labels", "extra-hosts"))
_APPENDED = frozenset(("annotations", "attest", "cache-from", "secret", "ssh", "entitlements"))
_LISTS = frozenset(
    (
        *("annotations", "attest", "cache-from", "cache-to", "entitlements", "inherits"),
        *("no-cache-filter", "output", "platforms", "secret", "ssh", "tags", "ulimits"),
    )
)
_FLAGS = frozenset(("no-cache", "pull", "push", "load"))
_TEXTS = frozenset(
    (
        *("call", "context", "description", "dockerfile", "dockerfile-inline", "network"),
        *("shm-size", "target", "provenance", "sbom"),
    )
)
_ALIASES = {
    **{"secrets": "secret", "platform": "platforms", "outputs": "output", "tag": "tags"},
    **{"attests": "attest", "annotation": "annotations", "entitlement": "entitlements"},
    **{"extrahosts": "extra-hosts", "dockerfile_inline": "dockerfile-inline"},
}
_OWN = frozenset(("matrix", "name", "resources", "policy"))


class Bake:
    """One definition with the values its variables have. Raises :class:`BakeError` everywhere."""

    def __init__(
        self,
        definition: Definition,
        environment: Mapping[str, str],
        *,
        variables: Mapping[str, str] | None = None,
        builtins: Mapping[str, str] | None = None,
    ) -> None:
        """``variables`` are ``--var``, which beat ``environment``; ``builtins`` are ``BAKE_…``."""
        self._definition = definition
        self._environment = environment
        self._given = variables or {}
        self._builtins = builtins or {}
        self._values: dict[str, object] = {}
        self._pending: set[str] = set()
        for name in self._given:
            if name not in definition.variables:
                raise BakeError(f"--var {name}: there is no such variable")
        for name in definition.variables:
            self._validate(name)
        self.groups: dict[str, list[str]] = {}
        self._raw: dict[str, Target] = {}
        self._expand()

    # -- scope

    def variable(self, name: str) -> object:
        """See :class:`Scope`."""
        if name in self._values:
            return self._values[name]
        if name in self._pending:
            raise BakeError(f"variable {name!r} is defined by itself")
        self._pending.add(name)
        try:
            value = self._variable(name)
        finally:
            self._pending.discard(name)
        self._values[name] = value
        return value

    def _variable(self, name: str) -> object:
        if name in self._definition.variables:
            body = self._definition.variables[name].attributes
            default = evaluate(body["default"], self) if "default" in body else None
            given = self._given.get(name, self._environment.get(name))
            wanted = body.get("type")
            if given is None:
                encoded = self._environment.get(f"{name}_JSON")
                if encoded is not None and (wanted is not None or isinstance(default, list | dict)):
                    return _typed(_json(encoded, name), wanted, name)
                return _typed(default, wanted, name)
            return _from_text(given, default, wanted, name)
        if name in self._definition.constants:
            return evaluate(self._definition.constants[name], self)
        if name == "target":
            return _References(self)
        if name in self._builtins:
            return self._builtins[name]
        raise KeyError(name)

    def _validate(self, name: str) -> None:
        for block in self._definition.variables[name].blocks:
            if block.kind != "validation":
                raise BakeError(f"variable {name!r}: unknown block {block.kind!r}")
            attributes = block.body.attributes
            if "condition" in attributes and not truth(evaluate(attributes["condition"], self)):
                message = attributes.get("error_message", Literal("invalid value"))
                raise BakeError(f"variable {name!r}: {text(evaluate(message, self))}")

    def function(self, name: str) -> Function:
        """See :class:`Scope`."""
        if name not in self._definition.functions:
            return FUNCTIONS[name]
        body = self._definition.functions[name].attributes
        names = _names(body.get("params", Tuple(())))
        rest = body.get("variadic_params")

        def call(*arguments: object) -> object:
            if len(arguments) < len(names) or (rest is None and len(arguments) > len(names)):
                raise BakeError(f"{name} takes {len(names)} arguments, not {len(arguments)}")
            values: dict[str, object] = dict(zip(names, arguments, strict=False))
            if isinstance(rest, Name):
                values[rest.name] = list(arguments[len(names) :])
            return evaluate(body["result"], Nested(self, values))

        return call

    def attributes(self, name: str) -> Mapping[str, Expression]:
        """A target's attributes as written."""
        return self._definition.targets[name].attributes

    # -- targets

    def _expand(self) -> None:
        for name, group in self._definition.groups.items():
            members = evaluate(group.attributes.get("targets", Tuple(())), self)
            self.groups[name] = [text(one) for one in _list(members, f"group {name!r}")]
        for name, body in self._definition.targets.items():
            matrix = body.attributes.get("matrix")
            if matrix is None:
                self._raw[name] = self._evaluated(name, body, self)
                continue
            made = []
            for values in _combinations(evaluate(matrix, self), name):
                scope = Nested(self, values)
                if "name" not in body.attributes:
                    raise BakeError(f"target {name!r}: a matrix needs a name")
                own = text(evaluate(body.attributes["name"], scope))
                if own in self._raw:
                    raise BakeError(f"target {name!r}: two of its matrix are called {own!r}")
                self._raw[own] = self._evaluated(own, body, scope)
                made.append(own)
            self.groups[name] = made

    def _evaluated(self, name: str, body: Body, scope: Scope) -> Target:
        found: Target = {}
        for key, expression in body.attributes.items():
            if key in _OWN:
                continue
            value = evaluate(expression, scope)
            key = _ALIASES.get(key, key)
            if value is not None:
                found[key] = _checked(key, value, f"target {name!r}")
        return found

    def resolve(self, name: str, overrides: Sequence[str] = ()) -> Target:
        """A target with what it inherits and the overrides of ``--set``."""
        target = self._inherited(name, ())
        for override in overrides:
            _override(name, target, override)
        target.setdefault("context", ".")
        target.setdefault("dockerfile", "Dockerfile")
        target.pop("inherits", None)
        target.pop("\0set", None)
        return target

    def _inherited(self, name: str, above: tuple[str, ...]) -> Target:
        if name in above:
            raise BakeError(f"target {name!r} inherits itself")
        if name not in self._raw:
            raise BakeError(f"failed to find target {name}")
        own = self._raw[name]
        found: Target = {}
        for parent in own.get("inherits", []):
            merge(found, self._inherited(parent, (*above, name)))
        merge(found, own)
        return found

    def names(self, wanted: Sequence[str]) -> list[str]:
        """The targets that names of groups and targets mean, each once, in order."""
        found: dict[str, None] = {}
        for name in wanted or ["default"]:
            for one in self._members(name, ()):
                found.setdefault(one)
        return list(found)

    def _members(self, name: str, above: tuple[str, ...]) -> Iterator[str]:
        if name in above:
            raise BakeError(f"group {name!r} contains itself")
        if name in self.groups:
            for one in self.groups[name]:
                yield from self._members(one, (*above, name))
        elif name in self._raw:
            yield name
        else:
            raise BakeError(f"failed to find target {name}")

    def describe(self) -> list[tuple[str, str]]:
        """Groups and targets with their descriptions, for ``--list``."""
        rows = [(name, ", ".join(members)) for name, members in sorted(self.groups.items())]
        rows += [(name, str(one.get("description", ""))) for name, one in sorted(self._raw.items())]
        return rows

    def described_variables(self) -> list[tuple[str, str, str]]:
        """Variables with value and description, for ``--list=variables``."""
        rows = []
        for name, body in sorted(self._definition.variables.items()):
            value = self.variable(name)
            about = body.attributes.get("description", Literal(""))
            shown = json.dumps(value) if isinstance(value, list | dict) else value
            rows.append((name, "" if shown is None else str(shown), text(evaluate(about, self))))
        return rows


class _References(dict[str, object]):
    """``target.NAME.attribute``: other targets' attributes, evaluated when asked for."""

    def __init__(self, bake: Bake, name: str = "") -> None:
        super().__init__()
        self._bake = bake
        self._name = name

    def __contains__(self, key: object) -> bool:
        try:
            return not self._name or str(key) in self._bake.attributes(self._name)
        except KeyError:
            return False

    def __getitem__(self, key: str) -> object:
        if not self._name:
            return _References(self._bake, key)
        return evaluate(self._bake.attributes(self._name)[key], self._bake)


def merge(target: Target, over: Mapping[str, Any]) -> None:
    """Put ``over`` on top of ``target``: maps by key, some lists appended, the rest replaced."""
    for key, value in over.items():
        if key in _MAPS:
            target[key] = {**target.get(key, {}), **value}
        elif key in _APPENDED:
            before = target.get(key, [])
            target[key] = [*before, *(one for one in value if one not in before)]
        else:
            target[key] = value


def _names(expression: Expression) -> list[str]:
    items = expression.items if isinstance(expression, Tuple) else ()
    return [item.name for item in items if isinstance(item, Name)]


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise BakeError(f"{what}: expected a list")
    return value


def _combinations(matrix: object, name: str) -> Iterator[dict[str, object]]:
    if not isinstance(matrix, dict):
        raise BakeError(f"target {name!r}: matrix is no map")
    keys = sorted(matrix)  # maps are in the order of their keys, always
    axes = [_list(matrix[key], f"target {name!r}: matrix") for key in keys]
    for values in itertools.product(*axes):
        yield dict(zip(keys, values, strict=True))


def _checked(key: str, value: object, what: str) -> Any:
    """An attribute as its kind. Raises :class:`BakeError` naming one there is not."""
    if key in _MAPS:
        if not isinstance(value, dict):
            raise BakeError(f"{what}: {key} is no map")
        return {name: text(one) for name, one in value.items() if one is not None}
    if key in _LISTS:
        items = _list(value, f"{what}: {key}")
        return [one if isinstance(one, dict) else text(one) for one in items if one is not None]
    if key in _FLAGS:
        return truth(value)
    if key in _TEXTS:
        return text(value)
    raise BakeError(f"{what}: unknown attribute {key!r}")


def _override(name: str, target: Target, override: str) -> None:
    """``PATTERN.KEY[.NAME]=VALUE``, ``+=`` appends."""
    path, equals, value = override.partition("=")
    if not equals:
        raise BakeError(f"invalid override {override}, expected target.name=value")
    append = path.endswith("+")
    parts = path.removesuffix("+").split(".", 2)
    if len(parts) < 2:
        raise BakeError(f"invalid override key {path}, expected target.name")
    if not fnmatch.fnmatchcase(name, parts[0]):
        return
    key = _ALIASES.get(parts[1], parts[1])
    if key in _MAPS:
        if len(parts) < 3:
            raise BakeError(f"invalid override {override}, expected target.{key}.name=value")
        target[key] = {**target.get(key, {}), parts[2]: value}
    elif key in _LISTS:
        # every --set of one list adds to it, the first replaces what the file says
        seen: set[str] = target.setdefault("\0set", set())
        before = target.get(key, []) if append or key in seen else []
        seen.add(key)
        target[key] = [*before, value]
    elif key in _FLAGS:
        target[key] = truth(value)
    else:
        target[key] = _checked(key, value, f"--set {override}")


def _json(encoded: str, name: str) -> object:
    try:
        return json.loads(encoded)
    except ValueError as error:
        raise BakeError(f"variable {name!r}: {error}") from None


def _from_text(given: str, default: object, wanted: Expression | None, name: str) -> object:
    """A variable's value written as text, of its type or its default's."""
    kind = _kind(wanted)
    if kind == "" and default is not None:
        kind = _kind_of(default)
    if kind in ("list", "set", "tuple"):
        return _typed(next(iter(_csv(given)), []), wanted, name)
    if kind in ("map", "object"):
        pairs = (one.partition("=")[::2] for one in next(iter(_csv(given)), []))
        return _typed(dict(pairs), wanted, name)
    try:
        if kind == "number":
            return number(given)
        if kind == "bool":
            return truth(given.lower()) if given not in ("0", "1") else given == "1"
    except BakeError as error:
        raise BakeError(f"failed to parse {name} as {kind}: {error.message}") from None
    return given


def _csv(line: str) -> Iterator[list[str]]:
    import csv

    return csv.reader([line])


def _kind_of(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "list" if isinstance(value, list) else "map" if isinstance(value, dict) else "string"


def _kind(wanted: Expression | None) -> str:
    """A type expression's outermost name."""
    match wanted:
        case Name(name):
            return name
        case Call(name):
            return name
    return ""


def _typed(value: object, wanted: Expression | None, name: str) -> object:
    """The value as its type. Raises :class:`BakeError` when it is none."""
    if value is None or wanted is None:
        return value
    kind = _kind(wanted)
    inner = wanted.arguments[0] if isinstance(wanted, Call) and wanted.arguments else None
    try:
        match kind:
            case "string":
                return text(value)
            case "number":
                return number(value)
            case "bool":
                return truth(value)
            case "list" | "set":
                if not isinstance(value, list):
                    raise BakeError("it is no list")
                return [_typed(one, inner, name) for one in value]
            case "map":
                if not isinstance(value, dict):
                    raise BakeError("it is no map")
                return {key: _typed(one, inner, name) for key, one in value.items()}
    except BakeError as error:
        raise BakeError(f"variable {name!r}: {error.message}") from None
    return value
