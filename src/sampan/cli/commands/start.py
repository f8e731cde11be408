"""``container start``."""

from __future__ import annotations

from sampan.cli.attachment import (
    attendance_of_container,
    begin_wait,
    check_terminal,
    detach_keys,
    plan_for,
)
from sampan.cli.command import SOME, Command, Flag
from sampan.cli.commands.run import attach
from sampan.cli.fault import CliError
from sampan.cli.kinds import BOOL, STRING
from sampan.cli.signals import SignalPipe
from sampan.client.document import as_table, flag, table, text
from sampan.client.failure import DaemonError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session


def _start(session: Session, arguments: Arguments) -> int:
    names = arguments.positional
    keys = detach_keys(session, arguments.text("detach-keys"))
    if arguments.flag("attach") or arguments.flag("interactive"):
        if len(names) > 1:
            raise CliError("you cannot start and attach multiple containers at once")
        return _attached(session, arguments, keys)
    query = {
        "checkpoint": arguments.text("checkpoint"),
        "checkpoint-dir": arguments.text("checkpoint-dir"),
    }
    if query["checkpoint"] and len(names) > 1:
        raise CliError("you cannot restore multiple containers at once")
    failed = []
    for name in names:
        try:
            session.client.post(f"/containers/{name}/start", query)
        except DaemonError as error:
            session.warn(f"Error response from daemon: {error.message}")
            failed.append(name)
            continue
        session.line(name)
    if failed:
        raise CliError(f"Error: failed to start containers: {', '.join(failed)}")
    return 0


def _attached(session: Session, arguments: Arguments, keys: str) -> int:
    details = as_table(session.client.get(f"/containers/{arguments.positional[0]}/json"))
    identity = text(details, "Id")
    config = table(details, "Config")
    tty = flag(config, "Tty")
    stdin = arguments.flag("interactive") and flag(config, "OpenStdin")
    check_terminal(session, attach_stdin=stdin, tty=tty)
    plan = plan_for(session, stdin=stdin, stdout=True, stderr=True, tty=tty, keys=keys)
    attendance = attendance_of_container(session, identity, plan, proxy=not tty)
    removed = flag(table(details, "HostConfig"), "AutoRemove")
    with SignalPipe(proxied=not tty) as signals:
        stream = attach(session, identity, plan, keys)
        condition = "removed" if removed else "next-exit"
        exit_response = begin_wait(session, identity, condition)
        query = {
            "checkpoint": arguments.text("checkpoint"),
            "checkpoint-dir": arguments.text("checkpoint-dir"),
        }
        session.client.post(f"/containers/{identity}/start", query)
        attendance.fit_window()
        if attendance.attend(stream, signals):
            return 0
        return attendance.wait(exit_response, signals)


START = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    (
        Flag("attach", "a", BOOL, "Attach STDOUT/STDERR and forward signals"),
        Flag("checkpoint", "", STRING, "Restore from this checkpoint"),
        Flag("checkpoint-dir", "", STRING, "Use a custom checkpoint storage directory"),
        Flag("detach-keys", "", STRING, "Override the key sequence for detaching a container"),
        Flag("interactive", "i", BOOL, "Attach container's STDIN"),
    ),
    SOME,
    _start,
    complete="stopped",
)
