"""What older API versions saw and sent: the one place that knows versions (CHANGELOG.md).

``*_answer`` functions change a completed answer (see :mod:`sampan.api.shape`) in place into what
a client of ``version`` expects; ``*_request`` functions give a request the meaning it had then.
"""

from __future__ import annotations

from typing import Any

from msgspec import structs

from sampan.api.version import ApiVersion
from sampan.errors import InvalidParameter
from sampan.wire.container import (
    ContainerCreateRequest,
    EndpointSettings,
    HostConfig,
    Mount,
    NetworkingConfig,
)

Answer = dict[str, Any]

_LEGACY_IMAGE_CONFIG: Answer = {
    "Hostname": "",
    "Domainname": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Image": "",
}
_EMPTY_IMAGE_CONFIG: Answer = {
    "User": "",
    "Env": None,
    "Cmd": None,
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}
#: settings of the default bridge that used to be repeated one level up
_BRIDGE_SETTINGS = {
    "EndpointID": "",
    "Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "MacAddress": "",
}
_LEGACY_NETWORK_SETTINGS: Answer = {
    "Bridge": "",
    "HairpinMode": False,
    "LinkLocalIPv6Address": "",
    "LinkLocalIPv6PrefixLen": 0,
    "SecondaryIPAddresses": None,
    "SecondaryIPv6Addresses": None,
}


def container_answer(answer: Answer, version: ApiVersion) -> Answer:
    """``GET /containers/{id}/json``."""
    settings = answer.get("NetworkSettings")
    if version < (1, 52):
        if settings is not None:
            bridge = (settings.get("Networks") or {}).get("bridge") or {}
            settings.update(_LEGACY_NETWORK_SETTINGS)
            settings.update({key: bridge.get(key, zero) for key, zero in _BRIDGE_SETTINGS.items()})
        answer["Config"].setdefault("OnBuild", None)
    else:
        answer["Config"].pop("MacAddress", None)
    if version < (1, 48):
        answer.pop("ImageManifestDescriptor", None)
    if version < (1, 45) and settings is not None:
        for name, endpoint in (settings.get("Networks") or {}).items():
            # Clients take the name for a sign that the container is connected as they want it.
            if name not in ("bridge", "host", "none") and endpoint.get("EndpointID"):
                aliases = [*(endpoint.get("Aliases") or []), answer["Id"][:12]]
                endpoint["Aliases"] = list(dict.fromkeys(aliases))
    if version < (1, 42):
        answer["HostConfig"].update({"KernelMemory": 0, "KernelMemoryTCP": 0})
    return answer


def summary_answer(answer: Answer, version: ApiVersion) -> Answer:
    """One item of ``GET /containers/json``."""
    if version < (1, 52):
        answer.pop("Health", None)
    if version < (1, 48):
        answer.pop("ImageManifestDescriptor", None)
    if version < (1, 46):
        answer["HostConfig"].pop("Annotations", None)
    return answer


def image_answer(answer: Answer, version: ApiVersion) -> Answer:
    """``GET /images/{name}/json``."""
    config = answer.get("Config") or {}
    if version < (1, 52):
        config = {**_EMPTY_IMAGE_CONFIG, **config}
        for name in ("Parent", "Comment", "DockerVersion", "Author"):
            answer.setdefault(name, "")
    if version < (1, 50):
        config = {**_LEGACY_IMAGE_CONFIG, **config}
    answer["Config"] = config
    if version < (1, 53):
        answer.pop("Identity", None)
    if version < (1, 48):
        answer.pop("Descriptor", None)
        answer.pop("Manifests", None)
    if version >= (1, 45):
        answer.pop("Container", None)
    else:
        answer.setdefault("Container", "")
    if version < (1, 44):
        answer["VirtualSize"] = answer.get("Size", 0)
        answer.setdefault("Created", "0001-01-01T00:00:00Z")
    return answer


def image_summary_answer(answer: Answer, version: ApiVersion) -> Answer:
    """One item of ``GET /images/json``."""
    if version < (1, 51):
        answer["Containers"] = -1
    if version < (1, 48):
        answer.pop("Descriptor", None)
    if version < (1, 47):
        answer.pop("Manifests", None)
    if version < (1, 44):
        answer["VirtualSize"] = answer.get("Size", 0)
    if version < (1, 43):
        answer["RepoTags"] = answer.get("RepoTags") or ["<none>:<none>"]
        answer["RepoDigests"] = answer.get("RepoDigests") or ["<none>@<none>"]
    return answer


def info_answer(answer: Answer, version: ApiVersion) -> Answer:
    """``GET /info``."""
    if version < (1, 53):
        answer.pop("NRI", None)
    if version < (1, 52):
        answer["KernelMemoryTCP"] = False
    if version < (1, 50):
        answer.pop("DiscoveredDevices", None)
        answer.update({"BridgeNfIptables": False, "BridgeNfIp6tables": False})
    if version < (1, 49):
        answer.pop("FirewallBackend", None)
        answer["RegistryConfig"].update(
            {
                "AllowNondistributableArtifactsCIDRs": None,
                "AllowNondistributableArtifactsHostnames": None,
            }
        )
        for name in ("ContainerdCommit", "RuncCommit", "InitCommit"):
            answer[name] = {**answer[name], "Expected": answer[name].get("ID", "")}
    if version < (1, 46):
        answer.pop("Containerd", None)
    if version < (1, 44):
        answer.pop("CDISpecDirs", None)
        for runtime in answer["Runtimes"].values():
            runtime.pop("status", None)
    if version < (1, 42):
        answer["KernelMemory"] = False
    if version < (1, 39):
        answer.pop("Warnings", None)
        for name in ("KernelVersion", "OperatingSystem"):
            answer[name] = answer[name] or "<unknown>"
    return answer


