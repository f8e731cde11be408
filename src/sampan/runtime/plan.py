"""From an OCI runtime spec and probed facts to a plan (pure).

Every field of the spec is acted on or refused by name.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sampan.errors import InvalidParameter, Unsupported
from sampan.kernel import capabilities, mount, namespaces
from sampan.kernel.facts import Facts
from sampan.kernel.seccomp import Filter
from sampan.model import mount as model
from sampan.model import oci
from sampan.runtime import net_devices, process_plan, rdt
from sampan.runtime.devices import checked_device, default_devices
from sampan.runtime.mount_options import PROPAGATION
from sampan.runtime.mount_plan import MountPlanner
from sampan.runtime.mount_steps import id_map
from sampan.runtime.operation import Operation, Value, operation
from sampan.runtime.planned import Plan
from sampan.runtime.process_plan import ProcessOptions
from sampan.runtime.requests import DEFAULT_PARENT
from sampan.runtime.sysctls import check_sysctls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.kernel.cgroup.systemd import Scope

_KNOWN_LINUX = frozenset(oci.Linux.__annotations__)
_KNOWN = frozenset(oci.Spec.__annotations__)
_OTHER_SYSTEMS = frozenset({"solaris", "windows", "vm", "zos", "freebsd"})
_CLOCKS = ("monotonic", "boottime")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What the caller of :func:`plan` adds to the spec.

    ``process``: see :class:`ProcessOptions`. ``bundle``: directory relative bind sources start
    from. ``no_pivot``: MS_MOVE and chroot instead of pivot_root(2). ``console_size``: (height,
    width). ``state``: the OCI state given to hooks that run inside (its pid is filled in there).
    ``idmap_root``: files of the root file system are owned by unshifted ids, so a user namespace
    needs them idmapped; a bundle's are as its maker wants them. ``systemd``: it makes the cgroup,
    and ``linux.cgroupsPath`` is "slice:prefix:name". ``shared_root``: where the root of
    a container without a mount namespace is mounted; whoever says it takes it off again.
    ``resctrl``: the caller acts on the plan's group there. ``cgroups``: there is one for it;
    without, it stays in ours, and nothing is limited.
    """

    process: ProcessOptions = field(default_factory=ProcessOptions)
    bundle: str = "/"
    no_pivot: bool = False
    console_size: tuple[int, int] | None = None
    state: Mapping[str, Value] | None = None
    idmap_root: bool = True
    systemd: bool = False
    shared_root: str = ""
    resctrl: bool = False
    cgroups: bool = True


