"""What ``sampan-runtime`` keeps of a container between its calls, below ``--root``.

    ROOT/<id>/state.json     who the first process is, its cgroup, the bundle (written last)
    ROOT/<id>/config.json    the specification as it was when the container was created
    ROOT/<id>/live           what start, kill and delete need of it, see oci_lean
    ROOT/<id>/start.sock     where init waits to be started; removed once it was

The directory's creation is what takes the id; everything in it is written atomically. The status
is never stored: it is read from the process, the socket and the freezer each time.
"""

from __future__ import annotations

import json
import os
import stat
from typing import TypedDict, cast

from sampan.errors import Conflict, Corrupt, InvalidParameter, NotFound
from sampan.kernel.process import stat_fields
from sampan.model.oci import Spec

OCI_VERSION = "1.2.0"
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


class Record(TypedDict):
    """state.json.

    ``start_time``: field 22 of /proc/<pid>/stat. ``cgroup``: path in every hierarchy.
    ``limits``: (RLIMIT_* number, soft, hard), set when it is started.
    ``scope``: name of the systemd unit, "" for the cgroupfs driver. ``shares_pids``: the
    container has no pid namespace of its own, so the end of init does not end the rest.
    ``shared_root``: id of the mount at ``rootfs`` that goes with it, 0 with a mount namespace.
    ``resctrl``: directories of the groups it is in there; ``resctrl_made``: those that go with it.
    """

    id: str
    bundle: str
    rootfs: str
    annotations: dict[str, str]
    created: str
    owner: str
    pid: int
    start_time: int
    cgroup: str
    scope: str
    limits: list[list[int]]
    shares_pids: bool
    shared_root: int
    resctrl: list[str]
    resctrl_made: list[str]
    oci_version: str


class Store:
    """The containers below one ``--root``."""

    def __init__(self, root: str) -> None:
        """``root``: a directory, made when the first container is."""
        self.root = root

    def directory(self, container_id: str) -> str:
        """Where ``container_id`` is kept. Raises InvalidParameter for an invalid id."""
        if not container_id:
            raise InvalidParameter("container id cannot be empty")
        if container_id in (".", "..") or not set(container_id) <= _ID_CHARACTERS:
            raise InvalidParameter(f"invalid container id format: {container_id!r}")
        return f"{self.root}/{container_id}"

    def claim(self, container_id: str) -> str:
        """Take an id: its new directory. Raises Conflict when it is taken."""
        directory = self.directory(container_id)
        os.makedirs(self.root, 0o700, exist_ok=True)
        try:
            os.mkdir(directory, 0o711)
        except FileExistsError:
            raise Conflict("container with given ID already exists") from None
        return directory

    def release(self, container_id: str) -> None:
        """Remove everything kept of a container. Idempotent."""
        directory = self.directory(container_id)
        # state.json first: a half-removed container does not exist any more.
        for name in ("state.json", *_names(directory)):
            try:
                os.unlink(f"{directory}/{name}")
            except FileNotFoundError:
                continue
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return

    def save(self, record: Record) -> None:
        """Write state.json."""
        write_atomically(f"{self.directory(record['id'])}/state.json", json.dumps(record).encode())

    def load(self, container_id: str) -> Record:
        """The record. Raises NotFound, Corrupt."""
        path = f"{self.directory(container_id)}/state.json"
        try:
            with open(path, "rb") as file:
                value = json.loads(file.read())
        except FileNotFoundError:
            raise NotFound("container does not exist") from None
        except ValueError as error:
            raise Corrupt(f"{path}: {error}") from None
        return cast("Record", value)

    def load_spec(self, container_id: str) -> Spec:
        """The specification the container was created from."""
        with open(f"{self.directory(container_id)}/config.json", "rb") as file:
            return cast("Spec", json.loads(file.read()))

    def ids(self) -> list[str]:
        """All containers, sorted."""
        return sorted(
            name for name in _names(self.root) if os.path.exists(f"{self.root}/{name}/state.json")
        )

    def socket(self, container_id: str) -> str:
        """The path of start.sock."""
        return f"{self.directory(container_id)}/start.sock"


def alive(record: Record) -> bool:
    """Whether the container's first process still runs (a zombie does not)."""
    try:
        fields = stat_fields(record["pid"])
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] not in (b"Z", b"X") and int(fields[19]) == record["start_time"]


def waiting(store: Store, record: Record) -> bool:
    """Whether init has not been told to start yet."""
    try:
        return stat.S_ISSOCK(os.stat(store.socket(record["id"])).st_mode)
    except FileNotFoundError:
        return False


def document(store: Store, record: Record, status: str) -> dict[str, object]:
    """The OCI state document ("State" in runtime.md), with runc's additions."""
    result: dict[str, object] = {
        "ociVersion": record["oci_version"],
        "id": record["id"],
        "pid": 0 if status == "stopped" else record["pid"],
        "status": status,
        "bundle": record["bundle"],
        "rootfs": record["rootfs"],
        "created": record["created"],
    }
    if record["annotations"]:
        result["annotations"] = record["annotations"]
    result["owner"] = record["owner"]
    return result


def write_atomically(path: str, data: bytes, mode: int = 0o600) -> None:
    """Temp file, fsync, rename."""
    temporary = f"{path}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
