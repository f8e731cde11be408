"""Arithmetic between the v1 units of the OCI specification and the files of cgroup v2 (pure)."""

from __future__ import annotations

import math

from sampan.errors import InvalidParameter

MIN_SHARES, MAX_SHARES = 2, 262144
UNLIMITED = -1


def amount(value: int) -> str:
    """v2 spelling of a limit: "max" for -1."""
    return "max" if value == UNLIMITED else str(value)


def weight_from_shares(shares: int) -> int:
    """cpu.weight (1..10000) for v1 cpu.shares (2..262144), with 1024 -> 100.

    The quadratic in log2 that runc, crun and Kubernetes agreed on: it passes through
    (2, 1), (1024, 100), (262144, 10000).
    """
    if shares <= MIN_SHARES:
        return 1
    if shares >= MAX_SHARES:
        return 10000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def io_weight(weight: int) -> int:
    """io.weight (1..10000) for blkio weight (10..1000)."""
    return 1 + (weight - 10) * 9999 // 990


def swap_max(limit: int | None, memory_and_swap: int) -> int | None:
    """memory.swap.max in bytes (-1 unlimited, None unset) for OCI memory.limit and memory.swap.

    OCI's swap is memory plus swap, v2's is swap alone. Raises InvalidParameter when the sum is
    below the memory limit or given without one.
    """
    if memory_and_swap == 0:
        return UNLIMITED if limit == UNLIMITED else None
    if memory_and_swap == UNLIMITED:
        return UNLIMITED
    if limit is None or limit in (0, UNLIMITED):
        raise InvalidParameter("linux.resources.memory.swap: needs a memory limit beside it")
    if memory_and_swap < limit:
        raise InvalidParameter(
            "linux.resources.memory.swap: memory+swap limit must not be below the memory limit"
        )
    return memory_and_swap - limit
