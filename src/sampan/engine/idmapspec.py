"""The ``idmap`` option of mounts (pure), in podman's words (podman-run(1), ``--mount``).

    idmap   ::= "idmap" [ "=" lists ]
    lists   ::= "uids=" mapping { "#" mapping } ";" "gids=" mapping { "#" mapping }
    mapping ::= [ "@" ] on-disk "-" shown "-" count

Without lists, owners are shown as the same ids inside the container. ``shown`` is an id of the
host, or with ``@`` one inside the container.
"""

from __future__ import annotations

from collections.abc import Sequence

from sampan.errors import InvalidParameter
from sampan.model.idmap import IdMap, Row, inside, outside

_ID_LIMIT = 1 << 32
#: of mounts the engine makes: shown as the same ids inside, where the file system can do that
TRY = "try"


def check(text: str) -> None:
    """Raises InvalidParameter for what is no ``idmap`` option. ``text``: with the word itself."""
    word, equals, lists = text.partition("=")
    if word != "idmap" or (equals and not lists):
        raise InvalidParameter(f"invalid mount option {text!r}")
    if equals:
        _lists(text, lists)


def custom(text: str, ids: IdMap | None) -> IdMap | None:
    """The mapping an option spells out: on disk -> shown; None when it spells out none.

    Raises InvalidParameter, also for ids ``ids`` (the container's) does not have.
    """
    _, _, lists = text.partition("=")
    if not lists:
        return None
    uids, gids = _lists(text, lists)
    return IdMap(
        tuple(_row(entry, ids.uids if ids else None, text) for entry in uids),
        tuple(_row(entry, ids.gids if ids else None, text) for entry in gids),
    )


def on_disk(mapping: IdMap, uid: int, gid: int) -> tuple[int, int]:
    """The owner on disk that is shown as the host's ``uid``, ``gid`` (not all are: 65534 then)."""
    return inside(mapping.uids, uid), inside(mapping.gids, gid)


_Entry = tuple[bool, int, int, int]


def _lists(text: str, lists: str) -> tuple[list[_Entry], list[_Entry]]:
    found: dict[str, list[_Entry]] = {}
    for part in lists.split(";"):
        name, _, mappings = part.partition("=")
        if name not in ("uids", "gids") or name in found:
            raise InvalidParameter(f"invalid mount option {text!r}: expected uids=...;gids=...")
        found[name] = [_entry(mapping, text) for mapping in mappings.split("#")]
    if len(found) != 2:
        raise InvalidParameter(f"invalid mount option {text!r}: uids and gids are both needed")
    return found["uids"], found["gids"]


def _entry(mapping: str, text: str) -> _Entry:
    numbers = mapping.removeprefix("@").split("-")
    if len(numbers) != 3 or not all(n.isascii() and n.isdecimal() for n in numbers):
        raise InvalidParameter(f"invalid mount option {text!r}: bad mapping {mapping!r}")
    disk, shown, count = map(int, numbers)
    if not count or max(disk, shown) + count > _ID_LIMIT:
        raise InvalidParameter(f"invalid mount option {text!r}: bad mapping {mapping!r}")
    return mapping.startswith("@"), disk, shown, count


def _row(entry: _Entry, rows: Sequence[Row] | None, text: str) -> Row:
    relative, disk, shown, count = entry
    if not relative:
        return disk, shown, count
    first, last = (
        (None, None) if rows is None else (outside(rows, shown), outside(rows, shown + count - 1))
    )
    if first is None or last is None or last - first != count - 1:
        raise InvalidParameter(
            f"mount option {text!r}: the container's user namespace has no {count} ids in a row "
            f"from {shown} on"
        )
    return disk, first, count
