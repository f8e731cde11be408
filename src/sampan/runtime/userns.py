"""User namespaces that exist to carry an id mapping."""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Iterable, Sequence

from sampan.kernel import namespaces
from sampan.model.idmap import IdMap, Row, parse_rows


def write_maps(
    pid: int, uid_map: Sequence[Sequence[int]], gid_map: Sequence[Sequence[int]]
) -> None:
    """Write /proc/<pid>/uid_map and gid_map (user_namespaces(7)): once, in one write each.

    Other users than root may map themselves alone, and then no process in there changes its
    supplementary groups; for more there are newuidmap(1) and newgidmap(1).
    """
    for name, rows, own in (("uid", uid_map, os.geteuid()), ("gid", gid_map, os.getegid())):
        if os.geteuid() and [(row[1], row[2]) for row in rows] != [(own, 1)]:
            _write_by_helper(f"new{name}map", pid, rows)
            continue
        if os.geteuid() and name == "gid":
            _write(f"/proc/{pid}/setgroups", "deny")
        text = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in rows)
        _write(f"/proc/{pid}/{name}_map", text)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(fd)


def _write_by_helper(program: str, pid: int, rows: Sequence[Sequence[int]]) -> None:
    """A set-user-id program that knows what /etc/subuid and /etc/subgid allow."""
    words = [program, str(pid), *(str(number) for row in rows for number in row)]
    helper = os.posix_spawnp(program, words, os.environ)
    _, status = os.waitpid(helper, 0)
    if status:
        raise OSError(errno.EPERM, f"{program} refused the id mappings", program)


def mapped_namespace(uid_map: Sequence[Sequence[int]], gid_map: Sequence[Sequence[int]]) -> int:
    """A descriptor of a new user namespace with these mappings, for MOUNT_ATTR_IDMAP.

    A short-lived child makes it; the caller must be single-threaded. Raises :class:`OSError`.
    """
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            namespaces.unshare(namespaces.CLONE_NEWUSER)
            os.write(told, b"1")
            signal.pause()
        finally:
            os._exit(1)
    os.close(told)
    try:
        if not os.read(ready, 1):
            raise OSError("no user namespace could be made for an idmapped mount")
        write_maps(child, uid_map, gid_map)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def id_map_of(pid: int | str) -> IdMap | None:
    """The ids of process ``pid``'s user namespace as we see them; None when it is our own.

    Raises :class:`OSError` when it is gone.
    """
    theirs, ours = os.stat(f"/proc/{pid}/ns/user"), os.stat("/proc/self/ns/user")
    if (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino):
        return None
    return IdMap(*(_rows(pid, name) for name in ("uid_map", "gid_map")))


def _rows(pid: int | str, name: str) -> tuple[Row, ...]:
    return parse_rows(_read(f"/proc/{pid}/{name}"))


def _read(path: str) -> str:
    """A small file of procfs. Not by open(): its codec may be out of reach by now."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts).decode()
    finally:
        os.close(fd)


def pid_of(pidfd: int) -> int:
    """The process a pidfd names (fdinfo, proc_pid_fdinfo(5)), -1 when it has been reaped."""
    for line in _read(f"/proc/self/fdinfo/{pidfd}").splitlines():
        if line.startswith("Pid:"):
            return int(line[4:])
    return -1


def hand_over(streams: Iterable[int], ids: IdMap | None) -> None:
    """Give pipes and sockets to a user namespace's root, which can then open /dev/stdout again.

    Only from outside: inside, what the host's root owns is nobody's.
    """
    root = ids.root if ids is not None else None
    if root is None:
        return
    for fd in set(streams):
        status = os.fstat(fd)
        if not (stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)):
            continue
        try:
            os.fchown(fd, *root)
        except OSError as error:
            if error.errno != errno.EPERM:  # another user's: what it is open for still works
                raise
