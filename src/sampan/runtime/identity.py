"""Users and groups of a container, from its own /etc/passwd and /etc/group.

The files are untrusted: they are opened inside the container's root, must be regular and small,
and are read as bytes. No name service is asked (CVE-2019-14271: NSS would load the image's code).
The rules are Docker's (moby/sys/user GetExecUser): a number need not be listed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sampan.kernel.openat import in_root

_SIZE_LIMIT = 8 * 1024 * 1024
_CHUNK = 1 << 16
_ID_LIMIT = (1 << 31) - 1


class UnknownName(Exception):
    """A user or group is not in the container's files; ``args[0]`` is one sentence."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a process becomes; ``home`` is "/" when the user is not listed."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


ROOT = Identity(0, 0, (), "/")


def read_database(root: int, path: str) -> bytes:
    """The contents of ``path`` inside ``root``; empty when there is none.

    Raises :class:`OSError` when it is no regular file or larger than 8 MiB.
    """
    try:
        fd = in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        if status.st_size > _SIZE_LIMIT:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        parts = []
        while part := os.read(fd, _CHUNK):
            parts.append(part)
            if sum(map(len, parts)) > _SIZE_LIMIT:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        return b"".join(parts)
    finally:
        os.close(fd)


def resolve(
    user: str, groups: Sequence[str], passwd: bytes, group: bytes, additional: Iterable[int] = ()
) -> Identity:
    """The identity for ``name|uid[:group|gid]`` and more groups; raises :class:`UnknownName`."""
    name, _, group_name = user.partition(":")
    entry = _find_user(name or "0", passwd)
    uid = entry[1] if entry else _number(name or "0")
    if uid is None:
        _check_range(name)
        raise UnknownName(f"unable to find user {name}: no matching entries in passwd file")
    gid = entry[2] if entry else 0
    extra: list[int] = []
    if group_name:
        found = _find_group(group_name, group)
        if found is None:
            _check_range(group_name)
            raise UnknownName(
                f"unable to find group {group_name}: no matching entries in group file"
            )
        gid = found
    elif entry:
        extra = [number for _, number, members in _groups(group) if entry[0] in members]
    for wanted in groups:
        found = _find_group(wanted, group)
        if found is None:
            raise UnknownName(f"unable to find group {wanted}: no matching entries in group file")
        extra.append(found)
    # The primary group is among the supplementary ones, so that dropping it by a set-group-id
    # program does not gain what the group was denied (CVE-2022-36109).
    ordered = dict.fromkeys((gid, *extra, *additional))
    return Identity(uid, gid, tuple(ordered), entry[3] if entry else "/")


def home_of(uid: int, passwd: bytes) -> str:
    """The home directory of ``uid``, "/" when it is not listed."""
    entry = _find_user(str(uid), passwd)
    return entry[3] if entry and entry[3] else "/"


def numbers(database: bytes) -> Iterator[int]:
    """The ids a passwd or group file lists (third field of a line)."""
    for line in database.splitlines():
        fields = line.split(b":")
        number = _number(fields[2]) if len(fields) > 2 else None
        if number is not None:
            yield number


def _find_user(name: str, passwd: bytes) -> tuple[bytes, int, int, str] | None:
    """(name, uid, gid, home) of the first entry with this name or number."""
    wanted, number = os.fsencode(name), _number(name)
    for line in passwd.splitlines():
        fields = line.strip().split(b":")
        if len(fields) < 4:
            continue
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is None or gid is None:
            continue
        if fields[0] == wanted or (number is not None and uid == number):
            home = os.fsdecode(fields[5]) if len(fields) > 5 else ""
            return fields[0], uid, gid, home or "/"
    return None


def _find_group(name: str, group: bytes) -> int | None:
    wanted, number = os.fsencode(name), _number(name)
    for entry, gid, _ in _groups(group):
        if entry == wanted or (number is not None and gid == number):
            return gid
    return number


def _groups(group: bytes) -> Iterator[tuple[bytes, int, list[bytes]]]:
    for line in group.splitlines():
        fields = line.strip().split(b":")
        gid = _number(fields[2]) if len(fields) > 2 else None
        if gid is not None:
            yield fields[0], gid, fields[3].split(b",") if len(fields) > 3 else []


def _check_range(name: str) -> None:
    """Say of a number that no id has so why it names nobody."""
    if name.removeprefix("-").isdecimal():
        raise UnknownName(f"uids and gids must be in range 0-{_ID_LIMIT}")


def _number(text: str | bytes) -> int | None:
    """An id written in decimal, or None."""
    if not text or len(text) > 10 or not text.isdigit():
        return None
    try:
        number = int(text)
    except ValueError:
        return None  # digits of other scripts
    return number if number <= _ID_LIMIT else None
