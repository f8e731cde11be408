"""The OCI runtime specification's ``config.json`` (version 1.2) as typed dictionaries.

Keys are spelled as in the document, so a value of :class:`Spec` is what ``json.loads`` returned and
what ``json.dumps`` writes. Every key is optional here; what is required is checked where a plan is
made (:mod:`sampan.runtime.plan`). Parts for other operating systems are left out.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, TypedDict

NamespaceType: TypeAlias = Literal[
    "mount", "pid", "network", "uts", "ipc", "user", "cgroup", "time"
]


class Root(TypedDict, total=False):
    """config.md "Root"."""

    path: str
    readonly: bool


class IDMapping(TypedDict, total=False):
    """config-linux.md "User namespace mappings"."""

    containerID: int
    hostID: int
    size: int


class Mount(TypedDict, total=False):
    """config.md "Mounts"."""

    destination: str
    type: str
    source: str
    options: list[str]
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]


class Box(TypedDict, total=False):
    """A terminal's size in characters."""

    height: int
    width: int


class User(TypedDict, total=False):
    """config.md "POSIX-platform User"."""

    uid: int
    gid: int
    umask: int
    additionalGids: list[int]


class Capabilities(TypedDict, total=False):
    """config.md "Linux Process": names such as ``CAP_CHOWN`` in each of the five sets."""

    bounding: list[str]
    effective: list[str]
    inheritable: list[str]
    permitted: list[str]
    ambient: list[str]


class Rlimit(TypedDict, total=False):
    """config.md "POSIX process": ``type`` is ``RLIMIT_*``."""

    type: str
    soft: int
    hard: int


# config.md "Linux Process"; ioprio_set(2). "class" is a keyword and needs the functional form.
IOPriority = TypedDict("IOPriority", {"class": str, "priority": int}, total=False)


class Scheduler(TypedDict, total=False):
    """config.md "Linux Process"; sched_setattr(2)."""

    policy: str
    nice: int
    priority: int
    flags: list[str]
    runtime: int
    deadline: int
    period: int


class CPUAffinity(TypedDict, total=False):
    """config.md "Linux Process": CPU lists for processes started by ``exec``."""

    initial: str
    final: str


class Process(TypedDict, total=False):
    """config.md "Process"."""

    terminal: bool
    consoleSize: Box
    user: User
    args: list[str]
    env: list[str]
    cwd: str
    capabilities: Capabilities
    rlimits: list[Rlimit]
    noNewPrivileges: bool
    apparmorProfile: str
    oomScoreAdj: int
    scheduler: Scheduler
    selinuxLabel: str
    ioPriority: IOPriority
    execCPUAffinity: CPUAffinity


class Hook(TypedDict, total=False):
    """config.md "POSIX-platform Hooks"; ``timeout`` in seconds."""

    path: str
    args: list[str]
    env: list[str]
    timeout: int


class Hooks(TypedDict, total=False):
    """config.md "POSIX-platform Hooks"."""

    prestart: list[Hook]
    createRuntime: list[Hook]
    createContainer: list[Hook]
    startContainer: list[Hook]
    poststart: list[Hook]
    poststop: list[Hook]


class Namespace(TypedDict, total=False):
    """config-linux.md "Namespaces"; no ``path`` means a new one."""

    type: str
    path: str


class TimeOffset(TypedDict, total=False):
    """config-linux.md "Offset for Time Namespace"."""

    secs: int
    nanosecs: int


class Device(TypedDict, total=False):
    """config-linux.md "Devices"."""

    path: str
    type: str
    major: int
    minor: int
    fileMode: int
    uid: int
    gid: int


class NetDevice(TypedDict, total=False):
    """config-linux.md "Network Devices"."""

    name: str


class DeviceRule(TypedDict, total=False):
    """config-linux.md "Allowed Device list"."""

    allow: bool
    type: str
    major: int
    minor: int
    access: str


class MemoryResources(TypedDict, total=False):
    """config-linux.md "Memory"; bytes, -1 for no limit."""

    limit: int
    reservation: int
    swap: int
    kernel: int
    kernelTCP: int
    swappiness: int
    disableOOMKiller: bool
    useHierarchy: bool
    checkBeforeUpdate: bool


