"""Documents drawn from the OCI schema: mostly right ones, with a few things wrong."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

import sampan.runtime
from sampan.runtime.oci_documents import template

_SCHEMA = json.loads(Path(sampan.runtime.__file__).with_name("oci-schema.json").read_text())
_WORDS = """/ /proc /dev /sys /proc/self/fd/3 ../x /etc/passwd bind rbind ro tmpfs proc overlay
    nosuid size=1k lowerdir=/ SCMP_ACT_ALLOW SCMP_ACT_NOTIFY read CAP_SYS_ADMIN cap_kill
    RLIMIT_NOFILE net.x kernel.sem shared rslave idmap 0-3 4,2 x c b p a 1.2.0 true sh
    /nonexistent pids.max 2MB"""
#: Values that mean something to some field, and some that mean nothing to any.
WORDS = st.sampled_from([*_WORDS.split(), "", "\0", "\ud800", "a" * 300, "é\n"])
NUMBERS = st.one_of(
    st.sampled_from([-1, 0, 1, 2, 7, 1000, 65535, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 64]),
    st.integers(-(1 << 70), 1 << 70),
)
#: Each time another list and another object: what is drawn is changed in places later.
_EMPTY: st.SearchStrategy[Any] = st.one_of(st.builds(list), st.builds(dict))
JUNK = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS, _EMPTY, st.floats())


def values(schema: dict[str, Any], depth: int = 4) -> st.SearchStrategy[Any]:
    """Values that ``schema`` allows, or nearly."""
    while "$ref" in schema:
        schema = _SCHEMA["definitions"][schema["$ref"]]
    if depth == 0:
        return JUNK
    if "enum" in schema:
        return st.one_of(st.sampled_from(schema["enum"]), WORDS)
    kind = schema.get("type")
    if kind == "boolean":
        return st.booleans()
    if kind in ("integer", "number"):
        return NUMBERS
    if kind == "string":
        return WORDS
    if kind == "array":
        return st.lists(values(schema.get("items", {}), depth - 1), max_size=3)
    if kind != "object":
        return JUNK
    inner = {name: values(part, depth - 1) for name, part in schema.get("properties", {}).items()}
    required = {name: inner.pop(name) for name in schema.get("required", ()) if name in inner}
    fixed = st.fixed_dictionaries(required, optional=inner)
    rest = schema.get("additionalProperties") or next(
        iter(schema.get("patternProperties", {}).values()), None
    )
    if not isinstance(rest, dict):
        return fixed
    more = st.dictionaries(WORDS, values(rest, depth - 1), max_size=2)
    return st.builds(lambda known, unknown: {**unknown, **known}, fixed, more)


def base(*args: str) -> dict[str, Any]:
    """A container that works."""
    config: dict[str, Any] = json.loads(json.dumps(template()))
    config["process"].update(terminal=False, args=list(args))
    config["root"]["readonly"] = False
    return config


def _places() -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every property of a config.json: (its path, its schema)."""
    found: list[tuple[tuple[str, ...], dict[str, Any]]] = []

    def walk(schema: dict[str, Any], path: tuple[str, ...]) -> None:
        while "$ref" in schema:
            schema = _SCHEMA["definitions"][schema["$ref"]]
        if path:
            found.append((path, schema))
        for name, part in schema.get("properties", {}).items():
            walk(part, (*path, name))

    walk(_SCHEMA["root"], ())
    return found


PLACES = _places()


@st.composite
def mutated(draw: st.DrawFn, *args: str, most: int = 4) -> dict[str, Any]:
    """A container that works, with a few properties set to what their schema allows, or to junk."""
    config = copy.deepcopy(base(*args))
    for path, schema in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=most)):
        place: Any = config
        for name in path[:-1]:
            if not isinstance(place.get(name), dict):
                place[name] = {}
            place = place[name]
        value = draw(st.one_of(values(schema), values(schema), values(schema), JUNK))
        old = place.get(path[-1])
        if isinstance(old, list) and isinstance(value, list) and draw(st.booleans()):
            value = [*old, *value]
        place[path[-1]] = value
    return config
