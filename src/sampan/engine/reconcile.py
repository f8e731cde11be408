"""What the rows say against what is there -> what to do (pure; the only recovery there is).

Called when an engine opens, for every container and every trace of one. The same actions are what
ordinary exits and removals do, so a crash at any moment ends where an orderly run would have.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from sampan.engine.lifecycle import ALIVE, Status
from sampan.engine.restart import should_start_at_boot
from sampan.wire.container import RestartPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One container as its row has it."""

    id: str
    status: Status
    auto_remove: bool = False
    policy: RestartPolicy | None = None
    exit_code: int = 0
    stopped_by_user: bool = False
    endpoints: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What was found.

    ``monitors``: container id -> "created" or "running" for each monitor that answers.
    ``exits``: container id -> exit code, for each exit record. ``directories``: ids with an exec
    directory. ``snapshots``: keys of writable snapshots that look like a container's.
    ``files``: ids with a directory below the data root.
    """

    monitors: Mapping[str, str] = field(default_factory=dict)
    exits: Mapping[str, int] = field(default_factory=dict)
    directories: Collection[str] = ()
    snapshots: Collection[str] = ()
    files: Collection[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt:
    """The container runs, or is prepared to: watch over it again."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """What was prepared for the container is gone: it is merely created."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """A monitor whose container was never started, or has no row: end it, erase its traces."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteExit:
    """The container ended while nobody watched; ``recorded`` tells if there is an exit record."""

    id: str
    recorded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Endpoints of a container that does not run."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """The container was to be gone: finish its removal."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Its restart policy wants the container running."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseExec:
    """Live facts of a run that is over."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseSnapshot:
    """A container's file system without a container."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseFiles:
    """A container's own files without a container."""

    id: str


Action: TypeAlias = (
    Adopt
    | Forget
    | Abort
    | NoteExit
    | Release
    | Remove
    | Start
    | EraseExec
    | EraseSnapshot
    | EraseFiles
)


def reconcile(rows: Sequence[Row], observed: Observed) -> tuple[Action, ...]:
    """The actions, in the order to perform them: what runs, what ended, what is left over.

    Starts come last: they need addresses and ports, and what runs must have taken its own before.
    """
    known = {row.id for row in rows}
    actions: list[Action] = []
    for row in rows:
        actions.extend(_container(row, observed))
    for found in sorted(set(observed.monitors) | set(observed.directories)):
        if found not in known:
            actions.append(Abort(id=found))
    for key in sorted(observed.snapshots):
        if key.partition("-image-")[0] not in known:
            actions.append(EraseSnapshot(key=key))
    for found in sorted(observed.files):
        if found not in known:
            actions.append(EraseFiles(id=found))
    actions.sort(key=lambda action: isinstance(action, Start))
    return tuple(actions)


def _container(row: Row, observed: Observed) -> Iterator[Action]:
    monitor = observed.monitors.get(row.id)
    if monitor == "running":
        yield Adopt(id=row.id)
        if row.status in (Status.REMOVING, Status.DEAD):
            yield Remove(id=row.id)
        return
    prepared = row.status == Status.INITIALIZED
    if prepared and monitor == "created":
        yield Adopt(id=row.id)
        return
    if monitor == "created":
        yield Abort(id=row.id)  # the start was under way: its client has had no answer
    code = observed.exits.get(row.id)
    ran = row.status in ALIVE
    # A start that was not recorded yet, but whose program ran and ended, shows by its record.
    ended = ran or (code is not None and monitor is None)
    if ended:
        yield NoteExit(id=row.id, recorded=code is not None)
    elif row.id in observed.directories and monitor is None:
        yield EraseExec(id=row.id)
    if row.endpoints:
        yield Release(id=row.id)
    if prepared and not ended:
        yield Forget(id=row.id)
    if row.status in (Status.REMOVING, Status.DEAD) or (ended and row.auto_remove):
        yield Remove(id=row.id)
        return
    interrupted = ran or row.status == Status.RESTARTING
    began = interrupted or row.status == Status.EXITED or ended
    if began and should_start_at_boot(
        row.policy,
        was_running=interrupted,
        exit_code=code if code is not None else (137 if ran else row.exit_code),
        stopped_by_user=row.stopped_by_user,
    ):
        yield Start(id=row.id)
