"""Mount option words of the OCI runtime spec (config.md "Linux mount options"), parsed (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sampan.errors import InvalidParameter
from sampan.kernel import mount as m

#: word -> (attributes set, attributes cleared)
_ATTRIBUTES = {
    "ro": (m.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, m.MOUNT_ATTR_RDONLY),
    "nosuid": (m.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, m.MOUNT_ATTR_NOSUID),
    "nodev": (m.MOUNT_ATTR_NODEV, 0),
    "dev": (0, m.MOUNT_ATTR_NODEV),
    "noexec": (m.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, m.MOUNT_ATTR_NOEXEC),
    "nodiratime": (m.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, m.MOUNT_ATTR_NODIRATIME),
    "noatime": (m.MOUNT_ATTR_NOATIME, m.MOUNT_ATTR__ATIME),
    "atime": (0, m.MOUNT_ATTR__ATIME),
    "relatime": (m.MOUNT_ATTR_RELATIME, m.MOUNT_ATTR__ATIME),
    "norelatime": (0, m.MOUNT_ATTR__ATIME),
    "strictatime": (m.MOUNT_ATTR_STRICTATIME, m.MOUNT_ATTR__ATIME),
    "nostrictatime": (0, m.MOUNT_ATTR__ATIME),
    "nosymfollow": (m.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, m.MOUNT_ATTR_NOSYMFOLLOW),
}
#: The same with AT_RECURSIVE have an "r" before them ("rro"); "relatime" stays itself.
_RECURSIVE = {f"r{word}": value for word, value in _ATTRIBUTES.items()}

PROPAGATION = {
    "private": (m.MS_PRIVATE, False),
    "rprivate": (m.MS_PRIVATE, True),
    "slave": (m.MS_SLAVE, False),
    "rslave": (m.MS_SLAVE, True),
    "shared": (m.MS_SHARED, False),
    "rshared": (m.MS_SHARED, True),
    "unbindable": (m.MS_UNBINDABLE, False),
    "runbindable": (m.MS_UNBINDABLE, True),
}

#: Properties of a superblock: nothing to a bind mount, flags to a new file system.
_SUPERBLOCK = frozenset({"sync", "dirsync", "mand", "lazytime"})
#: What a new mount is anyway, or what only tells mount(8) how to talk. File systems that count
#: versions of files do it always (ext4, the last one, since Linux 6.1): fsopen(2) has no word for
#: it.
_NOTHING = frozenset(
    ("defaults", "async", "nomand", "nolazytime", "iversion", "noiversion", "silent", "loud")
)
_BEHAVIOUR = frozenset({"bind", "rbind", "remount", "idmap", "ridmap", "tryidmap", "tmpcopyup"})
#: Every word that means something here; all others go to the file system.
WORDS = frozenset({*_ATTRIBUTES, *_RECURSIVE, *PROPAGATION, *_SUPERBLOCK, *_NOTHING, *_BEHAVIOUR})


@dataclass(frozen=True, slots=True, kw_only=True)
class MountOptions:
    """Option words sorted by what they are for.

    ``set_``, ``clear``: MOUNT_ATTR_* of the mount itself; ``recursive_*`` of it and all below.
    ``propagation``: (MS_* type, recursive) in order. ``data``: what the file system gets.
    ``try_idmap`` (the word ``tryidmap`` is sampan's own): idmap where the file system can.
    """

    bind: bool
    recursive_bind: bool
    remount: bool
    idmap: bool
    recursive_idmap: bool
    try_idmap: bool
    copy_up: bool
    set_: int
    clear: int
    recursive_set: int
    recursive_clear: int
    propagation: tuple[tuple[int, bool], ...]
    data: tuple[tuple[str, str | None], ...]


def parse(words: Iterable[str], fstype: str = "") -> MountOptions:
    """Sort option words; later ones override earlier ones. Raises :class:`InvalidParameter`."""
    flags: set[str] = set()
    plain, recursive = [0, 0], [0, 0]
    propagation: list[tuple[int, bool]] = []
    data: list[tuple[str, str | None]] = []
    for word in words:
        if word in _BEHAVIOUR:
            flags.add(word)
        elif word in _ATTRIBUTES:
            _apply(plain, *_ATTRIBUTES[word])
        elif word in _RECURSIVE:
            _apply(recursive, *_RECURSIVE[word])
        elif word in PROPAGATION:
            propagation.append(PROPAGATION[word])
        elif word not in _NOTHING:
            if not word or "\0" in word:
                raise InvalidParameter(f"invalid mount option {word!r}")
            key, equals, value = word.partition("=")
            data.append((key, value if equals else None))
    bind = bool(flags & {"bind", "rbind"}) or fstype == "bind"
    if bind:
        data = [(key, value) for key, value in data if key not in _SUPERBLOCK]
    return MountOptions(
        bind=bind,
        recursive_bind="rbind" in flags,
        remount="remount" in flags,
        idmap="idmap" in flags or "ridmap" in flags,
        recursive_idmap="ridmap" in flags,
        try_idmap="tryidmap" in flags,
        copy_up="tmpcopyup" in flags,
        set_=plain[0],
        clear=plain[1],
        recursive_set=recursive[0],
        recursive_clear=recursive[1],
        propagation=tuple(propagation),
        data=tuple(data),
    )


def _apply(state: list[int], set_: int, clear: int) -> None:
    """Override earlier words. An access time mode is one value in three bits, cleared whole."""
    state[0] = state[0] & ~clear & ~(m.MOUNT_ATTR__ATIME if clear & m.MOUNT_ATTR__ATIME else 0)
    state[0] |= set_
    state[1] = (state[1] & ~set_) | clear
    if state[0] & m.MOUNT_ATTR__ATIME:
        # mount_setattr(2): changing the access time mode takes the whole field in attr_clr.
        state[1] |= m.MOUNT_ATTR__ATIME
