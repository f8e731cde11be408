"""What an engine has counted since it began, for ``/metrics``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Numbers that only grow."""

    health_checks: int = 0
    health_checks_failed: int = 0
