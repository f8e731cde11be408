"""``container diff``."""

from __future__ import annotations

from sampan.cli.command import ONE, Command
from sampan.client.document import as_tables, number, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.document import Document

_KINDS = {0: "C", 1: "A", 2: "D"}


def _diff(session: Session, arguments: Arguments) -> None:
    container = arguments.positional[0]
    show_changes(session, as_tables(session.client.get(f"/containers/{container}/changes")))


def show_changes(session: Session, changes: list[Document]) -> None:
    """Print changed paths, one a line."""
    for change in changes:
        kind = _KINDS.get(number(change, "Kind"), "?")
        session.line(f"{kind} {text(change, 'Path')}")


DIFF = Command("CONTAINER", (), ONE, _diff, complete="container")
