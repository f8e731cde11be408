"""Which kernel parameters a container may have of its own (pure)."""

from __future__ import annotations

from collections.abc import Iterable

from sampan.errors import InvalidParameter
from sampan.kernel import namespaces

_IPC = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni")
) | {"kernel.shm_rmid_forced"}


def check_sysctls(names: Iterable[str], own: int) -> None:
    """Only what belongs to a namespace of the container may be set, never the host's.

    ``names``: of ``linux.sysctl``; ``own``: CLONE_NEW* flags of the namespaces that it makes or
    joins. Raises :class:`InvalidParameter`.
    """
    for name in names:
        dotted = name.replace("/", ".")
        if dotted.startswith("net."):
            needed, kind = namespaces.CLONE_NEWNET, "network"
        elif dotted in _IPC or dotted.startswith("fs.mqueue."):
            needed, kind = namespaces.CLONE_NEWIPC, "ipc"
        elif dotted in ("kernel.domainname", "kernel.hostname"):
            needed, kind = namespaces.CLONE_NEWUTS, "uts"
        else:
            raise InvalidParameter(f"linux.sysctl: {name} is not in a namespace of the container")
        if not own & needed:
            raise InvalidParameter(f"linux.sysctl: {name} needs a {kind} namespace of its own")
        if ".." in name.split("/") or ".." in dotted:
            raise InvalidParameter(f"linux.sysctl: invalid name {name!r}")
