"""From root file system and OCI mounts to operations (pure).

Every mount is first made detached (a *slot* holds it), dressed with its attributes, and only then
attached to a destination that was opened inside the new root. Where the container has a user
namespace of its own, what needs the host's privileges (cloning host paths, idmapping, overlays) is
planned for the runtime's side, which hands the slots over.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field

from sampan.errors import InvalidParameter, Unsupported
from sampan.kernel import mount as m
from sampan.kernel.cgroup.layout import Hierarchy
from sampan.kernel.facts import Facts
from sampan.model import mount as model
from sampan.model import oci
from sampan.model.idmap import IdMap, Row
from sampan.runtime import mount_options
from sampan.runtime.mount_options import MountOptions
from sampan.runtime.mount_steps import attributes, id_map, new_filesystem
from sampan.runtime.operation import Operation, Value, operation

#: Files of /proc that may be mounted over (lxcfs and such); all else in it is refused, because a
#: fake /proc/self would mislead the runtime and the container alike (CVE-2019-16884).
PROC_FILES = frozenset(
    f"/proc/{name}"
    for name in (
        "cpuinfo",
        "diskstats",
        "loadavg",
        "meminfo",
        "net/dev",
        "slabinfo",
        "stat",
        "swaps",
        "sys/crypto/fips_enabled",
        "sys/kernel/ns_last_pid",
        "uptime",
    )
)
_ORDINARY_ONLY = frozenset({"proc", "sysfs"})
_LABELLED_BY_POLICY = frozenset({"proc", "sysfs", "mqueue", "cgroup", "cgroup2"})


@dataclass(slots=True, kw_only=True)
class MountPlanner:
    """Collects operations: ``host`` for the runtime's side, ``inside`` for init.

    ``remapped``: the container has a user namespace of its own; ``uid_map``, ``gid_map``: its ids,
    as far as they were told. ``own_cgroups``: a new or joined cgroup namespace. ``cgroup``: path of
    the container's cgroup. ``idmap_root``: see PlanOptions. ``propagation``: MS_* of the
    host's mounts as the container has them; ``root_propagation``: of its root, which is made of
    one. ``label``: SELinux's, of all that is in new mounts. ``shared_root``: see PlanOptions.
    """

    facts: Facts
    bundle: str
    remapped: bool
    own_cgroups: bool
    cgroup: str
    uid_map: tuple[Row, ...] = ()
    gid_map: tuple[Row, ...] = ()
    idmap_root: bool = True
    label: str = ""
    shared_root: str = ""
    propagation: int = m.MS_SLAVE
    root_propagation: int = m.MS_PRIVATE
    host: list[Operation] = field(default_factory=list)
    inside: list[Operation] = field(default_factory=list)
    transferred: list[str] = field(default_factory=list)
    proc_slot: str | None = None
    devpts: str | None = None
    bound: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    _device_slot: str | None = None
    _count: int = 0

    @property
    def _from_outside(self) -> bool:
        """Whether mounts of the host are cloned for init, with our rights over them."""
        return self.remapped and self.facts.mounts

    @property
    def _ids(self) -> IdMap:
        return IdMap(self.uid_map, self.gid_map)

    def root(self, mounts: Sequence[model.Mount]) -> None:
        """The root file system: ``mounts[0]`` becomes the root, others go inside it."""
        if not mounts or mounts[0].destination:
            raise InvalidParameter("the first mount of a root file system must be the root itself")
        for entry in mounts:
            slot = self._slot()
            options = mount_options.parse(entry.options, entry.type)
            if options.bind:
                idmapped = self.remapped and self.idmap_root
                self._bind(slot, entry.source, options, idmapped=idmapped)
            elif entry.type == "overlay":
                self._overlay(slot, entry.source, options)
            else:
                self._filesystem(slot, entry.type, entry.source, options)
            if entry.destination:
                self._attach(slot, entry.destination, options)
            else:
                path, kind = self.shared_root or "/", self.root_propagation
                self.inside.append(operation("attach_root", slot=slot, path=path, kind=kind))

    def mount(self, entry: oci.Mount) -> None:
        """One entry of the spec's ``mounts``."""
        destination = entry.get("destination", "")
        if not destination or "\0" in destination:
            raise InvalidParameter("mounts: an entry has no destination")
        destination = posixpath.normpath("/" + destination.lstrip("/"))
        kind = entry.get("type") or "none"
        options = mount_options.parse(entry.get("options") or (), kind)
        _check_proc(destination)
        if options.remount:
            self._remount(destination, options)
            return
        slot = self._slot()
        if options.bind:
            self._bind_entry(slot, destination, entry, options)
        elif kind in ("cgroup", "cgroup2"):
            self._cgroups(slot, destination, options)
        elif kind == "overlay":
            self._overlay(slot, entry.get("source") or kind, options, idmapped=False)
            self._attach(slot, destination, options)
        else:
            if options.idmap:
                raise Unsupported(f"mounts: idmap of a new {kind} mount at {destination}")
            if self._made_outside(kind, destination, options):
                self._device_directory(slot, options)
            elif kind == "tmpfs":
                self._tmpfs(slot, destination, entry.get("source") or kind, options)
            else:
                self._filesystem(slot, kind, entry.get("source") or kind, options)
            self._attach(slot, destination, options, ordinary=kind in _ORDINARY_ONLY)
        if kind == "proc" and destination == "/proc" and not options.bind:
            self.proc_slot = slot
        if kind == "devpts" and destination == "/dev/pts" and not options.bind:
            self.devpts = slot

    def device(self, device: oci.Device) -> None:
        """A device node. In a user namespace mknod(2) is refused: the runtime's side makes it, or
        if that is in one as well, the host's own is shown."""
        node: dict[str, Value] = {
            key: value for key, value in device.items() if isinstance(value, str | int)
        }
        if not self.facts.makes_devices and device["type"] != "p":
            self._device_of_host(device)
            return
        if self.remapped:
            self._remapped_device(device["path"], node)
            return
        self._nodes(self.inside, None).append(node)

    def _device_of_host(self, device: oci.Device) -> None:
        slot, path = self._slot(), device["path"]
        step = operation(
            "clone_tree",
            slot=slot,
            source=path,
            recursive=False,
            device=[device["type"], device["major"], device["minor"]],
        )
        if self._from_outside:
            self._on_host(slot, step)
        else:
            self.inside.append(step)
        self.inside.append(
            operation("attach", slot=slot, destination=path, ordinary=False, proc_file=False)
        )

    def _nodes(self, steps: list[Operation], slot: str | None) -> list[Value]:
        """The list of devices that ``steps`` end with."""
        if not steps or steps[-1].name != "devices" or steps[-1].arguments["slot"] != slot:
            steps.append(operation("devices", slot=slot, nodes=[]))
        nodes = steps[-1].arguments["nodes"]
        assert isinstance(nodes, list)
        return nodes

    def _remapped_device(self, path: str, node: dict[str, Value]) -> None:
        """In the container's own /dev if it is a fresh tmpfs, else in one to bind it from."""
        uid, gid = node.get("uid", 0), node.get("gid", 0)
        assert isinstance(uid, int)
        assert isinstance(gid, int)
        owner = self._ids.outside(uid, gid) or (0, 0)
        node = {**node, "uid": owner[0], "gid": owner[1]}
        clean = posixpath.normpath(path)
        if self._device_slot is not None and clean.startswith("/dev/"):
            node["path"] = clean.removeprefix("/dev")
            self._nodes(self.host, self._device_slot).append(node)
            return
        holder, slot = self._slot(), self._slot()
        self.host += [
            new_filesystem(holder, "tmpfs", "tmpfs", [["mode", "755"]], m.MOUNT_ATTR_NOSUID),
            operation("devices", slot=holder, nodes=[{**node, "path": "/node"}]),
        ]
        self._on_host(slot, operation("clone_within", slot=slot, within=holder, name="node"))
        self.inside.append(
            operation("attach", slot=slot, destination=path, ordinary=False, proc_file=False)
        )

    def _made_outside(self, kind: str, destination: str, options: MountOptions) -> bool:
        """Whether it is the /dev that device nodes are made in from outside.

        A tmpfs mounted inside a user namespace has no working device nodes (user_namespaces(7)).
        """
        return (
            self._from_outside
            and self.facts.makes_devices
            and kind == "tmpfs"
            and destination == "/dev"
            and not options.copy_up
            and self._ids.root is not None
        )

    def _device_directory(self, slot: str, options: MountOptions) -> None:
        root = self._ids.root
        assert root is not None
        given = {key for key, _ in options.data}
        data = self._data("tmpfs", options)
        if not given & {"uid", "gid"}:
            data += [["uid", str(root[0])], ["gid", str(root[1])]]
        attributes = options.set_ | options.recursive_set
        self._on_host(slot, new_filesystem(slot, "tmpfs", "tmpfs", data, attributes))
        self._device_slot = slot

    def _slot(self) -> str:
        self._count += 1
        return f"mount{self._count}"

    def _on_host(self, slot: str, *steps: Operation) -> None:
        self.host += steps
        if steps[0].name == "clone_tree":
            # Made in the host's mount namespace it is a peer of the host's mount: what is mounted
            # on it in the container would show up there.
            cut = operation("propagation", slot=slot, kind=self.propagation, recursive=True)
            self.host.append(cut)
        if slot not in self.transferred:
            self.transferred.append(slot)

    def _bind_entry(
        self, slot: str, destination: str, entry: oci.Mount, options: MountOptions
    ) -> None:
        source = entry.get("source", "")
        if not source:
            raise InvalidParameter(f"mounts: bind mount at {destination} has no source")
        if options.data:
            # As mount(2) does it: there is no new file system which they could be options of.
            words = ",".join(key for key, _ in options.data)
            self.warnings.append(f"mounts: {words!r} mean nothing to the bind mount {destination}")
        mappings: Value = None
        if entry.get("uidMappings") or entry.get("gidMappings"):
            if not (entry.get("uidMappings") and entry.get("gidMappings")):
                raise InvalidParameter(
                    f"mounts: {destination} needs both uidMappings and gidMappings"
                )
            mappings = [id_map(entry["uidMappings"]), id_map(entry["gidMappings"])]
        elif (options.idmap or options.try_idmap) and not self.remapped:
            raise InvalidParameter(
                f"mounts: idmap of {destination} without mappings or a user namespace"
            )
        idmapped = options.idmap or options.try_idmap or mappings is not None
        self._bind(
            slot,
            os.path.join(self.bundle, source),
            options,
            idmapped=idmapped,
            mappings=mappings,
        )
        self.bound.add(destination)
        self._attach(slot, destination, options)

    def _bind(
        self,
        slot: str,
        source: str,
        options: MountOptions,
        *,
        idmapped: bool,
        mappings: Value = None,
    ) -> None:
        steps = [
            operation("clone_tree", slot=slot, source=source, recursive=options.recursive_bind)
        ]
        if idmapped:
            steps.append(
                operation(
                    "idmap",
                    slot=slot,
                    mappings=mappings,
                    recursive=options.recursive_idmap,
                    optional=options.try_idmap,
                    source=source,
                )
            )
        steps += attributes(slot, options)
        if idmapped and not self.facts.mounts:
            raise Unsupported(f"mounts: idmap of {source} needs rights that only root has")
        if self._from_outside or idmapped:
            self._on_host(slot, *steps)
        else:
            self.inside += steps

    def _overlay(
        self, slot: str, source: str, options: MountOptions, *, idmapped: bool | None = None
    ) -> None:
        if "overlay" not in self.facts.filesystems:
            raise Unsupported("this kernel has no overlay file system")
        data = dict(options.data)
        lower = [part for part in (data.pop("lowerdir", None) or "").split(":") if part]
        upper, work = data.pop("upperdir", None), data.pop("workdir", None)
        if not lower or (upper is None) != (work is None):
            raise InvalidParameter("overlay: needs lowerdir, and upperdir and workdir together")
        shifted = self.remapped if idmapped is None else idmapped
        root = self._ids.root
        owner: Value = list[Value](root) if shifted and root else None
        step = operation(
            "overlay",
            slot=slot,
            source=source,
            lower=list[Value](lower),
            upper=upper,
            work=work,
            options=[[key, value] for key, value in data.items()],
            attributes=options.set_,
            layers=self.facts.overlay_layers,
            layer_fds=self.facts.overlay_layer_fds,
            idmapped=shifted,
            owner=owner,
        )
        if self.remapped and not self.facts.overlay_layers:
            raise Unsupported("overlay with a user namespace: needs Linux 6.5 or later")
        if self._from_outside:
            self._on_host(slot, step)
        else:
            self.inside.append(step)

    def _filesystem(self, slot: str, kind: str, source: str, options: MountOptions) -> None:
        attributes = options.set_ | options.recursive_set
        step = new_filesystem(slot, kind, source, self._data(kind, options), attributes)
        self.inside.append(step)

    def _tmpfs(self, slot: str, destination: str, source: str, options: MountOptions) -> None:
        """Without a wish, what it covers tells its mode; and its files, if those are copied."""
        attributes = options.set_ | options.recursive_set
        if options.copy_up:
            made = attributes & ~m.MOUNT_ATTR_RDONLY  # until it is filled
            data = self._data("tmpfs", options)
            self.inside += [
                new_filesystem(slot, "tmpfs", source, data, made),
                operation("copy_up", slot=slot, path=destination),
            ]
            if made != attributes:
                read_only = {"set_": m.MOUNT_ATTR_RDONLY, "clear": 0, "recursive": False}
                self.inside.append(operation("attributes", slot=slot, **read_only))
        elif any(key == "mode" for key, _ in options.data):
            self._filesystem(slot, "tmpfs", source, options)
        else:
            self.inside.append(
                operation(
                    "tmpfs_over",
                    slot=slot,
                    source=source,
                    options=self._data("tmpfs", options),
                    attributes=attributes,
                    path=destination,
                )
            )

    def _data(self, kind: str, options: MountOptions) -> list[Value]:
        """Options of a new file system; those of the kernel's own have labels by policy."""
        data: list[Value] = [[key, value] for key, value in options.data]
        if self.label and kind not in _LABELLED_BY_POLICY:
            data.append(["context", self.label])
        return data

    def _attach(
        self, slot: str, destination: str, options: MountOptions, *, ordinary: bool = False
    ) -> None:
        self.inside.append(
            operation(
                "attach",
                slot=slot,
                destination=destination,
                ordinary=ordinary,
                proc_file=destination in PROC_FILES,
            )
        )
        self.inside += [
            operation("propagation", slot=slot, kind=kind, recursive=recursive)
            for kind, recursive in options.propagation
        ]

    def _remount(self, destination: str, options: MountOptions) -> None:
        if options.data:
            raise Unsupported(f"mounts: remount of {destination} with file system options")
        self.inside.append(
            operation("remount", destination=destination, set_=options.set_, clear=options.clear)
        )

    def _cgroups(self, slot: str, destination: str, options: MountOptions) -> None:
        """/sys/fs/cgroup. The cgroups must exist and be joined before they can be mounted."""
        self.inside.append(operation("await_cgroups"))
        if self.facts.layout.mode == "v2":
            if self.remapped and not self.own_cgroups:
                # The host's cgroup namespace is not the container's to mount.
                source = self.facts.layout.directories("/")[0]
                step = operation("clone_tree", slot=slot, source=source, recursive=False)
                steps = [step, *attributes(slot, options)]
                if self._from_outside:
                    self._on_host(slot, *steps)
                else:
                    self.inside += steps
            else:
                self._filesystem(slot, "cgroup2", "cgroup", options)
            self._attach(slot, destination, options)
            return
        base = m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC
        size: list[Value] = [["mode", "755"], ["size", "64k"]]
        self.inside.append(new_filesystem(slot, "tmpfs", "cgroup", size, base))
        self._attach(slot, destination, options)
        links: list[Value] = []
        for hierarchy in self.facts.layout.legacy:
            name = posixpath.basename(hierarchy.mountpoint)
            part = self._slot()
            self._hierarchy(part, hierarchy, options)
            self.inside.append(operation("attach_within", slot=part, within=slot, name=name))
            links += [
                [f"{destination}/{controller}", name]
                for controller in sorted(hierarchy.controllers)
                if controller != name and "=" not in controller
            ]
        if links:
            self.inside.append(operation("symlinks", links=links))
        if options.set_ & m.MOUNT_ATTR_RDONLY:
            self.inside.append(
                operation(
                    "attributes", slot=slot, set_=m.MOUNT_ATTR_RDONLY, clear=0, recursive=False
                )
            )

    def _hierarchy(self, part: str, hierarchy: Hierarchy, options: MountOptions) -> None:
        """One version 1 hierarchy, detached: the container's own cgroup as its root."""
        base = m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC
        if self.own_cgroups:
            data: list[Value] = []
            for controller in sorted(hierarchy.controllers):
                named = controller.startswith("name=")
                data += [["none", None]] if named else []
                data.append([*controller.split("=", 1)] if named else [controller, None])
            attributes = options.set_ | base
            self.inside.append(new_filesystem(part, "cgroup", "cgroup", data, attributes))
            return
        steps = [
            operation(
                "clone_tree",
                slot=part,
                source=hierarchy.directory(self.cgroup),
                recursive=False,
            ),
            operation(
                "attributes",
                slot=part,
                set_=options.set_ | base,
                clear=options.clear & ~base,
                recursive=False,
            ),
        ]
        if self._from_outside:
            self._on_host(part, *steps)
        else:
            self.inside += steps


def _check_proc(destination: str) -> None:
    """/proc itself is checked when it is attached: what is mounted there must be a procfs."""
    if not destination.startswith("/proc/") or destination in PROC_FILES:
        return
    raise InvalidParameter(f"mounts: {destination} is inside /proc and cannot be mounted over")
