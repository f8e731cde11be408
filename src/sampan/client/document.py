"""JSON documents of the API as plain Python values, read without trusting their shape.

The command line reads API answers as ``dict`` instead of wire structs: importing msgspec costs
more than a whole ``ps``. Every accessor returns the type it is named after; an absent, null or
wrongly typed member is the type's zero value, as in Docker's own client.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
    Document: TypeAlias = dict[str, "Json"]


def text(document: Mapping[str, Json], key: str) -> str:
    """The string member ``key``, or ``""``."""
    value = document.get(key)
    return value if isinstance(value, str) else ""


def number(document: Mapping[str, Json], key: str) -> int:
    """The integer member ``key``, or 0 (a float is truncated)."""
    value = document.get(key)
    return int(value) if isinstance(value, int | float) else 0


def flag(document: Mapping[str, Json], key: str) -> bool:
    """True only when the member ``key`` is ``true``."""
    return document.get(key) is True


def table(document: Mapping[str, Json], key: str) -> Document:
    """The object member ``key``, or ``{}``."""
    return as_table(document.get(key))


def items(document: Mapping[str, Json], key: str) -> list[Json]:
    """The array member ``key``, or ``[]``."""
    value = document.get(key)
    return value if isinstance(value, list) else []


def tables(document: Mapping[str, Json], key: str) -> list[Document]:
    """The objects of the array member ``key``."""
    return [value for value in items(document, key) if isinstance(value, dict)]


def texts(document: Mapping[str, Json], key: str) -> list[str]:
    """The strings of the array member ``key``."""
    return [value for value in items(document, key) if isinstance(value, str)]


def labels(document: Mapping[str, Json], key: str) -> dict[str, str]:
    """The string members of the object member ``key``."""
    return {name: value for name, value in table(document, key).items() if isinstance(value, str)}


def as_table(value: Json) -> Document:
    """``value`` if it is an object, else ``{}``."""
    return value if isinstance(value, dict) else {}


def as_tables(value: Json) -> list[Document]:
    """The objects in ``value`` if it is an array, else ``[]``."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
