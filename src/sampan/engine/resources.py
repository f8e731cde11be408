"""HostConfig -> ``linux.resources`` and ``linux.devices`` of the OCI runtime spec (pure).

Device numbers come from the :class:`~sampan.engine.hostdevices.DeviceTable` passed in. Units: the
API's own (bytes, nanoseconds of CPU per second as NanoCpus, cgroup v1 shares).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sampan.engine.hostdevices import DeviceNode, DeviceTable
from sampan.errors import InvalidParameter
from sampan.model import oci
from sampan.wire.container import DeviceMapping, Resources, ThrottleDevice

_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")
_CPU_PERIOD = 100_000

_DEFAULT_RULES: tuple[tuple[str, int, int, bool], ...] = (
    ("c", 1, 5, True),  # zero
    ("c", 1, 3, True),  # null
    ("c", 1, 9, True),  # urandom
    ("c", 1, 8, True),  # random
    ("c", 5, 0, True),  # tty
    ("c", 5, 1, True),  # console
    ("c", 10, 229, False),  # fuse
)


def default_device_rules() -> list[oci.DeviceRule]:
    """Nothing is allowed but the pseudo devices every program expects."""
    rules: list[oci.DeviceRule] = [{"allow": False, "access": "rwm"}]
    for kind, major, minor, allow in _DEFAULT_RULES:
        rules.append(
            {"allow": allow, "type": kind, "major": major, "minor": minor, "access": "rwm"}
        )
    return rules


def parse_device_rule(text: str) -> oci.DeviceRule:
    """A ``--device-cgroup-rule`` (``c 42:* rmw``); raises InvalidParameter."""
    match = _RULE.fullmatch(text)
    if match is None:
        raise InvalidParameter(f"invalid device cgroup rule format: '{text}'")
    kind, major, minor, access = match.groups()
    rule: oci.DeviceRule = {"allow": True, "type": kind, "access": access}
    if major != "*":
        rule["major"] = int(major)
    if minor != "*":
        rule["minor"] = int(minor)
    return rule


def devices(
    host: Resources, *, privileged: bool, table: DeviceTable
) -> tuple[list[oci.Device], list[oci.DeviceRule]]:
    """Device nodes to make in the container, and the cgroup's rules about devices."""
    if privileged:
        nodes = [_device(node, node.path) for node in table.all()]
        for mapping in host.devices or []:
            if mapping.path_in_container and mapping.path_in_container != mapping.path_on_host:
                nodes.extend(node for node, _ in _mapped(mapping, table))
        return nodes, [{"allow": True, "access": "rwm"}]
    nodes, rules = [], default_device_rules()
    for mapping in host.devices or []:
        for node, rule in _mapped(mapping, table):
            nodes.append(node)
            rules.append(rule)
    rules.extend(parse_device_rule(text) for text in host.device_cgroup_rules or [])
    return nodes, rules


def _mapped(mapping: DeviceMapping, table: DeviceTable) -> list[tuple[oci.Device, oci.DeviceRule]]:
    source = mapping.path_on_host or ""
    target = mapping.path_in_container or source
    access = mapping.cgroup_permissions or "rwm"
    if set(access) - set("rwm"):
        raise InvalidParameter(f"invalid device mode: {access}")
    found = []
    for node in table.nodes(source):
        path = target + node.path.removeprefix(source) if node.path != source else target
        rule: oci.DeviceRule = {
            "allow": True,
            "type": node.kind,
            "major": node.major,
            "minor": node.minor,
            "access": access,
        }
        found.append((_device(node, path), rule))
    return found


def _device(node: DeviceNode, path: str) -> oci.Device:
    return {
        "type": node.kind,
        "path": path,
        "major": node.major,
        "minor": node.minor,
        "fileMode": node.mode,
        "uid": node.uid,
        "gid": node.gid,
    }


def linux_resources(
    host: Resources, rules: Sequence[oci.DeviceRule], table: DeviceTable
) -> oci.Resources:
    """``linux.resources``: only what the user limited is named."""
    resources: oci.Resources = {"devices": list(rules)}
    if memory := _memory(host):
        resources["memory"] = memory
    if cpu := _cpu(host):
        resources["cpu"] = cpu
    if host.pids_limit is not None:
        resources["pids"] = {"limit": host.pids_limit if host.pids_limit > 0 else -1}
    if block := _block_io(host, table):
        resources["blockIO"] = block
    return resources


def _memory(host: Resources) -> oci.MemoryResources:
    memory: oci.MemoryResources = {}
    if (host.memory or 0) > 0:
        memory["limit"] = host.memory or 0
    if (host.memory_reservation or 0) > 0:
        memory["reservation"] = host.memory_reservation or 0
    if host.memory_swap:
        memory["swap"] = host.memory_swap
    if host.memory_swappiness is not None and host.memory_swappiness >= 0:
        memory["swappiness"] = host.memory_swappiness
    if host.oom_kill_disable:
        memory["disableOOMKiller"] = True
    return memory


def _cpu(host: Resources) -> oci.CPUResources:
    cpu: oci.CPUResources = {}
    if host.cpu_shares:
        cpu["shares"] = host.cpu_shares
    if host.nano_cpus:
        cpu["period"] = _CPU_PERIOD
        cpu["quota"] = host.nano_cpus * _CPU_PERIOD // 1_000_000_000
    if host.cpu_period:
        cpu["period"] = host.cpu_period
    if host.cpu_quota:
        cpu["quota"] = host.cpu_quota
    if host.cpuset_cpus:
        cpu["cpus"] = host.cpuset_cpus
    if host.cpuset_mems:
        cpu["mems"] = host.cpuset_mems
    if host.cpu_realtime_period:
        cpu["realtimePeriod"] = host.cpu_realtime_period
    if host.cpu_realtime_runtime:
        cpu["realtimeRuntime"] = host.cpu_realtime_runtime
    return cpu


def _block_io(host: Resources, table: DeviceTable) -> oci.BlockIO:
    block: oci.BlockIO = {}
    if host.blkio_weight:
        block["weight"] = host.blkio_weight
    if host.blkio_weight_device:
        block["weightDevice"] = [
            {"major": node.major, "minor": node.minor, "weight": item.weight or 0}
            for item in host.blkio_weight_device
            for node in [table.node(item.path or "")]
        ]
    if host.blkio_device_read_bps:
        block["throttleReadBpsDevice"] = _throttle(host.blkio_device_read_bps, table)
    if host.blkio_device_write_bps:
        block["throttleWriteBpsDevice"] = _throttle(host.blkio_device_write_bps, table)
    if host.blkio_device_read_i_ops:
        block["throttleReadIOPSDevice"] = _throttle(host.blkio_device_read_i_ops, table)
    if host.blkio_device_write_i_ops:
        block["throttleWriteIOPSDevice"] = _throttle(host.blkio_device_write_i_ops, table)
    return block


def _throttle(devices: Sequence[ThrottleDevice], table: DeviceTable) -> list[oci.ThrottleDevice]:
    throttled: list[oci.ThrottleDevice] = []
    for item in devices:
        node = table.node(item.path or "")
        throttled.append({"major": node.major, "minor": node.minor, "rate": item.rate or 0})
    return throttled