def plan(
    spec: oci.Spec,
    facts: Facts,
    *,
    container_id: str,
    rootfs: Sequence[model.Mount],
    options: PlanOptions,
    seccomp: Filter | None = None,
) -> Plan:
    """The plan for a container.

    ``rootfs`` replaces ``spec["root"]["path"]``. Raises :class:`InvalidParameter` for what is
    wrong in the spec and :class:`Unsupported` for what this kernel or sampan cannot do.
    """
    _check_known(spec, facts)
    linux = spec.get("linux") or {}
    new, join = _namespaces(linux.get("namespaces") or (), facts)
    joined = {flag for flag, _ in join}
    uid_map, gid_map = _maps(linux, new, joined)
    remapped = bool((new | sum(joined)) & namespaces.CLONE_NEWUSER)
    path = linux.get("cgroupsPath") or ""
    scope = _scope(facts, path, container_id, spec) if options.systemd else None
    if not options.cgroups:
        path = ""
        _check_unlimited(linux.get("resources") or {})
    else:
        path = cgroup_path(path, container_id) if scope is None else scope.path
    planner = MountPlanner(
        facts=facts,
        bundle=options.bundle,
        remapped=remapped,
        own_cgroups=bool((new | sum(joined)) & namespaces.CLONE_NEWCGROUP),
        cgroup=path,
        uid_map=uid_map,
        gid_map=gid_map,
        idmap_root=options.idmap_root,
        label=linux.get("mountLabel") or "",
    )
    if "kernel" in ((linux.get("resources") or {}).get("memory") or {}):
        planner.warnings.append("linux.resources.memory.kernel: no kernel limits that any more")
    if not (new | sum(joined)) & namespaces.CLONE_NEWNS:
        planner.shared_root = _shared_root(options, linux, remapped)
    process = spec.get("process")
    if process is None:
        raise InvalidParameter("process: missing")
    seccomp_filter = seccomp if linux.get("seccomp") else None
    choices = replace(options.process, seccomp=seccomp_filter is not None)
    # Also in a mount namespace that is joined the root becomes the container's.
    _mount_operations(planner, spec, linux, rootfs, options, choices.terminal)
    setup = [operation("enter"), *planner.inside]
    setup += _after_mounts(spec, linux, new, joined, planner, options, choices)
    setup.append(
        operation(
            "find_program",
            args=list[Value](process.get("args") or ()),
            env=list[Value](process.get("env") or ()),
        )
    )
    finish = _linux_process(linux)
    hooks = (spec.get("hooks") or {}).get("startContainer") or ()
    last = _hooks("startContainer", hooks, options.state, "created")
    choices = replace(choices, prelude=[*choices.prelude, *last])
    made = process_plan.plan_process(process, _facts_inside(facts, remapped), choices)
    host = list(planner.host)
    if devices := linux.get("netDevices"):
        host += net_devices.plan(devices, new, join)
    host += process_plan.oom_score(process)
    return Plan(
        container_id=container_id,
        new=new,
        join=tuple(join),
        uid_map=uid_map if new & namespaces.CLONE_NEWUSER else (),
        gid_map=gid_map if new & namespaces.CLONE_NEWUSER else (),
        time_offsets=_time_offsets(linux, new),
        host=tuple(host),
        transferred=tuple(planner.transferred),
        setup=tuple(setup),
        finish=(*finish, *made.operations),
        limits=made.limits,
        cgroup=path,
        scope=scope,
        resources=_resources(linux, facts, planner.warnings),
        resctrl=_resctrl(linux, facts, container_id, options),
        seccomp=seccomp_filter,
        terminal=choices.terminal,
        warnings=(*planner.warnings, *made.warnings),
    )


def plan_exec(
    process: oci.Process,
    facts: Facts,
    *,
    container_id: str,
    options: ProcessOptions,
    console_size: tuple[int, int] | None = None,
    seccomp: Filter | None = None,
    root: str = "",
    linux: oci.Linux | None = None,
) -> Plan:
    """The plan for one more process of a running container; where to join is the caller's.

    ``root``: the container's, if no mount namespace leads there. ``linux``: the container's, whose
    personality and memory policy are all its processes'.
    """
    # A monitor keeps the filter to itself: then only the options tell that there may be one.
    options = replace(options, seccomp=options.seccomp or seccomp is not None)
    kinds = {entry.get("type") for entry in (linux or {}).get("namespaces") or ()}
    made = process_plan.plan_process(process, _facts_inside(facts, "user" in kinds), options)
    affinity = process.get("execCPUAffinity") or {}
    initial = process_plan.number_list(affinity.get("initial") or "")
    setup = [operation("await_cgroups")]
    final = process_plan.number_list(affinity.get("final") or "")
    if final or initial:  # which is for the way there alone
        setup.append(operation("affinity", cpus=list[Value](final)))
    setup.append(operation("enter"))
    if root:
        setup.append(operation("change_root", path=root))
    if options.terminal:
        setup.append(_console(None, console_size, bind=False))
    return Plan(
        container_id=container_id,
        new=0,
        host=tuple(process_plan.oom_score(process)),
        setup=tuple(setup),
        finish=(*_linux_process(linux or {}), *made.operations),
        limits=made.limits,
        seccomp=seccomp,
        terminal=options.terminal,
        affinity=tuple(initial),
        warnings=made.warnings,
    )


