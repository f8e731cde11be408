"""Volumes, as the Docker Engine API writes them (API v1.55, spec/docker-api).

Every field is optional on the wire; ``None`` means absent. Only the edge decodes these from
untrusted input; msgspec names the offending field.
"""

from __future__ import annotations

import msgspec

from sampan.wire.base import Json, Object


class VolumeUsageData(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Usage details about the volume."""

    size: int | None = msgspec.field(default=None, name="Size")
    ref_count: int | None = msgspec.field(default=None, name="RefCount")


class Volume(Object, kw_only=True, frozen=True, omit_defaults=True):
    """One volume."""

    name: str | None = msgspec.field(default=None, name="Name")
    driver: str | None = msgspec.field(default=None, name="Driver")
    mountpoint: str | None = msgspec.field(default=None, name="Mountpoint")
    created_at: str | None = msgspec.field(default=None, name="CreatedAt")
    status: dict[str, Json] | None = msgspec.field(default=None, name="Status")
    labels: dict[str, str] | None = msgspec.field(default=None, name="Labels")
    scope: str | None = msgspec.field(default=None, name="Scope")
    cluster_volume: Json | None = msgspec.field(default=None, name="ClusterVolume")
    options: dict[str, str] | None = msgspec.field(default=None, name="Options")
    usage_data: VolumeUsageData | None = msgspec.field(default=None, name="UsageData")


class VolumesDiskUsage(Object, kw_only=True, frozen=True, omit_defaults=True):
    """represents system data usage for volume resources."""

    active_count: int | None = msgspec.field(default=None, name="ActiveCount")
    total_count: int | None = msgspec.field(default=None, name="TotalCount")
    reclaimable: int | None = msgspec.field(default=None, name="Reclaimable")
    total_size: int | None = msgspec.field(default=None, name="TotalSize")
    items: list[dict[str, Json]] | None = msgspec.field(default=None, name="Items")


class VolumeCreateRequest(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Volume configuration."""

    name: str | None = msgspec.field(default=None, name="Name")
    driver: str | None = msgspec.field(default=None, name="Driver")
    driver_opts: dict[str, str] | None = msgspec.field(default=None, name="DriverOpts")
    labels: dict[str, str] | None = msgspec.field(default=None, name="Labels")
    cluster_volume_spec: Json | None = msgspec.field(default=None, name="ClusterVolumeSpec")


class VolumeListResponse(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Volume list response."""

    volumes: list[Volume] | None = msgspec.field(default=None, name="Volumes")
    warnings: list[str] | None = msgspec.field(default=None, name="Warnings")


class ObjectVersion(Object, kw_only=True, frozen=True, omit_defaults=True):
    """The version number of the object such as node, service, etc."""

    index: int | None = msgspec.field(default=None, name="Index")


class VolumesPruneReport(Object, kw_only=True, frozen=True, omit_defaults=True):
    """What pruning volumes removed, and the bytes it freed."""

    volumes_deleted: list[str] | None = msgspec.field(default=None, name="VolumesDeleted")
    space_reclaimed: int | None = msgspec.field(default=None, name="SpaceReclaimed")
