"""``--security-opt``, ``--log-opt``, ``--storage-opt`` and the health check flags."""

from __future__ import annotations

import json

from sampan.cli.fault import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.client.document import Document

_UNCONFINED_PATHS = "systempaths=unconfined"
_HEALTH_DURATIONS = (
    ("health-interval", "Interval"),
    ("health-timeout", "Timeout"),
    ("health-start-period", "StartPeriod"),
    ("health-start-interval", "StartInterval"),
)


def parse_security(entries: list[str]) -> tuple[list[str], bool]:
    """The options for the daemon, and whether system paths stay unmasked.

    A seccomp profile is read here and sent as JSON. Raises :class:`CliError`.
    """
    options = []
    unmasked = False
    for entry in entries:
        if entry == _UNCONFINED_PATHS:
            unmasked = True
            continue
        name, mark, value = entry.partition("=")
        if not mark and entry != "no-new-privileges":
            name, mark, value = entry.partition(":")
            if not mark:
                raise CliError(f'Invalid --security-opt: "{entry}"')
        if name == "seccomp" and value not in ("unconfined", "builtin"):
            options.append(f"seccomp={_seccomp(value)}")
        else:
            options.append(entry)
    return options, unmasked


def _seccomp(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            profile = file.read()
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise CliError(f"opening seccomp profile ({path}) failed: open {path}: {reason}") from error
    try:
        return json.dumps(json.loads(profile), separators=(",", ":"))
    except ValueError as error:
        raise CliError(f"compacting json for seccomp profile ({path}) failed: {error}") from error


def parse_storage(entries: list[str]) -> dict[str, str]:
    """Storage options by name. Raises :class:`CliError`."""
    options = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals:
            raise CliError("invalid storage option")
        options[name] = value
    return options


def parse_health(arguments: Arguments) -> Document | None:
    """The health check of the flags, None when there is none. Raises :class:`CliError`."""
    command = arguments.text("health-cmd")
    retries = arguments.number("health-retries")
    durations = {member: arguments.number(flag) for flag, member in _HEALTH_DURATIONS}
    given = bool(command or retries or any(durations.values()))
    if arguments.flag("no-healthcheck"):
        if given:
            raise CliError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if not given:
        return None
    for flag, member in _HEALTH_DURATIONS:
        if durations[member] < 0:
            raise CliError(f"--{flag} cannot be negative")
    if retries < 0:
        raise CliError("--health-retries cannot be negative")
    check: Document = {name: value for name, value in durations.items() if value}
    if command:
        check["Test"] = ["CMD-SHELL", command]
    if retries:
        check["Retries"] = retries
    return check
