"""Which user namespace a container about to start is in, and with which ids."""

from __future__ import annotations

from sampan.engine import userns
from sampan.engine.core import Core
from sampan.engine.table import Container
from sampan.engine.userns import Kind
from sampan.errors import Conflict, InvalidParameter, NotFound, StartFailed
from sampan.model.idmap import IdMap


def donor(core: Core, mode: str, namespace: str) -> Container:
    """The running container that ``container:...`` names.

    Raises NotFound, Conflict, or StartFailed for PID namespaces, as dockerd answers with 500.
    """
    what = namespace if namespace in ("network", "user") else namespace.upper()
    try:
        found = core.containers.find(mode.partition(":")[2])
    except NotFound as error:
        raise NotFound(f"joining {what} namespace of container: {error.message}") from None
    if found.live is not None:
        return found
    if namespace == "network":
        raise Conflict(
            f"cannot join {what} namespace of a non running container: container {found.name} is "
            f"{found.state.status}"
        )
    message = f"failed to join {what} namespace: container {found.id} is not running"
    raise StartFailed(message) if namespace == "pid" else Conflict(message)


def of(core: Core, container: Container) -> tuple[str | None, IdMap | None]:
    """A path to join, "" for a new one, None for the host's; and its ids.

    Namespaces shared with another container belong to that one's user namespace, so it is shared
    too. Raises NotFound, Conflict, InvalidParameter.
    """
    host = container.record.host_config
    mode = userns.parse_mode(host.userns_mode or "")
    if mode.kind is Kind.HOST:
        return None, None
    if mode.kind is Kind.CONTAINER:
        return _shared(donor(core, host.userns_mode or "", "user"))
    own = container.record.id_map or core.remap
    if own is None:
        return None, None
    others = {
        found.id: found
        for kind, shared in (
            ("network", host.network_mode),
            ("pid", host.pid_mode),
            ("ipc", host.ipc_mode),
        )
        if shared and shared.startswith("container:")
        for found in (donor(core, shared, kind),)
    }
    if not others:
        return "", own
    if len(others) > 1:
        raise InvalidParameter(
            "cannot share namespaces of several containers when user namespaces are enabled"
        )
    path, ids = _shared(*others.values())
    if path is None:
        raise InvalidParameter(
            f"cannot share namespaces of container {next(iter(others.values())).name}: it is in "
            "the host's user namespace, and this container is not"
        )
    return path, ids


def _shared(found: Container) -> tuple[str | None, IdMap | None]:
    ids = found.live.id_map if found.live is not None else None
    return (None, None) if ids is None else (f"/proc/{found.state.pid}/ns/user", ids)
