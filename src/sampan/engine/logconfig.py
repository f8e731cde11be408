"""A container's logging configuration -> what its monitor writes (pure; dockerd's options)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sampan.engine.config import EngineConfig
from sampan.engine.record import Record
from sampan.errors import InvalidParameter
from sampan.runtime.client import LogSettings
from sampan.wire.container import HostConfigLogConfig

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)i?b?", re.IGNORECASE)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}

_COMMON = frozenset({"mode", "max-buffer-size"})
_FILE = _COMMON | {"max-size", "max-file", "compress"}
_ATTRIBUTES = frozenset({"labels", "labels-regex", "env", "env-regex", "tag"})
OPTIONS: Mapping[str, frozenset[str]] = {
    "json-file": _FILE | _ATTRIBUTES,
    "local": _FILE,
    "none": _COMMON,
}


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
    if kind not in OPTIONS:
        raise InvalidParameter(f"logger: no log driver named '{kind}' is registered")
    usable = {key: value for key, value in defaults.items() if key in OPTIONS[kind]}
    options = {**usable, **own}
    _check(kind, options)
    return HostConfigLogConfig(type=kind, config=options)


def _check(kind: str, options: Mapping[str, str]) -> None:
    for key, value in options.items():
        if key not in OPTIONS[kind]:
            raise InvalidParameter(f"unknown log opt '{key}' for {kind} log driver")
        if key in ("max-size", "max-buffer-size"):
            parse_size(value)
        elif key == "max-file" and not (value.isdecimal() and int(value) >= 1):
            raise InvalidParameter(f"invalid value for option max-file: {value}: not at least 1")
        elif key == "compress" and value not in ("true", "false"):
            raise InvalidParameter(f"invalid value for option compress: {value}")
        elif key == "mode" and value not in ("blocking", "non-blocking"):
            raise InvalidParameter(f"logger: unknown log mode: {value}")
    if "max-buffer-size" in options and options.get("mode") != "non-blocking":
        raise InvalidParameter(
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
        )


def settings(record: Record) -> LogSettings:
    """What the monitor needs to know."""
    log = record.host_config.log_config or HostConfigLogConfig()
    options, kind = log.config or {}, log.type or "none"
    local = kind == "local"
    return LogSettings(
        driver=kind,
        path=record.log_path,
        max_size=parse_size(options.get("max-size", "20m" if local else "-1")),
        max_file=int(options.get("max-file", "5" if local else "1")),
        compress=options.get("compress", "true" if local else "false") == "true",
        attrs=attributes(record, options) if kind == "json-file" else {},
        mode=options.get("mode", "blocking"),
    )


def attributes(record: Record, options: Mapping[str, str]) -> dict[str, str]:
    """The ``attrs`` of every line: chosen labels and variables, and the tag if one is set."""
    labels = record.config.labels or {}
    env = dict(entry.partition("=")[::2] for entry in record.config.env or [])
    found: dict[str, str] = {}
    for names, pattern, values in (
        (options.get("labels", ""), options.get("labels-regex", ""), labels),
        (options.get("env", ""), options.get("env-regex", ""), env),
    ):
        chosen = set(filter(None, names.split(",")))
        expression = re.compile(pattern) if pattern else None
        for key, value in values.items():
            if key in chosen or (expression is not None and expression.search(key)):
                found[key] = value
    if tag := options.get("tag"):
        found["tag"] = expand_tag(tag, record)
    return found


def expand_tag(template: str, record: Record) -> str:
    """A tag template: ``{{.ID}} {{.Name}} {{.ImageName}} ...``; raises InvalidParameter."""
    image_id = record.image_id.removeprefix("sha256:")
    values = {
        "ID": record.id[:12],
        "FullID": record.id,
        "Name": record.name,
        "ImageID": image_id[:12],
        "ImageFullID": image_id,
        "ImageName": record.image,
        "DaemonName": "docker",
    }

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise InvalidParameter(f"invalid log tag template: {template!r}")
        return values[match[1]]

    return re.sub(r"\{\{\s*\.(\w+)\s*\}\}", value, template)
