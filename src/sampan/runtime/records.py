"""What a monitor publishes in its directory: init.json while it lives, exit.json for good."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from sampan.runtime import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

INIT = "init.json"
EXIT = "exit.json"
SOCKET = "monitor.sock"
PID = "monitor.pid"


def write(
    directory: str | Path, name: str, values: Mapping[str, Any], *, durable: bool = True
) -> None:
    """Write a JSON record: whole or not at all, on disk when this returns.

    Not ``durable``: it need not outlive the machine, as a container does not either, and nobody
    waits for a disk.
    """
    path = f"{directory}/{name}"
    temporary = f"{path}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, json_text.dumps(values))
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    if not durable:
        return
    parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def read(directory: str | Path, name: str) -> dict[str, Any] | None:
    """A record, None when there is none, or it is empty: the machine went down over it."""
    try:
        with open(f"{directory}/{name}", "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    if not data:
        return None
    values: dict[str, Any] = json_text.loads(data)
    return values


def remove(directory: str | Path, *names: str) -> None:
    """Remove records; missing ones are fine."""
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/{name}")
