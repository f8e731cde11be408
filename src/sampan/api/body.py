"""Request bodies: bounded, decoded as Go's encoding/json would, and refused by field.

Differences between JSON on the wire and the structs of :mod:`sampan.wire` that Go's decoder hides
from its clients are evened out here: names match without regard to case, a command may be one
string, trailing data is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_origin

import msgspec
from aiohttp import StreamReader

from sampan.api import jsonfault
from sampan.errors import InvalidParameter

#: Largest JSON body, in bytes: far above any real one (256 KiB of labels is a lot).
LIMIT = 8 << 20
_INT64 = 1 << 63
#: fields whose type in Go is strslice.StrSlice: a string or a list of strings
_STRING_OR_LIST = frozenset({"Cmd", "Entrypoint"})
#: fields that are sets in Go, map[string]struct{}: their values say nothing and may be null
_SETS = frozenset({"ExposedPorts", "Volumes"})

T = TypeVar("T", bound=msgspec.Struct)


async def read(content: StreamReader, limit: int = LIMIT) -> bytes:
    """The whole body; raises :class:`InvalidParameter` beyond ``limit`` bytes."""
    chunks: list[bytes] = []
    size = 0
    while chunk := await content.readany():
        size += len(chunk)
        if size > limit:
            raise InvalidParameter(f"request body too large: at most {limit} bytes are accepted")
        chunks.append(chunk)
    return b"".join(chunks)


def check_type(content_type: str) -> None:
    """Refuse a body that is announced as something other than JSON, in dockerd's words."""
    kind = content_type.partition(";")[0].strip().lower()
    if not kind:
        raise InvalidParameter(
            f"malformed Content-Type header ({content_type}): mime: no media type"
        )
    if kind != "application/json":
        raise InvalidParameter(
            f"unsupported Content-Type header ({kind}): must be 'application/json'"
        )


def decode(raw: bytes, kind: type[T]) -> T:
    """A body as a wire struct; raises :class:`InvalidParameter` naming the field at fault."""
    data = decode_json(raw)
    if not isinstance(data, dict):
        raise InvalidParameter("invalid JSON: expected an object")
    _even_out_object(data, kind, "")
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise InvalidParameter(f"invalid JSON: {_readable(str(error))}") from None


def decode_json(raw: bytes) -> object:
    """A body as plain values; raises :class:`InvalidParameter` for malformed JSON."""
    if not raw.strip():
        raise InvalidParameter("invalid JSON: got EOF while reading request body")
    try:
        return msgspec.json.decode(raw)
    except RecursionError:
        raise InvalidParameter("invalid JSON: nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        fault = jsonfault.describe(raw.decode(errors="replace"))
        message = fault if fault == jsonfault.TRAILING else f"invalid JSON: {fault}"
        raise InvalidParameter(message) from None


def _readable(message: str) -> str:
    """``Expected `str`, got `int` - at `$.Image``` as ``Image: expected `str`, got `int```."""
    what, at, where = message.rpartition(" - at `$")
    if not at:
        return message
    field = where.rstrip("`").lstrip(".")
    return f"{field or 'body'}: {what[:1].lower()}{what[1:]}"


def _even_out(value: Any, shape: _Shape | None, path: str) -> Any:
    """``value`` as the struct's decoder wants it; errors are left to that decoder."""
    if shape is None:
        _check(value, path)
    elif shape.container is None and isinstance(value, dict):
        _even_out_object(value, shape.struct, path)
    elif shape.container is list and isinstance(value, list):
        for index, item in enumerate(value):
            _even_out(item, shape.item, f"{path}[{index}]")
    elif shape.container is dict and isinstance(value, dict):
        for key, item in value.items():
            _check(key, path)
            if item is None and shape.item is not None and shape.item.container is None:
                value[key] = {}
            else:
                _even_out(item, shape.item, f"{path}[{key}]")
    else:
        _check(value, path)
    return value


def _even_out_object(data: dict[str, Any], kind: type[msgspec.Struct], path: str) -> None:
    fields, lowered = _fields(kind)
    seen: set[str] = set()
    for name in list(data):
        known = name
        if name not in fields:
            known = lowered.get(name.lower(), name)
            if known not in fields:
                continue
            value = data.pop(name)
            if known in data and known not in seen:
                continue  # the last of several spellings counts, as in Go
            data[known] = value
        seen.add(known)
        value = data[known]
        if known in _STRING_OR_LIST and isinstance(value, str):
            data[known] = [value]
        elif known in _SETS and isinstance(value, dict):
            data[known] = {key: {} if item is None else item for key, item in value.items()}
        elif isinstance(value, dict) and known in _text_maps(kind):
            data[known] = {key: "" if item is None else item for key, item in value.items()}
        _even_out(data[known], fields[known], f"{path}.{known}" if path else known)


def _check(value: object, path: str) -> None:
    """Refuse what no field can mean: numbers beyond int64 and text with a NUL byte."""
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidParameter(f"invalid JSON: {path}: contains a NUL byte")
    elif isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            raise InvalidParameter(f"invalid JSON: {path}: number out of range")
    elif isinstance(value, list):
        for item in value:
            _check(item, path)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check(key, path)
            _check(item, f"{path}[{key}]")


@dataclass(frozen=True, slots=True)
class _Shape:
    """Where structs are in a field: the field itself, or the items of a list or map."""

    struct: type[msgspec.Struct]
    container: type[list[Any]] | type[dict[str, Any]] | None = None
    item: _Shape | None = None


@cache
def _text_maps(kind: type[msgspec.Struct]) -> frozenset[str]:
    """Wire names of the fields that map text to text: Go reads null in them as an empty text."""
    return frozenset(
        field.encode_name
        for field in msgspec.structs.fields(kind)
        if dict[str, str] in (field.type, *get_args(field.type))
    )


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[dict[str, _Shape | None], dict[str, str]]:
    """Wire names of a struct's fields with their shapes, and the names by lower case."""
    shapes = {field.encode_name: _shape(field.type) for field in msgspec.structs.fields(kind)}
    return shapes, {name.lower(): name for name in shapes}


def _shape(annotation: object) -> _Shape | None:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return _Shape(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (list, dict):
        inner = _shape(arguments[-1])
        return inner and _Shape(inner.struct, origin, inner)
    return next((found for item in arguments if (found := _shape(item))), None)
