"""``container attach``."""

from __future__ import annotations

from sampan.cli.attachment import (
    attendance_of_container,
    begin_wait,
    check_terminal,
    detach_keys,
    plan_for,
)
from sampan.cli.command import ONE, Command, Flag
from sampan.cli.commands.run import attach
from sampan.cli.fault import CliError
from sampan.cli.kinds import BOOL, STRING
from sampan.cli.signals import SignalPipe
from sampan.cli.terminal import size
from sampan.client.document import as_table, flag, table
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.document import Document


def _check_state(state: Document) -> None:
    if not flag(state, "Running"):
        raise CliError("cannot attach to a stopped container, start it first")
    if flag(state, "Paused"):
        raise CliError("cannot attach to a paused container, unpause it first")
    if flag(state, "Restarting"):
        raise CliError("cannot attach to a restarting container, wait until it is running")


def _attach(session: Session, arguments: Arguments) -> int:
    container = arguments.positional[0]
    details = as_table(session.client.get(f"/containers/{container}/json"))
    _check_state(table(details, "State"))
    config = table(details, "Config")
    tty = flag(config, "Tty")
    stdin = flag(config, "OpenStdin") and not arguments.flag("no-stdin")
    check_terminal(session, attach_stdin=stdin, tty=tty)
    keys = detach_keys(session, arguments.text("detach-keys"))
    plan = plan_for(session, stdin=stdin, stdout=True, stderr=True, tty=tty, keys=keys)
    proxy = arguments.flag("sig-proxy") and not tty
    attendance = attendance_of_container(session, container, plan, proxy=proxy)
    with SignalPipe(proxied=proxy) as signals:
        exit_response = begin_wait(session, container, "not-running")
        stream = attach(session, container, plan, keys)
        if tty:
            _redraw(session, container)
            attendance.fit_window()
        if attendance.attend(stream, signals):
            return 0
        return attendance.wait(exit_response, signals)


def _redraw(session: Session, container: str) -> None:
    """Change the size and back, so that a full-screen program draws itself anew."""
    rows, columns = size(1)
    if rows:
        try:
            query = {"h": rows + 1, "w": columns + 1}
            session.client.post(f"/containers/{container}/resize", query)
        except SampanError:
            return  # it ended: attaching will tell


ATTACH = Command(
    "[OPTIONS] CONTAINER",
    (
        Flag("detach-keys", "", STRING, "Override the key sequence for detaching a container"),
        Flag("no-stdin", "", BOOL, "Do not attach STDIN"),
        Flag("sig-proxy", "", BOOL, "Proxy all received signals to the process", "true"),
    ),
    ONE,
    _attach,
    complete="running",
)
