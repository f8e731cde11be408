"""What HCL text is a tree of: bodies, blocks and expressions, and the error of a wrong one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from sampan.errors import InvalidParameter


class BakeError(InvalidParameter):
    """A bake file is wrong at some line."""

    def __init__(self, message: str, file: str = "", line: int = 0) -> None:
        where = f"{file}:{line}: " if line else ""
        super().__init__(f"{where}{message}")


@dataclass(frozen=True, slots=True)
class Literal:
    """A number, bool, null or plain text."""

    value: object


@dataclass(frozen=True, slots=True)
class Template:
    """Text with parts to be filled in; a lone part keeps its type."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Name:
    """A variable."""

    name: str
    line: int


@dataclass(frozen=True, slots=True)
class Index:
    """An element of a tuple or object."""

    value: Expression
    key: Expression


@dataclass(frozen=True, slots=True)
class Splat:
    """The same elements (``keys``) of every item."""

    value: Expression
    keys: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A function's value; ``expand`` spreads the last argument."""

    name: str
    arguments: tuple[Expression, ...]
    expand: bool
    line: int


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator on one or two operands."""

    operator: str
    operands: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Conditional:
    """One of two."""

    condition: Expression
    yes: Expression
    no: Expression


@dataclass(frozen=True, slots=True)
class Tuple:
    """A list."""

    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Object:
    """A map; keys are expressions."""

    pairs: tuple[tuple[Expression, Expression], ...]


@dataclass(frozen=True, slots=True)
class For:
    """A tuple (``key`` None) or object made of a collection; ``group`` collects equal keys;
    ``text`` joins instead (a template's directive)."""

    names: tuple[str, ...]
    collection: Expression
    key: Expression | None
    value: Expression
    condition: Expression | None
    group: bool = False
    text: bool = False


Expression: TypeAlias = (
    "Literal | Template | Name | Index | Splat | Call | Operation | Conditional | Tuple | Object"
    " | For"
)


@dataclass(slots=True)
class Body:
    """Attributes by name, and blocks in order."""

    attributes: dict[str, Expression] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Block:
    """A block: ``target "app" { … }``."""

    kind: str
    labels: tuple[str, ...]
    body: Body
    line: int
