"""``container mount`` and ``unmount``: a container's root as a directory of this machine.

Only on the daemon's machine, as root. A running container's root is shown through its first
process; a stopped one's is mounted from the directories its storage driver names.
"""

from __future__ import annotations

import os

from sampan.cli.command import AT_MOST_ONE, SOME, Command
from sampan.cli.commands.lifecycle import for_each
from sampan.cli.daemon import run_directory, target
from sampan.cli.fault import CliError
from sampan.client.document import as_table, flag, labels, number, table, tables, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.document import Document


def _place(session: Session, identity: str) -> str:
    return os.path.join(run_directory(session.environment), "sampan", "mounts", identity)


def _inspect(session: Session, name: str) -> Document:
    if target(session).endpoint.scheme != "unix":
        raise CliError("a container can only be mounted on the daemon's own machine")
    if os.geteuid() != 0:
        raise CliError("mounting a container needs root")
    return as_table(session.client.get(f"/containers/{name}/json"))


def _mount(session: Session, arguments: Arguments) -> None:
    if not arguments.positional:
        _list(session)
        return
    details = _inspect(session, arguments.positional[0])
    state = table(details, "State")
    if flag(state, "Running"):
        session.line(f"/proc/{number(state, 'Pid')}/root")
        return
    driver = table(details, "GraphDriver")
    data = labels(driver, "Data")
    if not data.get("LowerDir") or not data.get("UpperDir") or not data.get("WorkDir"):
        name = text(driver, "Name") or "the daemon's"
        raise CliError(f"storage driver {name} does not say where the container's layers are")
    place = _place(session, text(details, "Id"))
    if not os.path.ismount(place):
        os.makedirs(place, 0o700, exist_ok=True)
        _overlay(data, place)
    session.line(place)


def _list(session: Session) -> None:
    """The containers that are mounted here: short id and directory."""
    found = session.client.get("/containers/json", {"all": True})
    for container in tables({"": found}, ""):
        identity = text(container, "Id")
        place = _place(session, identity)
        if os.path.ismount(place):
            session.line(f"{identity[:12]}  {place}")


def _overlay(data: dict[str, str], place: str) -> None:
    from sampan.kernel import mount

    options = ",".join(
        f"{name}={data[key]}"
        for name, key in (
            ("lowerdir", "LowerDir"),
            ("upperdir", "UpperDir"),
            ("workdir", "WorkDir"),
        )
    )
    mount.mount("overlay", place, "overlay", 0, options)


def _unmount(session: Session, arguments: Arguments) -> int:
    from sampan.kernel import mount

    def act(name: str) -> None:
        details = _inspect(session, name)
        place = _place(session, text(details, "Id"))
        if os.path.ismount(place):
            mount.umount2(place, 0)
            os.rmdir(place)

    return for_each(session, arguments.positional, act)


MOUNT = Command("[CONTAINER]", (), AT_MOST_ONE, _mount, complete="container")
UNMOUNT = Command("CONTAINER [CONTAINER...]", (), SOME, _unmount, complete="container")
