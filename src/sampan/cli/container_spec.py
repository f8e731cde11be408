"""From the flags of ``run`` and ``create`` to the body of ``POST /containers/create``.

A pure function of the flags, the environment and the files the flags name. What the daemon must
judge (capabilities, runtimes, mount types) is passed on as it was written.
"""

from __future__ import annotations

from typing import NamedTuple

from sampan.cli.fault import CliError
from sampan.cli.opts.devices import is_cdi_name, parse_device, validate_device
from sampan.cli.opts.hosts import parse_restart
from sampan.cli.opts.network import Attachment, EndpointFlags, endpoints, interface_options
from sampan.cli.opts.ports import parse_expose, parse_publish
from sampan.cli.opts.security import parse_health, parse_security, parse_storage
from sampan.cli.opts.variables import read_environment, read_labels, to_map
from sampan.cli.opts.volumes import parse_tmpfs, parse_volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.cli.arguments import Arguments
    from sampan.client.document import Document, Json

#: The label the engine looks at for what to do with an unhealthy container.
HEALTH_ACTION_LABEL = "sampan.health.on-failure"
_HEALTH_ACTIONS = ("none", "kill", "restart", "stop")


class Spec(NamedTuple):
    """A container to be created."""

    config: Document
    host: Document
    network: Document

    def body(self) -> Document:
        """The request body."""
        networking: Document = {"EndpointsConfig": self.network}
        return {**self.config, "HostConfig": self.host, "NetworkingConfig": networking}


def container_spec(arguments: Arguments, environment: Mapping[str, str]) -> Spec:
    """The container the flags describe. Raises :class:`CliError`."""
    _check(arguments)
    mode, network = _network(arguments)
    binds, anonymous = parse_volumes(arguments.texts("volume"))
    exposed, bindings = _ports(arguments)
    config = _config(arguments, environment)
    if anonymous:
        config["Volumes"] = {path: {} for path in anonymous}
    if exposed:
        config["ExposedPorts"] = {port: {} for port in exposed}
    host = {
        **_resources(arguments),
        **_namespaces(arguments),
        **_security(arguments),
        **_storage(arguments, binds),
        **_lifetime(arguments),
        **_names(arguments),
        "NetworkMode": mode,
        "PortBindings": bindings,
        "PublishAllPorts": arguments.flag("publish-all"),
    }
    return Spec(config, {name: value for name, value in host.items() if value is not None}, network)


def _check(arguments: Arguments) -> None:
    swappiness = arguments.number("memory-swappiness")
    if not -1 <= swappiness <= 100:
        raise CliError(f"invalid value: {swappiness}. Valid memory swappiness range is 0-100")
    mac = arguments.text("mac-address")
    if mac and not _is_mac(mac):
        raise CliError(f"{mac} is not a valid mac address")
    for flag, name, valid in (
        ("pid", "PID", ("", "host")),
        ("uts", "UTS", ("", "host")),
        ("userns", "USER", ("", "host", "private", "nomap", "auto", "keep-id")),
        ("cgroupns", "CGROUP", ("", "host", "private")),
    ):
        value = arguments.text(flag)
        word, colon, rest = value.partition(":")
        joins = flag in ("pid", "userns") and word == "container" and bool(rest)
        tuned = flag == "userns" and word in ("auto", "keep-id") and bool(colon)
        if value not in valid and not joins and not tuned:
            raise CliError(f"--{flag}: invalid {name} mode")


def _is_mac(text: str) -> bool:
    parts = text.replace("-", ":").split(":")
    digits = set("0123456789abcdefABCDEF")
    return len(parts) == 6 and all(len(part) == 2 and set(part) <= digits for part in parts)


