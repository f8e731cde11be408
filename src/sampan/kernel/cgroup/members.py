"""Processes of a cgroup: entering, listing, freezing, killing; and removal of the cgroup.

Why entering has two forms. Writing a pid to ``cgroup.procs`` takes the global
``cgroup_threadgroup_rwsem`` for writing, which waits for an RCU grace period: 5-16 ms measured
here. On v1 a single-threaded process that writes ``0`` to ``tasks`` moves only itself and the
kernel skips that lock (kernel/cgroup/cgroup.c, cgroup_procs_write_start): 0.4 ms for nine
hierarchies. On v2 the equivalent is clone3(2) with CLONE_INTO_CGROUP, see
``kernel/process.py``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time
from collections.abc import Iterator

from sampan.kernel.cgroup.layout import Layout
from sampan.kernel.cgroup.operations import read, write

_POLL_SECONDS = 0.001


def join_self(layout: Layout, path: str) -> None:
    """Move the calling single-threaded process into cgroup ``path`` of every hierarchy.

    To be called before unshare(CLONE_NEWCGROUP), before any user namespace is entered, and
    while /sys/fs/cgroup is still the host's. Raises OSError.
    """
    for hierarchy in layout.owning:
        name = "cgroup.procs" if hierarchy.unified else "tasks"
        write(f"{hierarchy.directory(path)}/{name}", "0")


def join(layout: Layout, path: str, pid: int) -> None:
    """Move process ``pid`` with all its threads into cgroup ``path`` of every hierarchy.

    Costs an RCU grace period (milliseconds); prefer ``join_self``. Raises OSError.
    """
    for hierarchy in layout.owning:
        write(f"{hierarchy.directory(path)}/cgroup.procs", str(pid))


def may_create(layout: Layout, path: str) -> bool:
    """Whether we have the right to make cgroup ``path`` in every hierarchy."""
    for directory in layout.directories(path):
        parent = os.path.dirname(directory)
        while not os.path.exists(parent):
            parent = os.path.dirname(parent)
        if not os.access(parent, os.W_OK, effective_ids=True):
            return False
    return True


def with_room(layout: Layout, path: str, pid: int) -> str:
    """The cgroup for one more process beside ``pid``, whose container is given ``path``.

    On v2 a cgroup that has divided what it controls among those below takes no process itself
    (cgroups(7), "no internal processes"): a container's systemd does so. Then it is that of
    ``pid``, which had to go below. Raises OSError when it is gone.
    """
    if layout.mode != "v2" or layout.unified is None:
        return path
    if not read(f"{layout.unified.directory(path)}/cgroup.subtree_control").strip():
        return path
    for line in read(f"/proc/{pid}/cgroup").splitlines():
        own = line.removeprefix("0::")
        if own != line and own.startswith(f"{path}/"):
            return own
    return path


def has_room(layout: Layout, path: str, count: int) -> bool:
    """Whether the pids limit of cgroup ``path`` itself allows ``count`` more processes now."""
    directory = layout.directory("pids", path)
    if directory is None:
        return True
    limit = read(f"{directory}/pids.max").strip()
    return limit == "max" or int(read(f"{directory}/pids.current")) + count <= int(limit)


def procs(layout: Layout, path: str) -> list[int]:
    """Pids in cgroup ``path`` and all cgroups below it, ascending.

    Raises FileNotFoundError when the cgroup is gone.
    """
    top = _tracking(layout, path)
    pids = {int(line) for line in read(f"{top}/cgroup.procs").split()}
    for directory in _descendants(top):
        # A child cgroup may vanish between the walk and the read (no members then); a threaded
        # one answers EOPNOTSUPP and its processes are listed by the domain above it.
        with contextlib.suppress(OSError):
            pids.update(int(line) for line in read(f"{directory}/cgroup.procs").split())
    return sorted(pids)


def freeze(layout: Layout, path: str, timeout: float = 5.0) -> None:
    """Stop every process of the cgroup; returns once all are stopped.

    Raises TimeoutError (after thawing again) when they are not within ``timeout`` seconds, and
    OSError when there is no freezer.
    """
    deadline = time.monotonic() + timeout
    try:
        if layout.mode == "v2":
            _freeze_unified(_tracking(layout, path), deadline)
        else:
            _freeze_legacy(_freezer(layout, path), deadline)
    except TimeoutError:
        thaw(layout, path)
        raise


def thaw(layout: Layout, path: str) -> None:
    """Let the processes of the cgroup run again. Raises OSError."""
    if layout.mode == "v2":
        write(f"{_tracking(layout, path)}/cgroup.freeze", "0")
    else:
        write(f"{_freezer(layout, path)}/freezer.state", "THAWED")


def frozen(layout: Layout, path: str) -> bool:
    """Whether the cgroup was frozen (also while the freeze is under way)."""
    if layout.mode == "v2":
        return read(f"{_tracking(layout, path)}/cgroup.freeze") == "1"
    return read(f"{_freezer(layout, path)}/freezer.state") != "THAWED"


def kill(layout: Layout, path: str, timeout: float = 10.0) -> None:
    """SIGKILL every process of the cgroup and below until none is left.

    A cgroup that is gone counts as done. Raises TimeoutError when processes remain after
    ``timeout`` seconds (uninterruptible sleep).
    """
    deadline = time.monotonic() + timeout
    try:
        if layout.mode == "v2" and _kill_unified(_tracking(layout, path)):
            _wait_empty(layout, path, deadline)
            return
        # A pids.max of 0 ends fork bombs: nothing new can appear while we go through the list.
        limit = layout.directory("pids", path)
        if limit is not None:
            with contextlib.suppress(OSError):
                write(f"{limit}/pids.max", "0")
        while remaining := procs(layout, path):
            for pid in remaining:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            # A frozen v1 task acts on SIGKILL only after it was thawed.
            with contextlib.suppress(OSError):
                thaw(layout, path)
            _pause(deadline, path)
    except OSError as error:
        # ENODEV: it went between the opening of a file and its use (systemd ends empty scopes).
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise


def signal_all(layout: Layout, path: str, number: int) -> None:
    """Send signal ``number`` once to every process of the cgroup and below."""
    for pid in procs(layout, path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def remove(layout: Layout, path: str, timeout: float = 2.0) -> None:
    """Remove cgroup ``path`` and its children from every hierarchy; missing ones are fine.

    The kernel answers EBUSY while the last tasks are still on their way out, so that is retried
    for ``timeout`` seconds, then raised as OSError.
    """
    deadline = time.monotonic() + timeout
    for directory in _everywhere(layout, path):
        _remove_directory(directory, deadline)


def remove_empty(layout: Layout, path: str) -> None:
    """Remove cgroup ``path`` from the hierarchies where nothing is in it; elsewhere it stays."""
    for directory in _everywhere(layout, path):
        with contextlib.suppress(OSError):
            os.rmdir(directory)


def _everywhere(layout: Layout, path: str) -> list[str]:
    """The directories of a cgroup, also in a hierarchy that only others make it in."""
    directories = list(layout.directories(path))
    if layout.mode == "hybrid" and layout.unified is not None:
        directories.append(layout.unified.directory(path))
    return directories


def destroy(layout: Layout, path: str, unit: str = "") -> None:
    """Kill what is in cgroup ``path`` and remove it. Idempotent.

    ``unit``: the systemd unit it is, "" when systemd did not make it. Raises OSError when
    processes stay, Unavailable when systemd does not answer.
    """
    kill(layout, path)
    if unit:
        from sampan.kernel.cgroup import systemd

        systemd.stop(unit)
    remove(layout, path)


def _remove_directory(directory: str, deadline: float) -> None:
    while True:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
            if time.monotonic() > deadline:
                raise
            _remove_children(directory)
            time.sleep(_POLL_SECONDS)
        else:
            return


def _remove_children(directory: str) -> None:
    for child in reversed(list(_descendants(directory))):
        # Busy children make the parent busy too, which is where it is reported.
        with contextlib.suppress(OSError):
            os.rmdir(child)


def _descendants(directory: str) -> Iterator[str]:
    """Child cgroups, parents before their children; one that vanishes meanwhile is left out."""
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield entry.path
                yield from _descendants(entry.path)


def _tracking(layout: Layout, path: str) -> str:
    """The directory whose cgroup.procs is asked for the members: a v1 freezer when there is one."""
    hierarchy = layout.hierarchy("freezer") or layout.owning[0]
    return hierarchy.directory(path)


def _freezer(layout: Layout, path: str) -> str:
    directory = layout.directory("freezer", path)
    if directory is None:
        raise OSError(errno.EOPNOTSUPP, "no freezer cgroup controller is mounted", path)
    return directory


def _freeze_unified(directory: str, deadline: float) -> None:
    events = os.open(f"{directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        poller = select.poll()
        poller.register(events, select.POLLPRI)
        write(f"{directory}/cgroup.freeze", "1")
        # cgroup.events wakes pollers with POLLPRI on each change (cgroup-v2.rst).
        while "frozen 1" not in os.pread(events, 4096, 0).decode():
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, "cgroup does not freeze", directory)
            poller.poll(100)
    finally:
        os.close(events)


def _freeze_legacy(directory: str, deadline: float) -> None:
    file = f"{directory}/freezer.state"
    write(file, "FROZEN")
    while (state := read(file)) != "FROZEN":
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, f"cgroup does not freeze ({state})", directory)
        time.sleep(_POLL_SECONDS)
        # A task that forks while freezing can leave the group at FREEZING until it is
        # asked again (freezer-subsystem.rst).
        write(file, "FROZEN")


def _kill_unified(directory: str) -> bool:
    """Write cgroup.kill (Linux 5.14); False when the kernel has none."""
    try:
        write(f"{directory}/cgroup.kill", "1")
    except FileNotFoundError:
        if not os.path.isdir(directory):
            raise
        return False
    return True


def _wait_empty(layout: Layout, path: str, deadline: float) -> None:
    while procs(layout, path):
        _pause(deadline, path)


def _pause(deadline: float, path: str) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(errno.ETIMEDOUT, "processes do not end after SIGKILL", path)
    time.sleep(_POLL_SECONDS)
