"""``--chown``: names and numbers to ids, by the stage's own /etc/passwd and /etc/group."""

from __future__ import annotations

import os

from sampan.build.copying import Owner
from sampan.errors import InvalidParameter
from sampan.kernel.openat import in_root

_LIMIT = 4 << 20


def resolve_owner(text: str, root: int) -> Owner:
    """The owner that ``user[:group]`` means in ``root``.

    Without a group it is the user's own by /etc/passwd, or for a number the same number. Raises
    :class:`InvalidParameter` for a name the stage does not know.
    """
    user, colon, group = text.partition(":")
    uid, gid = _numbers(user, root, "etc/passwd", "user")
    if not colon or not group:
        return Owner(uid=uid, gid=gid)
    return Owner(uid=uid, gid=_numbers(group, root, "etc/group", "group")[0])


def needs_root(text: str) -> bool:
    """Whether resolving ``text`` reads the stage's files."""
    user, _, group = text.partition(":")
    return not (user.isdecimal() and (group.isdecimal() or not group))


def _numbers(name: str, root: int, path: str, what: str) -> tuple[int, int]:
    """The id of a name and the number after it; a number stands for itself."""
    if name.isdecimal():
        if int(name) >= 1 << 31:
            raise InvalidParameter(f"invalid {what} id {name}")
        return int(name), int(name)
    wanted = name.encode(errors="surrogateescape")
    for line in _read(root, path).splitlines():
        fields = line.split(b":")
        if fields[0] == wanted and len(fields) > 2 and fields[2].isdigit():
            second = fields[3] if len(fields) > 3 and fields[3].isdigit() else fields[2]
            return int(fields[2]), int(second)
    raise InvalidParameter(f"invalid {what} index: no {what} {name!r} in /{path}")


def _read(root: int, path: str) -> bytes:
    try:
        fd = in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    with os.fdopen(fd, "rb") as file:
        return file.read(_LIMIT)
