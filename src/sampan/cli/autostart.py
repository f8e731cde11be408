"""Start ``sampand`` when nothing answers: detached, one even when many commands race for it.

The commands take turns by a lock file in the exec root; whoever has the lock looks again before
starting. The wait for the first answer is bounded, and ends early when the daemon dies.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time
from typing import NamedTuple

from sampan.client.failure import ConnectionFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: Seconds the daemon may take until it answers.
PATIENCE = 60.0
_PAUSE = 0.02


class DaemonFiles(NamedTuple):
    """Where the daemon listens and keeps its live state, and how it is started."""

    socket: str
    exec_root: str
    command: tuple[str, ...] = ()

    @property
    def log(self) -> str:
        """Where its output goes."""
        return os.path.join(self.exec_root, "sampand.log")


def start_daemon(files: DaemonFiles, environment: Mapping[str, str]) -> None:
    """Return once a daemon answers at ``files.socket``, started by us or by somebody else.

    Raises :class:`ConnectionFailed` with the end of the daemon's log when it does not come up.
    """
    try:
        os.makedirs(files.exec_root, 0o711, exist_ok=True)
        lock = os.open(os.path.join(files.exec_root, "start.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConnectionFailed(
            f"Cannot connect to the sampan daemon at unix://{files.socket}, and cannot start it: "
            f"{error.filename}: {error.strerror}"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not answers(files.socket):
            _wait(_spawn(files, environment), files)
    finally:
        os.close(lock)


def answers(path: str) -> bool:
    """Whether something accepts connections at the socket and answers a ping."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(5.0)
        try:
            sock.connect(path)
            sock.sendall(b"HEAD /_ping HTTP/1.1\r\nHost: sampan\r\nConnection: close\r\n\r\n")
            return sock.recv(12).startswith(b"HTTP/1.")
        except OSError:
            return False


def _command(files: DaemonFiles) -> list[str]:
    if files.command:
        return list(files.command)
    script = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "sampand")
    if os.access(script, os.X_OK):
        return [script]
    return [sys.executable, "-m", "sampan.api.sampand"]


def _spawn(files: DaemonFiles, environment: Mapping[str, str]) -> int:
    command = _command(files)
    log = os.open(files.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    actions = [
        (os.POSIX_SPAWN_DUP2, null, 0),
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
    ]
    # The caller's choice of daemon and its terminal are nothing to the daemon.
    kept = {name: value for name, value in environment.items() if not name.startswith("DOCKER_")}
    try:
        return os.posix_spawn(command[0], command, kept, file_actions=actions, setsid=True)
    except OSError as error:
        raise ConnectionFailed(f"cannot start {command[0]}: {error.strerror}") from error
    finally:
        os.close(log)
        os.close(null)


def _wait(pid: int, files: DaemonFiles) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if answers(files.socket):
            return
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            raise ConnectionFailed(f"sampand ended with status {code}{_log_tail(files.log)}")
        time.sleep(_PAUSE)
    raise ConnectionFailed(f"sampand does not answer after {PATIENCE:.0f} s; see {files.log}")


def _log_tail(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read()[-4096:].splitlines()
    except OSError:
        return ""
    return f": {lines[-1].strip()} (see {path})" if lines else f" (see {path})"
