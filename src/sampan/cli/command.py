"""What a command is: its usage, flags, arguments and the function that does it.

``Flag`` and ``Command`` are data. The same table drives the parser (:mod:`sampan.cli.flags`), the
help text (:mod:`sampan.cli.help`), shell completion and the manual pages.
"""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session


class Kind(NamedTuple):
    """A type of flag value.

    ``name`` is what help shows. ``parse`` turns the text into the value, raising ``ValueError``
    with Docker's wording. ``many``: the flag may be repeated, values are collected in a list; a
    ``parse`` of such a kind may return a list, which extends it. ``switch``: takes no value
    unless written ``--flag=value``.
    """

    name: str
    parse: Callable[[str], object]
    many: bool = False
    switch: bool = False


class Flag(NamedTuple):
    """One flag of a command."""

    name: str
    short: str
    kind: Kind
    help: str
    default: str = ""
    hidden: bool = False
    #: The flag this one is another name for.
    target: str = ""
    #: Said on standard error when the flag is used.
    deprecated: str = ""
    #: Where completion takes values from: ``container``, ``image``, ``network``, ``file``, ...
    complete: str = ""
    #: The API version the daemon must have for the flag to mean anything.
    since: str = ""
    #: Why the flag is refused here, where Docker has it for daemons that this one is not.
    refused: str = ""

    @property
    def key(self) -> str:
        """The name values are stored under."""
        return self.target or self.name


class Arity(NamedTuple):
    """How many positional arguments a command takes; no maximum when ``most`` is -1."""

    least: int
    most: int

    def complaint(self, count: int) -> str:
        """What is wrong with ``count`` arguments, or ``""``."""
        if self.least <= count and (self.most < 0 or count <= self.most):
            return ""
        if self.most == 0:
            return "accepts no arguments"
        if self.least == self.most:
            return f"requires {_arguments(self.least)}"
        if self.most < 0:
            return f"requires at least {_arguments(self.least)}"
        if self.least == 0:
            return f"requires at most {_arguments(self.most)}"
        return f"requires at least {self.least} and at most {_arguments(self.most)}"


def _arguments(count: int) -> str:
    return f"{count} argument" if count == 1 else f"{count} arguments"


NONE = Arity(0, 0)
ONE = Arity(1, 1)
TWO = Arity(2, 2)
SOME = Arity(1, -1)
ANY = Arity(0, -1)
AT_MOST_ONE = Arity(0, 1)


class Command(NamedTuple):
    """One command. ``run`` returns the exit status (None is 0)."""

    usage: str
    flags: tuple[Flag, ...]
    arity: Arity
    run: Callable[[Session, Arguments], int | None]
    #: False: everything after the first positional argument is positional too.
    interspersed: bool = True
    #: What is printed for a local fault starts with ``docker: `` and exits with 125 (run).
    fault_code: int = 1
    #: Where completion takes positional arguments from.
    complete: str = ""
    #: A paragraph for the manual page.
    detail: str = ""
