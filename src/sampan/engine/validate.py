"""Is a container's configuration valid? (pure; dockerd's rules and wording)

Raises InvalidParameter (400). :func:`warnings` are what dockerd returns beside a created id.
"""

from __future__ import annotations

import posixpath
import re
import signal as signals
from collections.abc import Callable, Sequence

from sampan.engine import capabilities as caps
from sampan.engine.userns import parse_mode as parse_userns
from sampan.errors import InvalidParameter, Unsupported
from sampan.wire.container import (
    ContainerConfig,
    HealthConfig,
    HostConfig,
    Resources,
    RestartPolicy,
)


def _split(words: str) -> tuple[str, ...]:
    return tuple(words.split())


_MEMORY_MINIMUM = 6 << 20
_PORT = re.compile(r"(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_CPUSET = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_IPC_SYSCTLS = frozenset(
    _split("""kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax
    kernel.shmmni kernel.shm_rmid_forced""")
)
#: what the first word of a health check's test may say; others mean no check, as in dockerd
HEALTH_TESTS = frozenset({"", "NONE", "CMD", "CMD-SHELL"})
ULIMITS = frozenset(
    _split(
        """
    core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending
    stack"""
    )
)


def parse_signal(text: str) -> int:
    """A signal number of ``SIGTERM``, ``TERM``, ``RTMIN+3`` or ``15``; InvalidParameter else."""
    word = text.strip().upper()
    if word.isdecimal():
        number = int(word)
        if 0 < number < signals.NSIG:
            return number
        raise InvalidParameter(f"invalid signal: {text}")
    word = word if word.startswith("SIG") else f"SIG{word}"
    match = re.fullmatch(r"(SIGRTMIN|SIGRTMAX)([+-]\d+)?", word)
    if match:
        number = getattr(signals, match[1]) + int(match[2] or 0)
        if signals.SIGRTMIN <= number <= signals.SIGRTMAX:
            return int(number)
    else:
        found = signals.Signals.__members__.get({"SIGPOLL": "SIGIO"}.get(word, word))
        if found is not None:
            return int(found)
    raise InvalidParameter(f"invalid signal: {text}")


def validate_config(config: ContainerConfig) -> None:
    """Check the portable half."""
    if config.working_dir and not posixpath.isabs(config.working_dir):
        raise InvalidParameter(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute "
            "path"
        )
    if config.stop_signal:
        parse_signal(config.stop_signal)
    for entry in config.env or []:
        if not entry:
            raise InvalidParameter("invalid environment variable: cannot be empty")
        if entry.startswith("="):
            raise InvalidParameter(f"invalid environment variable: {entry}")
        if "\0" in entry:
            raise InvalidParameter(f"invalid environment variable: {entry!r} holds a NUL byte")
    for port in config.exposed_ports or {}:
        parse_port(port)
    if config.healthcheck is not None:
        _health(config.healthcheck)
    if config.hostname and len(config.hostname) > 63:
        raise InvalidParameter(f"invalid hostname: {config.hostname}: longer than 63 characters")


def parse_port(text: str) -> tuple[int, int, str]:
    """First and last port and protocol of ``80``, ``80/tcp`` or ``8000-8010/udp``."""
    match = _PORT.fullmatch(text)
    if match is None:
        raise InvalidParameter(f'invalid port specification: "{text}"')
    first, last = int(match[1]), int(match[2] or match[1])
    if not 0 < first <= last < 65536:
        raise InvalidParameter(f'invalid port specification: "{text}"')
    return first, last, (match[3] or "tcp").lower()


def _health(check: HealthConfig) -> None:
    for name, value in (
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ):
        if value and value < 1_000_000:
            raise InvalidParameter(f"{name} in Healthcheck cannot be less than 1ms")
    if (check.retries or 0) < 0:
        raise InvalidParameter("Retries in Healthcheck cannot be negative")