def network_answer(answer: Answer, version: ApiVersion) -> Answer:
    """``GET /networks/{id}`` and the items of ``GET /networks``."""
    if version < (1, 52):
        answer.pop("Status", None)
    if version < (1, 48):
        answer.pop("EnableIPv4", None)
    return answer


def event_answer(answer: Answer, version: ApiVersion) -> Answer:
    """One message of ``GET /events``; the old fields come first, as they did."""
    if version >= (1, 52):
        return answer
    actor = answer.get("Actor") or {}
    legacy: Answer = {}
    if answer.get("Type") in ("container", "image"):
        legacy = {"status": answer.get("Action", ""), "id": actor.get("ID", "")}
        source = (actor.get("Attributes") or {}).get("image")
        if source and answer.get("Type") == "container":
            legacy["from"] = source
    return {**legacy, **answer}


def disk_usage_answer(
    usage: Answer, version: ApiVersion, chosen: set[str], *, verbose: bool
) -> Answer:
    """``GET /system/df``: per-type usage objects from 1.52, flat lists up to 1.52."""
    answer: Answer = {}
    if version >= (1, 52):
        for kind, name in (
            ("image", "ImageUsage"),
            ("container", "ContainerUsage"),
            ("volume", "VolumeUsage"),
            ("build-cache", "BuildCacheUsage"),
        ):
            if kind in chosen:
                part = dict(usage.get(name) or {})
                if not verbose:
                    part.pop("Items", None)
                answer[name] = part
    if version < (1, 53) and not (verbose and version >= (1, 52)):
        answer.update(_legacy_disk_usage(usage, version, chosen))
    return answer


def _legacy_disk_usage(usage: Answer, version: ApiVersion, chosen: set[str]) -> Answer:
    answer: Answer = {}
    if "image" in chosen:
        images = usage.get("ImageUsage") or {}
        answer["LayersSize"] = images.get("TotalSize", 0)
        answer["Images"] = images.get("Items") or []
    if "container" in chosen:
        answer["Containers"] = (usage.get("ContainerUsage") or {}).get("Items") or []
    if "volume" in chosen:
        answer["Volumes"] = (usage.get("VolumeUsage") or {}).get("Items") or []
    if "build-cache" in chosen:
        answer["BuildCache"] = (usage.get("BuildCacheUsage") or {}).get("Items") or []
    if version < (1, 42):
        answer["BuilderSize"] = 0
    if version < (1, 44):
        for item in answer.get("Images", []):
            item["VirtualSize"] = item.get("Size", 0)
    return answer


def create_warnings(body: ContainerCreateRequest, version: ApiVersion) -> list[str]:
    """What a client of this version is told about a request that was carried out."""
    if body.mac_address and version >= (1, 44):
        return [
            "The container-wide MacAddress field is now deprecated. It should be specified in "
            "EndpointsConfig instead."
        ]
    return []


def create_request(body: ContainerCreateRequest, version: ApiVersion) -> ContainerCreateRequest:
    """``POST /containers/create``; raises :class:`InvalidParameter` for what a version refused."""
    host = body.host_config or HostConfig()
    changes: dict[str, Any] = {}
    if version < (1, 44):
        changes["mounts"] = host.mounts and [_old_mount(mount, version) for mount in host.mounts]
        endpoints = (body.networking_config or NetworkingConfig()).endpoints_config or {}
        if len(endpoints) > 1:
            raise InvalidParameter(
                "Container cannot be created with multiple network endpoints: "
                + ", ".join(endpoints)
            )
        if body.healthcheck is not None:
            health = structs.replace(body.healthcheck, start_interval=None)
            body = structs.replace(body, healthcheck=health)
    if version < (1, 43):
        changes["annotations"] = None
    if version < (1, 42):
        changes["console_size"] = None
    if version < (1, 41) and not host.cgroupns_mode:
        changes["cgroupns_mode"] = "host"
    if version < (1, 40) and not host.ipc_mode:
        changes["ipc_mode"] = "shareable"
    if changes or body.host_config is None:
        body = structs.replace(body, host_config=structs.replace(host, **changes))
    if version >= (1, 52):
        return structs.replace(body, mac_address=None)
    return _with_mac_address(body, body.mac_address) if body.mac_address else body


def _old_mount(mount: Mount, version: ApiVersion) -> Mount:
    options = mount.bind_options
    if options is None:
        return mount
    changes: dict[str, Any] = {"read_only_non_recursive": None, "read_only_force_recursive": None}
    if version < (1, 42):
        changes["create_mountpoint"] = None
    if version < (1, 40):
        changes["non_recursive"] = None
    return structs.replace(mount, bind_options=structs.replace(options, **changes))


def _with_mac_address(body: ContainerCreateRequest, mac: str) -> ContainerCreateRequest:
    """Move a container-wide MAC address to the endpoint it was meant for."""
    mode = (body.host_config and body.host_config.network_mode) or "default"
    if mode in ("none", "host") or mode.startswith("container:"):
        raise InvalidParameter(f"conflicting options: mac-address and the network mode {mode!r}")
    name = "bridge" if mode == "default" else mode
    networking = body.networking_config or NetworkingConfig()
    endpoints = dict(networking.endpoints_config or {})
    endpoint = endpoints.get(name) or EndpointSettings()
    if endpoint.mac_address and endpoint.mac_address != mac:
        raise InvalidParameter(
            "the container-wide MAC address must match the endpoint-specific MAC address for the "
            "main network, or be left empty"
        )
    endpoints[name] = structs.replace(endpoint, mac_address=mac)
    return structs.replace(
        body, networking_config=structs.replace(networking, endpoints_config=endpoints)
    )
