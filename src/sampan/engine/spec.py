"""A container's record -> its OCI runtime spec, exactly as dockerd makes it (pure).

What differs from host to host comes in :class:`Host`, what the engine resolved for this start in
:class:`Resolved`; the same arguments always give the same spec (golden files show it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sampan.engine import capabilities as caps
from sampan.engine import idmapspec
from sampan.engine import resources as res
from sampan.engine.hostdevices import DeviceTable
from sampan.engine.merge import environment
from sampan.engine.record import MountRecord, Record
from sampan.engine.security import SecurityOptions
from sampan.errors import InvalidParameter
from sampan.model import oci
from sampan.model.idmap import IdMap, Row
from sampan.wire.container import HostConfig, ResourcesUlimit

OCI_VERSION = "1.2.0"

MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

#: default sysctls of a network namespace of its own: the default capabilities allow both anyway
PING_GROUPS = "net.ipv4.ping_group_range"
NETWORK_SYSCTLS = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    PING_GROUPS: "0 2147483647",
}

_DEFAULT_MOUNTS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    ("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    ("/sys/fs/cgroup", "cgroup", "cgroup", ("ro", "nosuid", "noexec", "nodev")),
    ("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777")),
)
_WRITABLE_WHEN_READ_ONLY = frozenset({"/proc", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What a host contributes to specs; probed once."""

    devices: DeviceTable
    capabilities: tuple[str, ...] = caps.ALL
    recursive_read_only: bool = True
    cgroup_v2: bool = False
    cpus: int = 1
    memory_nodes: str = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What the engine found out for one start.

    ``namespaces`` maps OCI namespace types to a path to join, "" for a new one; a type left out
    is shared with the host. ``mounts`` are the container's own mounts with their sources known;
    ``files`` host paths bound over files in /etc; ``shared_memory`` a host path for /dev/shm;
    ``id_map`` the ids of the user namespace, if there is one.
    """

    namespaces: Mapping[str, str]
    cgroup: str
    hostname: str
    mounts: Sequence[MountRecord] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    shared_memory: str = ""
    ulimits: Sequence[ResourcesUlimit] = ()
    environment: Sequence[str] = ()
    no_new_privileges: bool = False
    security: SecurityOptions = field(default_factory=SecurityOptions)
    seccomp: oci.Seccomp | None = None
    id_map: IdMap | None = None


def runtime_spec(record: Record, host: Host, resolved: Resolved) -> oci.Spec:
    """The whole ``config.json``; ``root`` is a placeholder the runtime replaces.

    The user is left at 0:0: names are resolved by the runtime in the container's own files, see
    ``CreateRequest.user``.
    """
    config = record.host_config
    spec: oci.Spec = {
        "ociVersion": OCI_VERSION,
        "process": _process(record, host, resolved),
        "root": {"path": "rootfs", "readonly": bool(config.readonly_rootfs)},
        "mounts": _mounts(config, host, resolved),
        "linux": _linux(config, host, resolved),
    }
    if "uts" in resolved.namespaces and not resolved.namespaces["uts"]:
        spec["hostname"] = resolved.hostname
        if record.config.domainname:
            spec["domainname"] = record.config.domainname
    if config.annotations:
        spec["annotations"] = dict(config.annotations)
    return spec


def _process(record: Record, host: Host, resolved: Resolved) -> oci.Process:
    config, host_config = record.config, record.host_config
    granted = list(
        caps.effective(
            host_config.cap_add or [],
            host_config.cap_drop or [],
            privileged=bool(host_config.privileged),
            available=host.capabilities,
        )
    )
    process: oci.Process = {
        "terminal": bool(config.tty),
        "user": {"uid": 0, "gid": 0},
        "args": [record.path, *record.args],
        "env": environment(config, resolved.hostname, list(resolved.environment)),
        "cwd": config.working_dir or "/",
        "capabilities": {"bounding": granted, "effective": granted, "permitted": granted},
        "rlimits": rlimits(resolved.ulimits, host_config.ulimits or []),
        "noNewPrivileges": resolved.security.no_new_privileges or resolved.no_new_privileges,
        "oomScoreAdj": host_config.oom_score_adj or 0,
    }
    if config.tty and host_config.console_size and any(host_config.console_size):
        height, width = host_config.console_size
        process["consoleSize"] = {"height": height, "width": width}
    return process


def rlimits(
    defaults: Sequence[ResourcesUlimit], own: Sequence[ResourcesUlimit]
) -> list[oci.Rlimit]:
    """The daemon's default limits overridden by the container's; -1 is unlimited."""
    merged = {limit.name or "": limit for limit in (*defaults, *own)}
    found: list[oci.Rlimit] = []
    for name, limit in merged.items():
        soft, hard = limit.soft or 0, limit.hard or 0
        found.append(
            {
                "type": f"RLIMIT_{name.upper()}",
                "soft": soft if soft >= 0 else (1 << 64) - 1,
                "hard": hard if hard >= 0 else (1 << 64) - 1,
            }
        )
    return found


def resources(config: HostConfig, host: Host) -> oci.Resources:
    """What the container's cgroups limit: ``linux.resources`` of its spec."""
    _, rules = res.devices(config, privileged=bool(config.privileged), table=host.devices)
    return res.linux_resources(config, rules, host.devices)