def validate_host_config(config: HostConfig, cpus: int, memory_nodes: str) -> None:
    """Check the host's half on a machine with these processors online and memory nodes."""
    validate_resources(config, cpus, memory_nodes)
    policy = config.restart_policy
    if policy is not None:
        validate_restart_policy(policy)
        if config.auto_remove and policy.name not in (None, "", "no"):
            raise InvalidParameter("can't create 'AutoRemove' container with restart policy")
    _validate_modes(config)
    caps.normalize(config.cap_add or [], "CapAdd")
    caps.normalize(config.cap_drop or [], "CapDrop")
    for host in config.extra_hosts or []:
        if ":" not in host and "=" not in host:
            raise InvalidParameter(f'bad format for add-host: "{host}"')
    for port, bindings in (config.port_bindings or {}).items():
        parse_port(port)
        for binding in bindings or []:
            if binding.host_port and binding.host_port != "0":  # 0: any, as when there is none
                parse_port(binding.host_port)
    if (config.shm_size or 0) < 0:
        raise InvalidParameter("SHM size can not be less than 0")
    adjustment = config.oom_score_adj or 0
    if not -1000 <= adjustment <= 1000:
        raise InvalidParameter(
            f"Invalid value {adjustment}, range for oom score adj is [-1000, 1000]"
        )
    if config.isolation not in (None, "", "default"):
        raise InvalidParameter(
            f'invalid isolation "{config.isolation}" on linux: only "default" is supported'
        )
    for path in (*(config.masked_paths or []), *(config.readonly_paths or [])):
        if not posixpath.isabs(path):
            raise InvalidParameter(f"invalid masked or read-only path {path!r}: not absolute")
    for target in config.tmpfs or {}:
        if target.startswith("/") and not target.strip("/"):
            raise InvalidParameter(f"invalid mount path: '{target}' destination can't be '/'")
        if not posixpath.isabs(target):
            raise InvalidParameter(f"invalid mount path: '{target}' mount path must be absolute")
    if config.console_size is not None and len(config.console_size) != 2:
        raise InvalidParameter("invalid console size: expected height and width")
    if "" in (config.annotations or {}):
        raise InvalidParameter(
            "invalid Annotations: the empty string is not permitted as an annotation key"
        )
    if config.cgroup:
        raise Unsupported(f"HostConfig.Cgroup {config.cgroup!r} is not supported")
    validate_sysctls(config)


def validate_restart_policy(policy: RestartPolicy) -> None:
    """Check name and retry count."""
    name, count = policy.name or "", policy.maximum_retry_count or 0
    if name not in ("", "no", "always", "unless-stopped", "on-failure"):
        raise InvalidParameter(
            f"invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', "
            "'on-failure', or 'unless-stopped'"
        )
    if count < 0:
        raise InvalidParameter("invalid restart policy: maximum retry count cannot be negative")
    if count and name != "on-failure":
        raise InvalidParameter(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )


def _one_of(*words: str, container: bool = False) -> Callable[[str], bool]:
    def check(mode: str) -> bool:
        return mode in words or (container and mode.startswith("container:") and len(mode) > 10)

    return check


def _validate_modes(config: HostConfig) -> None:
    modes = (
        ("IPC", config.ipc_mode, _one_of("none", "host", "private", "shareable", container=True)),
        ("PID", config.pid_mode, _one_of("host", container=True)),
        ("UTS", config.uts_mode, _one_of("host")),
        ("cgroup namespace", config.cgroupns_mode, _one_of("host", "private")),
    )
    for name, mode, valid in modes:
        if mode and not valid(mode):
            raise InvalidParameter(f"invalid {name} mode: {mode}")
    parse_userns(config.userns_mode or "")


