"""``image history``."""

from __future__ import annotations

from sampan.cli.clock import NANOSECONDS, ZERO, rfc3339
from sampan.cli.command import ONE, Command, Flag
from sampan.cli.kinds import BOOL, STRING
from sampan.cli.listing import FORMAT_HELP, Column, Listing
from sampan.cli.opts.platforms import parse_platform
from sampan.cli.show import ellipsis, short_id, since
from sampan.cli.units import human_size
from sampan.client.document import as_tables, number, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.document import Document


def _created(row: Document) -> int:
    return number(row, "Created") * NANOSECONDS


def _command(row: Document) -> str:
    return text(row, "CreatedBy").replace("\t", " ")


def _comment(row: Document) -> str:
    return text(row, "Comment")


def listing(*, truncate: bool, human: bool) -> Listing:
    """How the layers of an image are listed."""

    def identity(row: Document) -> str:
        return short_id(text(row, "Id")) if truncate else text(row, "Id")

    def created_since(row: Document) -> str:
        if not human:
            return rfc3339(_created(row))
        return "N/A" if _created(row) <= ZERO else since(_created(row))

    def created_by(row: Document) -> str:
        return ellipsis(_command(row), 45) if truncate else _command(row)

    def size(row: Document) -> str:
        value = number(row, "Size")
        return human_size(float(value), 3) if human else str(value)

    return Listing(
        type_name="*image.historyContext",
        columns={
            "ID": Column("IMAGE", identity),
            "CreatedSince": Column("CREATED", created_since),
            "CreatedAt": Column("CREATED AT", lambda row: rfc3339(_created(row))),
            "CreatedBy": Column("CREATED BY", created_by),
            "Size": Column("SIZE", size),
            "Comment": Column("COMMENT", _comment),
        },
        table=("ID", "CreatedSince" if human else "CreatedAt", "CreatedBy", "Size", "Comment"),
    )


def _history(session: Session, arguments: Arguments) -> None:
    platform = arguments.text("platform")
    query = {"platform": parse_platform(platform) if platform else ""}
    rows = as_tables(session.client.get(f"/images/{arguments.positional[0]}/history", query))
    shape = listing(truncate=not arguments.flag("no-trunc"), human=arguments.flag("human"))
    form = arguments.text("format")
    if arguments.flag("quiet") and not form:
        session.out(shape.quiet(rows, "ID"))
    else:
        session.out(shape.render(rows, form))


HISTORY = Command(
    "[OPTIONS] IMAGE",
    (
        Flag("format", "", STRING, FORMAT_HELP),
        Flag("human", "H", BOOL, "Print sizes and dates in human readable format", "true"),
        Flag("no-trunc", "", BOOL, "Don't truncate output"),
        Flag(
            "platform",
            "",
            STRING,
            "Show history for the given platform. Formatted as os[/arch[/variant]] "
            "(e.g., linux/amd64)",
            since="1.48",
        ),
        Flag("quiet", "q", BOOL, "Only show image IDs"),
    ),
    ONE,
    _history,
    complete="image",
)