def _facts_inside(facts: Facts, remapped: bool) -> Facts:
    """Whoever enters a user namespace has all capabilities in it (user_namespaces(7))."""
    return replace(facts, capabilities=frozenset(capabilities.NUMBERS)) if remapped else facts


def _resources(linux: oci.Linux, facts: Facts, warnings: list[str]) -> oci.Resources:
    wanted = linux.get("resources") or {}
    if facts.limits_devices:
        return wanted
    if wanted.get("devices"):
        warnings.append("linux.resources.devices: only root may change what the host allows")
    return {**wanted, "devices": None}


def _check_unlimited(resources: oci.Resources) -> None:
    """Without a cgroup nothing can be limited; which devices there are rights to is the host's."""
    for name, value in resources.items():
        if value and name != "devices":
            raise Unsupported(f"linux.resources.{name}: no cgroup can be made with our rights")


def _scope(facts: Facts, wanted: str, container_id: str, spec: oci.Spec) -> Scope:
    from sampan.kernel.cgroup import systemd

    resources = (spec.get("linux") or {}).get("resources") or {}
    annotations = spec.get("annotations") or {}
    return systemd.scope(facts.layout, wanted, container_id, resources, annotations)


def _resctrl(
    linux: oci.Linux, facts: Facts, container_id: str, options: PlanOptions
) -> rdt.Group | None:
    if "intelRdt" not in linux:
        return None
    wanted = rdt.group(linux["intelRdt"], container_id)
    if not (facts.resctrl and options.resctrl):
        missing = "not for this container" if facts.resctrl else "this machine has no resctrl"
        raise Unsupported(f"linux.intelRdt: {missing}")
    return wanted


def _shared_root(options: PlanOptions, linux: oci.Linux, remapped: bool) -> str:
    """Where the root goes in our own mount namespace."""
    if not options.shared_root:
        raise Unsupported("linux.namespaces: a container without a mount namespace")
    if remapped or linux.get("rootfsPropagation"):
        what = "a user namespace" if remapped else "linux.rootfsPropagation"
        raise Unsupported(f"linux.namespaces: {what} needs a mount namespace of its own as well")
    return options.shared_root


def cgroup_path(wanted: str, container_id: str) -> str:
    """The container's cgroup in every hierarchy: ``linux.cgroupsPath`` or /sampan/<id>."""
    path = posixpath.normpath("/" + (wanted or f"{DEFAULT_PARENT}/{container_id}").lstrip("/"))
    if path == "/" or ".." in wanted.split("/"):
        raise InvalidParameter(f"linux.cgroupsPath: invalid path {wanted!r}")
    return path


def _check_known(spec: oci.Spec, facts: Facts) -> None:
    unknown = sorted(set(spec) - _KNOWN)
    if unknown:
        reason = "for another system" if set(unknown) & _OTHER_SYSTEMS else "unknown"
        raise Unsupported(f"config.json: {unknown[0]} is {reason}")
    linux = spec.get("linux") or {}
    unknown = sorted(set(linux) - _KNOWN_LINUX)
    if unknown:
        raise Unsupported(f"linux.{unknown[0]} is unknown")
    if linux.get("mountLabel") and "selinux" not in facts.lsm:
        raise Unsupported("linux.mountLabel: SELinux is not active here")


def _namespaces(wanted: Sequence[oci.Namespace], facts: Facts) -> tuple[int, list[tuple[int, str]]]:
    new, join, seen = 0, list[tuple[int, str]](), set[str]()
    for entry in wanted:
        kind, path = entry.get("type", ""), entry.get("path") or ""
        if kind not in namespaces.FLAGS:
            raise InvalidParameter(f"linux.namespaces: unknown type {kind!r}")
        if kind in seen:
            raise InvalidParameter(f"linux.namespaces: {kind} appears twice")
        if kind not in facts.namespaces:
            raise Unsupported(f"linux.namespaces: this kernel has no {kind} namespaces")
        seen.add(kind)
        if path and not path.startswith("/"):
            raise InvalidParameter(f"linux.namespaces: {path!r} is not an absolute path")
        if path:
            join.append((namespaces.FLAGS[kind], path))
        else:
            new |= namespaces.FLAGS[kind]
    return new, join


