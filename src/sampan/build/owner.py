"""``--chown``: names and numbers to ids, by the stage's own /etc/passwd and /etc/group."""

from __future__ import annotations

import os

from sampan.build.copying import Owner
from sampan.errors import InvalidParameter
from sampan.kernel.openat import in_root

_LIMIT = 4 << 20


def resolve_owner(text: str, root: int) -> Owner:
    """The owner that ``user[:group]`` means in ``root``; the group defaults to the user's number.

    Raises :class:`InvalidParameter` for a name the stage does not know.
    """
    user, colon, group = text.partition(":")
    uid = _number(user, root, "etc/passwd", "user")
    if not colon or not group:
        return Owner(uid=uid, gid=uid)
    return Owner(uid=uid, gid=_number(group, root, "etc/group", "group"))


def needs_root(text: str) -> bool:
    """Whether resolving ``text`` reads the stage's files."""
    user, _, group = text.partition(":")
    return not (user.isdecimal() and (group.isdecimal() or not group))


def _number(name: str, root: int, path: str, what: str) -> int:
    if name.isdecimal():
        if int(name) >= 1 << 31:
            raise InvalidParameter(f"invalid {what} id {name}")
        return int(name)
    wanted = name.encode(errors="surrogateescape")
    for line in _read(root, path).splitlines():
        fields = line.split(b":")
        if fields[0] == wanted and len(fields) > 2 and fields[2].isdigit():
            return int(fields[2])
    raise InvalidParameter(f"invalid {what} index: no {what} {name!r} in /{path}")


def _read(root: int, path: str) -> bytes:
    try:
        fd = in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    with os.fdopen(fd, "rb") as file:
        return file.read(_LIMIT)
