"""Users and passwords in an htpasswd file (Apache's format, bcrypt entries only).

The file is read again when it changes. Checking a bcrypt hash takes tens of milliseconds on
purpose; one that was right is remembered for a few minutes under a keyed hash with a key that
never leaves this process, so that a client sending Basic credentials with every request is served
at speed, and none of its wrong ones is.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bcrypt

from sampan.errors import InvalidParameter

_REMEMBER = 300.0
_REMEMBERED = 1024
#: bcrypt uses no more than 72 bytes of a password, and the library refuses longer ones.
_MAX_PASSWORD = 72
#: Compared against when there is no such user, so that the answer takes as long.
_NOBODY = bcrypt.hashpw(b"nobody", bcrypt.gensalt(10))


def parse(text: str) -> dict[str, bytes]:
    """User to hash; raises :class:`InvalidParameter` naming a line that is not ``user:bcrypt``."""
    users: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        user, colon, hashed = line.partition(":")
        if not user or not colon or not hashed.startswith(("$2y$", "$2a$", "$2b$")):
            raise InvalidParameter(f"htpasswd line {number}: expected user:bcrypt-hash")
        users[user] = hashed.encode()
    return users


class Passwords:
    """The users of one htpasswd file. ``clock`` is monotonic, in seconds."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._stamp: tuple[int, int, int] = (0, 0, 0)
        self._users: dict[str, bytes] = {}
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, float] = OrderedDict()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="registry-bcrypt")
        self._reload()

    def _reload(self) -> None:
        try:
            status = os.stat(self._path)
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                self._users = parse(self._path.read_text())
                self._stamp = stamp
                self._right.clear()
        except OSError as error:
            raise InvalidParameter(f"cannot read {self._path}: {error.strerror}") from error

    async def check(self, user: str, password: str) -> bool:
        """Whether ``password`` is the user's."""
        self._reload()
        mark = hmac.new(self._key, f"{user}\0{password}".encode(), hashlib.sha256).digest()
        if self._right.get(mark, 0.0) > self._clock():
            return True
        secret = password.encode()
        hashed = self._users.get(user)
        right = await asyncio.get_running_loop().run_in_executor(
            self._pool, bcrypt.checkpw, secret[:_MAX_PASSWORD], hashed or _NOBODY
        )
        if not right or hashed is None or len(secret) > _MAX_PASSWORD:
            return False
        self._right[mark] = self._clock() + _REMEMBER
        if len(self._right) > _REMEMBERED:
            self._right.popitem(last=False)
        return True

    def fingerprint(self, user: str) -> str | None:
        """Changes when the user's password does; None when there is no such user."""
        self._reload()
        hashed = self._users.get(user)
        return None if hashed is None else hashlib.sha256(b"mark\0" + hashed).hexdigest()[:32]

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False)
