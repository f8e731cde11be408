"""``checkpoint create``, ``ls``, ``rm`` (CRIU, where the daemon has it)."""

from __future__ import annotations

from sampan.cli.command import ONE, TWO, Command, Flag
from sampan.cli.kinds import BOOL, STRING
from sampan.cli.listing import Column, Listing
from sampan.client.document import as_tables, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.document import Document

_DIRECTORY = Flag("checkpoint-dir", "", STRING, "Use a custom checkpoint storage directory")
_LISTING = Listing(
    type_name="*checkpoint.checkpointContext",
    columns={"Name": Column("CHECKPOINT NAME", lambda row: text(row, "Name"))},
    table=("Name",),
)


def _create(session: Session, arguments: Arguments) -> None:
    container, name = arguments.positional
    body: Document = {
        "CheckpointID": name,
        "CheckpointDir": arguments.text("checkpoint-dir"),
        "Exit": not arguments.flag("leave-running"),
    }
    session.client.post(f"/containers/{container}/checkpoints", None, body)
    session.line(name)


def _ls(session: Session, arguments: Arguments) -> None:
    query = {"dir": arguments.text("checkpoint-dir")}
    path = f"/containers/{arguments.positional[0]}/checkpoints"
    session.out(_LISTING.render(as_tables(session.client.get(path, query)), ""))


def _rm(session: Session, arguments: Arguments) -> None:
    container, name = arguments.positional
    query = {"dir": arguments.text("checkpoint-dir")}
    session.client.delete(f"/containers/{container}/checkpoints/{name}", query)


CREATE = Command(
    "[OPTIONS] CONTAINER CHECKPOINT",
    (
        _DIRECTORY,
        Flag("leave-running", "", BOOL, "Leave the container running after checkpoint"),
    ),
    TWO,
    _create,
    complete="running",
)
LS = Command("[OPTIONS] CONTAINER", (_DIRECTORY,), ONE, _ls, complete="container")
RM = Command("[OPTIONS] CONTAINER CHECKPOINT", (_DIRECTORY,), TWO, _rm, complete="container")
