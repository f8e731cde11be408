"""``--device``, ``--device-cgroup-rule``, ``--gpus``, ``--ulimit`` and block IO limits."""

from __future__ import annotations

import re

from sampan.cli.command import Kind
from sampan.cli.fault import CliError
from sampan.cli.kinds import parse_bytes, split_csv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.client.document import Document, Json

_ULIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc",
    "rss", "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip
_RULE = re.compile(r"[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}")
_CDI_VENDOR = re.compile(r"[a-zA-Z]([\w.-]*[a-zA-Z0-9])?")
_CDI_NAME = re.compile(r"[a-zA-Z0-9]([\w.:-]*[a-zA-Z0-9])?")


def is_cdi_name(text: str) -> bool:
    """Whether ``text`` is a qualified CDI device name, ``vendor.com/class=name``."""
    kind, equals, name = text.partition("=")
    vendor, slash, group = kind.partition("/")
    return bool(
        equals
        and slash
        and _CDI_VENDOR.fullmatch(vendor)
        and _CDI_VENDOR.fullmatch(group)
        and _CDI_NAME.fullmatch(name)
    )


def _valid_mode(mode: str) -> bool:
    return bool(mode) and set(mode) <= set("rwm") and len(set(mode)) == len(mode)


def validate_device(text: str) -> str:
    """``HOST[:CONTAINER[:MODE]]`` or a CDI name. Raises ``ValueError``."""
    if is_cdi_name(text):
        return text
    parts = text.split(":")
    if not text or not parts[0]:
        raise ValueError(f"bad format for path: {text}")
    if len(parts) > 3:
        raise ValueError(f"bad format for path: {text}")
    if len(parts) == 3 and not _valid_mode(parts[2]):
        raise ValueError(f"bad mode specified: {parts[2]}")
    path = parts[1] if len(parts) > 1 and not _valid_mode(parts[1]) else parts[0]
    if not path.startswith("/"):
        raise ValueError(f"{path} is not an absolute path")
    return text


def parse_device(text: str) -> Document:
    """The API's DeviceMapping. Raises :class:`CliError`."""
    parts = text.split(":")
    source, target, mode = parts[0], parts[0], "rwm"
    if len(parts) == 3:
        target, mode = parts[1], parts[2]
    elif len(parts) == 2:
        if _valid_mode(parts[1]):
            mode = parts[1]
        else:
            target = parts[1]
    elif len(parts) != 1:
        raise CliError(f"invalid device specification: {text}")
    return {
        "PathOnHost": source,
        "PathInContainer": target or source,
        "CgroupPermissions": mode,
    }


def validate_rule(text: str) -> str:
    """A device cgroup rule. Raises ``ValueError``."""
    if not _RULE.fullmatch(text):
        raise ValueError(f"invalid device cgroup format '{text}'")
    return text


def _limit(text: str, rate: str, parse: type[int] | None) -> Document:
    path, colon, value = text.partition(":")
    if not colon:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    try:
        number = parse_bytes(value) if parse is None else parse(value)
        if number < 0:
            raise ValueError
    except ValueError:
        unit = "[<unit>]" if parse is None else ""
        shape = f"<device-path>:<number>{unit}"
        tail = ". Unit is optional and can be kb, mb, or gb" if parse is None else ""
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is {shape}. Number must be a "
            f"positive integer{tail}"
        ) from None
    return {"Path": path, rate: number}


def parse_bps(text: str) -> Document:
    """``PATH:RATE[unit]``. Raises ``ValueError``."""
    return _limit(text, "Rate", None)


def parse_iops(text: str) -> Document:
    """``PATH:RATE``. Raises ``ValueError``."""
    return _limit(text, "Rate", int)


def parse_weight(text: str) -> Document:
    """``PATH:WEIGHT``. Raises ``ValueError``."""
    path, colon, value = text.partition(":")
    if not colon:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    if not value.isdecimal() or (int(value) and not 10 <= int(value) <= 1000):
        raise ValueError(f"invalid weight for device: {text}")
    return {"Path": path, "Weight": int(value)}


def parse_ulimit(text: str) -> Document:
    """``NAME=SOFT[:HARD]``. Raises ``ValueError``."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    limits = []
    for part in value.split(":", 1):
        if not part.removeprefix("-").isdecimal():
            raise ValueError(f'strconv.ParseInt: parsing "{part}": invalid syntax')
        limits.append(int(part))
    soft, hard = limits[0], limits[-1]
    if hard != -1 and (soft == -1 or soft > hard):
        shown = -1 if soft == -1 else soft
        raise ValueError(
            f"ulimit soft limit must be less than or equal to hard limit: {shown} > {hard}"
        )
    return {"Name": name, "Soft": soft, "Hard": hard}


def parse_gpus(text: str) -> Document:
    """``all``, a number, or CSV of count, device, driver, capabilities, options.

    Raises ``ValueError``.
    """
    request: Document = {}
    options: dict[str, str] = {}
    capabilities = ["gpu"]
    seen = set()
    for field in split_csv(text):
        key, equals, value = field.partition("=")
        if not equals:
            key, value = "count", key
        if key in seen:
            raise ValueError(f"gpu request key '{key}' can be specified only once")
        seen.add(key)
        if key == "count":
            request["Count"] = _gpu_count(value)
        elif key == "device":
            ids: list[Json] = list(value.split(","))
            request["DeviceIDs"] = ids
        elif key == "driver":
            request["Driver"] = value
        elif key == "capabilities":
            capabilities = ["gpu", *(name for name in value.split(",") if name != "gpu")]
        elif key == "options":
            for option in value.split(","):
                name, _equals, content = option.partition("=")
                options[name] = content
        else:
            raise ValueError(f"unexpected key '{key}' in '{field}'")
    if "Count" not in request and "DeviceIDs" not in request:
        request["Count"] = 1
    names: list[Json] = list(capabilities)
    return {**request, "Capabilities": [names], "Options": dict(options)}


def _gpu_count(text: str) -> int:
    if text == "all":
        return -1
    if not text.removeprefix("-").isdecimal():
        raise ValueError(
            f'invalid count ({text}): value must be either "all" or an integer: invalid syntax'
        )
    return int(text)


DEVICE_RULE = Kind("list", validate_rule, many=True)
BPS = Kind("list", parse_bps, many=True)
IOPS = Kind("list", parse_iops, many=True)
WEIGHT = Kind("list", parse_weight, many=True)
ULIMIT = Kind("ulimit", parse_ulimit, many=True)
GPUS = Kind("gpu-request", parse_gpus, many=True)
