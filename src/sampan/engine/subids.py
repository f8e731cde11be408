"""Subordinate ids of the host's users (subuid(5)): which ones containers are given.

``userns-remap`` means what it means to dockerd: ``default`` stands for the user ``dockremap``, who
is made if need be; anything else is ``user[:group]`` by name or number.
"""

from __future__ import annotations

import grp
import pwd
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from sampan.engine.idranges import Pool, Span, default_pool
from sampan.errors import InvalidParameter, SampanError
from sampan.model.idmap import IdMap, Row

DEFAULT_USER = "dockremap"
#: whose subordinate ids containers with ``--userns auto`` get (as with podman)
POOL_USER = "containers"
_FIRST, _SIZE = 100_000, 65_536
_COMMAND_SECONDS = 30.0
_ETC = Path("/etc")


def remapping(text: str, etc: Path = _ETC) -> IdMap | None:
    """The ids ``userns-remap`` means; None for no remapping (also for root, as with dockerd).

    Blocks. Raises InvalidParameter, and SampanError when the user cannot be made.
    """
    if not text:
        return None
    user, group = _names(text, etc)
    if user == "root":
        return None
    number = str(pwd.getpwnam(user).pw_uid)
    uids = _spans(etc / "subuid", (user, number))
    gids = _spans(etc / "subgid", (user, number)) or _spans(etc / "subgid", (group,))
    for name, spans in (("subuid", uids), ("subgid", gids)):
        if not spans:
            raise InvalidParameter(
                f'userns-remap: Can\'t create ID mappings: no {name} ranges found for user "{user}"'
            )
    return IdMap(_rows(uids), _rows(gids))


def pool(data_root: Path, etc: Path = _ETC) -> Pool:
    """Where ranges for single containers come from: the ids of ``containers``, if it has any."""
    uids = _spans(etc / "subuid", (POOL_USER,))
    gids = _spans(etc / "subgid", (POOL_USER,))
    return Pool(tuple(uids), tuple(gids)) if uids and gids else default_pool(data_root)


def _names(text: str, etc: Path) -> tuple[str, str]:
    """User and group of a specification, which must exist."""
    words = text.split(":")
    if len(words) > 2 or not all(words):
        raise InvalidParameter(f"Invalid user/group specification in --userns-remap: {text!r}")
    word = words[0]
    if word == "default":
        word = DEFAULT_USER
        _ensure_default_user(etc)
    number = _number(word)
    try:
        user = pwd.getpwnam(word) if number is None else pwd.getpwuid(number)
    except KeyError:
        raise InvalidParameter(_missing("uid", "/etc/passwd", word, number)) from None
    word = words[-1] if len(words) == 2 else word
    group_number = _number(word)
    try:
        # A user's number alone is the group's number as well; a name alone the group's name.
        if len(words) == 1 and number is None:
            word, group_number = user.pw_name, None
        group = grp.getgrnam(word) if group_number is None else grp.getgrgid(group_number)
    except KeyError:
        raise InvalidParameter(_missing("gid", "/etc/group", word, group_number)) from None
    return user.pw_name, group.gr_name


def _missing(kind: str, file: str, word: str, number: int | None) -> str:
    if number is None:
        return f'Error during {kind} lookup for "{word}": no matching entries in {file}'
    return f"{kind.capitalize()} {number} has no entry in {file}"


def _number(word: str) -> int | None:
    return int(word) if word.isascii() and word.isdecimal() and len(word) <= 10 else None


def _spans(path: Path, names: Iterable[str]) -> list[Span]:
    """The ranges a file has for any of ``names``, by first id."""
    return sorted(span for name, span in _entries(path) if name in set(names))


def _entries(path: Path) -> list[tuple[str, Span]]:
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InvalidParameter(f"userns-remap: {path}: {error.strerror}") from error
    found = []
    for line in text.splitlines():
        name, _, numbers = line.strip().partition(":")
        first, _, count = numbers.partition(":")
        if not name or name.startswith("#"):
            continue
        if not (first.isdecimal() and count.isdecimal()):
            raise InvalidParameter(f"userns-remap: {path}: invalid line {line!r}")
        if int(count):
            found.append((name, (int(first), int(count))))
    return found


def _rows(spans: Iterable[Span]) -> tuple[Row, ...]:
    """All ranges as one row of ids inside, from 0 on."""
    rows: list[Row] = []
    inside = 0
    for first, count in spans:
        rows.append((inside, first, count))
        inside += count
    return tuple(rows)


def _ensure_default_user(etc: Path) -> None:
    """The user and group ``dockremap`` with ids of their own."""
    try:
        pwd.getpwnam(DEFAULT_USER)
    except KeyError:
        _command("useradd", "--system", "--user-group", "--shell", "/bin/false", DEFAULT_USER)
    for file, flag in (("subuid", "--add-subuids"), ("subgid", "--add-subgids")):
        entries = _entries(etc / file)
        if any(name == DEFAULT_USER for name, _ in entries):
            continue
        first = max((start + count for _, (start, count) in entries), default=_FIRST)
        first = max(first, _FIRST)
        _command("usermod", flag, f"{first}-{first + _SIZE - 1}", DEFAULT_USER)


def _command(name: str, *arguments: str) -> None:
    program = shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        raise SampanError(
            f'userns-remap: Error during "{DEFAULT_USER}" user creation: no {name} on this host'
        )
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SampanError(f"userns-remap: {name}: {error}") from error
    if done.returncode:
        raise SampanError(
            f'userns-remap: Error during "{DEFAULT_USER}" user creation: {done.stderr.strip()}'
        )
