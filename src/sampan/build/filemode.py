"""``--chmod``: octal modes and chmod(1)'s symbolic ones.

mode   ::= octal | clause { "," clause }
clause ::= { "u" | "g" | "o" | "a" } ( "+" | "-" | "=" ) ( { "r" | "w" | "x" | "X" | "s" | "t" }
           | "u" | "g" | "o" )
"""

from __future__ import annotations

import re

from sampan.errors import InvalidParameter

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)")
_ACTION = re.compile(r"([-+=])([ugo](?![rwxXst])|[rwxXst]*)")
_OCTAL = "invalid chmod parameter: '{}'. it should be octal string and between 0 and 07777"
_SHIFT = {"u": 6, "g": 3, "o": 0}
_SPECIAL = {"u": 0o4000, "g": 0o2000, "o": 0}


def change_mode(text: str, mode: int, directory: bool) -> int:
    """``mode`` (permission bits) as ``text`` changes it; raises :class:`InvalidParameter`."""
    if text.isdecimal():
        try:
            value = int(text, 8)
        except ValueError:
            value = -1
        if not 0 <= value <= 0o7777:
            raise InvalidParameter(_OCTAL.format(text))
        return value
    for clause in text.split(","):
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            if text[:1].isdigit():
                raise InvalidParameter(_OCTAL.format(text))
            raise InvalidParameter(f'invalid chmod parameter: "{text}"')
        who = set(match[1].replace("a", "ugo") or "ugo")
        for operator, permissions in _ACTION.findall(match[2]):
            mode = _act(mode, who, operator, permissions, directory)
    return mode


def _act(mode: int, who: set[str], operator: str, permissions: str, directory: bool) -> int:
    wanted = 0
    if permissions in _SHIFT:
        bits = mode >> _SHIFT[permissions] & 7
    else:
        bits = 4 * ("r" in permissions) | 2 * ("w" in permissions) | ("x" in permissions)
        if "X" in permissions and (directory or mode & 0o111):
            bits |= 1
    mask = 0
    for one in who:
        wanted |= bits << _SHIFT[one]
        mask |= 7 << _SHIFT[one]
        if "s" in permissions:
            wanted |= _SPECIAL[one]
    if "t" in permissions:
        wanted |= 0o1000
    if operator == "+":
        return mode | wanted
    if operator == "-":
        return mode & ~wanted
    return (mode & ~mask) | wanted
