"""Mount specifications of a create request -> MountRecords (pure; dockerd's grammar and messages).

    bind ::= [ source ":" ] target [ ":" mode { "," mode } ]

A relative source is the name of a volume. mode: ro rw z Z nocopy [r]shared [r]slave [r]private,
podman's idmap and U, and the consistency words, which mean nothing on Linux.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence

import msgspec

from sampan.engine import idmapspec
from sampan.engine.names import check_volume_name
from sampan.engine.record import MountRecord
from sampan.errors import InvalidParameter
from sampan.wire.container import Mount, MountBindOptions, MountTmpfsOptions

PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_GROUPS: tuple[frozenset[str], ...] = (
    frozenset({"ro", "rw"}),
    frozenset({"z", "Z"}),
    frozenset({"nocopy"}),
    PROPAGATIONS,
    frozenset({"consistent", "cached", "delegated"}),
    frozenset({"idmap"}),
    frozenset({"U"}),
)


def parse_bind(text: str, driver: str = "") -> MountRecord:
    """The mount a ``-v`` specification means; raises InvalidParameter."""
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise InvalidParameter(f"invalid volume specification: '{text}'")
    mode = parts[2] if len(parts) == 3 else ""
    if len(parts) == 1:
        source, target = "", parts[0]
    else:
        source, target = parts[0], parts[1]
        if len(parts) == 2 and _valid_mode(target):
            raise InvalidParameter(f"invalid volume specification: '{text}'")
    if len(parts) == 3 and not _valid_mode(mode):
        raise InvalidParameter(f"invalid mode: {mode}")
    words = mode.split(",") if mode else []
    bind = source.startswith("/")
    kind = "bind" if bind else "volume"
    target = _target(target, kind, text)
    propagation = next((word for word in words if word in PROPAGATIONS), "")
    if (propagation and not bind) or ("nocopy" in words and bind):
        raise InvalidParameter(
            f"invalid volume specification: '{text}': invalid mount config for type \"{kind}\": "
            f"field {'VolumeOptions' if bind else 'BindOptions'} must not be specified"
        )
    if not bind and source:
        check_volume_name(source)
    idmap = next((word for word in words if word.partition("=")[0] == "idmap"), "")
    if idmap:
        idmapspec.check(idmap)
    return MountRecord(
        type=kind,
        destination=target,
        source=posixpath.normpath(source) if bind else "",
        name="" if bind else source,
        driver="" if bind else driver,
        mode=mode,
        writable="ro" not in words,
        propagation=(propagation or "rprivate") if bind else "",
        create_source=bind,
        copy_up="nocopy" not in words,
        anonymous=not bind and not source,
        idmap=idmap,
        chown="U" in words,
    )


def _valid_mode(mode: str) -> bool:
    """Whether each comma-separated word is known and no two are of one group."""
    words = mode.split(",")
    used: set[int] = set()
    for word in words:
        name = word.partition("=")[0] if word.startswith("idmap=") else word
        group = next((i for i, group in enumerate(_GROUPS) if name in group), None)
        if group is None or group in used:
            return False
        used.add(group)
    return True


def _target(target: str, kind: str, context: str) -> str:
    prefix = f"invalid volume specification: '{context}': " if context else ""
    prefix += f'invalid mount config for type "{kind}": '
    if not target:
        raise InvalidParameter(f"{prefix}field Target must not be empty")
    if not target.startswith("/"):
        raise InvalidParameter(
            f"{prefix}invalid mount path: '{target}' mount path must be absolute"
        )
    clean = posixpath.normpath(target)
    if clean in ("/", "//"):
        raise InvalidParameter(f"{prefix}invalid specification: destination can't be '/'")
    return clean


def parse_mount(mount: Mount) -> MountRecord:
    """The mount a ``--mount`` object means; raises InvalidParameter."""
    kind = mount.type or ""
    parsers = {"bind": _bind, "volume": _volume, "tmpfs": _tmpfs, "image": _image}
    parser = parsers.get(kind)
    if parser is None:
        if kind in ("npipe", "cluster"):
            raise InvalidParameter(f'invalid mount config for type "{kind}": not on Linux')
        raise InvalidParameter(f"mount type unknown: '{kind}'")
    _exclusive(mount, kind)
    return parser(mount, _target(mount.target or "", kind, ""))


def _exclusive(mount: Mount, kind: str) -> None:
    """Options of another mount type are an error, as in dockerd."""
    for name, options in (
        ("BindOptions", mount.bind_options),
        ("VolumeOptions", mount.volume_options),
        ("TmpfsOptions", mount.tmpfs_options),
        ("ImageOptions", mount.image_options),
    ):
        if options is not None and name.removesuffix("Options").lower() != kind:
            raise InvalidParameter(
                f'invalid mount config for type "{kind}": field {name} must not be specified'
            )


def _bind(mount: Mount, target: str) -> MountRecord:
    source = mount.source or ""
    prefix = 'invalid mount config for type "bind": '
    if not source:
        raise InvalidParameter(f"{prefix}field Source must not be empty")
    if not source.startswith("/"):
        raise InvalidParameter(
            f"{prefix}invalid mount path: '{source}' mount path must be absolute"
        )
    options = mount.bind_options or MountBindOptions()
    propagation = options.propagation or "rprivate"
    if propagation not in PROPAGATIONS:
        raise InvalidParameter(f"{prefix}invalid propagation mode: {propagation}")
    if not mount.read_only and (
        options.read_only_non_recursive or options.read_only_force_recursive
    ):
        raise InvalidParameter(f"{prefix}mount must be read-only to set its read-only recursion")
    if options.read_only_non_recursive and options.read_only_force_recursive:
        raise InvalidParameter(
            f"{prefix}ReadOnlyNonRecursive and ReadOnlyForceRecursive contradict each other"
        )
    return MountRecord(
        type="bind",
        destination=target,
        source=posixpath.normpath(source),
        writable=not mount.read_only,
        propagation=propagation,
        recursive=not options.non_recursive,
        read_only_recursive=not options.read_only_non_recursive,
        read_only_forced=bool(options.read_only_force_recursive),
        create_source=bool(options.create_mountpoint),
        copy_up=False,
        idmap=_idmap(options.idmap),
        chown=bool(options.chown),
    )


def _idmap(text: str | None) -> str:
    if text:
        idmapspec.check(text)
    return text or ""


def _volume(mount: Mount, target: str) -> MountRecord:
    name = mount.source or ""
    if name:
        if name.startswith("/"):
            raise InvalidParameter(
                'invalid mount config for type "volume": invalid mount path: '
                f"'{name}' source of a volume is a name"
            )
        check_volume_name(name)
    options = mount.volume_options
    driver = options.driver_config if options else None
    subpath = (options.subpath if options else None) or ""
    _check_subpath(subpath, "volume")
    if subpath and not name:
        raise InvalidParameter(
            'invalid mount config for type "volume": subpath must not be set when using anonymous '
            "volumes"
        )
    return MountRecord(
        type="volume",
        destination=target,
        name=name,
        driver=(driver.name if driver else None) or "",
        driver_options=(driver.options if driver else None) or {},
        labels=(options.labels if options else None) or {},
        mode="z",
        writable=not mount.read_only,
        copy_up=not (options and options.no_copy),
        anonymous=not name,
        subpath=subpath,
        idmap=_idmap(options.idmap if options else None),
        chown=bool(options and options.chown),
    )


def _check_subpath(subpath: str, kind: str) -> None:
    if subpath.startswith("/") or ".." in subpath.split("/"):
        raise InvalidParameter(
            f'invalid mount config for type "{kind}": subpath must be a relative path within the '
            "volume"
        )


def _tmpfs(mount: Mount, target: str) -> MountRecord:
    if mount.source:
        raise InvalidParameter(
            'invalid mount config for type "tmpfs": field Source must not be specified'
        )
    options = mount.tmpfs_options or MountTmpfsOptions()
    words: list[str] = []
    if mount.read_only:
        words.append("ro")
    if options.mode:
        words.append(f"mode={options.mode:o}")
    if options.size_bytes:
        words.append(f"size={options.size_bytes}")
    words.extend("=".join(pair) for pair in options.options or [])
    return MountRecord(
        type="tmpfs",
        destination=target,
        writable=not mount.read_only,
        options=words,
        copy_up=False,
    )


def _image(mount: Mount, target: str) -> MountRecord:
    if not mount.source:
        raise InvalidParameter(
            'invalid mount config for type "image": field Source must not be empty'
        )
    subpath = (mount.image_options.subpath if mount.image_options else None) or ""
    _check_subpath(subpath, "image")
    return MountRecord(
        type="image",
        destination=target,
        name=mount.source,
        writable=False,  # as dockerd: what is written would be nobody's
        subpath=subpath,
        copy_up=False,
    )


def parse_volumes_from(text: str) -> tuple[str, str]:
    """Container reference and mode (rw when absent) of a ``--volumes-from`` value."""
    ref, colon, mode = text.partition(":")
    if not ref:
        raise InvalidParameter(f'invalid volumes-from specification: "{text}"')
    mode = mode if colon else "rw"
    if not _valid_mode(mode) or not {"copy", "nocopy"}.isdisjoint(mode.split(",")):
        raise InvalidParameter(f"invalid mode: {mode}")
    return ref, mode


def inherit(mounts: Iterable[MountRecord], mode: str) -> list[MountRecord]:
    """Another container's mounts as ``--volumes-from`` takes them over."""
    read_only = "ro" in mode.split(",")
    return [
        MountRecord(
            type=mount.type,
            destination=mount.destination,
            source=mount.source,
            name=mount.name,
            anonymous=mount.anonymous,
            driver=mount.driver,
            mode=mode if mode != "rw" else mount.mode,
            writable=mount.writable and not read_only,
            propagation=mount.propagation,
            recursive=mount.recursive,
            read_only_recursive=mount.read_only_recursive,
            subpath=mount.subpath,
            copy_up=False,
            idmap=mount.idmap,
        )
        for mount in mounts
        if mount.type in ("bind", "volume")
    ]


