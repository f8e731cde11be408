"""What of a container can be made before anybody has planned it.

Planning takes as long as making cgroups, so the process that makes the container is told an outline
first, and makes directories, pipes and cgroups while its client plans.
"""

from __future__ import annotations

from dataclasses import dataclass

from sampan.runtime.channel import Message
from sampan.runtime.plan import cgroup_path
from sampan.runtime.requests import CreateRequest, LogSettings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from sampan.model import oci


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """The part of a :class:`CreateRequest` that needs no planning; fields as there.

    ``cgroup``: its path in every hierarchy, "" when systemd makes it, which needs a process first.
    ``user_namespace``: the container gets one of its own.
    """

    container_id: str
    directory: Path
    cgroup: str
    resources: oci.Resources
    log: LogSettings
    user_namespace: bool = False
    terminal: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    stall_timeout: float = 30.0

    def message(self) -> Message:
        """What a maker is told first."""
        log = self.log
        return {
            "op": "create",
            "id": self.container_id,
            "directory": str(self.directory),
            "cgroup": self.cgroup,
            "resources": self.resources,
            "user_namespace": self.user_namespace,
            "terminal": self.terminal,
            "open_stdin": self.open_stdin,
            "stdin_once": self.stdin_once,
            "stall_timeout": self.stall_timeout,
            "log": {
                "driver": log.driver,
                "path": log.path,
                "max_size": log.max_size,
                "max_file": log.max_file,
                "compress": log.compress,
                "attrs": dict(log.attrs),
            },
        }


def outline(request: CreateRequest) -> Outline:
    """The outline of ``request``. Raises :class:`InvalidParameter` for no valid cgroup path."""
    linux = request.spec.get("linux") or {}
    wanted = linux.get("cgroupsPath") or ""
    return Outline(
        container_id=request.container_id,
        directory=request.directory,
        cgroup="" if request.systemd else cgroup_path(wanted, request.container_id),
        resources=linux.get("resources") or {},
        user_namespace=any(
            entry.get("type") == "user" and not entry.get("path")
            for entry in linux.get("namespaces") or ()
        ),
        log=request.log,
        terminal=request.terminal,
        open_stdin=request.open_stdin,
        stdin_once=request.stdin_once,
        stall_timeout=request.stall_timeout,
    )