def _config(arguments: Arguments, environment: Mapping[str, str]) -> Document:
    image, *command = arguments.positional
    attached = set(arguments.texts("attach"))
    interactive = arguments.flag("interactive")
    outputs = attached or {"stdout", "stderr"}
    config: Document = {
        "Hostname": arguments.text("hostname"),
        "Domainname": arguments.text("domainname"),
        "User": arguments.text("user"),
        "AttachStdin": interactive or "stdin" in attached,
        "AttachStdout": "stdout" in outputs,
        "AttachStderr": "stderr" in outputs,
        "Tty": arguments.flag("tty"),
        "OpenStdin": interactive,
        "StdinOnce": interactive,
        "Env": _texts(
            read_environment(arguments.texts("env-file"), arguments.texts("env"), environment)
        ),
        "Cmd": _texts(command) if command else None,
        "Image": image,
        "WorkingDir": arguments.text("workdir"),
        "Entrypoint": [arguments.text("entrypoint")] if "entrypoint" in arguments.changed else None,
        "Labels": _labels(arguments),
    }
    if arguments.text("mac-address"):
        config["MacAddress"] = arguments.text("mac-address")
    if arguments.text("stop-signal"):
        config["StopSignal"] = arguments.text("stop-signal")
    timeout = arguments.optional_number("stop-timeout")
    if timeout is not None:
        config["StopTimeout"] = timeout
    health = parse_health(arguments)
    if health is not None:
        config["Healthcheck"] = health
    return config


def _labels(arguments: Arguments) -> Document:
    labels = read_labels(arguments.texts("label-file"), arguments.texts("label"))
    action = arguments.text("health-on-failure")
    if action not in _HEALTH_ACTIONS:
        raise CliError(f'--health-on-failure: invalid action "{action}"')
    if "health-on-failure" in arguments.changed:
        labels[HEALTH_ACTION_LABEL] = action
    return dict(labels)


def _network(arguments: Arguments) -> tuple[str, Document]:
    chosen = [item for item in arguments.values("network") if isinstance(item, Attachment)]
    flags = EndpointFlags(
        aliases=tuple(arguments.texts("network-alias")),
        links=tuple(arguments.texts("link")),
        ip=arguments.text("ip"),
        ip6=arguments.text("ip6"),
        link_local=tuple(arguments.texts("link-local-ip")),
        mac=arguments.text("mac-address"),
        driver_options=interface_options(arguments.pairs("network-opt")),
    )
    return endpoints(chosen, flags)


def _ports(arguments: Arguments) -> tuple[list[str], Document]:
    exposed: dict[str, None] = {}
    bindings: dict[str, list[Json]] = {}
    for text in arguments.texts("publish"):
        for port in parse_publish(text):
            exposed[port.port] = None
            binding: Document = {"HostIp": port.host_ip, "HostPort": port.host_port}
            bindings.setdefault(port.port, []).append(binding)
    for text in arguments.texts("expose"):
        exposed.update(dict.fromkeys(parse_expose(text)))
    return list(exposed), dict(bindings)


def _resources(arguments: Arguments) -> Document:
    swappiness = arguments.optional_number("memory-swappiness")
    devices, device_requests = _devices(arguments)
    return {
        "CpuShares": arguments.number("cpu-shares"),
        "Memory": arguments.number("memory"),
        "NanoCpus": arguments.number("cpus"),
        "CgroupParent": arguments.text("cgroup-parent"),
        "BlkioWeight": arguments.number("blkio-weight"),
        "BlkioWeightDevice": _documents(arguments, "blkio-weight-device"),
        "BlkioDeviceReadBps": _documents(arguments, "device-read-bps"),
        "BlkioDeviceWriteBps": _documents(arguments, "device-write-bps"),
        "BlkioDeviceReadIOps": _documents(arguments, "device-read-iops"),
        "BlkioDeviceWriteIOps": _documents(arguments, "device-write-iops"),
        "CpuPeriod": arguments.number("cpu-period"),
        "CpuQuota": arguments.number("cpu-quota"),
        "CpuRealtimePeriod": arguments.number("cpu-rt-period"),
        "CpuRealtimeRuntime": arguments.number("cpu-rt-runtime"),
        "CpusetCpus": arguments.text("cpuset-cpus"),
        "CpusetMems": arguments.text("cpuset-mems"),
        "Devices": devices,
        "DeviceCgroupRules": _texts(arguments.texts("device-cgroup-rule")),
        "DeviceRequests": device_requests,
        "MemoryReservation": arguments.number("memory-reservation"),
        "MemorySwap": arguments.number("memory-swap"),
        "MemorySwappiness": None if swappiness in (None, -1) else swappiness,
        "OomKillDisable": arguments.flag("oom-kill-disable"),
        "PidsLimit": arguments.optional_number("pids-limit"),
        "Ulimits": _documents(arguments, "ulimit"),
    }


