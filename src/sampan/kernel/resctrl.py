"""resctrl: cache and memory bandwidth by group (Documentation/filesystems/resctrl.rst).

A group is a directory; the kernel puts its files there when it is made, and takes them when it is
removed.
"""

from __future__ import annotations

import contextlib
import os

#: Where it is mounted, if it is.
ROOT = "/sys/fs/resctrl"


def available() -> bool:
    """Whether it is mounted."""
    return os.path.exists(f"{ROOT}/schemata")


def make_group(path: str) -> bool:
    """Make the group below :data:`ROOT`; False when there is one. Raises :class:`OSError`."""
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return False
    return True


def remove_group(path: str) -> None:
    """Remove a group; its tasks go to the group above. Idempotent."""
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)


def schemata(path: str) -> str:
    """What the group has of each resource, a line each."""
    with open(f"{path}/schemata") as file:
        return file.read()


def set_schemata(path: str, line: str) -> None:
    """Give the group a share of one resource. The error is in the kernel's words."""
    _write(f"{path}/schemata", line + "\n")


def add_task(path: str, pid: int) -> None:
    """Move a task into the group, those that it forks come along."""
    _write(f"{path}/tasks", str(pid))


def _write(path: str, text: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        reason = ""
        with contextlib.suppress(OSError), open(f"{ROOT}/info/last_cmd_status") as file:
            reason = file.read().strip()
        told = f"{error.strerror} ({reason})" if reason not in ("", "ok") else error.strerror
        raise OSError(error.errno, told, path) from error
