"""What a build tells while it goes on: vertices that start, log and end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Vertex:
    """One node of the build as people see it.

    ``name`` is like ``[base 2/5] RUN make`` and counts what is shown; ``step`` counts the
    instructions of the whole target from one, of ``steps`` in all (0 for what is no instruction);
    ``metadata`` marks one that changes no files and is not shown; ``line`` is where the
    instruction begins in the Dockerfile (0: nowhere).
    """

    id: str
    name: str
    stage: str = ""
    step: int = 0
    steps: int = 0
    instruction: str = ""
    metadata: bool = False
    line: int = 0


class Progress(Protocol):
    """Receives a build's news; called from the build's event loop."""

    def started(self, vertex: Vertex) -> None:
        """Work on a vertex begins."""
        ...

    def log(self, vertex: Vertex, stream: int, data: bytes) -> None:
        """A program of the vertex wrote ``data`` to standard output (1) or error (2)."""
        ...

    def completed(self, vertex: Vertex, *, cached: bool = False, error: str = "") -> None:
        """The vertex is done, was cached, or failed with ``error``."""
        ...

    def warning(self, vertex: Vertex | None, message: str) -> None:
        """Something to tell that does not stop the build."""
        ...
