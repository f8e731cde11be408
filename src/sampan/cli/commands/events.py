"""``system events``."""

from __future__ import annotations

from sampan.cli.clock import NANOSECONDS, rfc3339
from sampan.cli.command import NONE, Command, Flag
from sampan.cli.commands.logs import time_query
from sampan.cli.fault import CliError
from sampan.cli.inspection import BAD_TEMPLATE, parse
from sampan.cli.kinds import FILTER, STRING
from sampan.cli.listing import INSPECT_FORMAT_HELP
from sampan.client.document import labels, number, table, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.gotemplate import Template
    from sampan.cli.session import Session
    from sampan.client.api import Query
    from sampan.client.document import Document


def line(event: Document) -> str:
    """An event as one line of text."""
    instant = number(event, "timeNano") or number(event, "time") * NANOSECONDS
    stamp = rfc3339(instant, digits=9) if instant else ""
    actor = table(event, "Actor")
    words = [stamp, text(event, "Type"), text(event, "Action"), text(actor, "ID")]
    attributes = labels(actor, "Attributes")
    if attributes:
        pairs = ", ".join(f"{key}={value}" for key, value in sorted(attributes.items()))
        words.append(f"({pairs})")
    return " ".join(word for word in words if word)


def _events(session: Session, arguments: Arguments) -> None:
    query: Query = {
        "since": time_query(arguments, "since"),
        "until": time_query(arguments, "until"),
        "filters": arguments.filters(),
    }
    form = arguments.text("format")
    template = parse(form) if form else None
    for event in session.client.stream("GET", "/events", query):
        session.line(line(event) if template is None else _executed(template, event))
        session.flush()


def _executed(template: Template, event: Document) -> str:
    from sampan.cli.gotemplate import TemplateError
    from sampan.cli.gotypes import typed

    try:
        return template.execute(typed("events.Message", event))
    except TemplateError as error:
        raise CliError(f"Error parsing format: {error}", BAD_TEMPLATE) from error


EVENTS = Command(
    "[OPTIONS]",
    (
        Flag("filter", "f", FILTER, "Filter output based on conditions provided"),
        Flag("format", "", STRING, INSPECT_FORMAT_HELP),
        Flag("since", "", STRING, "Show all events created since timestamp"),
        Flag("until", "", STRING, "Stream events until this timestamp"),
    ),
    NONE,
    _events,
)
