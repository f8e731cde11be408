"""What a container uses: one typed reading for v1 and v2, enough for ``docker stats``.

The texts of the control files are parsed by pure functions; ``stats`` reads them. A file the
kernel does not have leaves its numbers at zero (or None where "unknown" and zero differ).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from sampan.kernel.cgroup.layout import Layout
from sampan.kernel.cgroup.operations import parse_flat, read

_USER_HZ = os.sysconf("SC_CLK_TCK")
#: v1 spells "no limit" as the largest page-aligned signed long.
UNLIMITED_V1 = 0x7FFFFFFFFFFFF000
UNLIMITED = 2**64 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuStats:
    """CPU time in nanoseconds; throttling in periods and nanoseconds."""

    total: int = 0
    user: int = 0
    kernel: int = 0
    percpu: tuple[int, ...] = ()
    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryStats:
    """Bytes; ``limit`` is UNLIMITED when there is none; ``detail`` is memory.stat as it is.

    ``peak`` is None before Linux 5.19 on v2. ``failures`` counts hits on the limit (v1) or the
    "max" event (v2); ``oom_kills`` processes ended by the OOM killer.
    """

    usage: int = 0
    peak: int | None = None
    limit: int = UNLIMITED
    swap_usage: int = 0
    swap_limit: int = UNLIMITED
    kernel_usage: int = 0
    failures: int = 0
    oom_kills: int = 0
    detail: dict[str, int] = field(default_factory=dict)

    @property
    def inactive_file(self) -> int:
        """Page cache the kernel would give back first; docker subtracts it from usage."""
        return self.detail.get("total_inactive_file", self.detail.get("inactive_file", 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class PidsStats:
    """Tasks now, and the limit (None: no limit)."""

    current: int = 0
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockIoEntry:
    """One counter of one device; ``operation`` as docker spells it: "read", "write", ..."""

    major: int
    minor: int
    operation: str
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HugetlbStats:
    """Bytes of one huge page size."""

    usage: int
    peak: int
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """One line of a PSI file: percentages over 10, 60, 300 seconds and total microseconds."""

    avg10: float
    avg60: float
    avg300: float
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupStats:
    """A reading of every controller at about the same moment."""

    version: int
    cpu: CpuStats
    memory: MemoryStats
    pids: PidsStats
    io_bytes: tuple[BlockIoEntry, ...] = ()
    io_operations: tuple[BlockIoEntry, ...] = ()
    hugetlb: dict[str, HugetlbStats] = field(default_factory=dict)
    pressure: dict[str, dict[str, Pressure]] = field(default_factory=dict)


def stats(layout: Layout, path: str) -> CgroupStats:
    """Read the statistics of cgroup ``path``. Raises FileNotFoundError when it is gone."""
    if layout.mode == "v2":
        assert layout.unified is not None
        return _unified(layout.unified.directory(path))
    os.stat(layout.legacy[0].directory(path))
    return _legacy(layout, path)


def parse_io_stat(text: str) -> tuple[tuple[BlockIoEntry, ...], tuple[BlockIoEntry, ...]]:
    """v2 io.stat, lines "MAJ:MIN rbytes=1 wbytes=2 rios=3 wios=4 ..." -> (bytes, operations)."""
    names = {
        "rbytes": (0, "read"),
        "wbytes": (0, "write"),
        "rios": (1, "read"),
        "wios": (1, "write"),
    }
    found: tuple[list[BlockIoEntry], list[BlockIoEntry]] = ([], [])
    for line in text.splitlines():
        number, *pairs = line.split()
        major, _, minor = number.partition(":")
        if not (major.isdigit() and minor.isdigit()):
            continue
        for pair in pairs:
            key, _, value = pair.partition("=")
            if key in names and value.isdigit():
                kind, operation = names[key]
                found[kind].append(
                    BlockIoEntry(
                        major=int(major), minor=int(minor), operation=operation, value=int(value)
                    )
                )
    return tuple(found[0]), tuple(found[1])


def parse_blkio(text: str) -> tuple[BlockIoEntry, ...]:
    """v1 blkio files, lines "MAJ:MIN Operation VALUE"; the trailing "Total N" is left out."""
    entries: list[BlockIoEntry] = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) != 3:
            continue
        major, _, minor = fields[0].partition(":")
        entries.append(
            BlockIoEntry(
                major=int(major),
                minor=int(minor),
                operation=fields[1].lower(),
                value=int(fields[2]),
            )
        )
    return tuple(entries)


def parse_pressure(text: str) -> dict[str, Pressure]:
    """A PSI file: {"some": Pressure, "full": Pressure} (Documentation/accounting/psi.rst)."""
    result: dict[str, Pressure] = {}
    for line in text.splitlines():
        kind, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs)
        result[kind] = Pressure(
            avg10=float(values["avg10"]),
            avg60=float(values["avg60"]),
            avg300=float(values["avg300"]),
            total=int(values["total"]),
        )
    return result


def _text(directory: str | None, name: str) -> str:
    """A control file's text; "" when the controller or the file does not exist."""
    if directory is None:
        return ""
    try:
        return read(f"{directory}/{name}")
    except OSError:
        # ENOENT: not in this kernel; EOPNOTSUPP: switched off (PSI at boot, swap accounting).
        return ""


def _number(directory: str | None, name: str, default: int = 0) -> int:
    text = _text(directory, name)
    if text == "max":
        return UNLIMITED
    return int(text) if text.lstrip("-").isdigit() else default