def _maps(
    linux: oci.Linux, new: int, joined: set[int]
) -> tuple[tuple[tuple[int, int, int], ...], tuple[tuple[int, int, int], ...]]:
    """The id maps of the container's user namespace; of a joined one they are as it was told."""
    uids, gids = linux.get("uidMappings") or (), linux.get("gidMappings") or ()
    if (uids or gids) and not (new | sum(joined)) & namespaces.CLONE_NEWUSER:
        raise InvalidParameter("linux.uidMappings: no user namespace to map")
    if new & namespaces.CLONE_NEWUSER and not (uids and gids):
        raise InvalidParameter("linux.namespaces: a new user namespace needs uid and gid mappings")
    return _rows(uids), _rows(gids)


def _rows(mappings: Sequence[oci.IDMapping]) -> tuple[tuple[int, int, int], ...]:
    id_map(mappings)
    return tuple((m.get("containerID", 0), m.get("hostID", 0), m.get("size", 0)) for m in mappings)


def _time_offsets(linux: oci.Linux, new: int) -> tuple[str, ...]:
    lines = []
    for clock, offset in (linux.get("timeOffsets") or {}).items():
        if clock not in _CLOCKS:
            raise InvalidParameter(f"linux.timeOffsets: unknown clock {clock!r}")
        lines.append(f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}")
    if lines and not new & namespaces.CLONE_NEWTIME:
        raise InvalidParameter("linux.timeOffsets: no time namespace of its own")
    return tuple(lines)


def _mount_operations(
    planner: MountPlanner,
    spec: oci.Spec,
    linux: oci.Linux,
    rootfs: Sequence[model.Mount],
    options: PlanOptions,
    terminal: bool,
) -> None:
    wanted = linux.get("rootfsPropagation") or ""
    if wanted and wanted not in PROPAGATION:
        raise InvalidParameter(f"linux.rootfsPropagation: unknown {wanted!r}")
    # The word is about the root. What the host mounts later still shows up below bind mounts that
    # ask for it, and nothing goes the other way; unless it is said of all mounts, or that the root
    # is shared, which engines say when a bind mount is to be.
    kind, recursive = PROPAGATION[wanted] if wanted else (mount.MS_SLAVE, False)
    if kind == mount.MS_UNBINDABLE:
        kind = mount.MS_PRIVATE  # the root is to be it; of the host's, binds are still to be made
    follows = kind == mount.MS_SLAVE
    planner.propagation = kind if recursive or kind == mount.MS_SHARED else mount.MS_SLAVE
    if not planner.shared_root:
        planner.inside.append(operation("host_propagation", kind=planner.propagation))
        planner.root_propagation = mount.MS_SLAVE if follows else mount.MS_PRIVATE
    planner.root(rootfs)
    for entry in spec.get("mounts") or ():
        planner.mount(entry)
    # /dev/ptmx leads to the container's own devpts; the host's, which docker lists among all
    # devices for --privileged, would make terminals elsewhere.
    devices = [
        checked_device(device)
        for device in linux.get("devices") or ()
        if posixpath.normpath(device.get("path", "")) != "/dev/ptmx"
    ]
    if "/dev" not in planner.bound:
        named = {posixpath.normpath(device["path"]) for device in devices}
        for device in default_devices():
            if device["path"] not in named:
                planner.device(device)
        planner.inside.append(operation("device_links", ptmx=planner.devpts is not None))
    for device in devices:
        planner.device(device)
    if terminal:
        bind = "/dev" not in planner.bound
        planner.inside.append(_console(planner.devpts, options.console_size, bind=bind))


