"""``container logs``."""

from __future__ import annotations

from sampan.cli.clock import now, to_query
from sampan.cli.command import ONE, Command, Flag
from sampan.cli.fault import CliError
from sampan.cli.frames import STDERR, SYSTEM_ERROR, Demultiplexer
from sampan.cli.kinds import BOOL, STRING
from sampan.cli.streams import write_all
from sampan.client.document import as_table, flag, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.api import Query


def time_query(arguments: Arguments, name: str) -> str:
    """A time flag as the API takes it. Raises :class:`CliError`."""
    value = arguments.text(name)
    if not value:
        return ""
    try:
        return to_query(value, now())
    except ValueError as error:
        raise CliError(f'invalid value for "{name}": {error}') from error


def _logs(session: Session, arguments: Arguments) -> None:
    container = arguments.positional[0]
    details = as_table(session.client.get(f"/containers/{container}/json"))
    query: Query = {
        "stdout": True,
        "stderr": True,
        "since": time_query(arguments, "since"),
        "until": time_query(arguments, "until"),
        "timestamps": arguments.flag("timestamps"),
        "follow": arguments.flag("follow"),
        "tail": arguments.text("tail"),
        "details": arguments.flag("details"),
    }
    response = session.client.open("GET", f"/containers/{container}/logs", query)
    if flag(table(details, "Config"), "Tty"):
        for piece in response:
            write_all(1, piece)
        return
    frames = Demultiplexer()
    for piece in response:
        for stream, payload in frames.feed(piece):
            write_all(2 if stream in (STDERR, SYSTEM_ERROR) else 1, payload)


LOGS = Command(
    "[OPTIONS] CONTAINER",
    (
        Flag("details", "", BOOL, "Show extra details provided to logs"),
        Flag("follow", "f", BOOL, "Follow log output"),
        Flag(
            "since",
            "",
            STRING,
            "Show logs since timestamp (e.g. 2013-01-02T13:23:37Z) or relative "
            "(e.g. 42m for 42 minutes)",
        ),
        Flag("tail", "n", STRING, "Number of lines to show from the end of the logs", "all"),
        Flag("timestamps", "t", BOOL, "Show timestamps"),
        Flag(
            "until",
            "",
            STRING,
            "Show logs before a timestamp (e.g. 2013-01-02T13:23:37Z) or relative "
            "(e.g. 42m for 42 minutes)",
        ),
    ),
    ONE,
    _logs,
    complete="container",
)