def alone_read_only(mount: MountRecord) -> MountRecord:
    """A bind that, if it is read-only, leaves what is mounted below it as that is on the host."""
    alone = mount.type == "bind" and not mount.read_only_forced
    return msgspec.structs.replace(mount, read_only_recursive=False) if alone else mount


def on_one_path(source: str, root: str) -> bool:
    """Whether one of two absolute paths is the other or holds it."""
    return posixpath.commonpath([source, root]) in (source, root)


def beside_root(mount: MountRecord, root: str, *, asked: bool) -> MountRecord:
    """A bind of what holds the data root, or lies in it, follows the host's mounts: ``rslave``.

    Else it would keep the containers' mounts below ``root`` busy after the host let go of them.
    ``asked``: the propagation is the user's. Raises InvalidParameter when it cannot be his.
    """
    if mount.type != "bind" or not on_one_path(mount.source, root):
        return mount
    if not asked:
        return msgspec.structs.replace(mount, propagation="rslave")
    if mount.propagation not in ("rslave", "rshared"):
        raise InvalidParameter(
            'invalid mount config: must use either propagation mode "rslave" or "rshared" when '
            f'mount source is within the daemon root, daemon root: "{root}", bind mount source: '
            f'"{mount.source}", propagation: "{mount.propagation}"'
        )
    return mount


def combine(
    inherited: Sequence[MountRecord],
    binds: Sequence[MountRecord],
    mounts: Sequence[MountRecord],
    tmpfs: Iterable[str],
    volumes: Iterable[str],
    driver: str = "",
) -> list[MountRecord]:
    """All mounts of a container: explicit ones override inherited ones and declared volumes.

    Two explicit mounts on one target raise InvalidParameter.
    """
    explicit: dict[str, MountRecord] = {}
    taken = {posixpath.normpath(target) for target in tmpfs}
    for mount in (*binds, *mounts):
        if mount.destination in explicit or mount.destination in taken:
            raise InvalidParameter(f"Duplicate mount point: {mount.destination}")
        explicit[mount.destination] = mount
    result = {mount.destination: mount for mount in inherited} | explicit
    for target in volumes:
        volume = parse_bind(target, driver)
        if volume.destination not in result and volume.destination not in taken:
            result[volume.destination] = volume
    return list(result.values())
