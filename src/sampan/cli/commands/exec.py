"""``container exec``."""

from __future__ import annotations

from sampan.cli.attachment import Attendance, check_terminal, detach_keys, plan_for
from sampan.cli.command import Arity, Command, Flag
from sampan.cli.fault import CliError
from sampan.cli.kinds import BOOL, LIST, STRING
from sampan.cli.opts.variables import ENV, read_environment
from sampan.cli.signals import SignalPipe
from sampan.cli.terminal import size
from sampan.client.document import as_table, number, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.document import Document


def _exec(session: Session, arguments: Arguments) -> int:
    container, *command = arguments.positional
    detach, tty = arguments.flag("detach"), arguments.flag("tty")
    stdin = arguments.flag("interactive") and not detach
    keys = detach_keys(session, arguments.text("detach-keys"))
    environment = read_environment(
        arguments.texts("env-file"), arguments.texts("env"), session.environment
    )
    if not detach:
        try:
            check_terminal(session, attach_stdin=stdin, tty=tty)
        except CliError:
            # That there is no such container comes first, as in docker; no exec is left there.
            session.client.get(f"/containers/{container}/json")
            raise
    body: Document = {
        "User": arguments.text("user"),
        "Privileged": arguments.flag("privileged"),
        "Tty": tty,
        "AttachStdin": stdin,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "DetachKeys": keys,
        "Env": [*environment],
        "WorkingDir": arguments.text("workdir"),
        "Cmd": [*command],
    }
    rows, columns = size(1)
    console: Document = {"ConsoleSize": [rows, columns]} if tty and rows else {}
    answer = as_table(
        session.client.post(f"/containers/{container}/exec", None, {**body, **console})
    )
    identity = text(answer, "Id")
    if not identity:
        raise CliError("exec ID empty")
    if detach:
        start: Document = {"Detach": True, "Tty": tty}
        session.client.post(f"/exec/{identity}/start", None, {**start, **console})
        return 0
    return _attached(session, identity, stdin=stdin, tty=tty, keys=keys, console=console)


def _attached(
    session: Session, identity: str, *, stdin: bool, tty: bool, keys: str, console: Document
) -> int:
    plan = plan_for(session, stdin=stdin, stdout=True, stderr=True, tty=tty, keys=keys)

    def resize(rows: int, columns: int) -> None:
        session.client.post(f"/exec/{identity}/resize", {"h": rows, "w": columns})

    attendance = Attendance(session, plan, resize=resize, kill=None)
    with SignalPipe(proxied=False) as signals:
        start: Document = {"Detach": False, "Tty": tty}
        stream = session.another_client().hijack(
            f"/exec/{identity}/start", None, {**start, **console}
        )
        attendance.fit_window()
        if attendance.attend(stream, signals):
            return 0
    return number(as_table(session.client.get(f"/exec/{identity}/json")), "ExitCode")


EXEC = Command(
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    (
        Flag("detach", "d", BOOL, "Detached mode: run command in the background"),
        Flag("detach-keys", "", STRING, "Override the key sequence for detaching a container"),
        Flag("env", "e", ENV, "Set environment variables"),
        Flag("env-file", "", LIST, "Read in a file of environment variables", complete="file"),
        Flag("interactive", "i", BOOL, "Keep STDIN open even if not attached"),
        Flag("privileged", "", BOOL, "Give extended privileges to the command"),
        Flag("tty", "t", BOOL, "Allocate a pseudo-TTY"),
        Flag("user", "u", STRING, "Username or UID (format: <name|uid>[:<group|gid>])"),
        Flag("workdir", "w", STRING, "Working directory inside the container"),
    ),
    Arity(2, -1),
    _exec,
    interspersed=False,
    complete="running",
)
