"""What an instruction does to an image's configuration (OCI image spec, config.md) (pure).

The configuration is the JSON object under ``config`` as Docker writes it (``Env``, ``Cmd``, …);
changes return a new one.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from sampan.dockerfile.instructions import (
    Command,
    Health,
    Instruction,
    Listing,
    OnBuild,
    Pairs,
    Program,
    Setting,
)
from sampan.dockerfile.lexer import expand
from sampan.dockerfile.parser import DockerfileError

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"
Config: TypeAlias = dict[str, Value]

DEFAULT_SHELL = ("/bin/sh", "-c")
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/([A-Za-z]+))?")
_SIGNAL = re.compile(r"(?:SIG)?[A-Z][A-Z0-9]*(?:[+-]\d+)?|\d{1,2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A configuration while a stage is being evaluated.

    ``command_set`` tells whether the stage itself has set CMD, because ENTRYPOINT resets only an
    inherited one.
    """

    config: Config
    author: str = ""
    command_set: bool = False
    escape: str = "\\"

    @property
    def environment(self) -> dict[str, str]:
        """The variables of ``Env``."""
        pairs = (entry.partition("=") for entry in strings(self.config, "Env"))
        return {key: value for key, _, value in pairs}

    @property
    def shell(self) -> tuple[str, ...]:
        """The shell that shell forms run in."""
        return tuple(strings(self.config, "Shell")) or DEFAULT_SHELL

    def setting(self, key: str, value: Value) -> Stage:
        """This stage with one key of the configuration replaced."""
        return replace(self, config={**self.config, key: value})


def strings(config: Config, key: str) -> list[str]:
    """A list of strings in a configuration; empty when absent."""
    value = config.get(key)
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def table(config: Config, key: str) -> dict[str, Value]:
    """An object in a configuration; empty when absent."""
    value = config.get(key)
    return dict(value) if isinstance(value, dict) else {}


def apply(
    stage: Stage, instruction: Instruction, variables: Mapping[str, str] | None = None
) -> Stage:
    """The stage after a metadata instruction.

    ``variables`` are build arguments visible besides ``Env`` (which wins). Instructions that
    change files (RUN, COPY, ADD) or open stages (FROM, ARG) raise :class:`DockerfileError`.
    """
    scope = {**(variables or {}), **stage.environment}

    def word(text: str) -> str:
        return expand(text, scope, stage.escape).text

    match instruction:
        case Pairs(label=False):
            return _env(stage, instruction, word)
        case Pairs():
            labels = {word(key): word(value) for key, value in instruction.pairs}
            return stage.setting("Labels", {**table(stage.config, "Labels"), **labels})
        case Setting(keyword="maintainer"):
            # Taken as it is written: variables and quotes mean nothing in it.
            return replace(stage, author=instruction.value)
        case Setting():
            return _SETTINGS[instruction.keyword](stage, word(instruction.value))
        case Listing(keyword="shell"):
            return stage.setting("Shell", list(instruction.values))
        case Listing(keyword="expose"):
            ports = (
                port
                for value in instruction.values
                for text in expand(value, scope, stage.escape).words
                for port in _ports(text)
            )
            return _keys(stage, "ExposedPorts", ports)
        case Listing():
            return _keys(stage, "Volumes", map(word, instruction.values))
        case Program():
            return _program(stage, instruction)
        case Health():
            return stage.setting("Healthcheck", _health(instruction))
        case OnBuild():
            return stage.setting(
                "OnBuild", [*strings(stage.config, "OnBuild"), instruction.trigger]
            )
    raise DockerfileError(f"{type(instruction).__name__.upper()} is not a change of configuration")


def command_words(command: Command, shell: tuple[str, ...]) -> list[str]:
    """The words to execute: shell forms behind the stage's shell."""
    return [*shell, *command.words] if command.shell else list(command.words)


def set_variable(environment: list[str], key: str, value: str) -> list[str]:
    """``environment`` with one variable set in its place, or appended."""
    entry = f"{key}={value}"
    names = [item.partition("=")[0] for item in environment]
    if key not in names:
        return [*environment, entry]
    return [entry if name == key else item for name, item in zip(names, environment, strict=True)]


def _env(stage: Stage, instruction: Pairs, word: Callable[[str], str]) -> Stage:
    environment = strings(stage.config, "Env")
    for key, value in instruction.pairs:  # all see the values from before the instruction
        environment = set_variable(environment, word(key), word(value))
    return stage.setting("Env", list(environment))


def _keys(stage: Stage, key: str, names: Iterable[str]) -> Stage:
    added: dict[str, Value] = {name: {} for name in names}
    return stage.setting(key, {**table(stage.config, key), **added})


def _ports(text: str) -> list[str]:
    # an address or host port before it is ignored, as BuildKit does (with a check's warning)
    match = _PORT.fullmatch(text.rpartition(":")[2])
    if match is None:
        raise DockerfileError(f"invalid containerPort: {text}")
    first, last = int(match[1]), int(match[2] or match[1])
    protocol = (match[3] or "tcp").lower()
    if protocol not in ("tcp", "udp", "sctp"):
        raise DockerfileError(f"invalid proto: {protocol}")
    if not 0 < first <= last <= 65535:
        raise DockerfileError(f"invalid range of ports: {text}")
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def _program(stage: Stage, instruction: Program) -> Stage:
    words: list[Value] = list(command_words(instruction.command, stage.shell))
    if not any(instruction.command.words):
        words = []
    if not instruction.entrypoint:
        return replace(stage.setting("Cmd", words), command_set=True)
    changed = stage.setting("Entrypoint", words)
    return changed if stage.command_set else changed.setting("Cmd", None)


def _health(instruction: Health) -> Config:
    health: Config = {"Test": list(instruction.test)}
    times = {
        "Interval": instruction.interval,
        "Timeout": instruction.timeout,
        "StartPeriod": instruction.start_period,
        "StartInterval": instruction.start_interval,
        "Retries": instruction.retries,
    }
    return {**health, **{key: value for key, value in times.items() if value}}


def _workdir(stage: Stage, value: str) -> Stage:
    current = stage.config.get("WorkingDir")
    base = current if isinstance(current, str) and current else "/"
    return stage.setting("WorkingDir", posixpath.normpath(posixpath.join("/", base, value)))


def _stop_signal(stage: Stage, value: str) -> Stage:
    if not _SIGNAL.fullmatch(value.upper()):
        raise DockerfileError(f"Invalid signal: {value}")
    return stage.setting("StopSignal", value)


_SETTINGS: Mapping[str, Callable[[Stage, str], Stage]] = {
    "user": lambda stage, value: stage.setting("User", value),
    "workdir": _workdir,
    "stopsignal": _stop_signal,
}
