"""``inspect`` and the ``inspect`` of each kind of object."""

from __future__ import annotations

from sampan.cli.command import SOME, Command, Flag
from sampan.cli.fault import CliError
from sampan.cli.inspection import show
from sampan.cli.kinds import BOOL, STRING
from sampan.cli.listing import INSPECT_FORMAT_HELP
from sampan.client.document import as_table
from sampan.client.failure import DaemonBadRequest, DaemonError, DaemonNotFound, DaemonUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.api import Query
    from sampan.client.document import Document

_GO_TYPES = {
    "container": "container.InspectResponse",
    "image": "image.InspectResponse",
    "network": "network.Inspect",
    "volume": "volume.Volume",
}
_PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
    "service": "/services/{}",
    "task": "/tasks/{}",
    "node": "/nodes/{}",
    "plugin": "/plugins/{}/json",
    "secret": "/secrets/{}",
    "config": "/configs/{}",
}


def fetch(session: Session, kind: str, name: str, query: Query) -> tuple[Document, str]:
    """One object and its Go type. Raises the daemon's errors."""
    document = as_table(session.client.get(_PATHS[kind].format(name), query))
    return document, _GO_TYPES.get(kind, "")


def _inspect(session: Session, arguments: Arguments, kind: str, query: Query) -> int:
    def one(name: str) -> tuple[Document, str]:
        if not name:
            raise CliError(f"Error: No such {kind}: {name}")
        return fetch(session, kind, name, query)

    return show(session, arguments.positional, arguments.text("format"), one)


def _container(session: Session, arguments: Arguments) -> int:
    return _inspect(session, arguments, "container", {"size": arguments.flag("size")})


def _image(session: Session, arguments: Arguments) -> int:
    from sampan.cli.opts.platforms import parse_platform

    platform = arguments.text("platform")
    return _inspect(
        session,
        arguments,
        "image",
        {"platform": parse_platform(platform) if platform else ""},
    )


def _network(session: Session, arguments: Arguments) -> int:
    return _inspect(session, arguments, "network", {"verbose": arguments.flag("verbose")})


def _volume(session: Session, arguments: Arguments) -> int:
    return _inspect(session, arguments, "volume", {})


def _any(session: Session, arguments: Arguments) -> int:
    kind = arguments.text("type")
    size: Query = {"size": arguments.flag("size")}
    if "type" in arguments.changed and kind not in _PATHS:
        kinds = ", ".join(f'"{name}"' for name in sorted(_PATHS))
        raise CliError(f'unknown type: "{kind}": must be one of {kinds}')
    if arguments.flag("size") and kind and kind != "container":
        session.warn(f"WARNING: --size ignored for {kind}s")

    def one(name: str) -> tuple[Document, str]:
        if kind:
            return fetch(session, kind, name, size if kind == "container" else {})
        if not name:
            raise CliError("invalid container name or ID: value is empty")
        return _search(session, name, size, warn=session.warn if arguments.flag("size") else None)

    return show(session, arguments.positional, arguments.text("format"), one)


def _search(
    session: Session, name: str, size: Query, *, warn: Callable[[str], None] | None
) -> tuple[Document, str]:
    """The first object of any kind that has this name or id."""
    for kind in _PATHS:
        try:
            found = fetch(session, kind, name, size if kind == "container" else {})
        except (DaemonNotFound, DaemonUnavailable, DaemonBadRequest):
            continue  # no such object, or no swarm, or not a possible name of this kind
        except DaemonError as error:
            if kind in ("service", "task", "node", "plugin", "secret", "config"):
                continue
            raise CliError(f"Error response from daemon: {error.message}") from error
        if warn and kind != "container":
            warn(f"WARNING: --size ignored for {kind}")
        return found
    raise CliError(f"Error: No such object: {name}")


ANY = Command(
    "[OPTIONS] NAME|ID [NAME|ID...]",
    (
        Flag("format", "f", STRING, INSPECT_FORMAT_HELP),
        Flag("size", "s", BOOL, "Display total file sizes if the type is container"),
        Flag("type", "", STRING, "Only inspect objects of the given type"),
    ),
    SOME,
    _any,
    complete="container",
)


_FORMAT = Flag("format", "f", STRING, INSPECT_FORMAT_HELP)
CONTAINER = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    (
        Flag("format", "f", STRING, INSPECT_FORMAT_HELP),
        Flag("size", "s", BOOL, "Display total file sizes"),
    ),
    SOME,
    _container,
    complete="container",
)
IMAGE = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    (
        _FORMAT,
        Flag(
            "platform",
            "",
            STRING,
            "Inspect a specific platform of the multi-platform image.\n"
            "If the image or the server is not multi-platform capable, the command will error "
            "out if the platform does not match.\n"
            "'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)",
            since="1.49",
        ),
    ),
    SOME,
    _image,
    complete="image",
)
NETWORK = Command(
    "[OPTIONS] NETWORK [NETWORK...]",
    (
        Flag("format", "f", STRING, INSPECT_FORMAT_HELP),
        Flag("verbose", "v", BOOL, "Verbose output for diagnostics"),
    ),
    SOME,
    _network,
    complete="network",
)
VOLUME = Command("[OPTIONS] VOLUME [VOLUME...]", (_FORMAT,), SOME, _volume, complete="volume")
