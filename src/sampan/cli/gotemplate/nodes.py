"""The syntax tree of a template. ``str(node)`` is the node as Go's messages quote it."""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Operand: TypeAlias = (
        "Field | Variable | Dot | Nil | Bool | Number | Text | Identifier | Chain | Pipe"
    )
    Node: TypeAlias = "Literal | Action | If | Range | With | Include | Break | Continue"


class Field(NamedTuple):
    """``.State.Status``."""

    position: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        return "".join(f".{name}" for name in self.names)


class Variable(NamedTuple):
    """``$x`` or ``$x.Name``."""

    position: int
    name: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return self.name + "".join(f".{name}" for name in self.names)


class Dot(NamedTuple):
    """``.``."""

    position: int

    def __str__(self) -> str:
        return "."


class Nil(NamedTuple):
    """``nil``."""

    position: int

    def __str__(self) -> str:
        return "nil"


class Bool(NamedTuple):
    """``true`` or ``false``."""

    position: int
    value: bool

    def __str__(self) -> str:
        return "true" if self.value else "false"


class Number(NamedTuple):
    """A number constant."""

    position: int
    text: str
    value: int | float

    def __str__(self) -> str:
        return self.text


class Text(NamedTuple):
    """A string constant."""

    position: int
    quoted: str
    value: str

    def __str__(self) -> str:
        return self.quoted


class Identifier(NamedTuple):
    """The name of a function."""

    position: int
    name: str

    def __str__(self) -> str:
        return self.name


class Chain(NamedTuple):
    """``(pipeline).Name``."""

    position: int
    operand: Operand
    names: tuple[str, ...]

    def __str__(self) -> str:
        inner = f"({self.operand})" if isinstance(self.operand, Pipe) else str(self.operand)
        return inner + "".join(f".{name}" for name in self.names)


class Call(NamedTuple):
    """One command of a pipeline: a function or operand with its arguments."""

    position: int
    operands: tuple[Operand, ...]

    def __str__(self) -> str:
        return " ".join(
            f"({operand})" if isinstance(operand, Pipe) else str(operand)
            for operand in self.operands
        )


class Pipe(NamedTuple):
    """``$x := a | b``; ``assigns`` when the sign is ``=``."""

    position: int
    calls: tuple[Call, ...]
    variables: tuple[str, ...] = ()
    assigns: bool = False

    def __str__(self) -> str:
        sign = " = " if self.assigns else " := "
        lead = ", ".join(self.variables) + sign if self.variables else ""
        return lead + " | ".join(str(call) for call in self.calls)


class Literal(NamedTuple):
    """Text outside actions."""

    text: str


class Action(NamedTuple):
    """``{{pipeline}}``."""

    position: int
    pipe: Pipe


class If(NamedTuple):
    """``{{if pipeline}} ... {{else}} ... {{end}}``."""

    position: int
    pipe: Pipe
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]


class With(NamedTuple):
    """``{{with pipeline}} ... {{else}} ... {{end}}``."""

    position: int
    pipe: Pipe
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]


class Range(NamedTuple):
    """``{{range pipeline}} ... {{else}} ... {{end}}``."""

    position: int
    pipe: Pipe
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]


class Include(NamedTuple):
    """``{{template "name" pipeline}}``."""

    position: int
    name: str
    pipe: Pipe | None


class Break(NamedTuple):
    """``{{break}}``."""

    position: int


class Continue(NamedTuple):
    """``{{continue}}``."""

    position: int