def _linux(config: HostConfig, host: Host, resolved: Resolved) -> oci.Linux:
    privileged = bool(config.privileged)
    nodes, rules = res.devices(config, privileged=privileged, table=host.devices)
    linux: oci.Linux = {
        "cgroupsPath": resolved.cgroup,
        "namespaces": _namespaces(resolved.namespaces),
        "devices": nodes,
        "resources": res.linux_resources(config, rules, host.devices),
        "sysctl": _sysctls(config, resolved),
    }
    if resolved.id_map is not None:
        linux["uidMappings"] = _mappings(resolved.id_map.uids)
        linux["gidMappings"] = _mappings(resolved.id_map.gids)
    if not privileged and resolved.security.system_paths_confined:
        masked, readonly = config.masked_paths, config.readonly_paths
        linux["maskedPaths"] = list(MASKED_PATHS if masked is None else masked)
        linux["readonlyPaths"] = list(READONLY_PATHS if readonly is None else readonly)
    if resolved.seccomp is not None:
        linux["seccomp"] = resolved.seccomp
    propagations = {mount.propagation for mount in resolved.mounts}
    if propagations & {"shared", "rshared"}:
        linux["rootfsPropagation"] = "shared"
    elif propagations & {"slave", "rslave"}:
        linux["rootfsPropagation"] = "slave"
    return linux


def _namespaces(wanted: Mapping[str, str]) -> list[oci.Namespace]:
    found: list[oci.Namespace] = []
    for kind, path in wanted.items():
        namespace: oci.Namespace = {"type": kind}
        if path:
            namespace["path"] = path
        found.append(namespace)
    return found