def _legacy(layout: Layout, path: str) -> CgroupStats:
    memory = layout.directory("memory", path)
    detail = parse_flat(_text(memory, "memory.stat"))
    usage = _number(memory, "memory.usage_in_bytes")
    pids = layout.directory("pids", path)
    limit = _number(pids, "pids.max", UNLIMITED)
    blkio = layout.directory("blkio", path)
    return CgroupStats(
        version=1,
        cpu=_legacy_cpu(layout, path),
        memory=MemoryStats(
            usage=usage,
            peak=_number(memory, "memory.max_usage_in_bytes"),
            limit=_legacy_limit(_number(memory, "memory.limit_in_bytes", UNLIMITED)),
            swap_usage=max(_number(memory, "memory.memsw.usage_in_bytes", usage) - usage, 0),
            swap_limit=_legacy_limit(_number(memory, "memory.memsw.limit_in_bytes", UNLIMITED)),
            kernel_usage=_number(memory, "memory.kmem.usage_in_bytes"),
            failures=_number(memory, "memory.failcnt"),
            oom_kills=parse_flat(_text(memory, "memory.oom_control")).get("oom_kill", 0),
            detail=detail,
        ),
        pids=PidsStats(
            current=_number(pids, "pids.current"), limit=None if limit == UNLIMITED else limit
        ),
        io_bytes=_first_blkio(blkio, "io_service_bytes_recursive"),
        io_operations=_first_blkio(blkio, "io_serviced_recursive"),
        hugetlb=_hugetlb(
            layout.directory("hugetlb", path), "usage_in_bytes", "max_usage_in_bytes", "failcnt"
        ),
    )


def _legacy_limit(value: int) -> int:
    return UNLIMITED if value >= UNLIMITED_V1 else value


def _legacy_cpu(layout: Layout, path: str) -> CpuStats:
    cpuacct = layout.directory("cpuacct", path)
    times = parse_flat(_text(cpuacct, "cpuacct.stat"))
    throttling = parse_flat(_text(layout.directory("cpu", path), "cpu.stat"))
    return CpuStats(
        total=_number(cpuacct, "cpuacct.usage"),
        user=times.get("user", 0) * (10**9 // _USER_HZ),
        kernel=times.get("system", 0) * (10**9 // _USER_HZ),
        percpu=tuple(int(word) for word in _text(cpuacct, "cpuacct.usage_percpu").split()),
        periods=throttling.get("nr_periods", 0),
        throttled_periods=throttling.get("nr_throttled", 0),
        throttled_time=throttling.get("throttled_time", 0),
    )


def _first_blkio(directory: str | None, name: str) -> tuple[BlockIoEntry, ...]:
    """BFQ's counters when BFQ is in use, else those of the throttling layer (always kept)."""
    for prefix in ("blkio.bfq.", "blkio.throttle."):
        if entries := parse_blkio(_text(directory, prefix + name)):
            return entries
    return ()


def _unified(directory: str) -> CgroupStats:
    times = parse_flat(read(f"{directory}/cpu.stat"))
    events = parse_flat(_text(directory, "memory.events"))
    limit = _number(directory, "pids.max", UNLIMITED)
    peak = _text(directory, "memory.peak")
    io_bytes, io_operations = parse_io_stat(_text(directory, "io.stat"))
    detail = parse_flat(_text(directory, "memory.stat"))
    return CgroupStats(
        version=2,
        cpu=CpuStats(
            total=times.get("usage_usec", 0) * 1000,
            user=times.get("user_usec", 0) * 1000,
            kernel=times.get("system_usec", 0) * 1000,
            periods=times.get("nr_periods", 0),
            throttled_periods=times.get("nr_throttled", 0),
            throttled_time=times.get("throttled_usec", 0) * 1000,
        ),
        memory=MemoryStats(
            usage=_number(directory, "memory.current"),
            peak=int(peak) if peak.isdigit() else None,
            limit=_number(directory, "memory.max", UNLIMITED),
            swap_usage=_number(directory, "memory.swap.current"),
            swap_limit=_number(directory, "memory.swap.max", UNLIMITED),
            kernel_usage=detail.get("kernel", 0),
            failures=events.get("max", 0),
            oom_kills=events.get("oom_kill", 0),
            detail=detail,
        ),
        pids=PidsStats(
            current=_number(directory, "pids.current"), limit=None if limit == UNLIMITED else limit
        ),
        io_bytes=io_bytes,
        io_operations=io_operations,
        hugetlb=_hugetlb(directory, "current", "max_usage", "events"),
        pressure={
            name: parsed
            for name in ("cpu", "memory", "io")
            if (parsed := parse_pressure(_text(directory, f"{name}.pressure")))
        },
    )


def _hugetlb(
    directory: str | None, usage: str, peak: str, failures: str
) -> dict[str, HugetlbStats]:
    if directory is None:
        return {}
    suffix = "." + usage
    sizes = [
        name[len("hugetlb.") : -len(suffix)]
        for name in os.listdir(directory)
        if name.startswith("hugetlb.") and name.endswith(suffix)
    ]
    found: dict[str, HugetlbStats] = {}
    for size in sorted(size for size in sizes if "." not in size and size):
        text = _text(directory, f"hugetlb.{size}.{failures}")
        count = int(text) if text.isdigit() else parse_flat(text).get("max", 0)
        found[size] = HugetlbStats(
            usage=_number(directory, f"hugetlb.{size}{suffix}"),
            peak=_number(directory, f"hugetlb.{size}.{peak}"),
            failures=count,
        )
    return found
