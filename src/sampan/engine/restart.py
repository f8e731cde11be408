"""Restart policies (pure; dockerd's restartmanager)."""

from __future__ import annotations

from sampan.wire.container import RestartPolicy

#: seconds
FIRST_DELAY = 0.1
LONGEST_DELAY = 60.0
#: a run at least this long, in seconds, starts the back-off anew
SETTLED = 10.0


def should_restart(
    policy: RestartPolicy | None, *, exit_code: int, count: int, stopped_by_user: bool
) -> bool:
    """Whether a container that just exited is started again.

    ``count`` is how often it was restarted already since its last manual start.
    """
    name = (policy.name if policy else None) or "no"
    if stopped_by_user or name == "no":
        return False
    if name in ("always", "unless-stopped"):
        return True
    limit = (policy.maximum_retry_count if policy else None) or 0
    return name == "on-failure" and exit_code != 0 and (limit == 0 or count < limit)


def should_start_at_boot(
    policy: RestartPolicy | None, *, was_running: bool, exit_code: int, stopped_by_user: bool
) -> bool:
    """Whether a stopped container is started when the engine opens.

    ``was_running``: it ran when the engine (or the host) went away.
    """
    name = (policy.name if policy else None) or "no"
    if name == "always":
        return True
    if name == "unless-stopped":
        return not stopped_by_user
    return name == "on-failure" and was_running and exit_code != 0


def next_delay(previous: float, ran_for: float) -> float:
    """Seconds to wait before the next start, after a run of ``ran_for`` seconds."""
    if previous <= 0 or ran_for >= SETTLED:
        return FIRST_DELAY
    return min(previous * 2, LONGEST_DELAY)
