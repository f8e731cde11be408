"""Bake files as one definition: HCL, JSON and compose's YAML read and merged (pure but for YAML).

Later files override earlier ones, attribute by attribute.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sampan.bake.syntax import parse, parse_template
from sampan.bake.tree import (
    BakeError,
    Block,
    Body,
    Expression,
    Literal,
    Object,
    Tuple,
)

#: Where a definition is looked for when none is named, in this order; all there are count.
DEFAULT_FILES = (
    *("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"),
    *("docker-bake.json", "docker-bake.hcl", "docker-bake.override.json"),
    "docker-bake.override.hcl",
)
_KINDS = ("variable", "function", "group", "target")
_VARIABLE = re.compile(
    r"\$(?:(\$)|\{([A-Za-z_]\w*)(?:(:?[-+?])((?:[^{}]|\{[^}]*\})*))?\}|([A-Za-z_]\w*))"
)


@dataclass(slots=True)
class Definition:
    """Everything some files say; expressions are not evaluated yet."""

    variables: dict[str, Body] = field(default_factory=dict)
    functions: dict[str, Body] = field(default_factory=dict)
    groups: dict[str, Body] = field(default_factory=dict)
    targets: dict[str, Body] = field(default_factory=dict)
    constants: dict[str, Expression] = field(default_factory=dict)

    def add(self, body: Body, file: str) -> None:
        """Merge one file's tree."""
        self.constants.update(body.attributes)
        tables = {
            "variable": self.variables,
            "function": self.functions,
            "group": self.groups,
            "target": self.targets,
        }
        for block in body.blocks:
            table = tables.get(block.kind)
            if table is None:
                raise BakeError(f"unknown block {block.kind!r}", file, block.line)
            if len(block.labels) != 1:
                raise BakeError(f"a {block.kind} has one name", file, block.line)
            known = table.setdefault(block.labels[0], Body())
            known.attributes.update(block.body.attributes)
            known.blocks += block.body.blocks


def read(sources: Iterable[tuple[str, str]], environment: Mapping[str, str]) -> Definition:
    """The definition of files given as (name, text). Raises :class:`BakeError`."""
    found = Definition()
    for name, text in sources:
        found.add(_parse(name, text, environment), name)
    return found


def _parse(name: str, text: str, environment: Mapping[str, str]) -> Body:
    if name.endswith(".hcl"):
        return parse(text, name)
    if name.endswith((".yml", ".yaml")):
        return from_compose(_yaml(text, name), environment, name)
    try:
        document = json.loads(text)
    except ValueError as error:
        if name.endswith(".json"):
            raise BakeError(f"{name}: {error}") from None
        return parse(text, name)
    return from_json(document, name)


def from_json(document: object, file: str = "") -> Body:
    """A JSON file's tree; its strings are templates."""
    if not isinstance(document, dict):
        raise BakeError(f"{file}: expected an object")
    body = Body()
    for kind, value in document.items():
        if kind not in _KINDS or not isinstance(value, dict):
            body.attributes[kind] = _expression(value, file)
            continue
        for label, attributes in value.items():
            entries = attributes if isinstance(attributes, list) else [attributes]
            for entry in entries:
                if not isinstance(entry, dict):
                    raise BakeError(f"{file}: {kind} {label!r} is no object")
                body.blocks.append(Block(kind, (label,), _json_body(entry, file), 0))
    return body


def _json_body(entry: Mapping[str, object], file: str) -> Body:
    body = Body()
    for name, value in entry.items():
        if name == "validation":
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, dict):
                    body.blocks.append(Block(name, (), _json_body(one, file), 0))
        else:
            body.attributes[name] = _expression(value, file)
    return body


def _expression(value: object, file: str) -> Expression:
    if isinstance(value, str):
        return parse_template(value, file)
    if isinstance(value, list):
        return Tuple(tuple(_expression(item, file) for item in value))
    if isinstance(value, dict):
        pairs = ((parse_template(key, file), _expression(one, file)) for key, one in value.items())
        return Object(tuple(pairs))
    return Literal(value)


def _plain(value: object) -> Expression:
    """A value in which nothing is a template any more."""
    if isinstance(value, list):
        return Tuple(tuple(_plain(item) for item in value))
    if isinstance(value, dict):
        return Object(tuple((Literal(str(key)), _plain(one)) for key, one in value.items()))
    return Literal(value)


def _yaml(text: str, file: str) -> object:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BakeError(f"{file}: {error}") from None


# -- compose