def _console(devpts: str | None, size: tuple[int, int] | None, *, bind: bool) -> Operation:
    height, width = size or (0, 0)
    return operation("console", devpts=devpts, height=height, width=width, bind=bind)


def _after_mounts(
    spec: oci.Spec,
    linux: oci.Linux,
    new: int,
    joined: set[int],
    planner: MountPlanner,
    options: PlanOptions,
    process: ProcessOptions,
) -> list[Operation]:
    """What init does once all mounts are there: names, sysctls, hooks, masks, the new root."""
    steps: list[Operation] = []
    own = new | sum(joined)
    for name in ("hostname", "domainname"):
        if value := spec.get(name):
            if not own & namespaces.CLONE_NEWUTS:
                raise InvalidParameter(f"{name}: no UTS namespace of its own")
            steps.append(operation(name, name=str(value)))
    if sysctls := linux.get("sysctl"):
        check_sysctls(sysctls, own)
        steps.append(operation("sysctls", slot=planner.proc_slot, values=dict(sysctls)))
    hooks = spec.get("hooks") or {}
    if hooks.get("prestart") or hooks.get("createRuntime"):
        # Its cgroups are offered to init before the hooks are run, and are what hooks look at.
        steps += [operation("await_cgroups"), operation("runtime_hooks")]
    within = hooks.get("createContainer") or ()
    steps += _hooks("createContainer", within, options.state, "creating")
    steps += _root_operations(spec, linux, planner, move=options.no_pivot)
    steps.append(operation("await_cgroups"))
    return steps


def _root_operations(
    spec: oci.Spec, linux: oci.Linux, planner: MountPlanner, *, move: bool
) -> list[Operation]:
    """From "all mounts are there" to "nothing but the new root is"."""
    cwd = (spec.get("process") or {}).get("cwd") or "/"
    steps = [operation("make_directory", path=cwd)] if cwd != "/" else []
    if masked := linux.get("maskedPaths"):
        steps.append(operation("mask", paths=_absolute(masked, "linux.maskedPaths")))
    if readonly := linux.get("readonlyPaths"):
        steps.append(operation("protect", paths=_absolute(readonly, "linux.readonlyPaths")))
    if (spec.get("root") or {}).get("readonly"):
        steps.append(operation("readonly_root"))
    steps.append(operation("pivot", move=move or bool(planner.shared_root)))
    if wanted := linux.get("rootfsPropagation"):
        kind, recursive = PROPAGATION[wanted]
        steps.append(operation("root_propagation", kind=kind, recursive=recursive))
        if recursive:
            # What a mount asks for itself is said later than what is said of all.
            steps += [step for step in planner.inside if step.name == "propagation"]
    return steps


def _absolute(paths: Sequence[str], where: str) -> list[Value]:
    for path in paths:
        if not path.startswith("/"):
            raise InvalidParameter(f"{where}: {path!r} is not an absolute path")
    return list[Value](paths)


def _linux_process(linux: oci.Linux) -> list[Operation]:
    steps = []
    if value := linux.get("personality"):
        steps.append(process_plan.personality(value))
    if policy := linux.get("memoryPolicy"):
        steps.append(process_plan.memory_policy(policy))
    return steps


def _hooks(
    kind: str, hooks: Sequence[oci.Hook], state: Mapping[str, Value] | None, status: str
) -> list[Operation]:
    """The hooks of one kind that init runs, told of the container's state with ``status``."""
    steps = []
    for index, hook in enumerate(hooks):
        path = hook.get("path", "")
        if not path.startswith("/"):
            raise InvalidParameter(f"hooks: {path!r} is not an absolute path")
        steps.append(
            operation(
                "hook",
                name=f"{kind} hook #{index}",
                path=path,
                args=list[Value](hook.get("args") or [path]),
                env=list[Value](hook.get("env") or ()),
                timeout=hook.get("timeout", 0),
                state={**(state or {}), "status": status},
            )
        )
    return steps
