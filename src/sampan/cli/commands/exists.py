"""``container exists`` and the like: the exit status says it, 0 yes, 1 no, 125 unknown."""

from __future__ import annotations

from sampan.cli.command import ONE, Command
from sampan.client.failure import DaemonNotFound
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session

_DETAIL = "Prints nothing. Exit status 0: it exists; 1: it does not; 125: the daemon cannot tell."


def _exists(session: Session, path: str) -> int:
    try:
        session.client.get(path)
    except DaemonNotFound:
        return 1
    except SampanError as error:
        session.warn(error.message)
        return 125
    return 0


def _container(session: Session, arguments: Arguments) -> int:
    return _exists(session, f"/containers/{arguments.positional[0]}/json")


def _image(session: Session, arguments: Arguments) -> int:
    return _exists(session, f"/images/{arguments.positional[0]}/json")


def _network(session: Session, arguments: Arguments) -> int:
    return _exists(session, f"/networks/{arguments.positional[0]}")


def _volume(session: Session, arguments: Arguments) -> int:
    return _exists(session, f"/volumes/{arguments.positional[0]}")


CONTAINER = Command("CONTAINER", (), ONE, _container, complete="container", detail=_DETAIL)
IMAGE = Command("IMAGE", (), ONE, _image, complete="image", detail=_DETAIL)
NETWORK = Command("NETWORK", (), ONE, _network, complete="network", detail=_DETAIL)
VOLUME = Command("VOLUME", (), ONE, _volume, complete="volume", detail=_DETAIL)
