"""``docker update`` and ``docker rename``: changing a container after its creation."""

from __future__ import annotations

import posixpath

import msgspec

from sampan.engine import validate
from sampan.engine.core import Core, update_record
from sampan.engine.names import check_name
from sampan.engine.resources import linux_resources
from sampan.engine.table import Container
from sampan.errors import Conflict, InvalidParameter, SampanError
from sampan.kernel import cgroup
from sampan.kernel.cgroup import systemd
from sampan.wire.container import (
    ContainerUpdateRequest,
    ContainerUpdateResponse,
    HostConfig,
    Resources,
)

#: resources that describe devices cannot be changed after creation
_FIXED = ("devices", "device_cgroup_rules", "device_requests", "cgroup_parent", "ulimits", "init")


async def update(
    core: Core, container: Container, body: ContainerUpdateRequest
) -> ContainerUpdateResponse:
    """See :meth:`sampan.engine.containers.Containers.update`."""
    async with container.lock:
        merged = merge(container.record.host_config, body)
        validate.validate_resources(merged, core.host.cpus, core.host.memory_nodes)
        policy = body.restart_policy
        if policy is not None and policy.name:
            validate.validate_restart_policy(policy)
            if merged.auto_remove and policy.name != "no":
                raise Conflict(
                    "Restart policy cannot be updated because AutoRemove is enabled for the "
                    "container"
                )
            merged = msgspec.structs.replace(merged, restart_policy=policy)
        if container.live is not None:
            await core.threads.run(_apply, core, container.live.cgroup, merged)
        container.record = msgspec.structs.replace(container.record, host_config=merged)
        await core.state.write(update_record(container))
    core.publish(container, "update")
    return ContainerUpdateResponse(warnings=[])


def merge(host: HostConfig, body: ContainerUpdateRequest) -> HostConfig:
    """The configuration with what the request sets; zero means unchanged, as in dockerd.

    Raises InvalidParameter for what cannot be changed.
    """
    changes: dict[str, object] = {}
    for name in Resources.__struct_fields__:
        value = getattr(body, name)
        if value is None or value == 0 or value == "" or value == []:
            continue
        if name in _FIXED:
            raise InvalidParameter(f"{name} of a container cannot be updated")
        changes[name] = value
    if body.pids_limit is not None and body.pids_limit <= 0:
        changes["pids_limit"] = 0  # unlimited, however it was said
    memory, swap = changes.get("memory"), changes.get("memory_swap")
    if (
        isinstance(memory, int)
        and swap is None
        and (host.memory_swap or 0) > 0
        and memory > (host.memory_swap or 0)
    ):
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the "
            "memoryswap at the same time"
        )
    if "nano_cpus" in changes and (host.cpu_quota or host.cpu_period):
        raise Conflict(
            "Conflicting options: Nano CPUs cannot be updated as CPU Period/Quota has already "
            "been set"
        )
    for field, name in (("cpu_period", "CPU Period"), ("cpu_quota", "CPU Quota")):
        if field in changes and host.nano_cpus:
            raise Conflict(
                f"Conflicting options: {name} cannot be updated as NanoCPUs has already been set"
            )
    return msgspec.structs.replace(host, **changes)


def _apply(core: Core, path: str, host: HostConfig) -> None:
    wanted = linux_resources(host, (), core.host.devices)
    wanted.pop("devices", None)
    try:
        cgroup.apply(cgroup.plan_update(core.facts.layout, path, wanted))
    except OSError as error:
        raise SampanError(f"Cannot update container: {error.strerror}: {error.filename}") from error
    if core.config.cgroup_driver == "systemd":
        unit = posixpath.basename(path)
        systemd.change(unit, systemd.properties(core.facts.layout, wanted))


async def rename(core: Core, container: Container, name: str) -> None:
    """See :meth:`sampan.engine.containers.Containers.rename`."""
    if not name:
        raise InvalidParameter("Neither old nor new names may be empty")
    chosen = check_name(name)
    old = container.name
    if chosen == old:
        raise InvalidParameter("Renaming a container with the same name as its current name")
    async with container.lock:
        core.containers.reserve(chosen, container.id)
        container.record = msgspec.structs.replace(container.record, name=chosen)
        try:
            await core.state.write(update_record(container))
        except SampanError:
            container.record = msgspec.structs.replace(container.record, name=old)
            core.containers.release(chosen, container.id)
            raise
        core.containers.release(old, container.id)
        core.fabric.enter(container, container.endpoints.values())
    core.publish(container, "rename", oldName=f"/{old}")
