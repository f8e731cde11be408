"""What an image's history says of an instruction, in BuildKit's words (pure).

They are Go's renderings of the instruction with variables replaced: ``CMD ["a" "b"]``,
``VOLUME [/v]``, ``HEALTHCHECK {Test:[CMD true] Interval:5s …}``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from sampan.dockerfile.config import Stage, strings, table
from sampan.dockerfile.duration import format_duration
from sampan.dockerfile.instructions import (
    Copy,
    Health,
    Instruction,
    Listing,
    OnBuild,
    Pairs,
    Program,
    Setting,
)

Word = Callable[[str], str]


def said(instruction: Instruction, after: Stage, word: Word) -> str:
    """What is said of an instruction that changes the configuration; "" for nothing (ONBUILD).

    ``after`` is the stage with it, ``word`` replaces variables by their values before it.
    """
    match instruction:
        case Pairs(label=label, pairs=pairs):
            entries = (f"{word(key)}={word(value)}" for key, value in pairs)
            return " ".join(("LABEL" if label else "ENV", *entries))
        case Setting(keyword="workdir"):
            return f"WORKDIR {after.config['WorkingDir']}"
        case Setting(keyword="maintainer", value=value):
            return f"MAINTAINER {value}"
        case Setting(keyword=keyword, value=value):
            return f"{keyword.upper()} {word(value)}"
        case Listing(keyword="expose"):
            return f"EXPOSE [{' '.join(_exposed(instruction, after, word))}]"
        case Listing(keyword="volume", values=values):
            return f"VOLUME [{' '.join(map(word, values))}]"
        case Listing(values=values):
            return f"SHELL [{' '.join(values)}]"
        case Program(entrypoint=entrypoint):
            name, key = ("ENTRYPOINT", "Entrypoint") if entrypoint else ("CMD", "Cmd")
            return f"{name} [{' '.join(map(_quoted, strings(after.config, key)))}]"
        case Health():
            return f"HEALTHCHECK {_health(instruction)}"
        case OnBuild():
            return ""
    raise TypeError(type(instruction).__name__)


def ran(
    words: tuple[str, ...], arguments: Mapping[str, str], environment: Mapping[str, str]
) -> str:
    """What is said of RUN: the build arguments declared so far, ENV's value winning, then the
    words."""
    known = [f"{name}={environment.get(name, value)}" for name, value in arguments.items()]
    prefix = [f"|{len(known)}", *known] if known else []
    return f"RUN {' '.join((*prefix, *words))} # buildkit"


def copied(instruction: Copy, sources: tuple[str, ...], destination: str, word: Word) -> str:
    """What is said of COPY and ADD; ``sources`` and ``destination`` with variables replaced."""
    parts = ["ADD" if instruction.add else "COPY"]
    parts += ["--parents"] if instruction.parents else []
    parts += [f"--chown={word(instruction.chown)}"] if instruction.chown else []
    parts += [f"--chmod={word(instruction.chmod)}"] if instruction.chmod else []
    parts += [*sources, *(f"<<{doc.name}" for doc in instruction.heredocs), destination]
    return f"{' '.join(parts)} # buildkit"


def _exposed(instruction: Listing, after: Stage, word: Word) -> list[str]:
    """The ports of one instruction, as the configuration names them."""
    ports = table(after.config, "ExposedPorts")
    found: list[str] = []
    for value in instruction.values:
        for text in word(value).split():
            number, _, protocol = text.rpartition(":")[2].partition("/")
            first, _, last = number.partition("-")
            found += (
                f"{port}/{(protocol or 'tcp').lower()}"
                for port in range(int(first), int(last or first) + 1)
            )
    return [port for port in dict.fromkeys(found) if port in ports]


def _quoted(text: str) -> str:
    """Go's %q of a string."""
    return json.dumps(text, ensure_ascii=False).replace("\\u007f", "\\x7f")


def _health(health: Health) -> str:
    times = (
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    )
    shown = " ".join(f"{name}:{format_duration(value)}" for name, value in times)
    return f"{{Test:[{' '.join(health.test)}] {shown} Retries:{health.retries}}}"
