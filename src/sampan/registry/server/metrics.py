"""Prometheus metrics of one or several server processes (text exposition format 0.0.4).

Each process counts in its own region of one shared file mapping; whichever is asked adds the
regions up. A region has one writer, so counting needs no lock.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping

_ENDPOINTS = (
    "base",
    "catalog",
    "manifest",
    "blob",
    "uploads",
    "upload",
    "tags",
    "referrers",
    "extensions",
    "token",
    "metrics",
    "web",
    "other",
)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "other")
_CODES = (200, 201, 202, 204, 206, 301, 304, 307, 400, 401, 403, 404, 405, 409, 413, 414, 416, 429)
_ERRORS = (500, 501, 502, 503, 507, 0)
_STATUSES = _CODES + _ERRORS
#: Upper bounds of the latency histogram, in seconds.
_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0)
_COUNTERS: Mapping[str, str] = {
    "received_bytes_total": "Bytes of request bodies",
    "sent_bytes_total": "Bytes of response bodies",
    "webhook_delivered_total": "Events delivered to webhooks",
    "webhook_failed_total": "Events given up on after all attempts",
    "webhook_dropped_total": "Events dropped because the queue was full",
    "collected_blobs_total": "Blobs the garbage collector deleted",
    "collected_bytes_total": "Bytes the garbage collector freed",
    "upstream_hits_total": "Pull-through requests answered from the store",
    "upstream_misses_total": "Pull-through requests that fetched from the upstream",
    "upstream_stale_total": "Pull-through requests answered stale, the upstream being away",
}
_NAMES = tuple(_COUNTERS)
_REQUESTS = len(_ENDPOINTS) * len(_METHODS) * len(_STATUSES)
_HISTOGRAM = len(_BOUNDS) + 2  # buckets, +Inf, sum
_SIZE = _REQUESTS + len(_ENDPOINTS) * _HISTOGRAM + len(_NAMES)
_ENDPOINT_INDEX = {name: index for index, name in enumerate(_ENDPOINTS)}
_METHOD_INDEX = {name: index for index, name in enumerate(_METHODS)}
_STATUS_INDEX = {name: index for index, name in enumerate(_STATUSES)}
_COUNTER_INDEX = {name: _SIZE - len(_NAMES) + index for index, name in enumerate(_NAMES)}


class Metrics:
    """The counters of all ``workers``; this process writes region ``worker``."""

    def __init__(self, fd: int, worker: int, workers: int) -> None:
        self._map = mmap.mmap(fd, _SIZE * 8 * workers)
        self._all = memoryview(self._map).cast("d")
        self._mine = self._all[_SIZE * worker : _SIZE * (worker + 1)]
        self._workers = workers
        self.worker = worker

    def request(self, endpoint: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        where = _ENDPOINT_INDEX.get(endpoint, len(_ENDPOINTS) - 1)
        slot = where * len(_METHODS) + _METHOD_INDEX.get(method, len(_METHODS) - 1)
        slot = slot * len(_STATUSES) + _STATUS_INDEX.get(status, len(_STATUSES) - 1)
        self._mine[slot] += 1
        base = _REQUESTS + where * _HISTOGRAM
        bucket = 0
        for bound in _BOUNDS:
            if seconds <= bound:
                break
            bucket += 1
        self._mine[base + bucket] += 1
        self._mine[base + _HISTOGRAM - 1] += seconds

    def add(self, counter: str, amount: float = 1) -> None:
        """Add to one of the plain counters, named without the ``sampan_registry_`` prefix."""
        self._mine[_COUNTER_INDEX[counter]] += amount

    def _sum(self, slot: int) -> float:
        return sum(self._all[slot + _SIZE * worker] for worker in range(self._workers))

    def expose(self) -> str:
        """The text Prometheus scrapes."""
        return "\n".join([*self._requests(), *self._durations(), *self._counters(), ""])

    def _requests(self) -> Iterator[str]:
        yield "# HELP sampan_registry_requests_total Requests answered"
        yield "# TYPE sampan_registry_requests_total counter"
        for slot in range(_REQUESTS):
            if count := self._sum(slot):
                rest, status = divmod(slot, len(_STATUSES))
                endpoint, method = divmod(rest, len(_METHODS))
                code = _STATUSES[status] or "other"
                yield (
                    f'sampan_registry_requests_total{{endpoint="{_ENDPOINTS[endpoint]}",'
                    f'method="{_METHODS[method]}",code="{code}"}} {count:.0f}'
                )

    def _durations(self) -> Iterator[str]:
        name = "sampan_registry_request_seconds"
        yield f"# HELP {name} Time from a request's headers to the beginning of its answer"
        yield f"# TYPE {name} histogram"
        for index, endpoint in enumerate(_ENDPOINTS):
            base = _REQUESTS + index * _HISTOGRAM
            total = 0.0
            lines = []
            for offset, bound in enumerate([*map(str, _BOUNDS), "+Inf"]):
                total += self._sum(base + offset)
                lines.append(f'{name}_bucket{{endpoint="{endpoint}",le="{bound}"}} {total:.0f}')
            if total:
                yield from lines
                yield f'{name}_sum{{endpoint="{endpoint}"}} {self._sum(base + _HISTOGRAM - 1):.6f}'
                yield f'{name}_count{{endpoint="{endpoint}"}} {total:.0f}'

    def _counters(self) -> Iterator[str]:
        for name, meaning in _COUNTERS.items():
            yield f"# HELP sampan_registry_{name} {meaning}"
            yield f"# TYPE sampan_registry_{name} counter"
            yield f"sampan_registry_{name} {self._sum(_COUNTER_INDEX[name]):.0f}"

    def close(self) -> None:
        """Unmap."""
        self._mine.release()
        self._all.release()
        self._map.close()


def region(workers: int) -> int:
    """A descriptor of memory for so many workers' counters, all zero, gone with its last user."""
    fd = os.memfd_create("sampan-registry-metrics", os.MFD_CLOEXEC)
    os.ftruncate(fd, _SIZE * 8 * workers)
    return fd
