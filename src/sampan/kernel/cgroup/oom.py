"""Being told when a container runs out of memory, and when pressure on it rises.

v1: an eventfd registered through cgroup.event_control (cgroup-v1/memory.rst, sections 9-11).
v2: memory.events under inotify, PSI triggers under poll (cgroup-v2.rst, accounting/psi.rst).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select

from sampan.kernel.cgroup.layout import Layout
from sampan.kernel.cgroup.operations import parse_flat, read, write
from sampan.kernel.libc import check, typed

_inotify_init1 = typed("inotify_init1", ctypes.c_int, restype=ctypes.c_int)
_inotify_add_watch = typed(
    "inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32, restype=ctypes.c_int
)

_IN_MODIFY = 0x2
_IN_CLOEXEC, _IN_NONBLOCK = 0o2000000, 0o4000


def oom_kills(layout: Layout, path: str) -> int:
    """How many processes of the cgroup the OOM killer has ended. 0 without memory controller.

    Raises FileNotFoundError when the cgroup is gone.
    """
    directory = layout.directory("memory", path)
    if directory is None:
        return 0
    name = "memory.events" if layout.mode == "v2" else "memory.oom_control"
    return parse_flat(read(f"{directory}/{name}")).get("oom_kill", 0)


class OomWatch:
    """Readable (``fileno``) whenever the cgroup ran out of memory; close it when done.

    After it became readable call ``consume``. The removal of a v1 cgroup also makes it readable,
    then ``consume`` returns 0.
    """

    def __init__(self, layout: Layout, path: str) -> None:
        """Start watching. Raises OSError (ENODEV without memory controller)."""
        self._layout = layout
        self._path = path
        directory = layout.directory("memory", path)
        if directory is None:
            raise OSError(errno.ENODEV, "no memory cgroup controller", path)
        self._seen = oom_kills(layout, path)
        if layout.mode == "v2":
            self._fd = _inotify(f"{directory}/memory.events")
        else:
            self._fd = _event_control(directory, "memory.oom_control", "")

    def fileno(self) -> int:
        """The descriptor to poll for POLLIN."""
        return self._fd

    def consume(self) -> int:
        """Read the notification; return the number of OOM kills since the last call.

        v1 notifies before it kills: ask once more when the process has ended.
        A group whose OOM killer is disabled (v1) pauses instead of killing: that is 0 too.
        """
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 4096)
        try:
            now = oom_kills(self._layout, self._path)
        except OSError:
            # ENOENT, or ENODEV for a file of a cgroup that is being removed.
            return 0
        count, self._seen = now - self._seen, now
        return count

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)

    def __enter__(self) -> OomWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def watch_memory_pressure(layout: Layout, path: str, level: str = "low") -> tuple[int, int]:
    """A descriptor and the poll(2) event that tell of memory pressure on the cgroup.

    ``level`` is "low", "medium" or "critical": on v1 the kernel's levels; on v2 a PSI trigger of
    150, 300 or 700 ms of stall ("some", "some", "full") within one second. The caller closes the
    descriptor. Raises OSError, ValueError for another level.
    """
    triggers = {"low": "some 150000", "medium": "some 300000", "critical": "full 700000"}
    if level not in triggers:
        raise ValueError(f"unknown memory pressure level {level!r}")
    directory = layout.directory("memory", path)
    if directory is None:
        raise OSError(errno.ENODEV, "no memory cgroup controller", path)
    if layout.mode != "v2":
        return _event_control(directory, "memory.pressure_level", level), select.POLLIN
    fd = os.open(f"{directory}/memory.pressure", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(fd, f"{triggers[level]} 1000000\0".encode())
    except OSError:
        os.close(fd)
        raise
    return fd, select.POLLPRI


def _event_control(directory: str, name: str, argument: str) -> int:
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        target = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            write(f"{directory}/cgroup.event_control", f"{event} {target} {argument}".strip())
        finally:
            os.close(target)
    except OSError:
        os.close(event)
        raise
    return event


def _inotify(path: str) -> int:
    fd = check(_inotify_init1(_IN_CLOEXEC | _IN_NONBLOCK), "inotify_init1")
    try:
        check(_inotify_add_watch(fd, os.fsencode(path), _IN_MODIFY), path)
    except OSError:
        os.close(fd)
        raise
    return fd
