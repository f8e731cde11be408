"""Which namespaces a container joins, and which are its own."""

from __future__ import annotations

import os
from contextlib import suppress

from sampan.engine import usernamespaces
from sampan.engine.core import Core
from sampan.engine.table import Container
from sampan.engine.usernamespaces import donor
from sampan.errors import InvalidParameter, NotFound, StartFailed
from sampan.model.idmap import IdMap


def shared_network(core: Core, container: Container) -> Container | None:
    """The running container whose network this one shares, if its mode says so: the one that
    has it of its own, however many share it in turn."""
    mode = container.record.host_config.network_mode or ""
    if not mode.startswith("container:"):
        return None
    with suppress(NotFound):
        if core.containers.find(mode.partition(":")[2]) is container:
            raise StartFailed("cannot join own network")
    found = donor(core, mode, "network")
    return shared_network(core, found) or found


def namespaces(core: Core, container: Container) -> tuple[dict[str, str], IdMap | None]:
    """OCI namespace type -> path to join ("" new); types of the host's are left out.

    And the ids of the user namespace, if there is one.
    """
    host = container.record.host_config
    found = {"mount": ""}
    user, ids = usernamespaces.of(core, container)
    if user is not None:
        found["user"] = user
    for kind, mode in (
        ("network", host.network_mode),
        ("uts", host.uts_mode),
        ("pid", host.pid_mode),
        ("ipc", host.ipc_mode),
        ("cgroup", host.cgroupns_mode),
    ):
        if mode == "host":
            continue
        path = ""
        if mode and mode.startswith("container:"):
            owner = donor(core, mode, kind)
            if kind == "ipc" and owner.record.host_config.ipc_mode != "shareable":
                raise InvalidParameter(
                    f"failed to join IPC namespace: container {owner.id}: non-shareable IPC "
                    "(hint: use IpcMode:shareable for the donor container)"
                )
            name = {"network": "net"}.get(kind, kind)
            path = f"/proc/{owner.state.pid}/ns/{name}"
        if kind == "network" and not path:
            path = _named_namespace(core, container)
            _check_namespace(path)
        found[kind] = path
    return found, ids


def _named_namespace(core: Core, container: Container) -> str:
    """The namespace that ``--network ns:PATH`` or a network of driver ``ns`` names, "" without."""
    mode = container.record.host_config.network_mode or ""
    if mode.startswith("ns:"):
        return mode.removeprefix("ns:")
    for name in container.record.networks:
        network = core.fabric.find(name)
        if network.record.driver == "ns":
            return network.spec.path
    return ""


def _check_namespace(path: str) -> None:
    """Say here what is wrong with a namespace to join: the container's first process is terse."""
    if path:
        try:
            os.stat(path)
        except OSError as error:
            raise StartFailed(f"network namespace {path}: {error.strerror}") from error
