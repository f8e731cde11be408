"""Container statistics, as the Docker Engine API writes them (API v1.55, spec/docker-api).

Every field is optional on the wire; ``None`` means absent. Only the edge decodes these from
untrusted input; msgspec names the offending field.
"""

from __future__ import annotations

from sampan.wire.base import Json, Object


class ContainerCPUUsage(Object, kw_only=True, frozen=True, omit_defaults=True):
    """All CPU stats aggregated since container inception."""

    total_usage: int | None = None
    percpu_usage: list[int] | None = None
    usage_in_kernelmode: int | None = None
    usage_in_usermode: int | None = None


class ContainerThrottlingData(Object, kw_only=True, frozen=True, omit_defaults=True):
    """CPU throttling stats of the container."""

    periods: int | None = None
    throttled_periods: int | None = None
    throttled_time: int | None = None


class ContainerCPUStats(Object, kw_only=True, frozen=True, omit_defaults=True):
    """CPU related info of the container."""

    cpu_usage: ContainerCPUUsage | None = None
    system_cpu_usage: int | None = None
    online_cpus: int | None = None
    throttling_data: ContainerThrottlingData | None = None


class ContainerMemoryStats(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Aggregates all memory stats since container inception on Linux."""

    usage: int | None = None
    max_usage: int | None = None
    stats: dict[str, Json] | None = None
    failcnt: int | None = None
    limit: int | None = None
    commitbytes: int | None = None
    commitpeakbytes: int | None = None
    privateworkingset: int | None = None


class ContainerNetworkStats(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Aggregates the network stats of one container."""

    rx_bytes: int | None = None
    rx_packets: int | None = None
    rx_errors: int | None = None
    rx_dropped: int | None = None
    tx_bytes: int | None = None
    tx_packets: int | None = None
    tx_errors: int | None = None
    tx_dropped: int | None = None
    endpoint_id: str | None = None
    instance_id: str | None = None


class ContainerPidsStats(Object, kw_only=True, frozen=True, omit_defaults=True):
    """PidsStats contains Linux-specific stats of a container's process-IDs (PIDs)."""

    current: int | None = None
    limit: int | None = None


class ContainerBlkioStatEntry(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Blkio stats entry."""

    major: int | None = None
    minor: int | None = None
    op: str | None = None
    value: int | None = None


class ContainerBlkioStats(Object, kw_only=True, frozen=True, omit_defaults=True):
    """BlkioStats stores all IO service stats for data read and write."""

    io_service_bytes_recursive: list[ContainerBlkioStatEntry] | None = None
    io_serviced_recursive: list[ContainerBlkioStatEntry] | None = None
    io_queue_recursive: list[ContainerBlkioStatEntry] | None = None
    io_service_time_recursive: list[ContainerBlkioStatEntry] | None = None
    io_wait_time_recursive: list[ContainerBlkioStatEntry] | None = None
    io_merged_recursive: list[ContainerBlkioStatEntry] | None = None
    io_time_recursive: list[ContainerBlkioStatEntry] | None = None
    sectors_recursive: list[ContainerBlkioStatEntry] | None = None


class ContainerStorageStats(Object, kw_only=True, frozen=True, omit_defaults=True):
    """StorageStats is the disk I/O stats for read/write on Windows."""

    read_count_normalized: int | None = None
    read_size_bytes: int | None = None
    write_count_normalized: int | None = None
    write_size_bytes: int | None = None


class ContainerStatsResponse(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Statistics sample for a container."""

    id: str | None = None
    name: str | None = None
    os_type: str | None = None
    read: str | None = None
    cpu_stats: ContainerCPUStats | None = None
    memory_stats: ContainerMemoryStats | None = None
    networks: dict[str, ContainerNetworkStats] | None = None
    pids_stats: ContainerPidsStats | None = None
    blkio_stats: ContainerBlkioStats | None = None
    num_procs: int | None = None
    storage_stats: ContainerStorageStats | None = None
    preread: str | None = None
    precpu_stats: ContainerCPUStats | None = None
