"""``--mount``: comma-separated ``key=value`` fields (RFC 4180) to the API's Mount object.

``idmap[=...]`` and ``U`` are podman's.
"""

from __future__ import annotations

import os

from sampan.cli.command import Kind
from sampan.cli.kinds import parse_bool, parse_bytes, split_csv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.client.document import Document

_FLAGS = (
    *("readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src"),
    *("idmap", "u", "chown"),
)


class _Builder:
    """The mount being read; options are kept by the type they belong to."""

    def __init__(self) -> None:
        self.mount: Document = {"Type": "volume"}
        self.bind: Document = {}
        self.volume: Document = {}
        self.image: Document = {}
        self.tmpfs: Document = {}
        self.labels: dict[str, str] = {}
        self.driver: Document = {}
        self.driver_options: dict[str, str] = {}
        #: podman's options, of binds and volumes alike
        self.owners: Document = {}


def parse_mount(text: str) -> Document:
    """One mount. Raises ``ValueError`` with Docker's wording."""
    builder = _Builder()
    for field in split_csv(text.strip()) if text.strip() else [""]:
        key, equals, value = field.partition("=")
        key = key.lower()
        if not equals:
            if key not in _FLAGS:
                raise ValueError(f"invalid field '{field}' must be a key=value pair")
            value = "" if key == "idmap" else "true"
        if key != key.strip():
            message = f"invalid option '{key}' in '{field}': option should not have whitespace"
            raise ValueError(message)
        _set(builder, key, value)
    return _finish(builder)


def _set(builder: _Builder, key: str, value: str) -> None:
    mount = builder.mount
    if key == "type":
        mount["Type"] = value.lower()
    elif key in ("source", "src"):
        relative = value == "." or value.startswith(("./", "../")) or value == ".."
        mount["Source"] = os.path.abspath(value) if relative else value
    elif key in ("target", "dst", "destination"):
        mount["Target"] = value
    elif key in ("readonly", "ro"):
        mount["ReadOnly"] = _boolean(key, value)
    elif key == "idmap":
        builder.owners["IDMap"] = f"idmap={value}" if value else "idmap"
    elif key in ("u", "chown"):
        builder.owners["Chown"] = _boolean(key, value)
    elif key == "consistency":
        mount["Consistency"] = value.lower()
    elif key.startswith("bind-"):
        _set_bind(builder, key, value)
    elif key.startswith("volume-"):
        _set_volume(builder, key, value)
    elif key == "image-subpath":
        builder.image["Subpath"] = value
    elif key.startswith("tmpfs-"):
        _set_tmpfs(builder, key, value)
    else:
        raise ValueError(f"unexpected key '{key}' in '{key}={value}'")


def _set_bind(builder: _Builder, key: str, value: str) -> None:
    if key == "bind-propagation":
        builder.bind["Propagation"] = value.lower()
    elif key == "bind-nonrecursive":
        raise ValueError("bind-nonrecursive is deprecated, use bind-recursive=disabled instead")
    elif key == "bind-create-src":
        builder.bind["CreateMountpoint"] = _boolean(key, value)
    elif key == "bind-recursive":
        names = {
            "enabled": {},
            "disabled": {"NonRecursive": True},
            "writable": {"ReadOnlyNonRecursive": True},
            "readonly": {"ReadOnlyForceRecursive": True},
        }
        if value not in names:
            raise ValueError(
                f'invalid value for {key}: {value} (must be "enabled", "disabled", "writable", '
                'or "readonly")'
            )
        builder.bind.update(names[value])
    else:
        raise ValueError(f"unexpected key '{key}' in '{key}={value}'")


def _set_volume(builder: _Builder, key: str, value: str) -> None:
    if key == "volume-subpath":
        builder.volume["Subpath"] = value
    elif key == "volume-nocopy":
        try:
            builder.volume["NoCopy"] = parse_bool(value)
        except ValueError:
            raise ValueError(f"invalid value for volume-nocopy: {value}") from None
    elif key == "volume-label":
        name, _equals, content = value.partition("=")
        builder.labels[name] = content
    elif key == "volume-driver":
        builder.driver["Name"] = value
    elif key == "volume-opt":
        name, _equals, content = value.partition("=")
        builder.driver_options[name] = content
    else:
        raise ValueError(f"unexpected key '{key}' in '{key}={value}'")


def _set_tmpfs(builder: _Builder, key: str, value: str) -> None:
    if key == "tmpfs-size":
        try:
            builder.tmpfs["SizeBytes"] = parse_bytes(value)
        except ValueError:
            raise ValueError(f"invalid value for {key}: {value}") from None
    elif key == "tmpfs-mode":
        try:
            builder.tmpfs["Mode"] = int(value, 8)
        except ValueError:
            raise ValueError(f"invalid value for {key}: {value}") from None
    else:
        raise ValueError(f"unexpected key '{key}' in '{key}={value}'")


def _boolean(key: str, value: str) -> bool:
    try:
        return parse_bool(value)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


def _finish(builder: _Builder) -> Document:
    mount = builder.mount
    kind = str(mount["Type"])
    if not mount.get("Target"):
        raise ValueError("target is required")
    if builder.driver_options:
        builder.driver["Options"] = dict(builder.driver_options)
    if builder.driver:
        builder.volume["DriverConfig"] = builder.driver
    if builder.labels:
        builder.volume["Labels"] = dict(builder.labels)
    if builder.owners:
        if kind not in ("bind", "volume"):
            raise ValueError(f"idmap and U are no options of mount type '{kind}'")
        (builder.bind if kind == "bind" else builder.volume).update(builder.owners)
    groups = {
        "bind": ("BindOptions", builder.bind),
        "volume": ("VolumeOptions", builder.volume),
        "image": ("ImageOptions", builder.image),
        "tmpfs": ("TmpfsOptions", builder.tmpfs),
    }
    for name, (member, options) in groups.items():
        if options and name != kind:
            raise ValueError(f"cannot mix '{name}-*' options with mount type '{kind}'")
        if options:
            mount[member] = options
    if builder.bind.get("ReadOnlyForceRecursive"):
        needed = "option 'bind-recursive=readonly' requires '{}' to be specified in conjunction"
        if not mount.get("ReadOnly"):
            raise ValueError(needed.format("readonly"))
        if builder.bind.get("Propagation") != "rprivate":
            raise ValueError(needed.format("bind-propagation=rprivate"))
    return mount


MOUNT = Kind("mount", parse_mount, many=True)
