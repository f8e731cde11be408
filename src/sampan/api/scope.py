"""What a label-scoped socket may create: containers that stay off the host and in their scope.

Whoever may mount the host's file system, get devices or leave the namespaces is root on the host,
and a scope means nothing to root. So through a scoped socket these are refused by name, and every
other object a new container refers to must carry the socket's labels as well.
"""

from __future__ import annotations

from collections.abc import Iterator

from sampan.api.call import Call
from sampan.errors import Forbidden, InvalidParameter, NotFound
from sampan.wire.container import ContainerCreateRequest, HostConfig
from sampan.wire.exec import ExecCreateRequest
from sampan.wire.network import NetworkCreateRequest
from sampan.wire.volume import VolumeCreateRequest

#: fields of HostConfig that reach the host whatever they say
_HOST_FIELDS = (
    "privileged",
    "cap_add",
    "cgroup_parent",
    "container_id_file",
    "device_cgroup_rules",
    "device_requests",
    "devices",
    "links",
    "runtime",
    "security_opt",
    "volume_driver",
)
#: fields of HostConfig that name a namespace
_NAMESPACE_FIELDS = (
    "network_mode",
    "ipc_mode",
    "pid_mode",
    "uts_mode",
    "userns_mode",
    "cgroupns_mode",
)
_PREDEFINED_NETWORKS = ("", "default", "bridge", "none")
_HARMLESS_SECURITY = ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true")


async def check_container(call: Call, request: ContainerCreateRequest) -> None:
    """Refuse a container that would reach the host or another scope (:class:`Forbidden`).

    What it names and this socket does not see is a bad parameter: clients take NotFound for the
    image, which they would pull.
    """
    if not call.access.scoped:
        return
    try:
        await _check_references(call, request)
    except NotFound as error:
        raise InvalidParameter(error.message) from None


async def _check_references(call: Call, request: ContainerCreateRequest) -> None:
    host = request.host_config or HostConfig()
    for what in host_access(host):
        raise Forbidden(f"{what} is not allowed through a socket limited to labels")
    for reference in container_references(host):
        await _in_scope(call, "container", reference)
    for volume in volume_references(host):
        await _in_scope(call, "volume", volume, may_be_new=True)
    networks = [host.network_mode or ""]
    if request.networking_config is not None:
        networks += request.networking_config.endpoints_config or {}
    for network in networks:
        if network not in _PREDEFINED_NETWORKS and not network.startswith("container:"):
            await _in_scope(call, "network", network)


def check_exec(call: Call, request: ExecCreateRequest) -> None:
    """Refuse a program with more rights than its container."""
    if call.access.scoped and request.privileged:
        raise Forbidden("Privileged is not allowed through a socket limited to labels")


def check_volume(call: Call, request: VolumeCreateRequest) -> None:
    """Refuse a volume that is a view of the host (``o=bind``) or of another driver."""
    if call.access.scoped and (request.driver_opts or request.driver not in (None, "", "local")):
        raise Forbidden("volume options are not allowed through a socket limited to labels")


def check_network(call: Call, request: NetworkCreateRequest) -> None:
    """Refuse a network that is more than a bridge of its own."""
    if call.access.scoped and (request.options or request.driver not in (None, "", "bridge")):
        raise Forbidden("network options are not allowed through a socket limited to labels")


def host_access(host: HostConfig) -> Iterator[str]:
    """Names of the settings by which a container would reach the host."""
    for field in _HOST_FIELDS:
        value = getattr(host, field)
        if field == "security_opt":
            value = [item for item in value or [] if item not in _HARMLESS_SECURITY]
        if value:
            yield _wire_name(field)
    for field in _NAMESPACE_FIELDS:
        if getattr(host, field) == "host":
            yield f"{_wire_name(field)}=host"
    if "mapping=" in (host.userns_mode or "") or (host.userns_mode or "").startswith("keep-id"):
        yield f"UsernsMode={host.userns_mode}"  # ids of the host's users
    for field in ("masked_paths", "readonly_paths"):
        if getattr(host, field) == []:
            yield _wire_name(field)
    for bind in host.binds or []:
        if bind.startswith(("/", ".", "~")):
            yield f"binding the host's {bind.partition(':')[0]}"
    for mount in host.mounts or []:
        options = mount.volume_options
        if mount.type not in ("volume", "tmpfs") or (options and options.driver_config):
            yield f"a mount of type {mount.type}"


def container_references(host: HostConfig) -> Iterator[str]:
    """Other containers this one would share something with."""
    for field in _NAMESPACE_FIELDS:
        kind, colon, reference = (getattr(host, field) or "").partition(":")
        if colon and kind == "container":
            yield reference
    for item in host.volumes_from or []:
        yield item.partition(":")[0]


def volume_references(host: HostConfig) -> Iterator[str]:
    """Named volumes this container would mount."""
    for bind in host.binds or []:
        name, colon, _ = bind.partition(":")
        if colon and not bind.startswith("/"):
            yield name
    for mount in host.mounts or []:
        if mount.type == "volume" and mount.source:
            yield mount.source


async def _in_scope(call: Call, kind: str, reference: str, *, may_be_new: bool = False) -> None:
    """Raise NotFound for what this socket does not see, or what is not there unless it
    ``may_be_new``: then it will be made, with the socket's labels."""
    try:
        labels = await labels_of(call, kind, reference)
    except NotFound:
        if may_be_new:
            return
        raise
    if not call.access.sees(labels):
        raise NotFound(f"No such {kind}: {reference}")


async def labels_of(call: Call, kind: str, reference: str) -> dict[str, str] | None:
    """The labels of a ``container``, ``volume`` or ``network``. Raises NotFound."""
    engine = call.engine
    if kind == "container":
        config = (await engine.containers.inspect(reference)).config
        return config.labels if config else None
    if kind == "volume":
        return (await engine.volumes.inspect(reference)).labels
    return (await engine.networks.inspect(reference)).labels


def _wire_name(field: str) -> str:
    return "".join(part.capitalize() for part in field.split("_"))
