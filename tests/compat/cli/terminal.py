"""A program on a terminal of its own, driven from a test."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from types import TracebackType

PATIENCE = 30.0


class Terminal:
    """Runs a command as the foreground process of a new terminal."""

    def __init__(
        self, command: list[str], environment: dict[str, str], rows: int = 24, columns: int = 80
    ) -> None:
        self._master, slave = pty.openpty()
        self.resize(rows, columns)
        self.output = b""
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self._master)

    def resize(self, rows: int, columns: int) -> None:
        """Change the window size; the foreground process gets SIGWINCH."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: bytes) -> None:
        """Type on the keyboard."""
        os.write(self._master, text)

    def expect(self, text: bytes) -> bytes:
        """Wait until ``text`` was printed; what came up to it is consumed."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.output:
            assert time.monotonic() < deadline, (text, self.output)
            if not self._read(deadline):
                raise AssertionError((text, self.output))
        before, _found, self.output = self.output.partition(text)
        return before

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return True
        try:
            data = os.read(self._master, 4096)
        except OSError:
            return False  # the last process that had the terminal ended (EIO)
        self.output += data
        return bool(data)

    def wait(self) -> int:
        """The exit status; what was printed until then is in ``output``."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            assert time.monotonic() < deadline, self.output
        return self.process.wait(PATIENCE)
