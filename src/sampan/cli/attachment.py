"""Being attached to a container: streams, terminal, window size, signals, exit status.

Used by ``run``, ``start -a``, ``attach`` and ``exec``. The order matters: attach and wait are
asked for before the start, so that neither a byte nor the exit is missed.
"""

from __future__ import annotations

import signal

from sampan.cli.detach_keys import DEFAULT, parse_keys
from sampan.cli.fault import CliError
from sampan.cli.signals import SignalPipe, api_name
from sampan.cli.streams import Plan, Pump, wait_readable
from sampan.cli.terminal import RawMode, size
from sampan.client.document import as_table, number, table, text
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.session import Session
    from sampan.client.http import Response, Stream


def detach_keys(session: Session, option: str) -> str:
    """The detach sequence in force: the flag's, the configuration's, or the default."""
    keys = option or session.config.text("detachKeys")
    if keys:
        try:
            parse_keys(keys)
        except ValueError as error:
            raise CliError(f"invalid detach keys ({keys}): {error}") from error
    return keys


def check_terminal(session: Session, *, attach_stdin: bool, tty: bool) -> None:
    """Refuse ``-t`` with an attached standard input that is no terminal."""
    if tty and attach_stdin and not session.is_terminal(0):
        raise CliError("the input device is not a TTY")


def begin_wait(session: Session, container: str, condition: str) -> Response:
    """Ask for a container's exit; the answer is read with :func:`exit_status`."""
    path = f"/containers/{container}/wait"
    return session.another_client().open("POST", path, {"condition": condition})


def exit_status(session: Session, response: Response) -> int:
    """The exit status in a wait's answer; 125 when the daemon cannot tell."""
    import json

    try:
        answer = as_table(json.loads(response.read() or b"{}"))
    except (SampanError, ValueError) as error:
        session.warn(f"error waiting for container: {error}")
        return 125
    message = text(table(answer, "Error"), "Message")
    if message:
        session.warn(f"error waiting for container: {message}")
        return 125
    return number(answer, "StatusCode")


class Attendance:
    """One attachment from before the start to the exit."""

    def __init__(
        self,
        session: Session,
        plan: Plan,
        *,
        resize: Callable[[int, int], None],
        kill: Callable[[str], None] | None,
    ) -> None:
        """``kill`` passes a signal on; None when signals are not proxied."""
        self._session = session
        self._plan = plan
        self._resize = resize
        self._kill = kill

    def on_signal(self, number: int) -> None:
        """Handle one signal: window changes here, the others go to the container."""
        if number == signal.SIGWINCH:
            self.fit_window()
        elif self._kill is not None:
            try:
                self._kill(api_name(number))
            except SampanError:
                return  # it ended in the meantime: nobody is left to get the signal

    def fit_window(self) -> None:
        """Make the container's terminal as large as ours."""
        rows, columns = size(1)
        if self._plan.tty and rows and columns:
            try:
                self._resize(rows, columns)
            except SampanError:
                return  # it has not started yet or ended; the next change tries again

    def attend(self, stream: Stream, signals: SignalPipe) -> bool:
        """Move bytes until the end. True when the user detached."""
        raw = self._plan.tty and self._plan.stdin
        if not raw:
            return Pump(stream, self._plan, signals, self.on_signal).run()
        with RawMode(0):
            return Pump(stream, self._plan, signals, self.on_signal).run()

    def wait(self, response: Response, signals: SignalPipe) -> int:
        """Wait for the exit, signals still going through. Returns the exit status."""
        if not response.buffered:
            wait_readable(response.fileno(), signals, self.on_signal)
        return exit_status(self._session, response)


def plan_for(
    session: Session, *, stdin: bool, stdout: bool, stderr: bool, tty: bool, keys: str
) -> Plan:
    """The plan of an attachment; the detach sequence counts on a terminal only."""
    watched = parse_keys(keys or DEFAULT) if tty and stdin else b""
    return Plan(stdin, stdout, stderr, tty, watched)


def attendance_of_container(
    session: Session, container: str, plan: Plan, *, proxy: bool
) -> Attendance:
    """The attendance of a container's main process."""
    control = session.another_client()

    def resize(rows: int, columns: int) -> None:
        control.post(f"/containers/{container}/resize", {"h": rows, "w": columns})

    def kill(name: str) -> None:
        control.post(f"/containers/{container}/kill", {"signal": name})

    return Attendance(session, plan, resize=resize, kill=kill if proxy else None)
