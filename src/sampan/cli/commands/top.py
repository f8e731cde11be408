"""``container top``."""

from __future__ import annotations

from sampan.cli.command import Arity, Command
from sampan.cli.table import align
from sampan.client.document import as_table, items, texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session


def _top(session: Session, arguments: Arguments) -> None:
    container, *options = arguments.positional
    answer = as_table(
        session.client.get(f"/containers/{container}/top", {"ps_args": " ".join(options)})
    )
    lines = ["\t".join(texts(answer, "Titles"))]
    for process in items(answer, "Processes"):
        if isinstance(process, list):
            lines.append("\t".join(str(cell) for cell in process))
    session.line(align("\n".join(lines), 20, 3))


TOP = Command(
    "CONTAINER [ps OPTIONS]", (), Arity(1, -1), _top, interspersed=False, complete="running"
)
