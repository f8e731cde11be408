"""A create request completed: image defaults, host defaults, everything checked (pure)."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence

import msgspec

from sampan.engine import logconfig, runtimes, validate
from sampan.engine.config import EngineConfig
from sampan.engine.logconfig import parse_size
from sampan.engine.merge import merge_config
from sampan.engine.security import parse_security_options
from sampan.engine.spec import MASKED_PATHS, READONLY_PATHS
from sampan.errors import InvalidParameter
from sampan.wire.container import (
    ContainerConfig,
    ContainerCreateRequest,
    EndpointSettings,
    HostConfig,
    ImageConfig,
    RestartPolicy,
)

_CONFIG_FIELDS = ContainerConfig.__struct_fields__


def container_config(
    body: ContainerCreateRequest, image: ImageConfig, container_id: str, host_name: str
) -> ContainerConfig:
    """The portable half, merged with the image's; raises InvalidParameter.

    The host name is the short id; on the host's network it is ``host_name``.
    """
    own = ContainerConfig(**{name: getattr(body, name) for name in _CONFIG_FIELDS})
    validate.validate_config(own)
    merged = merge_config(own, image)
    host = body.host_config or HostConfig()
    validate.validate_modes_together(own, host)
    hostname = merged.hostname
    if not hostname:
        hostname = host_name if host.network_mode == "host" else container_id[:12]
    return msgspec.structs.replace(
        merged,
        hostname=hostname,
        domainname=merged.domainname or "",
        user=merged.user or "",
        working_dir=posixpath.normpath(merged.working_dir) if merged.working_dir else "",
        attach_stdin=bool(merged.attach_stdin),
        attach_stdout=bool(merged.attach_stdout),
        attach_stderr=bool(merged.attach_stderr),
        tty=bool(merged.tty),
        open_stdin=bool(merged.open_stdin),
        stdin_once=bool(merged.stdin_once),
    )


def host_config(
    wanted: HostConfig | None,
    config: EngineConfig,
    *,
    cpus: int,
    memory_nodes: str,
    cgroup_v2: bool,
    lsm: frozenset[str],
) -> HostConfig:
    """The host's half with the daemon's defaults; raises InvalidParameter, Unsupported."""
    host = wanted or HostConfig()
    validate.validate_host_config(host, cpus, memory_nodes)
    security = parse_security_options(
        host.security_opt or [], apparmor="apparmor" in lsm, selinux="selinux" in lsm
    )
    root_size(host)
    runtimes.check_name(config, host.runtime or config.default_runtime)
    privileged = bool(host.privileged)
    confined = not privileged and security.system_paths_confined
    memory, swap = host.memory or 0, host.memory_swap or 0
    default_cgroupns = config.default_cgroupns_mode or ("private" if cgroup_v2 else "host")
    if privileged and not cgroup_v2:
        default_cgroupns = "host"
    return msgspec.structs.replace(
        host,
        network_mode=_network_mode(host.network_mode, config),
        ipc_mode=host.ipc_mode or config.default_ipc_mode,
        cgroupns_mode=host.cgroupns_mode or default_cgroupns,
        shm_size=host.shm_size or config.default_shm_size,
        runtime=host.runtime or config.default_runtime,
        log_config=logconfig.complete(host.log_config, config),
        restart_policy=_restart_policy(host.restart_policy),
        memory=memory,
        pids_limit=_pids_limit(host.pids_limit),
        memory_swap=memory * 2 if memory > 0 and swap == 0 else swap,
        masked_paths=_paths(host.masked_paths, MASKED_PATHS if confined else None),
        readonly_paths=_paths(host.readonly_paths, READONLY_PATHS if confined else None),
        console_size=host.console_size or [0, 0],
        isolation=host.isolation or "",
    )


def root_size(host: HostConfig) -> int:
    """Bytes a container may write to its root (``--storage-opt size``); 0: as many as there are.

    Raises InvalidParameter.
    """
    options = host.storage_opt or {}
    for name in options:
        if name != "size":
            raise InvalidParameter(f"Unknown option {name}")
    return parse_size(options["size"]) if options else 0


def _network_mode(mode: str | None, config: EngineConfig) -> str:
    wanted = "bridge" if mode in (None, "", "default") else mode
    # dockerd --bridge=none connects containers of the bridge to nothing.
    return "none" if wanted == "bridge" and not config.bridge_enabled else wanted


def _paths(given: list[str] | None, default: Sequence[str] | None) -> list[str] | None:
    return given if given is not None or default is None else list(default)


def _pids_limit(limit: int | None) -> int | None:
    """None for unlimited, which 0 and -1 mean too."""
    return limit if limit is not None and limit > 0 else None


def _restart_policy(policy: RestartPolicy | None) -> RestartPolicy:
    if policy is None or not policy.name:
        return RestartPolicy(name="no", maximum_retry_count=0)
    return RestartPolicy(name=policy.name, maximum_retry_count=policy.maximum_retry_count or 0)


def networks(
    body: ContainerCreateRequest, mode: str, engine: EngineConfig
) -> dict[str, EndpointSettings]:
    """The networks to connect to at start, by the name or id the user gave, the mode's first.

    Raises InvalidParameter when the mode leaves no room for more.
    """
    config = body.networking_config
    wanted: Mapping[str, EndpointSettings | None] = (
        config.endpoints_config if config is not None and config.endpoints_config else {}
    )
    if mode.startswith("container:"):
        if any(settings and settings.mac_address for settings in wanted.values()):
            raise InvalidParameter("conflicting options: mac-address and the network mode")
        if wanted:
            raise InvalidParameter(
                "conflicting options: cannot attach both user-defined and non-user-defined "
                "network-modes"
            )
        return {}
    if mode.startswith("ns:"):
        if wanted.keys() - {mode, "default"}:
            raise InvalidParameter(
                "conflicting options: a network namespace of others has no further networks"
            )
        return {}
    bridge = _network_mode("bridge", engine)
    aliases = {"default": "none" if mode == "none" else bridge, "bridge": bridge}
    found = {
        aliases.get(name, name): settings or EndpointSettings() for name, settings in wanted.items()
    }
    if mode in ("host", "none") and found.keys() - {mode}:
        raise InvalidParameter(
            "conflicting options: cannot attach both user-defined and non-user-defined "
            "network-modes"
        )
    if found and mode not in found:
        return found
    first = {mode: found.pop(mode, EndpointSettings())}
    return first | found