def _devices(arguments: Arguments) -> tuple[list[Json], list[Json]]:
    mapped: list[Json] = []
    cdi: list[Json] = []
    for text in arguments.texts("device"):
        if is_cdi_name(text):
            cdi.append(text)
            continue
        try:
            validate_device(text)
        except ValueError as error:
            raise CliError(str(error)) from error
        mapped.append(parse_device(text))
    requests = _documents(arguments, "gpus")
    if cdi:
        requests.append({"Driver": "cdi", "DeviceIDs": cdi})
    return mapped, requests


def _namespaces(arguments: Arguments) -> Document:
    return {
        "IpcMode": arguments.text("ipc"),
        "PidMode": arguments.text("pid"),
        "UTSMode": arguments.text("uts"),
        "UsernsMode": arguments.text("userns"),
        "CgroupnsMode": arguments.text("cgroupns"),
        "Sysctls": dict(arguments.pairs("sysctl")),
    }


def _security(arguments: Arguments) -> Document:
    options, unmasked = parse_security(arguments.texts("security-opt"))
    security: Document = {
        "CapAdd": _texts(arguments.texts("cap-add")),
        "CapDrop": _texts(arguments.texts("cap-drop")),
        "GroupAdd": _texts(arguments.texts("group-add")),
        "Privileged": arguments.flag("privileged"),
        "ReadonlyRootfs": arguments.flag("read-only"),
        "SecurityOpt": _texts(options),
        "OomScoreAdj": arguments.number("oom-score-adj"),
    }
    if unmasked:
        security |= {"MaskedPaths": [], "ReadonlyPaths": []}
    return security


def _storage(arguments: Arguments, binds: list[str]) -> Document:
    return {
        "Binds": _texts(binds),
        "Mounts": _documents(arguments, "mount"),
        "Tmpfs": dict(parse_tmpfs(arguments.texts("tmpfs"))),
        "VolumesFrom": _texts(arguments.texts("volumes-from")),
        "VolumeDriver": arguments.text("volume-driver"),
        "StorageOpt": dict(parse_storage(arguments.texts("storage-opt"))),
        "ShmSize": arguments.number("shm-size"),
    }


def _lifetime(arguments: Arguments) -> Document:
    restart = parse_restart(arguments.text("restart"))
    if arguments.flag("rm") and restart["Name"] not in ("", "no"):
        raise CliError("conflicting options: cannot specify both --restart and --rm")
    driver = arguments.text("log-driver")
    options = to_map(arguments.texts("log-opt"))
    if driver == "none" and options:
        raise CliError("invalid logging opts for driver none")
    log: Document = {"Type": driver, "Config": dict(options)}
    return {
        "AutoRemove": arguments.flag("rm"),
        "RestartPolicy": restart,
        "LogConfig": log,
        "Init": arguments.flag("init") if "init" in arguments.changed else None,
        "Runtime": arguments.text("runtime"),
        "Isolation": arguments.text("isolation"),
        "Annotations": dict(arguments.pairs("annotation")) or None,
        "ContainerIDFile": arguments.text("cidfile"),
    }


def _names(arguments: Arguments) -> Document:
    return {
        "Dns": _texts(arguments.texts("dns")),
        "DnsOptions": _texts(arguments.texts("dns-option")),
        "DnsSearch": _texts(arguments.texts("dns-search")),
        "ExtraHosts": _texts(arguments.texts("add-host")),
        "Links": _texts(arguments.texts("link")),
    }


def _texts(values: list[str]) -> list[Json]:
    return list(values)


def _documents(arguments: Arguments, name: str) -> list[Json]:
    return [value for value in arguments.values(name) if isinstance(value, dict)]