class CPUResources(TypedDict, total=False):
    """config-linux.md "CPU"; times in microseconds."""

    shares: int
    quota: int
    burst: int
    period: int
    realtimeRuntime: int
    realtimePeriod: int
    cpus: str
    mems: str
    idle: int


class WeightDevice(TypedDict, total=False):
    """config-linux.md "Block IO"."""

    major: int
    minor: int
    weight: int
    leafWeight: int


class ThrottleDevice(TypedDict, total=False):
    """config-linux.md "Block IO"; bytes or operations a second."""

    major: int
    minor: int
    rate: int


class BlockIO(TypedDict, total=False):
    """config-linux.md "Block IO"."""

    weight: int
    leafWeight: int
    weightDevice: list[WeightDevice]
    throttleReadBpsDevice: list[ThrottleDevice]
    throttleWriteBpsDevice: list[ThrottleDevice]
    throttleReadIOPSDevice: list[ThrottleDevice]
    throttleWriteIOPSDevice: list[ThrottleDevice]


class HugepageLimit(TypedDict, total=False):
    """config-linux.md "Huge page limits"; bytes."""

    pageSize: str
    limit: int


class InterfacePriority(TypedDict, total=False):
    """config-linux.md "Network"."""

    name: str
    priority: int


class NetworkResources(TypedDict, total=False):
    """config-linux.md "Network"."""

    classID: int
    priorities: list[InterfacePriority]


class Pids(TypedDict, total=False):
    """config-linux.md "PIDs"."""

    limit: int


class Rdma(TypedDict, total=False):
    """config-linux.md "RDMA"."""

    hcaHandles: int
    hcaObjects: int


class Resources(TypedDict, total=False):
    """config-linux.md "Control groups"."""

    devices: list[DeviceRule] | None
    memory: MemoryResources
    cpu: CPUResources
    pids: Pids
    blockIO: BlockIO
    hugepageLimits: list[HugepageLimit]
    network: NetworkResources
    rdma: dict[str, Rdma]
    unified: dict[str, str]


class SeccompArg(TypedDict, total=False):
    """config-linux.md "Seccomp"."""

    index: int
    value: int
    valueTwo: int
    op: str


class SeccompRule(TypedDict, total=False):
    """config-linux.md "Seccomp"."""

    names: list[str]
    action: str
    errnoRet: int
    args: list[SeccompArg]


class Seccomp(TypedDict, total=False):
    """config-linux.md "Seccomp"."""

    defaultAction: str
    defaultErrnoRet: int
    architectures: list[str]
    flags: list[str]
    listenerPath: str
    listenerMetadata: str
    syscalls: list[SeccompRule]


class IntelRdt(TypedDict, total=False):
    """config-linux.md "IntelRdt"."""

    closID: str
    l3CacheSchema: str
    memBwSchema: str
    schemata: list[str]
    enableMonitoring: bool


class MemoryPolicy(TypedDict, total=False):
    """config-linux.md "Memory policy"; set_mempolicy(2)."""

    mode: str
    nodes: str
    flags: list[str]


class Personality(TypedDict, total=False):
    """config-linux.md "Personality"; personality(2)."""

    domain: str
    flags: list[str]


class Linux(TypedDict, total=False):
    """config-linux.md."""

    namespaces: list[Namespace]
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]
    timeOffsets: dict[str, TimeOffset]
    devices: list[Device]
    netDevices: dict[str, NetDevice]
    cgroupsPath: str
    resources: Resources
    rootfsPropagation: str
    seccomp: Seccomp
    sysctl: dict[str, str]
    maskedPaths: list[str]
    readonlyPaths: list[str]
    mountLabel: str
    intelRdt: IntelRdt
    memoryPolicy: MemoryPolicy
    personality: Personality


class Spec(TypedDict, total=False):
    """The whole ``config.json``."""

    ociVersion: str
    root: Root
    mounts: list[Mount]
    process: Process
    hostname: str
    domainname: str
    hooks: Hooks
    annotations: dict[str, str]
    linux: Linux
