"""events: statistics and OOM notifications, one JSON object a line in runc's format."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time

from sampan.errors import Conflict, InvalidParameter
from sampan.kernel import cgroup
from sampan.kernel.cgroup.usage import UNLIMITED, BlockIoEntry, CgroupStats
from sampan.runtime.oci_arguments import Parsed
from sampan.runtime.oci_control import Runtime, own_cgroup
from sampan.runtime.oci_state import Record

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def events(runtime: Runtime, parsed: Parsed) -> int:
    """Once with --stats; else until the container ends."""
    interval = parse_duration(parsed.string("interval"))
    if interval <= 0:
        raise InvalidParameter("duration interval must be greater than 0")
    record = runtime.store.load(parsed.arguments[0])
    if runtime.status(record) == "stopped":
        raise Conflict("container with id " + record["id"] + " is not running")
    path = own_cgroup(record)
    if parsed.switch("stats"):
        _emit("stats", record, document(cgroup.stats(runtime.layout, path)))
        return 0
    _follow(runtime, record, interval)
    return 0


def _follow(runtime: Runtime, record: Record, interval: float) -> None:
    with contextlib.ExitStack() as stack:
        pidfd = os.pidfd_open(record["pid"])
        stack.callback(os.close, pidfd)
        watch = stack.enter_context(cgroup.OomWatch(runtime.layout, record["cgroup"]))
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        poller.register(watch, select.POLLIN)
        due = time.monotonic() + interval
        while True:
            ready = dict(poller.poll(max(0.0, due - time.monotonic()) * 1000))
            if watch.fileno() in ready or pidfd in ready:
                # Once more at the end: v1 notifies before it kills and counts.
                for _ in range(watch.consume()):
                    _emit("oom", record, None)
            if pidfd in ready:
                return
            if time.monotonic() >= due:
                due += interval
                with contextlib.suppress(FileNotFoundError):
                    reading = cgroup.stats(runtime.layout, record["cgroup"])
                    _emit("stats", record, document(reading))


def _emit(kind: str, record: Record, data: dict[str, object] | None) -> None:
    event: dict[str, object] = {"type": kind, "id": record["id"]}
    if data is not None:
        event["data"] = data
    print(json.dumps(event))
    sys.stdout.flush()


def document(reading: CgroupStats) -> dict[str, object]:
    """``reading`` under the names of runc's ``types.Stats``."""
    cpu, memory = reading.cpu, reading.memory
    usage: dict[str, object] = {"total": cpu.total, "kernel": cpu.kernel, "user": cpu.user}
    if cpu.percpu:
        usage["percpu"] = list(cpu.percpu)
    throttling = {
        "periods": cpu.periods,
        "throttledPeriods": cpu.throttled_periods,
        "throttledTime": cpu.throttled_time,
    }
    memory_document: dict[str, object] = {
        "usage": _memory(memory.usage, memory.limit, memory.peak, memory.failures),
        "swap": _memory(memory.usage + memory.swap_usage, memory.swap_limit, None, 0),
        "kernel": _memory(memory.kernel_usage, UNLIMITED, None, 0),
        "raw": memory.detail,
        "cache": memory.detail.get("total_cache", memory.detail.get("file", 0)),
    }
    pids = {"current": reading.pids.current}
    if reading.pids.limit is not None:
        pids["limit"] = reading.pids.limit
    return {
        "cpu": {"usage": usage, "throttling": throttling},
        "memory": memory_document,
        "pids": pids,
        "blkio": {
            "ioServiceBytesRecursive": _block_io(reading.io_bytes),
            "ioServicedRecursive": _block_io(reading.io_operations),
        },
        "hugetlb": {
            size: {"usage": entry.usage, "max": entry.peak, "failcnt": entry.failures}
            for size, entry in reading.hugetlb.items()
        },
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _memory(usage: int, limit: int, peak: int | None, failures: int) -> dict[str, int]:
    result = {"limit": limit, "usage": usage, "failcnt": failures}
    if peak is not None:
        result["max"] = peak
    return result


def _block_io(entries: tuple[BlockIoEntry, ...]) -> list[dict[str, object]]:
    return [
        {
            "major": entry.major,
            "minor": entry.minor,
            "op": entry.operation.capitalize(),
            "value": entry.value,
        }
        for entry in entries
    ]


def parse_duration(text: str) -> float:
    """Go's "1h2m3.5s" in seconds. Raises InvalidParameter."""
    total, rest = 0.0, text
    wrong = InvalidParameter(f'invalid value "{text}" for flag -interval')
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        # "ms" before "m": the longest unit that fits.
        units = [name for name in _UNITS if rest[digits:].startswith(name)]
        if not units or rest[:digits].count(".") > 1 or not rest[:digits].strip("."):
            raise wrong
        unit = max(units, key=len)
        total += float(rest[:digits]) * _UNITS[unit]
        rest = rest[digits + len(unit) :]
    return total
