"""``linux.intelRdt``: which resctrl group a container is in (config-linux.md "IntelRdt").

What is wanted is decided by :func:`group` (pure); :func:`assign` does it and undoes it when it
fails half-way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

from sampan.errors import InvalidParameter, StartFailed
from sampan.kernel import resctrl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.model import oci


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A container's group.

    ``path``: below the file system's root, "" for the root itself. ``compared``: lines that a
    group which is there already must have; ``lines``: all that are written, in order.
    ``create``: it is made if it is missing; ``own``: if we made it, it goes with the container.
    ``monitor``: name of a monitoring group below it, "" for none.
    """

    path: str
    compared: tuple[str, ...]
    lines: tuple[str, ...]
    create: bool
    own: bool
    monitor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """Where a container is: its groups' directories, and those that go with it, in that order."""

    directories: tuple[str, ...]
    made: tuple[str, ...]


def group(wanted: oci.IntelRdt, container_id: str) -> Group:
    """The group for ``linux.intelRdt``. Raises :class:`InvalidParameter`."""
    name = wanted.get("closID") or ""
    if name != "/" and ("/" in name or name in (".", "..", "info", "mon_groups", "mon_data")):
        raise InvalidParameter(f"linux.intelRdt.closID: invalid name {name!r}")
    compared = [wanted.get("l3CacheSchema") or "", wanted.get("memBwSchema") or ""]
    lines = [line for line in (*compared, *(wanted.get("schemata") or ())) if line]
    for line in lines:
        if "\n" in line or ":" not in line:
            raise InvalidParameter(f"linux.intelRdt: {line!r} is not a line of schemata")
    if compared[1] and not compared[1].startswith("MB:"):
        raise InvalidParameter("linux.intelRdt.memBwSchema: does not start with MB:")
    return Group(
        path="" if name == "/" else name or container_id,
        compared=tuple(line for line in compared if line) if name else (),
        lines=tuple(lines),
        create=not name or bool(lines),
        own=not name,
        monitor=container_id if wanted.get("enableMonitoring") else "",
    )


def differing(wanted: Iterable[str], present: str) -> str:
    """The first line of ``wanted`` that the text of a schemata file contradicts, "" for none."""
    shares = dict(map(_shares, filter(None, map(str.strip, present.splitlines()))))
    for line in wanted:
        resource, values = _shares(line)
        if not values.items() <= shares.get(resource, {}).items():
            return line
    return ""


def _shares(line: str) -> tuple[str, dict[str, str]]:
    """ "L3:0=0f;1=ff" as (resource, share by id)."""
    resource, _, rest = line.partition(":")
    pairs = (entry.partition("=") for entry in rest.split(";"))
    return resource.strip(), {
        key.strip(): value.strip().lower().lstrip("0") for key, _, value in pairs
    }


def assign(wanted: Group, pid: int) -> Assigned:
    """Make the group if need be and put the task into it.

    Raises :class:`StartFailed`; nothing that was made is left then.
    """
    path = f"{resctrl.ROOT}/{wanted.path}".rstrip("/")
    with contextlib.ExitStack() as undo:
        directories, made = [path], list[str]()
        try:
            if wanted.path and wanted.create and resctrl.make_group(path):
                undo.callback(resctrl.remove_group, path)
                made += [path] if wanted.own else []
            elif line := differing(wanted.compared, resctrl.schemata(path)):
                raise StartFailed(f"linux.intelRdt: {path} is there and does not have {line!r}")
            for line in wanted.lines:
                resctrl.set_schemata(path, line)
            resctrl.add_task(path, pid)
            if wanted.monitor:
                inner = f"{path}/mon_groups/{wanted.monitor}"
                if not resctrl.make_group(inner):
                    raise StartFailed(f"linux.intelRdt.enableMonitoring: {inner} is there")
                undo.callback(resctrl.remove_group, inner)
                resctrl.add_task(inner, pid)
                directories.append(inner)
                made.insert(0, inner)
        except FileNotFoundError as error:
            raise StartFailed(f"linux.intelRdt: {error.filename} does not exist") from error
        except OSError as error:
            raise StartFailed(f"linux.intelRdt: {error.filename}: {error.strerror}") from error
        undo.pop_all()
    return Assigned(directories=tuple(directories), made=tuple(made))


def join(directories: Iterable[str], pid: int) -> None:
    """Put one more task where its container is. Raises :class:`StartFailed`."""
    for path in directories:
        try:
            resctrl.add_task(path, pid)
        except OSError as error:
            raise StartFailed(f"linux.intelRdt: {error.filename}: {error.strerror}") from error


def change(path: str, lines: Iterable[str]) -> None:
    """Give the group at ``path`` other shares. Raises :class:`InvalidParameter`."""
    for line in lines:
        try:
            resctrl.set_schemata(path, line)
        except OSError as error:
            raise InvalidParameter(f"{error.filename}: {line!r}: {error.strerror}") from error


def release(made: Iterable[str]) -> None:
    """Remove what :func:`assign` made. Idempotent."""
    for path in made:
        resctrl.remove_group(path)