_COMPOSE = {
    **{"context": "context", "dockerfile": "dockerfile", "target": "target"},
    **{"dockerfile_inline": "dockerfile-inline", "network": "network", "tags": "tags"},
    **{"platforms": "platforms", "no_cache": "no-cache", "pull": "pull"},
    **{"cache_from": "cache-from", "cache_to": "cache-to", "entitlements": "entitlements"},
    **{"shm_size": "shm-size", "additional_contexts": "contexts", "args": "args"},
    **{"labels": "labels", "extra_hosts": "extra-hosts", "ssh": "ssh", "secrets": "secret"},
    **{"ulimits": "ulimits", "provenance": "provenance", "sbom": "sbom"},
    **{"no_cache_filter": "no-cache-filter"},
}
_X_BAKE = frozenset(
    (
        *("tags", "cache-from", "cache-to", "no-cache", "no-cache-filter", "platforms"),
        *("secret", "ssh", "output", "pull", "contexts"),
    )
)
_MAPS = ("args", "labels", "contexts", "extra-hosts")


def from_compose(given: object, environment: Mapping[str, str], file: str = "") -> Body:
    """A compose file's services as targets, all of them in group ``default``."""
    if not isinstance(given, dict):
        raise BakeError(f"{file}: expected an object")
    document: dict[str, Any] = _interpolated(given, environment)
    services: dict[str, Any] = document.get("services") or {}
    body = Body()
    names: list[str] = []
    for name, service in services.items():
        build = (service or {}).get("build")
        if build is None:
            continue
        if isinstance(build, str):
            build = {"context": build}
        values = _service(build, document.get("secrets") or {}, file)
        values["context"] = _cleaned(values.get("context", "."))
        if "contexts" in values:
            values["contexts"] = {key: _cleaned(one) for key, one in values["contexts"].items()}
        for key, value in values.get("args", {}).items():
            values["args"][key] = environment.get(key) if value is None else value
        if "tags" not in values and service.get("image"):
            values["tags"] = [service["image"]]
        target = str(name).replace(".", "_")
        names.append(target)
        attributes = {key: _plain(value) for key, value in values.items()}
        body.blocks.append(Block("target", (target,), Body(attributes), 0))
    if names:
        default = Body({"targets": _plain(sorted(names))})
        body.blocks.append(Block("group", ("default",), default, 0))
    return body


def _cleaned(path: str) -> str:
    return path if "://" in path or ":" in path.split("/")[0] else posixpath.normpath(path)


def _service(build: Mapping[str, Any], secrets: Mapping[str, Any], file: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in build.items():
        if key == "x-bake":
            for name, one in (value or {}).items():
                if name not in _X_BAKE:
                    raise BakeError(f"{file}: x-bake: unknown key {name!r}")
                values[name] = [one] if isinstance(one, str) else one
            continue
        if str(key).startswith("x-"):
            continue
        if key not in _COMPOSE:
            raise BakeError(f"{file}: build key {key!r} is not supported")
        name = _COMPOSE[key]
        if name in _MAPS:
            value = _map(value)
        if name == "secret":
            value = [_secret(one, secrets) for one in value]
        values.setdefault(name, value)
    return values


def _map(value: object) -> dict[str, Any]:
    """``{K: V}`` or ``[K=V]``; a missing value is left to the environment."""
    if isinstance(value, list):
        pairs = (str(one).partition("=") for one in value)
        return {key: found if equals else None for key, equals, found in pairs}
    return {
        str(key): None if one is None else str(one).lower() if isinstance(one, bool) else str(one)
        for key, one in (value or {}).items()  # type: ignore[attr-defined]
    }


def _secret(one: object, secrets: Mapping[str, Any]) -> str:
    name = str(one.get("source", "")) if isinstance(one, dict) else str(one)
    about = secrets.get(name) or {}
    if about.get("environment"):
        return f"id={name},env={about['environment']}"
    return f"id={name},src={about['file']}" if about.get("file") else f"id={name}"


def _interpolated(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: _variable(found, environment), value)
    if isinstance(value, list):
        return [_interpolated(one, environment) for one in value]
    if isinstance(value, dict):
        return {key: _interpolated(one, environment) for key, one in value.items()}
    return value


def _variable(found: re.Match[str], environment: Mapping[str, str]) -> str:
    dollar, name, operator, word, bare = found.groups()
    if dollar:
        return "$"
    value = environment.get(name or bare)
    if not operator:
        return value or ""
    there = bool(value) if operator.startswith(":") else value is not None
    if operator.endswith("-"):
        return (value or "") if there else _interpolated(word, environment)
    if operator.endswith("+"):
        return _interpolated(word, environment) if there else ""
    if not there:
        raise BakeError(f"required variable {name} is missing a value: {word}")
    return value or ""
