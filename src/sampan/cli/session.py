"""One run of the program: its streams, its environment, its configuration, its daemon.

Everything is made when first asked for, so ``sampan --help`` opens nothing.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.cli.config import Config
    from sampan.client.api import ApiClient


class GlobalOptions(NamedTuple):
    """The flags before the command."""

    config: str = ""
    context: str = ""
    hosts: tuple[str, ...] = ()
    debug: bool = False
    tls: bool = False
    tls_verify: bool = False
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""


class Session:
    """What a command's function is given."""

    def __init__(
        self, program: str, environment: Mapping[str, str], options: GlobalOptions
    ) -> None:
        self.program = program
        self.environment = environment
        self.options = options
        #: The command as it was typed, ``container ls`` or ``ps``.
        self.path = ""
        self._config: Config | None = None
        self._client: ApiClient | None = None

    @property
    def config(self) -> Config:
        """The client configuration (``~/.docker/config.json``), read the first time."""
        if self._config is None:
            from sampan.cli.config import Config, directory

            self._config = Config.load(directory(self.options.config, self.environment), self.warn)
        return self._config

    @property
    def client(self) -> ApiClient:
        """The client of the chosen daemon, which is started if it is ours and not there."""
        if self._client is None:
            from sampan.cli.daemon import open_client

            self._client = open_client(self)
        return self._client

    def another_client(self) -> ApiClient:
        """A second connection to the same daemon, for use beside a stream that stays open."""
        return self.client.sibling()

    def out(self, text: str) -> None:
        """Write to standard output as it is."""
        sys.stdout.write(text)

    def line(self, text: str) -> None:
        """Write a line to standard output."""
        sys.stdout.write(text + "\n")

    def warn(self, text: str) -> None:
        """Write a line to standard error, after what standard output has."""
        sys.stdout.flush()
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def complain(self, text: str) -> None:
        """Write to standard error as it is, after what standard output has."""
        sys.stdout.flush()
        sys.stderr.write(text)
        sys.stderr.flush()

    def write_bytes(self, data: bytes) -> None:
        """Write bytes to standard output, at once."""
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def flush(self) -> None:
        """Push standard output out."""
        sys.stdout.flush()

    @staticmethod
    def is_terminal(descriptor: int) -> bool:
        """Whether 0, 1 or 2 is a terminal."""
        return os.isatty(descriptor)

    def confirm(self, question: str) -> bool:
        """Ask on the terminal; anything but y or yes is no.

        Being interrupted or told to end is an answer too: the program ends, and all is well
        (:class:`ExitStatus` with 0), as in Docker.
        """
        import signal

        from sampan.cli.fault import ExitStatus

        former = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            self.out(f"{question} [y/N] ")
            self.flush()
            answer = sys.stdin.readline().strip().lower()
        except KeyboardInterrupt:
            self.line("")
            raise ExitStatus(0) from None
        finally:
            signal.signal(signal.SIGTERM, former)
        return answer in ("y", "yes")

    def close(self) -> None:
        """Close the connection to the daemon."""
        if self._client is not None:
            self._client.close()
