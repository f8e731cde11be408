"""``search``."""

from __future__ import annotations

from sampan.cli.command import ONE, Command, Flag
from sampan.cli.credentials import registry_auth
from sampan.cli.kinds import BOOL, FILTER, INT, STRING
from sampan.cli.listing import Column, Listing
from sampan.cli.show import ellipsis
from sampan.client.document import as_tables, flag, number, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.api import Query
    from sampan.client.document import Document


def listing(*, truncate: bool) -> Listing:
    """How found images are listed."""

    def description(row: Document) -> str:
        content = " ".join(text(row, "description").split())
        return ellipsis(content, 45) if truncate else content

    return Listing(
        type_name="*registry.searchContext",
        columns={
            "Name": Column("NAME", lambda row: text(row, "name")),
            "Description": Column("DESCRIPTION", description),
            "StarCount": Column("STARS", lambda row: str(number(row, "star_count"))),
            "IsOfficial": Column(
                "OFFICIAL", lambda row: "[OK]" if flag(row, "is_official") else ""
            ),
        },
        table=("Name", "Description", "StarCount", "IsOfficial"),
    )


def _search(session: Session, arguments: Arguments) -> None:
    term = arguments.positional[0]
    first, slash, _rest = term.partition("/")
    domain = first if slash and ("." in first or ":" in first) else "docker.io"
    query: Query = {
        "term": term,
        "limit": arguments.number("limit"),
        "filters": arguments.filters(),
    }
    headers = {"X-Registry-Auth": registry_auth(session, domain)}
    answer = session.client.call("GET", "/images/search", query, None, headers)
    rows = sorted(as_tables(answer), key=lambda row: -number(row, "star_count"))
    shape = listing(truncate=not arguments.flag("no-trunc"))
    session.out(shape.render(rows, arguments.text("format")))


SEARCH = Command(
    "[OPTIONS] TERM",
    (
        Flag("filter", "f", FILTER, "Filter output based on conditions provided"),
        Flag("format", "", STRING, "Pretty-print search using a Go template"),
        Flag("limit", "", INT, "Max number of search results"),
        Flag("no-trunc", "", BOOL, "Don't truncate output"),
    ),
    ONE,
    _search,
)
