"""CDI devices: ``--device vendor.com/class=name`` by the spec files vendors install.

Container Device Interface specification 0.8 (spec/extra): a spec file names devices of one kind;
each device, and the file as a whole, brings edits of the container's runtime spec. Files are JSON
or YAML. ``--gpus`` is served by them too, as by dockerd: the GPUs of a maker are devices of the
kind ``nvidia.com/gpu`` or ``amd.com/gpu``, named by number, by UUID, or ``all``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sampan.engine.hostdevices import DeviceTable
from sampan.errors import InvalidParameter, Unsupported
from sampan.model import oci
from sampan.wire.container import HostConfig
from sampan.wire.hostconfig import DeviceRequest

#: Who makes GPUs, and the kind their CDI devices are of.
_GPUS = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*=[A-Za-z0-9][\w.:-]*")


class DeviceNode(msgspec.Struct, kw_only=True, frozen=True, rename="camel"):
    """One device node to make."""

    path: str
    host_path: str = ""
    type: str = ""
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


class CdiMount(msgspec.Struct, kw_only=True, frozen=True, rename="camel"):
    """One mount to add."""

    host_path: str
    container_path: str
    type: str = ""
    options: list[str] = []


class CdiHook(msgspec.Struct, kw_only=True, frozen=True, rename="camel"):
    """One OCI hook to add."""

    hook_name: str
    path: str
    args: list[str] = []
    env: list[str] = []
    timeout: int | None = None


class Edits(msgspec.Struct, kw_only=True, frozen=True, rename="camel"):
    """What a device changes of a container."""

    env: list[str] = []
    device_nodes: list[DeviceNode] = []
    mounts: list[CdiMount] = []
    hooks: list[CdiHook] = []
    additional_gids: list[int] = msgspec.field(default_factory=list, name="additionalGids")
    intel_rdt: dict[str, object] | None = None
    net_devices: list[object] = []


class CdiDevice(msgspec.Struct, kw_only=True, frozen=True, rename="camel"):
    """One device of a spec file."""

    name: str
    container_edits: Edits = Edits()


class CdiSpec(msgspec.Struct, kw_only=True, frozen=True, rename="camel"):
    """One spec file."""

    cdi_version: str = msgspec.field(default="", name="cdiVersion")
    kind: str
    devices: list[CdiDevice] = []
    container_edits: Edits = Edits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """The devices of a host's spec files; of two files for one device the later directory wins."""

    specs: Mapping[str, CdiSpec]
    problems: tuple[str, ...] = ()

    @classmethod
    def load(cls, directories: Iterable[str]) -> Registry:
        """Read every spec file. Blocks; a file that cannot be read is a problem told on demand."""
        specs: dict[str, CdiSpec] = {}
        problems = []
        for directory in directories:
            for path in sorted(Path(directory).glob("*")):
                if path.suffix not in (".json", ".yaml", ".yml"):
                    continue
                try:
                    found = _read(path)
                except (OSError, ValueError) as error:
                    problems.append(f"{path}: {' '.join(str(error).split())}")
                    continue
                for device in found.devices:
                    specs[f"{found.kind}={device.name}"] = found
        return cls(specs=specs, problems=tuple(problems))

    def told(self) -> str:
        """What is wrong with files, as the end of a complaint; "" when nothing is."""
        return f" ({'; '.join(self.problems)})" if self.problems else ""

    def edits(self, names: Sequence[str]) -> list[Edits]:
        """The edits for some devices, a file's own once; InvalidParameter for unknown ones."""
        missing = [name for name in names if name not in self.specs]
        if missing:
            raise InvalidParameter(
                "CDI device injection failed: unresolvable CDI devices "
                + ", ".join(missing)
                + self.told()
            )
        found: list[Edits] = []
        for name in names:
            spec = self.specs[name]
            if spec.container_edits not in found:
                found.append(spec.container_edits)
            wanted = name.partition("=")[2]
            found += [d.container_edits for d in spec.devices if d.name == wanted]
        return found


