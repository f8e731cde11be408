"""What a monitor publishes in its directory: init.json while it lives, exit.json for good."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sampan.runtime import json_text

INIT = "init.json"
EXIT = "exit.json"
SOCKET = "monitor.sock"
PID = "monitor.pid"


def write(directory: str | Path, name: str, values: Mapping[str, Any]) -> None:
    """Write a JSON record: whole or not at all, on disk when this returns."""
    path = f"{directory}/{name}"
    temporary = f"{path}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, json_text.dumps(values))
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def read(directory: str | Path, name: str) -> dict[str, Any] | None:
    """A record, None when there is none."""
    try:
        with open(f"{directory}/{name}", "rb") as file:
            values: dict[str, Any] = json_text.loads(file.read())
    except FileNotFoundError:
        return None
    return values


def remove(directory: str | Path, *names: str) -> None:
    """Remove records; missing ones are fine."""
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/{name}")
