"""Resource usage of containers as ``docker stats`` gets it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from sampan.engine import clock
from sampan.engine.core import Core
from sampan.engine.table import Container
from sampan.kernel import cgroup
from sampan.kernel.cgroup.usage import UNLIMITED, BlockIoEntry, CgroupStats
from sampan.wire.stats import (
    ContainerBlkioStatEntry,
    ContainerBlkioStats,
    ContainerCPUStats,
    ContainerCPUUsage,
    ContainerMemoryStats,
    ContainerNetworkStats,
    ContainerPidsStats,
    ContainerStatsResponse,
    ContainerStorageStats,
    ContainerThrottlingData,
)

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
#: seconds between the samples of a stream
_PERIOD = 1.0
#: seconds between a single sample and its predecessor: enough ticks (10 ms a processor) for the
#: difference to mean something, and half of what a client waits for dockerd's
_APART = 0.5


async def stream(
    core: Core, container: Container, *, follow: bool, one_shot: bool
) -> AsyncIterator[ContainerStatsResponse]:
    """Samples: one a second, or one with its predecessor shortly before, or just one."""
    previous: ContainerStatsResponse | None = None
    if not follow and not one_shot and container.run is not None:
        previous = await sample(core, container, None)
        await asyncio.sleep(_APART)
    while True:
        current = await sample(core, container, previous)
        yield current
        if not follow or container.removed:
            return
        previous = current
        await asyncio.sleep(_PERIOD)


async def sample(
    core: Core, container: Container, previous: ContainerStatsResponse | None
) -> ContainerStatsResponse:
    """One sample; mostly empty when the container does not run, as dockerd's is."""
    empty = ContainerStatsResponse(
        id=container.id,
        name=f"/{container.name}",
        os_type="linux",
        read=clock.ZERO,
        preread=clock.ZERO,
        cpu_stats=ContainerCPUStats(cpu_usage=ContainerCPUUsage(total_usage=0)),
        precpu_stats=ContainerCPUStats(cpu_usage=ContainerCPUUsage(total_usage=0)),
        memory_stats=ContainerMemoryStats(),
        pids_stats=ContainerPidsStats(),
        blkio_stats=ContainerBlkioStats(),
        num_procs=0,
        storage_stats=ContainerStorageStats(),
    )
    run = container.run
    if run is None:
        return empty
    try:
        return await core.threads.run(_read, core, container, run.cgroup, previous)
    except FileNotFoundError:
        return empty  # it ended while being read


def _read(
    core: Core, container: Container, path: str, previous: ContainerStatsResponse | None
) -> ContainerStatsResponse:
    stats = cgroup.stats(core.facts.layout, path)
    legacy = core.facts.layout.mode != "v2"
    # dockerd tells a missing limit of cgroup v2 alone.
    unlimited = None if legacy else UNLIMITED
    return ContainerStatsResponse(
        id=container.id,
        name=f"/{container.name}",
        os_type="linux",
        read=clock.rfc3339(clock.now()),
        preread=previous.read if previous is not None else clock.ZERO,
        cpu_stats=_cpu(stats),
        precpu_stats=previous.cpu_stats
        if previous is not None
        else ContainerCPUStats(cpu_usage=ContainerCPUUsage(total_usage=0)),
        memory_stats=_memory(stats),
        networks=_networks(core, container),
        pids_stats=ContainerPidsStats(
            current=stats.pids.current,
            limit=stats.pids.limit if stats.pids.limit is not None else unlimited,
        ),
        blkio_stats=_block_io(stats, legacy=legacy),
        num_procs=0,
        storage_stats=ContainerStorageStats(),
    )


def _cpu(stats: CgroupStats) -> ContainerCPUStats:
    cpu = stats.cpu
    return ContainerCPUStats(
        cpu_usage=ContainerCPUUsage(
            total_usage=cpu.total,
            percpu_usage=list(cpu.percpu) or None,
            usage_in_kernelmode=cpu.kernel,
            usage_in_usermode=cpu.user,
        ),
        system_cpu_usage=system_cpu(Path("/proc/stat").read_text()),
        online_cpus=os.cpu_count() or 1,
        throttling_data=ContainerThrottlingData(
            periods=cpu.periods,
            throttled_periods=cpu.throttled_periods,
            throttled_time=cpu.throttled_time,
        ),
    )


def system_cpu(proc_stat: str) -> int:
    """Nanoseconds all processors worked or idled since boot (proc_stat(5), first line)."""
    fields = proc_stat.partition("\n")[0].split()[1:8]
    return sum(int(field) for field in fields) * _TICK


def memory_total() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _memory(stats: CgroupStats) -> ContainerMemoryStats:
    memory = stats.memory
    return ContainerMemoryStats(
        usage=memory.usage,
        max_usage=memory.peak if stats.version == 1 else None,
        stats=dict(memory.detail),
        failcnt=memory.failures if stats.version == 1 else None,
        limit=min(memory.limit, memory_total()),
    )


def _block_io(stats: CgroupStats, *, legacy: bool) -> ContainerBlkioStats:
    """What was read and written; on cgroup v1 lists that are empty are lists (as dockerd's)."""
    none: list[ContainerBlkioStatEntry] | None = [] if legacy else None
    return ContainerBlkioStats(
        io_service_bytes_recursive=_entries(stats.io_bytes) or none,
        io_serviced_recursive=_entries(stats.io_operations) or none,
        io_queue_recursive=none,
        io_service_time_recursive=none,
        io_wait_time_recursive=none,
        io_merged_recursive=none,
        io_time_recursive=none,
        sectors_recursive=none,
    )


def _entries(entries: Iterable[BlockIoEntry]) -> list[ContainerBlkioStatEntry] | None:
    found = [
        ContainerBlkioStatEntry(
            major=entry.major, minor=entry.minor, op=entry.operation, value=entry.value
        )
        for entry in entries
    ]
    return found or None


def _networks(core: Core, container: Container) -> dict[str, ContainerNetworkStats] | None:
    """Counters of the container's interfaces, read from its own network namespace's procfs."""
    if not container.endpoints:
        return None
    try:
        text = Path(f"/proc/{container.state.pid}/net/dev").read_text()
    except OSError:
        return None
    counters = parse_net_dev(text)
    return {
        plug.endpoint.interface: counters[plug.endpoint.interface]
        for plug in container.endpoints.values()
        if plug.endpoint.interface in counters
    }


def parse_net_dev(text: str) -> dict[str, ContainerNetworkStats]:
    """The counters of each interface in /proc/net/dev (proc_pid_net(5))."""
    found: dict[str, ContainerNetworkStats] = {}
    for line in text.splitlines()[2:]:
        name, colon, rest = line.partition(":")
        values = [int(value) for value in rest.split()]
        if colon and len(values) >= 12:
            found[name.strip()] = ContainerNetworkStats(
                rx_bytes=values[0],
                rx_packets=values[1],
                rx_errors=values[2],
                rx_dropped=values[3],
                tx_bytes=values[8],
                tx_packets=values[9],
                tx_errors=values[10],
                tx_dropped=values[11],
            )
    return found
