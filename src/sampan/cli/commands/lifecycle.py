"""Commands that do one thing to each container named: stop, kill, rm and the like."""

from __future__ import annotations

from sampan.cli.command import SOME, TWO, Command, Flag
from sampan.cli.fault import CliError
from sampan.cli.kinds import BOOL, INT, STRING
from sampan.client.document import as_table, number, table, text
from sampan.client.failure import DaemonError, DaemonNotFound, DaemonNotModified

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.api import Query


def for_each(session: Session, names: list[str], act: Callable[[str], str | None]) -> int:
    """Do something to each name, printing what ``act`` returns (the name when it is None).

    Failures do not stop the others; they are told at the end and make the status 1.
    """
    failures = []
    for name in names:
        try:
            shown = act(name)
        except DaemonNotModified:
            shown = None
        except DaemonError as error:
            failures.append(f"Error response from daemon: {error.message}")
            continue
        session.line(name if shown is None else shown)
    if failures:
        session.warn("\n".join(failures))
    return 1 if failures else 0


def _simple(session: Session, arguments: Arguments, action: str, query: Query) -> int:
    def act(name: str) -> None:
        session.client.post(f"/containers/{name}/{action}", query)

    return for_each(session, arguments.positional, act)


def _stopping(arguments: Arguments) -> Query:
    query: dict[str, str] = {"signal": arguments.text("signal")}
    timeout = arguments.optional_number("timeout")
    if timeout is not None:
        query["t"] = str(timeout)
    return query


def _stop(session: Session, arguments: Arguments) -> int:
    return _simple(session, arguments, "stop", _stopping(arguments))


def _restart(session: Session, arguments: Arguments) -> int:
    return _simple(session, arguments, "restart", _stopping(arguments))


def _kill(session: Session, arguments: Arguments) -> int:
    return _simple(session, arguments, "kill", {"signal": arguments.text("signal")})


def _pause(session: Session, arguments: Arguments) -> int:
    return _simple(session, arguments, "pause", {})


def _unpause(session: Session, arguments: Arguments) -> int:
    return _simple(session, arguments, "unpause", {})


def _init(session: Session, arguments: Arguments) -> int:
    def act(name: str) -> None:
        session.client.post(f"/sampan/containers/{name}/init", {})

    return for_each(session, arguments.positional, act)


def _rename(session: Session, arguments: Arguments) -> None:
    old, new = (name.strip() for name in arguments.positional)
    if not old or not new:
        raise CliError("Error: Neither old nor new names may be empty")
    try:
        session.client.post(f"/containers/{old}/rename", {"name": new})
    except DaemonError as error:
        session.warn(f"Error response from daemon: {error.message}")
        raise CliError(f"Error: failed to rename container named {old}") from error


def _rm(session: Session, arguments: Arguments) -> int:
    force = arguments.flag("force")
    query = {
        "v": arguments.flag("volumes"),
        "link": arguments.flag("link"),
        "force": force,
    }

    def act(name: str) -> None:
        stripped = name.strip("/")
        if not stripped:
            raise CliError("Container name cannot be empty")
        session.client.delete(f"/containers/{stripped}", query)

    failures = []
    for name in arguments.positional:
        try:
            act(name)
        except DaemonError as error:
            if not (force and isinstance(error, DaemonNotFound)):
                failures.append(f"Error response from daemon: {error.message}")
                continue
            session.warn(f"Error response from daemon: {error.message}")
            continue
        session.line(name)
    if failures:
        session.warn("\n".join(failures))
    return 1 if failures else 0


def _wait(session: Session, arguments: Arguments) -> int:
    def act(name: str) -> str:
        answer = as_table(session.client.post(f"/containers/{name}/wait"))
        message = text(table(answer, "Error"), "Message")
        if message:
            raise CliError(message)
        return str(number(answer, "StatusCode"))

    return for_each(session, arguments.positional, act)


_MANY = "[OPTIONS] CONTAINER [CONTAINER...]"
_OLD_TIME = Flag(
    "time",
    "",
    INT,
    "Seconds to wait before killing the container",
    hidden=True,
    target="timeout",
    deprecated="use --timeout instead",
)

STOP = Command(
    _MANY,
    (
        Flag("signal", "s", STRING, "Signal to send to the container"),
        Flag("timeout", "t", INT, "Seconds to wait before killing the container"),
        _OLD_TIME,
    ),
    SOME,
    _stop,
    complete="running",
)
RESTART = Command(_MANY, STOP.flags, SOME, _restart, complete="container")
KILL = Command(
    _MANY,
    (Flag("signal", "s", STRING, "Signal to send to the container"),),
    SOME,
    _kill,
    complete="running",
)
PAUSE = Command("CONTAINER [CONTAINER...]", (), SOME, _pause, complete="running")
UNPAUSE = Command("CONTAINER [CONTAINER...]", (), SOME, _unpause, complete="running")
RENAME = Command("CONTAINER NEW_NAME", (), TWO, _rename, complete="container")
RM = Command(
    _MANY,
    (
        Flag("force", "f", BOOL, "Force the removal of a running container (uses SIGKILL)"),
        Flag("link", "l", BOOL, "Remove the specified link"),
        Flag("volumes", "v", BOOL, "Remove anonymous volumes associated with the container"),
    ),
    SOME,
    _rm,
    complete="container",
)
WAIT = Command("CONTAINER [CONTAINER...]", (), SOME, _wait, complete="running")
INIT = Command(
    "CONTAINER [CONTAINER...]",
    (),
    SOME,
    _init,
    complete="container",
    detail=(
        "Sets up everything a start needs except the program itself: file systems, network, "
        "limits. The next start then only has to let the program go."
    ),
)
