"""A container's logging configuration -> what its monitor writes (pure; dockerd's options)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from sampan.engine.config import EngineConfig
from sampan.engine.logdrivers import LogDriver, registry
from sampan.engine.record import Record
from sampan.errors import InvalidParameter
from sampan.runtime.client import LogSettings
from sampan.wire.container import HostConfigLogConfig

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)i?b?", re.IGNORECASE)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}

_COMMON = frozenset({"mode", "max-buffer-size"})
_FILE = _COMMON | {"max-size", "max-file", "compress"}
_ATTRIBUTES = frozenset({"labels", "labels-regex", "env", "env-regex", "tag"})
_CACHE = frozenset({"cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"})
_OPTIONS: Mapping[str, frozenset[str]] = {
    "json-file": _FILE | _ATTRIBUTES,
    "local": _FILE,
    "none": _COMMON,
}
_TAG = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")
_TAG_FIELDS = frozenset(
    {"ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName", "DaemonName", "Command"}
)


def drivers() -> list[str]:
    """The names of all log drivers."""
    return sorted({*_OPTIONS, *registry.names()})


def known_options(kind: str) -> frozenset[str]:
    """What may be set for a driver; raises InvalidParameter when there is none of that name."""
    if kind in _OPTIONS:
        return _OPTIONS[kind]
    driver = registry.find(kind)
    if driver is None:
        raise InvalidParameter(f"logger: no log driver named '{kind}' is registered")
    return driver.options | _COMMON | _CACHE | _ATTRIBUTES


def file(kind: str, directory: Path, container_id: str) -> str:
    """Where the monitor writes: the log, or the cache of a driver that sends it elsewhere."""
    match kind:
        case "json-file":
            return str(directory / f"{container_id}-json.log")
        case "local":
            return str(directory / "local-logs" / "container.log")
        case "none":
            return ""
        case _:
            return str(directory / "container-cached.log")


def parse_size(text: str) -> int:
    """Bytes of ``10m``, ``1.5g``, ``-1`` (no bound: 0); units are powers of 1024."""
    if text.strip() == "-1":
        return 0
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidParameter(f"invalid size: '{text}'")
    return int(float(match[1]) * (1 << _UNITS[match[2].lower()]))


def complete(wanted: HostConfigLogConfig | None, config: EngineConfig) -> HostConfigLogConfig:
    """The driver and options that apply, checked; raises InvalidParameter."""
    kind = (wanted.type if wanted else None) or config.log_driver
    own = (wanted.config if wanted else None) or {}
    defaults = config.log_options if kind == config.log_driver else {}
    allowed = known_options(kind)
    usable = {key: value for key, value in defaults.items() if key in allowed}
    options = {**usable, **own}
    for key in options:
        if key not in allowed:
            raise InvalidParameter(f"unknown log opt '{key}' for {kind} log driver")
    _check(options)
    if (driver := forwarded(kind)) is not None:
        driver.check(options)
    return HostConfigLogConfig(type=kind, config=options)


def forwarded(kind: str) -> LogDriver | None:
    """The driver of this name if it sends logs elsewhere; Unavailable when it cannot be loaded."""
    return None if kind in _OPTIONS else registry.find(kind)


def _check(options: Mapping[str, str]) -> None:
    for key, value in options.items():
        if key in ("max-size", "max-buffer-size", "cache-max-size"):
            parse_size(value)
        elif key in ("max-file", "cache-max-file"):
            if not (value.isdecimal() and int(value) >= 1):
                raise InvalidParameter(f"invalid value for option {key}: {value}: not at least 1")
        elif key in ("compress", "cache-compress", "cache-disabled"):
            if value not in ("true", "false"):
                raise InvalidParameter(f"invalid value for option {key}: {value}")
        elif key == "mode" and value not in ("blocking", "non-blocking"):
            raise InvalidParameter(f"logger: unknown log mode: {value}")
        elif key in ("labels-regex", "env-regex"):
            _check_expression(key, value)
        elif key == "tag" and not _is_tag(value):
            raise InvalidParameter(f"invalid log tag template: {value!r}")
    if "max-buffer-size" in options and options.get("mode") != "non-blocking":
        raise InvalidParameter(
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
        )


def _is_tag(template: str) -> bool:
    """Whether a template has nothing but fields."""
    return set(_TAG.findall(template)) <= _TAG_FIELDS and "{{" not in _TAG.sub("", template)


def _check_expression(key: str, value: str) -> None:
    try:
        re.compile(value)
    except re.error as error:
        raise InvalidParameter(f"invalid value for option {key}: {error}") from error


def settings(record: Record) -> LogSettings:
    """What the monitor needs to know."""
    log = record.host_config.log_config or HostConfigLogConfig()
    options, kind = log.config or {}, log.type or "none"
    if kind not in _OPTIONS:
        # A destination may lag behind by what the cache holds, whatever the driver calls that.
        bound = options.get("fluentd-buffer-limit", "20m")
        return LogSettings(
            driver="local",
            path=record.log_path,
            max_size=parse_size(options.get("cache-max-size", bound)),
            max_file=int(options.get("cache-max-file", "5")),
            compress=options.get("cache-compress", "false") == "true",
        )
    # No log grows without bound unless somebody says so (max-size=-1).
    local = kind == "local"
    return LogSettings(
        driver=kind,
        path=record.log_path,
        max_size=parse_size(options.get("max-size", "20m" if local else "10m")),
        max_file=int(options.get("max-file", "5" if local else "3")),
        compress=options.get("compress", "true" if local else "false") == "true",
        attrs=attributes(record, options) if kind == "json-file" else {},
        mode=options.get("mode", "blocking"),
    )


def attributes(record: Record, options: Mapping[str, str]) -> dict[str, str]:
    """The ``attrs`` of every line: chosen labels and variables, and the tag if one is set."""
    found = chosen(record, options)
    if tag := options.get("tag"):
        found["tag"] = expand_tag(tag, record)
    return found


def chosen(record: Record, options: Mapping[str, str]) -> dict[str, str]:
    """The labels and variables that ``labels``, ``env`` and their expressions pick."""
    labels = record.config.labels or {}
    env = dict(entry.partition("=")[::2] for entry in record.config.env or [])
    found: dict[str, str] = {}
    for names, pattern, values in (
        (options.get("labels", ""), options.get("labels-regex", ""), labels),
        (options.get("env", ""), options.get("env-regex", ""), env),
    ):
        named = set(filter(None, names.split(",")))
        expression = re.compile(pattern) if pattern else None
        for key, value in values.items():
            if key in named or (expression is not None and expression.search(key)):
                found[key] = value
    return found


def expand_tag(template: str, record: Record) -> str:
    """A checked tag template: ``{{.ID}} {{.Name}} {{.ImageName}} ...``."""
    values = {
        "ID": record.id[:12],
        "FullID": record.id,
        "Name": record.name,
        "ImageID": record.image_id[:12],  # its algorithm is part of it, as for dockerd
        "ImageFullID": record.image_id,
        "ImageName": record.image,
        "DaemonName": "docker",
        "Command": " ".join([record.path, *record.args]),
    }

    return _TAG.sub(lambda match: values[match[1]], template)
