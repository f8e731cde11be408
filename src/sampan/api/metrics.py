"""Prometheus metrics of the daemon (text exposition format 0.0.4), served on ``--metrics-addr``."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampan.engine.engine import Engine
    from sampan.wire.system import SystemInfo

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


#: What dockerd counts as actions on containers, by the requests that ask for them.
_ACTIONS = {
    ("POST", "/commit"): "commit",
    ("POST", "/containers/create"): "create",
    ("POST", "/containers/{name}/start"): "start",
    ("GET", "/containers/{name}/changes"): "changes",
    ("DELETE", "/containers/{name}"): "delete",
}


class RequestMetrics:
    """How many requests each route got and how long they took, in seconds."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._sums: dict[tuple[str, str], float] = {}

    def observe(self, method: str, pattern: str, seconds: float) -> None:
        """Count one request; ``pattern`` is "" when no route matched (names are not recorded)."""
        key = (method if pattern else "", pattern)
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = [0] * (len(_BUCKETS) + 1)
        for index, bound in enumerate(_BUCKETS):
            if seconds <= bound:
                counts[index] += 1
                break
        else:
            counts[-1] += 1
        self._sums[key] = self._sums.get(key, 0.0) + seconds

    def lines(self) -> Iterable[str]:
        """The metrics in exposition format."""
        yield from self._histogram(
            "engine_daemon_http_request_duration_seconds",
            "Time taken to answer API requests.",
            {key: f'method="{key[0]}",route="{key[1]}"' for key in sorted(self._counts)},
        )
        yield from self._histogram(
            "engine_daemon_container_actions_seconds",
            "Time taken by actions on containers.",
            {key: f'action="{action}"' for key, action in _ACTIONS.items()},
        )

    def _histogram(
        self, name: str, description: str, chosen: dict[tuple[str, str], str]
    ) -> Iterable[str]:
        """The requests ``chosen``, with the labels each has."""
        yield f"# HELP {name} {description}"
        yield f"# TYPE {name} histogram"
        for key, labels in chosen.items():
            total = 0
            counts = self._counts.get(key, [0] * (len(_BUCKETS) + 1))
            for bound, count in zip((*_BUCKETS, "+Inf"), counts, strict=True):
                total += count
                yield f'{name}_bucket{{{labels},le="{bound}"}} {total}'
            yield f"{name}_sum{{{labels}}} {self._sums.get(key, 0.0):.6f}"
            yield f"{name}_count{{{labels}}} {total}"


async def render(engine: Engine, requests: RequestMetrics, product: str) -> str:
    """Everything there is to scrape, as text."""
    info = await engine.system.info()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    lines = [
        *_gauge(
            "engine_daemon_engine_info",
            "The engine and its host.",
            {_labels(info, product): 1},
        ),
        *_gauge(
            "engine_daemon_container_states_containers",
            "Containers by state.",
            {
                'state="running"': info.containers_running or 0,
                'state="paused"': info.containers_paused or 0,
                'state="stopped"': info.containers_stopped or 0,
            },
        ),
        *_gauge("engine_daemon_images", "Images in the store.", {"": info.images or 0}),
        *_gauge("engine_daemon_engine_cpus_cpus", "Processors.", {"": info.ncpu or 0}),
        *_gauge("engine_daemon_engine_memory_bytes", "Memory.", {"": info.mem_total or 0}),
        *_gauge(
            "engine_daemon_events_subscribers", "Listeners.", {"": info.n_events_listener or 0}
        ),
        *_gauge("process_resident_memory_bytes", "Resident memory.", {"": _resident()}),
        *_gauge("process_open_fds", "Open descriptors.", {"": len(os.listdir("/proc/self/fd"))}),
        *_counter("engine_daemon_events_total", "Events.", engine.core.events.published),
        *_counter(
            "engine_daemon_health_checks_total", "Health checks.", engine.core.counts.health_checks
        ),
        *_counter(
            "engine_daemon_health_checks_failed_total",
            "Health checks that failed.",
            engine.core.counts.health_checks_failed,
        ),
        *_counter(
            "process_cpu_seconds_total",
            "Processor time used.",
            round(usage.ru_utime + usage.ru_stime, 3),
        ),
        *requests.lines(),
    ]
    return "\n".join(lines) + "\n"


def _labels(info: SystemInfo, product: str) -> str:
    """What an engine is, by the names dockerd has."""
    told = {
        "architecture": info.architecture,
        "daemon_id": info.id,
        "graphdriver": info.driver,
        "kernel": info.kernel_version,
        "os": info.operating_system,
        "os_type": info.os_type,
        "os_version": info.os_version,
        "version": product,
    }
    return ",".join(f'{name}="{_escaped(value or "")}"' for name, value in told.items())


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _counter(name: str, description: str, value: float) -> Iterable[str]:
    yield f"# HELP {name} {description}"
    yield f"# TYPE {name} counter"
    yield f"{name} {value}"


def _gauge(name: str, description: str, values: dict[str, int]) -> Iterable[str]:
    yield f"# HELP {name} {description}"
    yield f"# TYPE {name} gauge"
    for labels, value in values.items():
        yield f"{name}{{{labels}}} {value}" if labels else f"{name} {value}"


def _resident() -> int:
    """Resident memory of this process, in bytes."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
