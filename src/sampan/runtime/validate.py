"""config.json checked against the OCI schema, with errors that name the place (pure).

The schema is data beside this module (``oci-schema.json``, made from the specification by
``tools/generate_oci_schema.py``). Only the keywords that occur in it are understood. A null counts
as absent, since Go programs write both. Properties the schema does not know are no error
(config.md "Extensibility" forbids that); they are returned, so that the caller can say so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

from sampan.errors import InvalidParameter
from sampan.model.oci import Process, Resources, Spec

Schema: TypeAlias = Mapping[str, Any]

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
#: Specification versions sampan implements: what 1.x promises to stay compatible with.
_VERSION = re.compile(r"1\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")


def parse_config(text: bytes) -> tuple[Spec, list[str]]:
    """A checked spec and the paths of properties nobody knows.

    Raises InvalidParameter naming the place: ``config.json: linux.resources.pids.limit: ...``.
    """
    value = _decode(text, "config.json")
    checker = _Checker("config.json")
    checker.check(value, checker.root, "")
    version = value.get("ociVersion")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise InvalidParameter(f"config.json: ociVersion: unsupported version {version!r}")
    return cast("Spec", _without_nulls(value)), checker.unknown


def parse_process(text: bytes) -> tuple[Process, list[str]]:
    """The same for a process.json as ``exec --process`` takes it."""
    value = _decode(text, "process.json")
    checker = _Checker("process.json")
    checker.check(value, checker.root["properties"]["process"], "process")
    return cast("Process", _without_nulls(value)), checker.unknown


def parse_resources(text: bytes) -> Resources:
    """The same for ``linux.resources`` alone, as ``update`` takes it; unknown ones are refused."""
    value = _decode(text, "resources")
    checker = _Checker("resources")
    linux = checker.root["properties"]["linux"]["properties"]
    checker.check(value, linux["resources"], "linux.resources")
    if checker.unknown:
        raise InvalidParameter(f"resources: {checker.unknown[0]}: is unknown")
    return cast("Resources", _without_nulls(value))


def _decode(text: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidParameter(f"{name}: not JSON: {error}") from None
    except RecursionError:
        raise InvalidParameter(f"{name}: nested too deeply") from None
    if not isinstance(value, dict):
        raise InvalidParameter(f"{name}: not an object")
    return value


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value


class _Checker:
    """One pass over a document."""

    def __init__(self, document: str) -> None:
        schema = json.loads(Path(__file__).with_name("oci-schema.json").read_text())
        self.root: Schema = schema["root"]
        self._definitions: Mapping[str, Schema] = schema["definitions"]
        self.unknown: list[str] = []
        self._document = document

    def check(self, value: Any, schema: Schema, where: str) -> None:
        """Raise InvalidParameter unless ``value`` (at ``where``) is what ``schema`` wants."""
        while "$ref" in schema:
            schema = self._definitions[schema["$ref"]]
        if value is None:
            return
        self._check_type(value, schema, where)
        if "enum" in schema and value not in schema["enum"]:
            raise self._wrong(
                where, f"{value!r} is not one of {', '.join(map(str, schema['enum']))}"
            )
        if isinstance(value, dict):
            self._check_object(value, schema, where)
        elif isinstance(value, list):
            if len(value) < schema.get("minItems", 0):
                raise self._wrong(where, "is empty")
            if "items" in schema:
                for index, item in enumerate(value):
                    self.check(item, schema["items"], f"{where}[{index}]")
        elif isinstance(value, str):
            self._check_text(value, where)
            if "pattern" in schema and not re.search(schema["pattern"], value):
                raise self._wrong(where, f"{value!r} does not match {schema['pattern']}")

    def _check_text(self, text: str, where: str) -> None:
        """What is to become a C string: no NUL, and no half of a surrogate pair (RFC 8259, 8.2)."""
        if "\0" in text:
            raise self._wrong(where, "contains a NUL character")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise self._wrong(where, f"{text!r} is not valid Unicode") from None

    def _check_type(self, value: Any, schema: Schema, where: str) -> None:
        wanted = schema.get("type")
        if wanted is None:
            return
        is_bool = isinstance(value, bool)
        if not isinstance(value, _TYPES[wanted]) or (is_bool and wanted != "boolean"):
            raise self._wrong(where, f"is not of type {wanted}")
        if isinstance(value, int) and not is_bool:
            if "minimum" in schema and value < schema["minimum"]:
                raise self._wrong(where, f"{value} is below {schema['minimum']}")
            if "maximum" in schema and value > schema["maximum"]:
                raise self._wrong(where, f"{value} is above {schema['maximum']}")

    def _check_object(self, value: dict[str, Any], schema: Schema, where: str) -> None:
        properties = schema.get("properties", {})
        patterns = schema.get("patternProperties", {})
        rest = schema.get("additionalProperties")
        for name in schema.get("required", ()):
            if value.get(name) is None:
                raise self._wrong(_join(where, name), "is missing")
        for name, inner in value.items():
            self._check_text(name, where)
            place = _join(where, name)
            if name in properties:
                self.check(inner, properties[name], place)
                continue
            matching = [inside for pattern, inside in patterns.items() if re.search(pattern, name)]
            for inside in matching:
                self.check(inner, inside, place)
            if rest is not None:
                self.check(inner, rest, place)
            elif properties and not matching:
                self.unknown.append(place)

    def _wrong(self, where: str, what: str) -> InvalidParameter:
        # Names are the document's own and may be anything; an error is one line.
        place = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in where)
        return InvalidParameter(f"{self._document}: {place or 'document'}: {what}")


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
