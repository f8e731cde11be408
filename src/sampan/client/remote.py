"""A remote engine from Python: the same methods as the embedded one, over the Engine API.

::

    with sampan.connect("unix:///run/sampan.sock") as engine:
        print(engine.run("debian:bookworm", ["echo", "hi"]).stdout)

Any Docker daemon will do.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Unpack

from sampan.client.api import ApiClient
from sampan.client.containers import Connection, Containers, Execs
from sampan.client.endpoint import Endpoint, TlsFiles
from sampan.client.images import Images
from sampan.client.services import Events, Networks, System, Volumes
from sampan.client.transport import Transport
from sampan.errors import Conflict, NotFound, SampanError
from sampan.wire.options import AttachOptions
from sampan.wire.run import OUTPUT_LIMIT, Completed, RunFailed, RunOptions, create_request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from sampan.build.arguments import BuildArguments, BuiltImage
    from sampan.build.recipe import Recipe

#: Where sampand listens unless told otherwise.
DEFAULT_URL = "unix:///run/sampan.sock"


def connect(
    url: str = DEFAULT_URL,
    *,
    tls: TlsFiles | None = None,
    environment: Mapping[str, str] | None = None,
    api_version: str = "",
) -> RemoteEngine:
    """A client of the engine at ``url`` (``unix://``, ``tcp://``, ``ssh://``).

    ``environment`` is given to ``ssh``. ``api_version`` pins the API version instead of
    negotiating it. Nothing is sent yet. Raises :class:`sampan.errors.InvalidParameter` for a
    malformed address.
    """
    client = ApiClient(Endpoint.parse(url, tls), environment or {}, api_version=api_version)
    return RemoteEngine(Transport(client))


class RemoteEngine:
    """A running engine elsewhere. Thread-safe; a context manager."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.containers = Containers(transport)
        self.execs = Execs(transport)
        self.images = Images(transport)
        self.networks = Networks(transport)
        self.volumes = Volumes(transport)
        self.events = Events(transport)
        self.system = System(transport)

    @property
    def api_version(self) -> str:
        """The API version in use; asks the daemon the first time."""
        return self._transport.version

    def run(
        self,
        image: str,
        command: str | Sequence[str] | None = None,
        **options: Unpack[RunOptions],
    ) -> Completed:
        """Run a program to its end in a container of its own, which is then removed.

        A missing image is pulled. Raises NotFound, CommandNotFound, RunFailed (with ``check``),
        TimeoutError; the container is gone in any case.
        """
        body = create_request(image, command, options)
        try:
            made = self.containers.create(body, options.get("name"))
        except NotFound:
            if not options.get("pull", True):
                raise
            self._pull(image)
            made = self.containers.create(body, options.get("name"))
        container = made.id or ""
        try:
            done = self._converse(container, options)
        finally:
            with suppress(NotFound):
                self.containers.remove(container, force=True, volumes=True)
        if options.get("check") and done.exit_code:
            told = done.stderr.strip().rpartition("\n")[2]
            raise RunFailed(f"exit code {done.exit_code}" + (f": {told}" if told else ""))
        return done

    def build(
        self, source: Path | str | Recipe | None = None, **options: Unpack[BuildArguments]
    ) -> BuiltImage:
        """Build an image on a sampand: ``source`` is a directory with a Dockerfile, an address,
        or a recipe.

        Paths are this machine's; of a context only what the daemon lacks is sent. ``outputs`` are
        texts. Raises StreamFailed with the daemon's words, InvalidParameter, NotFound.
        """
        from sampan.client import building  # rarely wanted, and slow to load

        request = building.request(source, options)
        return building.build(self._transport.hijack("/sampan/build"), request, options)

    def _pull(self, image: str) -> None:
        for record in self.images.pull(image):
            if "error" in record:
                raise NotFound(str(record["error"]))

    def _converse(self, container: str, options: RunOptions) -> Completed:
        stdin = options.get("stdin")
        connection = self.containers.attach(container, AttachOptions(stdin=stdin is not None))
        timer: threading.Timer | None = None
        late = threading.Event()
        try:
            ended = self.containers.begin_wait(container, "next-exit")
            timeout = options.get("timeout")
            if timeout is not None:
                timer = threading.Timer(timeout, self._give_up, (container, late))
                timer.start()
            self.containers.start(container)
            stdout, stderr = collect(connection, stdin)
            code = next(iter(ended)).status_code or 0
        finally:
            if timer is not None:
                timer.cancel()
            connection.close()
        if late.is_set():
            raise TimeoutError(f"the program did not end within {options.get('timeout')} s")
        return Completed(exit_code=code, stdout_bytes=stdout, stderr_bytes=stderr)

    def _give_up(self, container: str, late: threading.Event) -> None:
        late.set()
        with suppress(NotFound, Conflict):  # it ended at the last moment
            self.containers.kill(container)

    def close(self) -> None:
        """Close the connections; containers go on. Idempotent."""
        self._transport.close()

    def __enter__(self) -> RemoteEngine:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()


def collect(connection: Connection, stdin: bytes | None) -> tuple[bytes, bytes]:
    """Feed ``stdin`` while reading both outputs of a framed stream to their end."""
    sock = connection.open()
    outputs = {1: bytearray(), 2: bytearray()}
    feeder: threading.Thread | None = None
    if stdin is not None:
        feeder = threading.Thread(target=_feed, args=(connection, stdin), daemon=True)
        feeder.start()
    reader = sock.makefile("rb")
    with reader:
        while len(header := reader.read(8)) == 8:
            data = reader.read(int.from_bytes(header[4:], "big"))
            kept = outputs.setdefault(header[0], bytearray())
            if len(kept) + len(data) > OUTPUT_LIMIT:
                raise SampanError(f"the program wrote more than {OUTPUT_LIMIT} bytes")
            kept += data
    if feeder is not None:
        feeder.join()
    return bytes(outputs[1]), bytes(outputs[2])


def _feed(connection: Connection, stdin: bytes) -> None:

    sock = connection.open()
    with suppress(OSError):  # the program did not read it all
        sock.sendall(stdin)
        sock.shutdown(socket.SHUT_WR)


__all__ = ["DEFAULT_URL", "Connection", "RemoteEngine", "TlsFiles", "collect", "connect"]
