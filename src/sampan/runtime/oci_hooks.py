"""Hooks that run in the runtime's own namespaces: prestart, createRuntime, poststart, poststop.

config.md "POSIX-platform Hooks": the container's state on standard input, a timeout in seconds. A
failure ends the container, but for poststop's, which is a warning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sampan.errors import StartFailed
from sampan.model.oci import Hook
from sampan.runtime.context import Refused
from sampan.runtime.oci_log import Log
from sampan.runtime.process_operations import run_hook


def run(hooks: Sequence[Hook], state: Mapping[str, object], kind: str) -> None:
    """Run ``hooks`` one after the other. Raises StartFailed at the first that fails."""
    for index, hook in enumerate(hooks):
        try:
            _run_one(hook, state)
        except (Refused, OSError) as error:
            raise StartFailed(f"error running {kind} hook #{index}: {error}") from None


def run_tolerant(hooks: Sequence[Hook], state: Mapping[str, object], log: Log) -> None:
    """Run all ``hooks``; one that fails is a warning."""
    for hook in hooks:
        try:
            _run_one(hook, state)
        except (Refused, OSError) as error:
            log.write("warning", f"error running hook: {error}")


def _run_one(hook: Hook, state: Mapping[str, object]) -> None:
    path = hook.get("path", "")
    run_hook(path, hook.get("args") or [path], hook.get("env") or (), hook.get("timeout", 0), state)
