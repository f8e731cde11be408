"""Where ``sampan-runtime`` reports to: the file of ``--log`` in logrus' two formats.

containerd reads the last error line of the JSON log, conmon and podman read standard error; both
match on runc's words, so errors go to both places as runc sends them.
"""

from __future__ import annotations

import os
import sys
import time

_LEVELS = {"debug": 0, "info": 1, "warning": 2, "error": 3}


def os_error_text(error: OSError) -> str:
    """What a reader of the log needs of ``error``: the file, and what the kernel said of it."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


class Log:
    """A logger for one invocation."""

    def __init__(self, path: str, form: str, debug: bool) -> None:
        """``path``: "" is standard error; ``form``: "text" or "json". Raises OSError,
        InvalidParameter."""
        if form not in ("text", "json"):
            from sampan.errors import InvalidParameter

            raise InvalidParameter(f"invalid log-format: {form}")
        self._json = form == "json"
        self._fd = 2
        # On standard error only what ends the program: it is the container's, and its readers
        # take every word for the container's or for a failure.
        self._least = _LEVELS["debug" if debug else "error"]
        if path and path != "/dev/stderr":
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(path, flags, 0o644)
            self._least = _LEVELS["debug" if debug else "info"]

    @property
    def to_stderr(self) -> bool:
        """Whether the log is standard error."""
        return self._fd == 2

    def write(self, level: str, message: str) -> None:
        """One line."""
        if _LEVELS[level] < self._least:
            return
        import json

        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._json:
            line = json.dumps({"level": level, "msg": message, "time": stamp})
        else:
            line = f'time="{stamp}" level={level} msg={json.dumps(message)}'
        os.write(self._fd, line.encode() + b"\n")

    def fatal(self, message: str) -> None:
        """An error that ends the program: to the log, and to standard error."""
        self.write("error", message)
        if not self.to_stderr:
            print(message, file=sys.stderr)
