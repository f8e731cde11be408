"""Reduce the OCI runtime specification's JSON schemas to the one file the runtime ships.

    python tools/generate_oci_schema.py SPEC/oci-runtime/schema > src/sampan/runtime/oci-schema.json

Kept: what concerns Linux, and of JSON Schema what ``runtime/validate.py`` understands. References
become names in one flat table, ``allOf`` is merged, an ``anyOf`` of one is what it contains;
descriptions go.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

_DEFINITION_FILES = ("defs.json", "defs-linux.json")
_KEYWORDS = frozenset(
    {
        "type",
        "properties",
        "patternProperties",
        "additionalProperties",
        "required",
        "items",
        "minItems",
        "enum",
        "minimum",
        "maximum",
        "pattern",
        "$ref",
    }
)
_PROPERTY_MAPS = ("properties", "patternProperties")
_OTHER_SYSTEMS = ("solaris", "windows", "vm", "zos", "freebsd")


def generate(folder: Path) -> dict[str, object]:
    """``{"root": schema, "definitions": {name: schema}}`` from the schema files in ``folder``."""
    raw: dict[str, object] = {}
    for name in _DEFINITION_FILES:
        for key, schema in json.loads((folder / name).read_text())["definitions"].items():
            if key in raw:
                raise SystemExit(f"{key} is defined twice")
            raw[key] = schema
    # podman fills in st_mode as it is, file type included; every runtime takes that.
    raw["FileMode"] = {"type": "integer", "minimum": 0, "maximum": 0o177777}
    definitions = {key: _reduced(schema, raw) for key, schema in raw.items()}
    # Engines ask for the recursive kinds as well (podman, for a bind mount with rslave).
    propagation = definitions["RootfsPropagation"]
    assert isinstance(propagation, dict)
    propagation["enum"] += [f"r{word}" for word in propagation["enum"]]
    root = json.loads((folder / "config-schema.json").read_text())
    root["properties"]["linux"] = json.loads((folder / "config-linux.json").read_text())["linux"]
    for name in _OTHER_SYSTEMS:
        root["properties"].pop(name, None)
    process = root["properties"]["process"]["properties"]
    for place, name in ((process, "commandLine"), (process["user"]["properties"], "username")):
        del place[name]  # config.md: for Windows
    reduced = _reduced(root, raw)
    return {"root": reduced, "definitions": _used(reduced, definitions)}


def _reduced(schema: object, raw: dict[str, object]) -> object:
    if isinstance(schema, list):
        return [_reduced(item, raw) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "anyOf" in schema:
        (only,) = schema["anyOf"]
        return _reduced(only, raw)
    result: dict[str, object] = {}
    for part in schema.get("allOf", ()):
        _merge(result, _reduced(raw[_name(part)] if "$ref" in part else part, raw))
    for key, value in schema.items():
        if key not in _KEYWORDS:
            continue
        if key == "$ref":
            result[key] = _name(schema)
        elif key in _PROPERTY_MAPS:
            result[key] = {name: _reduced(inner, raw) for name, inner in value.items()}
        else:
            result[key] = _reduced(value, raw)
    return result


def _name(reference: dict[str, str]) -> str:
    return reference["$ref"].rpartition("/")[2]


def _merge(into: dict[str, object], part: object) -> None:
    assert isinstance(part, dict)
    for key, value in part.items():
        if isinstance(value, dict):
            into[key] = {**into.get(key, {}), **value}  # type: ignore[dict-item]
        elif isinstance(value, list):
            into[key] = [*into.get(key, []), *value]  # type: ignore[misc]
        else:
            into[key] = value


def _used(root: object, definitions: dict[str, object]) -> dict[str, object]:
    wanted: set[str] = set()

    def visit(node: object) -> None:
        if isinstance(node, dict):
            name = node.get("$ref")
            if isinstance(name, str) and name not in wanted:
                wanted.add(name)
                visit(definitions[name])
            for value in node.values():
                visit(value)
        elif isinstance(node, list):
            for value in node:
                visit(value)

    visit(root)
    return {name: definitions[name] for name in sorted(wanted)}


if __name__ == "__main__":
    json.dump(generate(Path(sys.argv[1])), sys.stdout, separators=(",", ":"))
    print()
