"""Resource limits of a process that is being made: prlimit(2), with what is allowed."""

from __future__ import annotations

import resource
from collections.abc import Iterable

_NAMES = {
    value: name
    for name, value in vars(resource).items()
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
}


def set_limits(pid: int, limits: Iterable[tuple[int, int, int]]) -> list[str]:
    """Set (RLIMIT_* number, soft, hard) of ``pid``, 0 for ourselves; returns warnings.

    A hard limit may be raised with CAP_SYS_RESOURCE only: without it what is allowed is set.
    Raises :class:`ProcessLookupError`.
    """
    warnings = []
    for number, soft, hard in limits:
        try:
            resource.prlimit(pid, number, (soft, hard))
        except (PermissionError, ValueError):
            _, most = resource.prlimit(pid, number)
            allowed = (_lower(soft, most), _lower(hard, most))
            resource.prlimit(pid, number, allowed)
            name = _NAMES.get(number, str(number))
            warnings.append(f"{name} {soft}:{hard} cannot be raised here, {allowed} is set")
    return warnings


def _lower(value: int, most: int) -> int:
    if most == resource.RLIM_INFINITY:
        return value
    return most if value == resource.RLIM_INFINITY else min(value, most)
