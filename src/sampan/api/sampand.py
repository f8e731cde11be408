"""The daemon: reads its options, opens the engine, serves the API until it is told to stop.

It runs in the foreground and logs to standard error. Containers do not depend on it: SIGTERM ends
requests, not containers. SIGHUP reads the configuration file again.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from sampan import __version__
from sampan.api import logformat
from sampan.api.options import UsageError, Value, merge, parse_flags, read_file, usage
from sampan.api.pidfile import pidfile
from sampan.api.server import Daemon
from sampan.api.serving import notify, serving
from sampan.api.settings import DEFAULT_CONFIG_FILE, Settings, interpret, with_environment
from sampan.errors import InvalidParameter, SampanError

log = logging.getLogger("sampan.daemon")


def main(arguments: Sequence[str] | None = None) -> int:
    """``sampand``: returns its exit status."""
    try:
        flags = parse_flags(sys.argv[1:] if arguments is None else arguments)
        if flags.get("help"):
            sys.stdout.write(usage())
            return 0
        if flags.get("version"):
            sys.stdout.write(f"Sampan version {__version__}\n")
            return 0
        settings = load(flags)
    except UsageError as error:
        sys.stderr.write(f"{error.message}\nSee 'sampand --help'.\n")
        return 125
    except SampanError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    if flags.get("validate"):
        sys.stderr.write("configuration OK\n")
        return 0
    logformat.configure(settings.log_level, settings.log_format)
    try:
        asyncio.run(_Process(flags, settings, _Environment.take(settings)).run())
    except SampanError as error:
        log.critical("%s", error.message)
        return 1
    return 0


def load(flags: Mapping[str, Value]) -> Settings:
    """The settings of these flags and the configuration file they name (or the default one).

    Raises :class:`SampanError`.
    """
    given = flags.get("config-file")
    path = Path(str(given)) if given else DEFAULT_CONFIG_FILE
    own = {name: value for name, value in flags.items() if name not in _NOT_OPTIONS}
    try:
        merged = merge(own, read_file(path))
    except FileNotFoundError as error:
        if given:
            raise InvalidParameter(
                f"unable to configure the daemon with file {path}: {error.strerror}"
            ) from None
        merged = own
    except OSError as error:
        raise InvalidParameter(
            f"unable to configure the daemon with file {path}: {error.strerror}"
        ) from None
    except SampanError as error:
        raise InvalidParameter(
            f"unable to configure the daemon with file {path}: {error.message}"
        ) from None
    return with_environment(interpret(merged), os.environ)


_NOT_OPTIONS = frozenset({"config-file", "validate", "version", "help"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Environment:
    """What the environment says: sockets and channel of the service manager (sd_listen_fds(3))."""

    passed_sockets: int
    notify_socket: str | None

    @classmethod
    def take(cls, settings: Settings) -> _Environment:
        """Read it once, and put the configured proxies there for downloads (``docker import``)."""
        for name, value in settings.proxies.items():
            os.environ[name.upper().replace("-", "_")] = value
        passed = os.environ.pop("LISTEN_FDS", "0")
        meant_for_us = os.environ.pop("LISTEN_PID", "") == str(os.getpid())
        return cls(
            passed_sockets=int(passed) if meant_for_us and passed.isdecimal() else 0,
            notify_socket=os.environ.pop("NOTIFY_SOCKET", None),
        )


class _Process:
    """One run of the daemon."""

    def __init__(
        self, flags: Mapping[str, Value], settings: Settings, environment: _Environment
    ) -> None:
        self._environment = environment
        self._flags = flags
        self._settings = settings
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._signals = 0

    async def run(self) -> None:
        """From binding the sockets to letting go of everything."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        async with AsyncExitStack() as stack:
            stack.enter_context(pidfile(settings.pidfile))
            daemon = await stack.enter_async_context(
                serving(settings, passed_sockets=self._environment.passed_sockets)
            )
            notify("READY=1", self._environment.notify_socket)
            gc.collect()
            gc.freeze()
            await self._until_stopped(daemon)
            notify("STOPPING=1", self._environment.notify_socket)
            log.info("shutting down; containers go on running")

    async def _until_stopped(self, daemon: Daemon) -> None:
        while not self._stop.is_set():
            waits = {asyncio.ensure_future(event.wait()) for event in (self._stop, self._reload)}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            if self._reload.is_set():
                self._reload.clear()
                await self._read_again(daemon)

    async def _read_again(self, daemon: Daemon) -> None:
        """SIGHUP: what can change while running does; a faulty file changes nothing."""
        try:
            settings = load(self._flags)
            await daemon.reload(settings)
        except SampanError as error:
            log.error("configuration not reloaded: %s", error.message)
            return
        logformat.set_level(settings.log_level)
        log.info("configuration reloaded")

    def _asked_to_stop(self) -> None:
        self._signals += 1
        if self._signals >= 3:
            log.warning("forcing shutdown after three signals")
            os._exit(1)
        self._stop.set()


if __name__ == "__main__":
    sys.exit(main())
