"""Which OCI runtime makes a container's processes: our own, or another one by its command line.

``runc`` and ``crun`` need not be registered where they are installed. What another runtime cannot
have is refused when the container is created.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from sampan.engine import userns
from sampan.engine.config import EngineConfig, ExternalRuntime
from sampan.engine.record import MountRecord
from sampan.engine.table import Container
from sampan.errors import Conflict, InvalidParameter, StartFailed, Unsupported
from sampan.model import oci
from sampan.runtime import identity
from sampan.runtime.client import CreateRequest, ExecRequest
from sampan.snapshot.rootfs import detached_mount
from sampan.wire.container import HostConfig

#: the one that is no other program
OWN = "sampan"
#: those that are known by their names alone
KNOWN = ("runc", "crun")
#: where programs named without a directory are; no environment is read
_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def check_name(config: EngineConfig, name: str) -> None:
    """Raise InvalidParameter in dockerd's words for a runtime nobody has registered."""
    if name != OWN and name not in config.runtimes and name not in KNOWN:
        raise InvalidParameter(f"unknown or invalid runtime name: {name}")


def available(config: EngineConfig) -> Mapping[str, ExternalRuntime]:
    """Other runtimes by name: those registered, and those that are installed."""
    known = {
        name: ExternalRuntime(path=path) for name in KNOWN if (path := _find(name)) is not None
    }
    return {**known, **config.runtimes}


def command(config: EngineConfig, name: str) -> tuple[str, ...]:
    """The program of a runtime and its arguments; empty for our own.

    Raises InvalidParameter for an unknown name, StartFailed when the program is not there.
    """
    if name in ("", OWN):
        return ()
    check_name(config, name)
    runtime = config.runtimes.get(name) or ExternalRuntime(path=name)
    path = _find(runtime.path)
    if path is None:
        raise StartFailed(f"runtime {name}: there is no program {runtime.path}")
    return (path, *runtime.args)


def _find(program: str) -> str | None:
    places = (program,) if "/" in program else [f"{place}/{program}" for place in _PATH]
    return next((p for p in places if os.path.isfile(p) and os.access(p, os.X_OK)), None)


def check(
    config: EngineConfig, host: HostConfig, mounts: Sequence[MountRecord], *, remapped: bool
) -> None:
    """Raise Unsupported, by name, for what a container cannot have with its runtime.

    Raises InvalidParameter when the runtime is not there.
    """
    name = host.runtime or OWN
    if name == OWN:
        return
    try:
        command(config, name)
    except StartFailed as error:
        raise InvalidParameter(error.message) from error
    kind = userns.parse_mode(host.userns_mode or "").kind
    default = userns.Kind.DEFAULT
    init = config.default_init if host.init is None else host.init
    for what, there in (
        ("a user namespace", kind not in (userns.Kind.HOST, default)),
        ("a user namespace (userns-remap)", kind is default and remapped),
        ("init", init),
        ("the cgroup driver systemd", config.cgroup_driver == "systemd"),
        ("a mount of a whole image", any(m.type == "image" and not m.subpath for m in mounts)),
    ):
        if there:
            raise Unsupported(f"runtime {name}: {what} can be had with the runtime {OWN} only")


@contextmanager
def with_root(request: CreateRequest) -> Iterator[CreateRequest]:
    """The request as another runtime needs it: its root mounted, its user found there. Blocks.

    Raises InvalidParameter for a user the container does not have, OSError.
    """
    if not request.runtime:
        yield request
        return
    root = detached_mount(request.rootfs, writable=True)
    try:
        process: oci.Process = {**request.spec["process"]}
        process["user"] = _user(root, request.user or "0", request.groups)
        yield replace(request, spec={**request.spec, "process": process}, root=root)
    finally:
        os.close(root)


def with_user(container: Container, request: ExecRequest) -> ExecRequest:
    """The request as the container's runtime needs it. Blocks. Raises as :func:`with_root`."""
    if (container.record.host_config.runtime or OWN) == OWN:
        return request
    try:
        root = os.open(f"/proc/{container.state.pid}/root", os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise Conflict(f"container {container.id} is not running") from error
    try:
        user = _user(root, request.user or "0", request.groups)
    finally:
        os.close(root)
    return replace(request, process={**request.process, "user": user}, foreign=True)


def _user(root: int, user: str, groups: Sequence[str]) -> oci.User:
    passwd = identity.read_database(root, "etc/passwd")
    group = identity.read_database(root, "etc/group")
    try:
        found = identity.resolve(user, groups, passwd, group)
    except identity.UnknownName as error:
        raise StartFailed(str(error)) from None
    return {"uid": found.uid, "gid": found.gid, "additionalGids": list(found.groups)}
