"""The execs service: further programs in a running container."""

from __future__ import annotations

from sampan.engine.options import Attachment
from sampan.wire.exec import ExecCreateRequest, ExecInspect, ExecStartRequest


class Execs:
    """Exec instances of one engine; they live as long as their container runs."""

    async def create(self, ref: str, body: ExecCreateRequest) -> str:
        """Prepare a program for container ``ref``; returns the exec's id.

        Raises NotFound, Conflict (not running, paused), InvalidParameter (no command).
        """
        raise NotImplementedError

    async def start(self, exec_id: str, body: ExecStartRequest) -> Attachment | None:
        """Run it; None when detached.

        Raises NotFound, Conflict (already run), CommandNotFound, CommandNotExecutable.
        """
        raise NotImplementedError

    async def inspect(self, exec_id: str) -> ExecInspect:
        """State and configuration of an exec."""
        raise NotImplementedError

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        """Set its terminal's size in character cells."""
        raise NotImplementedError
