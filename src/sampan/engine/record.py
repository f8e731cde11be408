"""What the engine remembers of a container: two frozen structs, stored as JSON in its row.

:class:`Record` changes rarely (create, rename, update, connect); :class:`State` at every start
and exit. Times are Unix nanoseconds, 0 for never.
"""

from __future__ import annotations

import msgspec

from sampan.engine.lifecycle import ALIVE, Status
from sampan.model.idmap import IdMap, Row
from sampan.wire.container import ContainerConfig, EndpointSettings, HostConfig, OCIDescriptor


class MountRecord(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One mount of a container besides its root and the defaults.

    ``type`` is bind, volume, tmpfs or image; ``source`` a host path; ``name`` the volume's name or
    the image. ``create_source`` makes a missing host directory (``-v``), ``copy_up`` fills a new
    volume from the image. ``idmap`` is the mount option of that name, "" without (see
    ``idmapspec``); ``chown`` gives the source to the container's user.
    """

    type: str
    destination: str
    source: str = ""
    name: str = ""
    driver: str = ""
    driver_options: dict[str, str] = {}
    labels: dict[str, str] = {}
    mode: str = ""
    writable: bool = True
    propagation: str = ""
    recursive: bool = True
    read_only_recursive: bool = True
    read_only_forced: bool = False
    create_source: bool = False
    copy_up: bool = True
    anonymous: bool = False
    subpath: str = ""
    options: list[str] = []
    idmap: str = ""
    chown: bool = False


class Record(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """A container as it was created, and as rename, update and connect changed it.

    ``image`` is what the user wrote, ``image_id`` the digest of the image's configuration,
    ``image_target`` that of the manifest or index the name meant, ``image_manifest`` the manifest.
    ``networks`` maps network names to what the user asked for; addresses are leased at start.
    ``uid_map`` and ``gid_map`` are those of a user namespace with ids of the container's own.
    """

    id: str
    name: str
    created: int
    image: str
    image_id: str
    image_target: str = ""
    image_manifest: OCIDescriptor | None = None
    platform: str = "linux"
    path: str
    args: list[str] = []
    config: ContainerConfig
    host_config: HostConfig
    networks: dict[str, EndpointSettings] = {}
    mounts: list[MountRecord] = []
    driver: str = ""
    log_path: str = ""
    warnings: list[str] = []
    uid_map: list[Row] = []
    gid_map: list[Row] = []

    @property
    def id_map(self) -> IdMap | None:
        """The ids this container alone has; None when it shares the daemon's or the host's."""
        return IdMap(tuple(self.uid_map), tuple(self.gid_map)) if self.uid_map else None

    @property
    def hostname(self) -> str:
        """The name inside the container's UTS namespace."""
        return self.config.hostname or ""


class State(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Where a container is in its life.

    ``last_pid`` is what ``pid`` was in the last run. ``stopped_by_user`` keeps restart policies
    from restarting it; ``restart_count`` counts automatic restarts since the last manual start.
    """

    status: Status = Status.CREATED
    pid: int = 0
    last_pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: int = 0
    finished_at: int = 0
    restart_count: int = 0
    stopped_by_user: bool = False

    @property
    def alive(self) -> bool:
        """Whether it has processes."""
        return self.status in ALIVE


def replace_state(state: State, **changes: object) -> State:
    """A copy of ``state`` with ``changes``."""
    return msgspec.structs.replace(state, **changes)
