"""Where each cgroup controller lives on this host: pure parsing of /proc text into a ``Layout``.

Three layouts exist in the field:

``v2``      one unified hierarchy, all controllers in it;
``v1``      one hierarchy per controller (or group of controllers), no cgroup2 mount;
``hybrid``  v1 hierarchies own the controllers, a cgroup2 tree without controllers is mounted as
            well (usually at /sys/fs/cgroup/unified) and serves only to track processes.

See cgroups(7), Documentation/admin-guide/cgroup-v1/cgroups.rst and cgroup-v2.rst.

A cgroup is named by a path such as ``/sampan/<id>``: absolute paths start at what is mounted of
each hierarchy, relative ones at the cgroup of the process that called ``probe``.
"""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass
from typing import Literal

from sampan.errors import InvalidParameter, Unsupported
from sampan.kernel.mountinfo import entries

Mode = Literal["v1", "hybrid", "v2"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """One mounted hierarchy.

    ``controllers`` holds kernel names ("memory", "cpu", ...); a named v1 hierarchy without
    controllers has one entry "name=NAME". ``own`` is the cgroup of the probing process, relative
    to the mount point and starting with "/".
    """

    mountpoint: str
    controllers: frozenset[str]
    unified: bool
    own: str = "/"

    def directory(self, path: str) -> str:
        """Directory of the cgroup ``path`` (absolute, or relative to our own cgroup)."""
        inner = path if path.startswith("/") else posixpath.join(self.own, path)
        inner = posixpath.normpath(inner)
        return self.mountpoint if inner == "/" else self.mountpoint + inner


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The cgroup hierarchies of a host, in mount order; ``unified`` is the cgroup2 one."""

    mode: Mode
    legacy: tuple[Hierarchy, ...]
    unified: Hierarchy | None

    @property
    def controllers(self) -> frozenset[str]:
        """Names of all controllers a container can be limited by here."""
        names: set[str] = set()
        for hierarchy in self.owning:
            names |= {name for name in hierarchy.controllers if "=" not in name}
        return frozenset(names)

    @property
    def owning(self) -> tuple[Hierarchy, ...]:
        """The hierarchies a container gets a cgroup in (hybrid: the v1 ones only)."""
        if self.mode == "v2":
            assert self.unified is not None
            return (self.unified,)
        return self.legacy

    def hierarchy(self, controller: str) -> Hierarchy | None:
        """The hierarchy with ``controller`` bound to it, or None."""
        return next((h for h in self.owning if controller in h.controllers), None)

    def directory(self, controller: str, path: str) -> str | None:
        """Directory of cgroup ``path`` for ``controller``; None when it is not available."""
        hierarchy = self.hierarchy(controller)
        return None if hierarchy is None else hierarchy.directory(path)

    def directories(self, path: str) -> tuple[str, ...]:
        """Directories of cgroup ``path`` in every hierarchy a container lives in."""
        return tuple(h.directory(path) for h in self.owning)


def check_path(path: str) -> str:
    """Return ``path`` normalised ("/sampan/x" or "rel/x").

    Raises InvalidParameter when it is the root, or walks up through "..".
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or "\0" in path or "\n" in path:
        raise InvalidParameter(f"invalid cgroup path {path!r}")
    return ("/" if path.startswith("/") else "") + "/".join(parts)


def detect(mountinfo: str, cgroups: str, own: str = "") -> Layout:
    """Derive the layout from the texts of /proc/self/mountinfo, /proc/cgroups, /proc/self/cgroup.

    Of several mounts of one hierarchy the first below /sys/fs/cgroup wins. Raises Unsupported
    when no hierarchy is mounted at all.
    """
    rows = [line.split() for line in cgroups.splitlines()]
    known = {row[0] for row in rows if row and row[0][0] != "#"}
    own_v1, own_v2 = _own_cgroups(own)
    legacy: dict[frozenset[str], Hierarchy] = {}
    unified: Hierarchy | None = None
    for mount in entries(mountinfo):
        found_before = unified is not None and unified.mountpoint.startswith("/sys/fs/cgroup")
        if mount.fstype == "cgroup2" and not found_before:
            unified = Hierarchy(
                mountpoint=mount.point,
                controllers=frozenset(),
                unified=True,
                own=_below(mount.root, own_v2),
            )
        if mount.fstype != "cgroup":
            continue
        options = mount.options.split(",")
        names = frozenset(o for o in options if o in known or o.startswith("name="))
        present = legacy.get(names)
        if not names or (present and present.mountpoint.startswith("/sys/fs/cgroup")):
            continue
        inside = next((own_v1[name] for name in names if name in own_v1), mount.root)
        legacy[names] = Hierarchy(
            mountpoint=mount.point,
            controllers=names,
            unified=False,
            own=_below(mount.root, inside),
        )
    return _assemble(tuple(legacy.values()), unified, known)


def _assemble(legacy: tuple[Hierarchy, ...], unified: Hierarchy | None, known: set[str]) -> Layout:
    owned = {name for h in legacy for name in h.controllers if "=" not in name}
    if owned:
        mode: Mode = "v1" if unified is None else "hybrid"
        return Layout(mode=mode, legacy=legacy, unified=unified)
    if unified is None:
        raise Unsupported("no cgroup hierarchy is mounted (expected below /sys/fs/cgroup)")
    # /proc/cgroups calls the io controller by its v1 name; devices and freezer are not
    # controllers on v2 (BPF programs and cgroup.freeze do their work).
    names = {"io" if name == "blkio" else name for name in known}
    names -= {"devices", "freezer", "cpuacct", "net_cls", "net_prio"}
    whole = Hierarchy(
        mountpoint=unified.mountpoint,
        controllers=frozenset(names),
        unified=True,
        own=unified.own,
    )
    return Layout(mode="v2", legacy=legacy, unified=whole)


def probe(proc: str | os.PathLike[str] = "/proc") -> Layout:
    """Detect the layout of the running host (three small reads; one more on v2)."""
    layout = detect(
        _text(f"{os.fspath(proc)}/self/mountinfo"),
        _text(f"{os.fspath(proc)}/cgroups"),
        _text(f"{os.fspath(proc)}/self/cgroup"),
    )
    if layout.mode != "v2" or layout.unified is None:
        return layout
    # /proc/cgroups lists v1 registrations and may miss or overstate what this (possibly
    # delegated) subtree offers; the file of the mounted root is the truth.
    offered = _text(f"{layout.unified.mountpoint}/cgroup.controllers").split()
    unified = Hierarchy(
        mountpoint=layout.unified.mountpoint,
        controllers=frozenset(offered),
        unified=True,
        own=layout.unified.own,
    )
    return Layout(mode="v2", legacy=layout.legacy, unified=unified)


def _text(path: str) -> str:
    with open(path, errors="surrogateescape") as file:
        return file.read()


def _own_cgroups(text: str) -> tuple[dict[str, str], str]:
    """Parse /proc/<pid>/cgroup: (controller or name=X -> path, path in cgroup2)."""
    legacy: dict[str, str] = {}
    unified = "/"
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            unified = path
        else:
            legacy.update(dict.fromkeys(names.split(","), path))
    return legacy, unified


def own_path(text: str, controller: str = "") -> str | None:
    """Path of ``controller`` ("" for cgroup2) in the text of a /proc/<pid>/cgroup, or None."""
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if controller in names.split(","):
            return path
    return None


def _below(root: str, path: str) -> str:
    """``path`` as seen through a mount whose root is ``root`` (a container sees a subtree)."""
    if root == "/" or not path.startswith(root):
        return path if root == "/" else "/"
    return path[len(root) :] or "/"