def _mappings(rows: Sequence[Row]) -> list[oci.IDMapping]:
    return [
        {"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in rows
    ]


def _sysctls(config: HostConfig, resolved: Resolved) -> dict[str, str]:
    defaults = dict[str, str]()
    if resolved.namespaces.get("network") == "":
        defaults = dict(NETWORK_SYSCTLS)
    if resolved.id_map is not None and defaults:
        # Only groups with an id outside can be in the range, and those of the first row are.
        last = next((row[2] - 1 for row in resolved.id_map.gids if row[0] == 0), None)
        if last is None:
            del defaults[PING_GROUPS]
        else:
            defaults[PING_GROUPS] = f"0 {last}"
    return {**defaults, **(config.sysctls or {})}


def _mounts(config: HostConfig, host: Host, resolved: Resolved) -> list[oci.Mount]:
    own = {mount.destination: mount for mount in resolved.mounts}
    tmpfs = config.tmpfs or {}
    taken = own.keys() | tmpfs.keys()
    mounts = _defaults(config, taken, resolved)
    for target, options in tmpfs.items():
        mounts.append(tmpfs_mount(target, options.split(",") if options else []))
    for path, source in resolved.files.items():
        if path not in taken:
            mounts.append(
                {
                    "destination": path,
                    "type": "bind",
                    "source": source,
                    "options": ["rbind", "rprivate", *_idmapped(resolved)],
                }
            )
    mounts.extend(_own_mount(mount, host, resolved) for mount in resolved.mounts)
    mounts.sort(key=lambda mount: mount["destination"].count("/"))
    if config.readonly_rootfs:
        for mount in mounts:
            target = mount["destination"]
            words = mount.setdefault("options", [])
            if target not in _WRITABLE_WHEN_READ_ONLY | taken and "ro" not in words:
                words.append("ro")
    _open_system(mounts, config, resolved.security)
    return mounts


def _defaults(
    config: HostConfig, taken: set[str] | frozenset[str], resolved: Resolved
) -> list[oci.Mount]:
    mounts: list[oci.Mount] = []
    for target, kind, source, options in _DEFAULT_MOUNTS:
        if target in taken or ("/dev" in taken and target.startswith("/dev/")):
            continue
        words = list(options)
        if "gid=5" in words and resolved.id_map and resolved.id_map.outside(0, 5) is None:
            words.remove("gid=5")
        if target == "/sys" and resolved.id_map and "network" not in resolved.namespaces:
            # sysfs shows a network namespace, and the host's is not this user namespace's to show.
            words = ["rbind", "nosuid", "noexec", "nodev", "rro"]
            mounts.append({**_shared(target, "/sys"), "options": words})
            continue
        if target == "/dev/shm":
            if config.ipc_mode == "none":
                continue
            if resolved.shared_memory:
                mounts.append(_shared(target, resolved.shared_memory))
                continue
            words.append(f"size={config.shm_size or 64 << 20}")
        mounts.append({"destination": target, "type": kind, "source": source, "options": words})
    return mounts


def _shared(target: str, source: str) -> oci.Mount:
    return {
        "destination": target,
        "type": "bind",
        "source": source,
        "options": ["rbind", "rprivate"],
    }


def _idmapped(resolved: Resolved) -> list[str]:
    """What is ours on disk belongs to the same ids inside, whatever they are outside."""
    return ["idmap"] if resolved.id_map is not None else []


def _own_mount(mount: MountRecord, host: Host, resolved: Resolved) -> oci.Mount:
    if mount.type == "tmpfs":
        return tmpfs_mount(mount.destination, mount.options)
    options = ["rbind" if mount.recursive else "bind"]
    if not mount.writable:
        recursive = mount.read_only_recursive and mount.recursive and host.recursive_read_only
        if mount.read_only_forced and not recursive:
            raise InvalidParameter(
                f"cannot make {mount.destination} recursively read-only: the kernel is too old"
            )
        options.append("rro" if recursive else "ro")
    if mount.propagation:
        options.append(mount.propagation)
    made: oci.Mount = {
        "destination": mount.destination,
        "type": "bind",
        "source": mount.source,
        "options": options,
    }
    mapping = idmapspec.custom(mount.idmap, resolved.id_map)
    if mapping is not None:
        made["uidMappings"] = _mappings(mapping.uids)
        made["gidMappings"] = _mappings(mapping.gids)
    elif mount.idmap and mount.idmap != idmapspec.TRY:
        options += _idmapped(resolved)
    elif (mount.idmap or mount.type == "volume") and resolved.id_map is not None:
        options.append("tryidmap")  # a volume's file system may be one that cannot
    return made


#: options that exclude each other, so that the later one wins (dockerd's MergeTmpfsOptions)
_OPPOSITES: tuple[frozenset[str], ...] = tuple(
    frozenset(pair)
    for pair in (
        ("ro", "rw"),
        ("suid", "nosuid"),
        ("dev", "nodev"),
        ("exec", "noexec"),
        ("sync", "async"),
        ("dirsync", "nodirsync"),
        ("mand", "nomand"),
        ("atime", "noatime"),
        ("diratime", "nodiratime"),
        ("bind", "rbind"),
        ("private", "rprivate", "shared", "rshared", "slave", "rslave"),
        ("unbindable", "runbindable"),
        ("relatime", "norelatime"),
        ("strictatime", "nostrictatime"),
    )
)
_TMPFS_DATA = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge"})


def tmpfs_mount(target: str, options: Sequence[str]) -> oci.Mount:
    """A tmpfs with Docker's defaults; a later option replaces an earlier one of its kind.

    Raises InvalidParameter for an option tmpfs(5) does not have.
    """
    kept: dict[frozenset[str] | str, str] = {}
    for word in ("noexec", "nosuid", "nodev", "rprivate", *options):
        name = word.partition("=")[0]
        group: frozenset[str] | str | None = next((g for g in _OPPOSITES if word in g), None)
        if group is None and "=" in word and name in _TMPFS_DATA:
            group = name
        if group is None:
            raise InvalidParameter(f"Invalid tmpfs option {word!r} for {target}")
        kept.pop(group, None)
        kept[group] = word
    return {
        "destination": target,
        "type": "tmpfs",
        "source": "tmpfs",
        "options": list(kept.values()),
    }


def _open_system(mounts: list[oci.Mount], config: HostConfig, security: SecurityOptions) -> None:
    """Privileged containers may write to /sys and to their cgroups."""
    for mount in mounts:
        writable = config.privileged and (
            mount["destination"] == "/sys" or mount.get("type") == "cgroup"
        )
        if writable or (security.writable_cgroups and mount.get("type") == "cgroup"):
            mount["options"] = [word for word in mount.get("options", []) if word != "ro"]