def validate_modes_together(config: ContainerConfig, host: HostConfig) -> None:
    """Options that contradict the network or UTS mode."""
    mode = host.network_mode or ""
    shared = mode.startswith("container:")
    if mode in ("container", "container:"):
        raise InvalidParameter("invalid network mode: invalid container format container:<name|id>")
    if mode.startswith("ns:") and not mode.startswith("ns:/"):
        raise InvalidParameter(f"invalid network mode {mode}: expected ns:PATH, an absolute path")
    if mode.startswith("ns:") and (host.port_bindings or host.publish_all_ports):
        raise InvalidParameter("conflicting options: port publishing and the ns network mode")
    if host.uts_mode == "host" and config.hostname:
        raise InvalidParameter("conflicting options: hostname and the UTS mode")
    if shared and config.hostname:
        raise InvalidParameter("conflicting options: hostname and the network mode")
    if mode == "host" and host.links:
        raise InvalidParameter(
            "conflicting options: host type networking can't be used with links. This would "
            "result in undefined behavior"
        )
    if not shared:
        return
    for present, what in (
        (
            host.links,
            "container type network can't be used with links. This would result in undefined "
            "behavior",
        ),
        (host.dns, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (
            host.port_bindings or host.publish_all_ports,
            "port publishing and the container type network mode",
        ),
        (config.exposed_ports, "port exposing and the container type network mode"),
    ):
        if present:
            raise InvalidParameter(f"conflicting options: {what}")


def validate_sysctls(config: HostConfig) -> None:
    """Only namespaced sysctls, and only of a namespace the container has of its own."""
    for name in config.sysctls or {}:
        if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
            if (config.ipc_mode or "") == "host":
                raise InvalidParameter(f"sysctl '{name}' not allowed with host ipc namespace")
        elif name.startswith("net."):
            if config.network_mode == "host":
                raise InvalidParameter(f"sysctl '{name}' not allowed in host network namespace")
        elif name in ("kernel.domainname", "kernel.hostname"):
            if config.uts_mode == "host":
                raise InvalidParameter(f"sysctl '{name}' not allowed in host UTS namespace")
        else:
            raise InvalidParameter(f"sysctl '{name}' is not in a separate kernel namespace")


def validate_resources(config: Resources, cpus: int, memory_nodes: str) -> None:
    """Check limits against each other and the machine."""
    _validate_memory(config)
    _validate_cpu(config, cpus)
    _validate_memory_nodes(config, memory_nodes)
    weight = config.blkio_weight or 0
    if weight and not 10 <= weight <= 1000:
        raise InvalidParameter("Range of blkio weight is from 10 to 1000")
    for limit in config.ulimits or []:
        if limit.name not in ULIMITS:
            raise InvalidParameter(f"invalid ulimit type: {limit.name}")
        soft, hard = limit.soft or 0, limit.hard or 0
        if hard >= 0 and (soft < 0 or soft > hard):
            raise InvalidParameter(
                f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            )


def warnings(config: ContainerConfig, host: Resources) -> list[str]:
    """What of a valid request has no effect, for the user to know."""
    found = [
        f"{name} is an option of Windows containers and has no effect here"
        for value, name in (
            (host.cpu_count, "CpuCount"),
            (host.cpu_percent, "CpuPercent"),
            (host.io_maximum_i_ops, "IOMaximumIOps"),
            (host.io_maximum_bandwidth, "IOMaximumBandwidth"),
        )
        if value
    ]
    if isinstance(host, HostConfig) and host.network_mode == "host" and host.port_bindings:
        found.append("Published ports are discarded when using host network mode")
    test = config.healthcheck.test if config.healthcheck is not None else None
    if test and test[0] not in HEALTH_TESTS:
        found.append(
            f'unknown type of Healthcheck test: "{test[0]}" (expected CMD or CMD-SHELL): health '
            "is not checked"
        )
    return found


def _validate_memory(config: Resources) -> None:
    memory, swap = config.memory or 0, config.memory_swap or 0
    reservation = config.memory_reservation or 0
    if memory and memory < _MEMORY_MINIMUM:
        raise InvalidParameter("Minimum memory limit allowed is 6MB")
    if memory > 0 and 0 < swap < memory:
        raise InvalidParameter(
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        )
    if memory == 0 and swap > 0:
        raise InvalidParameter(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    swappiness = config.memory_swappiness
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise InvalidParameter(
            f"Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )
    if reservation and reservation < _MEMORY_MINIMUM:
        raise InvalidParameter("Minimum memory reservation allowed is 6MB")
    if memory > 0 and reservation > memory:
        raise InvalidParameter(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )


def _validate_cpu(config: Resources, cpus: int) -> None:
    nano, period, quota = config.nano_cpus or 0, config.cpu_period or 0, config.cpu_quota or 0
    if nano:
        if period:
            raise InvalidParameter(
                "Conflicting options: Nano CPUs and CPU Period cannot both be set"
            )
        if quota:
            raise InvalidParameter(
                "Conflicting options: Nano CPUs and CPU Quota cannot both be set"
            )
        if nano < 0 or nano > cpus * 1_000_000_000:
            raise InvalidParameter(
                f"range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
            )
    if (config.cpu_shares or 0) < 0:
        raise InvalidParameter(
            f"invalid CPU shares ({config.cpu_shares}): value must be a positive integer"
        )
    if period and not 1000 <= period <= 1_000_000:
        raise InvalidParameter(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < quota < 1000:
        raise InvalidParameter("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    realtime_period, realtime = config.cpu_realtime_period or 0, config.cpu_realtime_runtime or 0
    if realtime_period and realtime > realtime_period:
        raise InvalidParameter("cpu real-time runtime cannot be higher than cpu real-time period")
    for number in _set_members(config.cpuset_cpus, "cpuset cpus"):
        if number not in range(cpus):
            raise InvalidParameter(
                f"Requested CPUs are not available - requested {config.cpuset_cpus}, available: "
                f"0-{cpus - 1}"
            )


def _validate_memory_nodes(config: Resources, available: str) -> None:
    nodes = _set_members(available, "memory nodes")
    for number in _set_members(config.cpuset_mems, "cpuset mems"):
        if number not in range(nodes[0], nodes[-1] + 1):
            raise InvalidParameter(
                f"Requested memory nodes are not available - requested {config.cpuset_mems}, "
                f"available: {available}"
            )


def _set_members(text: str | None, name: str) -> Sequence[int]:
    """The ends of the ranges of a list of numbers (cpuset(7), "List format")."""
    if not text:
        return ()
    if not _CPUSET.fullmatch(text):
        raise InvalidParameter(f"Invalid value {text} for {name}: invalid format: {text}")
    return [int(number) for number in text.replace("-", ",").split(",")]
