"""``container run`` and ``container create``."""

from __future__ import annotations

from sampan.cli.attachment import (
    attendance_of_container,
    begin_wait,
    check_terminal,
    detach_keys,
    plan_for,
)
from sampan.cli.command import SOME, Command, Flag
from sampan.cli.commands.container_flags import FLAGS
from sampan.cli.creation import create, spec_of
from sampan.cli.fault import CliError
from sampan.cli.kinds import BOOL, STRING
from sampan.cli.signals import SignalPipe
from sampan.client.failure import DaemonError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.container_spec import Spec
    from sampan.cli.session import Session
    from sampan.cli.streams import Plan
    from sampan.client.api import Query
    from sampan.client.http import Response, Stream

_USAGE = "[OPTIONS] IMAGE [COMMAND] [ARG...]"


def _create(session: Session, arguments: Arguments) -> None:
    try:
        spec = spec_of(session, arguments)
    except CliError as error:
        more = f"Run '{session.program} {session.path} --help' for more information"
        raise CliError(f"{session.program}: {error.message}\n\n{more}", 125) from error
    session.line(create(session, arguments, spec))


def _run(session: Session, arguments: Arguments) -> int:
    detach = arguments.flag("detach")
    if detach and arguments.texts("attach"):
        session.warn("conflicting options: cannot specify both --attach and --detach")
        return 1
    spec = spec_of(session, arguments)
    if detach:
        for name in ("AttachStdin", "AttachStdout", "AttachStderr", "StdinOnce"):
            spec.config[name] = False
        identity = create(session, arguments, spec)
        _start(session, identity)
        session.line(identity)
        return 0
    try:
        stdin = bool(spec.config["AttachStdin"])
        check_terminal(session, attach_stdin=stdin, tty=arguments.flag("tty"))
    except CliError as error:
        session.warn(error.message)
        return 1
    keys = detach_keys(session, arguments.text("detach-keys"))
    plan = plan_for(
        session,
        stdin=stdin,
        stdout=bool(spec.config["AttachStdout"]),
        stderr=bool(spec.config["AttachStderr"]),
        tty=arguments.flag("tty"),
        keys=keys,
    )
    identity = create(session, arguments, spec)
    return _attached(session, arguments, spec, identity, plan, keys)


def _attached(
    session: Session, arguments: Arguments, spec: Spec, identity: str, plan: Plan, keys: str
) -> int:
    """Start with everything attached and stay until the end."""
    removed = bool(spec.host["AutoRemove"])
    attendance = attendance_of_container(session, identity, plan, proxy=arguments.flag("sig-proxy"))
    with SignalPipe(proxied=arguments.flag("sig-proxy")) as signals:
        stream: Stream | None = None
        if plan.stdin or plan.stdout or plan.stderr:
            stream = attach(session, identity, plan, keys)
        exit_response: Response = begin_wait(
            session, identity, "removed" if removed else "next-exit"
        )
        _start(session, identity)
        if stream is None:
            session.line(identity)
            return 0
        attendance.fit_window()
        if attendance.attend(stream, signals):
            return 0
        return attendance.wait(exit_response, signals)


def attach(
    session: Session, container: str, plan: Plan, keys: str, *, logs: bool = False
) -> Stream:
    """Attach to a container's streams."""
    query: Query = {
        "stream": True,
        "stdin": plan.stdin,
        "stdout": plan.stdout,
        "stderr": plan.stderr,
        "detachKeys": keys,
    }
    return session.another_client().hijack(f"/containers/{container}/attach", query)


def _start(session: Session, identity: str) -> None:
    try:
        session.client.post(f"/containers/{identity}/start")
    except DaemonError as error:
        code = start_status(error.message)
        raise CliError(f"Error response from daemon: {error.message}", code) from error


def start_status(message: str) -> int:
    """The exit status for a start that failed, from the daemon's words as in Docker.

    127: there is no such program; 126: it cannot be executed; 125: anything else.
    """
    trimmed = message.lower()
    if "executable file not found" in trimmed or "no such file or directory" in trimmed:
        return 127
    return 126 if "permission denied" in trimmed or "is a directory" in trimmed else 125


CREATE = Command(_USAGE, FLAGS, SOME, _create, interspersed=False, complete="image")
RUN = Command(
    _USAGE,
    (
        *FLAGS,
        Flag("detach", "d", BOOL, "Run container in background and print container ID"),
        Flag("detach-keys", "", STRING, "Override the key sequence for detaching a container"),
        Flag("sig-proxy", "", BOOL, "Proxy received signals to the process", "true"),
    ),
    SOME,
    _run,
    interspersed=False,
    fault_code=125,
    complete="image",
)