def _read(path: Path) -> CdiSpec:
    """A spec file; raises :class:`ValueError` for what is none."""
    data = path.read_bytes()
    if path.suffix == ".json":
        return msgspec.json.decode(data, type=CdiSpec)
    import yaml  # loaded where a vendor has YAML

    try:
        found = yaml.load(data, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    return msgspec.convert(found, type=CdiSpec)


def requested(host: HostConfig, directories: Iterable[str]) -> list[Edits]:
    """The edits for the devices a container asks for. Blocks.

    Raises InvalidParameter for a malformed or unknown name and for what no driver serves.
    """
    if not host.device_requests:
        return []
    registry = Registry.load(directories)
    names: list[str] = []
    for request in host.device_requests:
        names += (request.device_ids or []) if request.driver == "cdi" else _gpus(request, registry)
    for name in names:
        if not _NAME.fullmatch(name):
            raise InvalidParameter(f'invalid CDI device name "{name}": expected vendor/class=name')
    return registry.edits(names)


def _gpus(request: DeviceRequest, registry: Registry) -> list[str]:
    """The CDI devices for a request by driver and capabilities (``--gpus``)."""
    driver, capabilities = request.driver or "", request.capabilities or []
    known = {name.partition("=")[0] for name in registry.specs}
    kinds = [
        kind
        for vendor, kind in _GPUS.items()
        if kind in known
        and driver in ("", vendor)
        and any("gpu" in group for group in capabilities)
    ]
    if not kinds:
        raise InvalidParameter(
            f'could not select device driver "{driver}" with capabilities: '
            f"[{' '.join('[' + ' '.join(group) + ']' for group in capabilities)}]" + registry.told()
        )
    count = request.count or 0
    chosen = request.device_ids or (["all"] if count < 0 else [str(one) for one in range(count)])
    return [f"{kinds[0]}={one}" for one in chosen]


def apply(spec: oci.Spec, edits: Iterable[Edits], table: DeviceTable) -> None:
    """Perform edits on a runtime spec of our own making, in place."""
    process = spec.setdefault("process", {})
    for edit in edits:
        process.setdefault("env", []).extend(edit.env)
        if edit.additional_gids:
            user = process.setdefault("user", {})
            user["additionalGids"] = [*user.get("additionalGids", []), *edit.additional_gids]
        for mount in edit.mounts:
            spec.setdefault("mounts", []).append(
                {
                    "destination": mount.container_path,
                    "source": mount.host_path,
                    "type": mount.type or "bind",
                    "options": mount.options or ["ro", "nosuid", "nodev", "bind"],
                }
            )
        for node in edit.device_nodes:
            _add_device(spec, node, table)
        for hook in edit.hooks:
            _add_hook(spec, hook)
        for what, wanted in (("intelRdt", edit.intel_rdt), ("netDevices", edit.net_devices)):
            if wanted:
                raise Unsupported(f"CDI: {what} is not supported")


def _add_device(spec: oci.Spec, node: DeviceNode, table: DeviceTable) -> None:
    linux = spec.setdefault("linux", {})
    kind, major, minor = node.type, node.major, node.minor
    mode, uid, gid = node.file_mode, node.uid, node.gid
    if not kind or major is None or minor is None:
        found = table.node(node.host_path or node.path)
        kind, major, minor = found.kind, found.major, found.minor
        mode = found.mode if mode is None else mode
    linux.setdefault("devices", []).append(
        {
            "path": node.path,
            "type": kind,
            "major": major,
            "minor": minor,
            "fileMode": 0o666 if mode is None else mode,
            "uid": uid or 0,
            "gid": gid or 0,
        }
    )
    resources = linux.setdefault("resources", {})
    rule: oci.DeviceRule = {
        "allow": True,
        "type": kind,
        "major": major,
        "minor": minor,
        "access": node.permissions or "rwm",
    }
    resources["devices"] = [*(resources.get("devices") or []), rule]


def _add_hook(spec: oci.Spec, hook: CdiHook) -> None:
    made: oci.Hook = {"path": hook.path, "args": hook.args or [hook.path], "env": hook.env}
    if hook.timeout is not None:
        made["timeout"] = hook.timeout
    hooks = spec.setdefault("hooks", {})
    if hook.hook_name == "createContainer":
        hooks.setdefault("createContainer", []).append(made)
    elif hook.hook_name == "startContainer":
        hooks.setdefault("startContainer", []).append(made)
    else:
        raise Unsupported(f"CDI: hooks of kind {hook.hook_name} are not supported")
