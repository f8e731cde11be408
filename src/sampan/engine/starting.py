"""Starting a container, one straight line; whatever was done is undone when a step fails.

    plan network -> write name files -> launcher.create -> network attach (while init mounts)
    -> endpoint rows -> plug waiting clients -> start -> running

All blocking steps share one thread, so the loop is left and entered once.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sampan.engine import capabilities as caps
from sampan.engine import (
    cdi,
    clock,
    imagemounts,
    links,
    logconfig,
    logforwarding,
    namespacing,
    naming,
    ownership,
    propagation,
    roots,
    runtimes,
    sharedmemory,
    usernamespaces,
    users,
)
from sampan.engine.attaching import PendingAttachment, discard
from sampan.engine.core import Core, seccomp_filter
from sampan.engine.fabric import Plug
from sampan.engine.lifecycle import Event, Status, after
from sampan.engine.naming import NameFiles
from sampan.engine.record import MountRecord
from sampan.engine.security import SecurityOptions, parse_security_options
from sampan.engine.spec import Resolved, resources, runtime_spec
from sampan.engine.table import Container, Run
from sampan.engine.volumestore import with_sources
from sampan.errors import (
    CommandNotExecutable,
    CommandNotFound,
    Conflict,
    NotModified,
    SampanError,
    StartFailed,
)
from sampan.model import oci
from sampan.model.idmap import IdMap
from sampan.runtime.client import CreateRequest, Making, Monitor, Outline
from sampan.runtime.plan import cgroup_path
from sampan.wire.container import ResourcesUlimit

#: seconds a monitor may take to end after a failed start
_GONE_TIMEOUT = 5.0


@dataclass(slots=True, kw_only=True)
class _Launch:
    """What the loop's thread decided, for the thread that acts."""

    request: CreateRequest
    making: Making | None
    plugs: Sequence[Plug]
    #: whether its network namespace is a new one
    own_network: bool
    files: NameFiles | None
    directory: Path
    mounts: Sequence[MountRecord]
    sources: Sequence[MountRecord]
    shared_memory: str
    shared_memory_size: int
    id_map: IdMap | None
    clients: Sequence[PendingAttachment]


@dataclass(slots=True, kw_only=True)
class _Launched:
    monitor: Monitor
    events: socket.socket
    pidfd: int
    plugs: Sequence[Plug]
    streams: Sequence[socket.socket]


def check_startable(container: Container) -> None:
    """Raise what dockerd answers to a start that does not fit the container's status."""
    status = container.state.status
    if status == Status.RUNNING or container.run is not None:
        if status == Status.PAUSED:
            raise Conflict("cannot start a paused container, try unpause instead")
        raise NotModified("container already started")
    if status in (Status.REMOVING, Status.DEAD) or container.removed:
        raise Conflict("container is marked for removal and cannot be started")


async def start(
    core: Core, container: Container, *, automatic: bool = False, hold: bool = False
) -> Run:
    """Start a container whose lock the caller holds; returns its run.

    ``automatic`` starts (restart policy) keep the restart count. With ``hold`` everything is done
    but the last step, which is :func:`sampan.engine.preparing.let_go`'s. Raises as
    :meth:`sampan.engine.containers.Containers.start`.
    """
    check_startable(container)
    try:
        plugs = core.fabric.plan(container)
    except SampanError as error:
        record_failure(core, container, error)
        raise
    making = None
    try:
        await logforwarding.connect(core, container)
        making = _begin(core, container)
        launch = _plan(core, container, plugs, making)
        core.fabric.enter(container, plugs)
        launched = await core.threads.run(_perform, core, container, launch, hold)
    except (SampanError, OSError) as failed:
        reason = failed if isinstance(failed, SampanError) else _as_failure(failed)
        if making is not None:
            await core.threads.run(making.give_up)
        core.fabric.release(plugs)
        record_failure(core, container, reason)
        await logforwarding.finish(container)
        if reason is failed:
            raise
        raise reason from failed
    run = _run(core, container, launch, launched)
    if hold:
        await _learn_addresses(core, container, launch)
        return run
    for client, stream in zip(launch.clients, launched.streams, strict=True):
        client.resolve(stream)
    started(core, container, run, automatic=automatic)
    await _learn_addresses(core, container, launch)
    if container.pending:
        await plug_pending(core, container)
    return run


async def _learn_addresses(core: Core, container: Container, launch: _Launch) -> None:
    """Let addresses that drivers chose themselves be known where ours are known before."""
    plugs = list(container.endpoints.values())
    known = {plug.endpoint.endpoint_id: plug.endpoint.addresses for plug in launch.plugs}
    if all(known.get(p.endpoint.endpoint_id) == p.endpoint.addresses for p in plugs):
        return
    for plug in plugs:
        core.fabric.hold(plug)
    core.fabric.enter(container, plugs)
    files = naming.name_files(core, container, plugs)
    await core.threads.run(files.write, core.directory(container.id))


def record_failure(core: Core, container: Container, error: SampanError) -> None:
    """A start failed: remember it as dockerd does (exit codes 127, 126, 128)."""
    code = error.exit_code if isinstance(error, CommandNotFound | CommandNotExecutable) else 128
    core.state.submit(
        core.change(
            container,
            status=after(container.state.status, Event.START_FAILED),
            exit_code=code,
            error=error.message,
            pid=0,
        )
    )
    discard(container.pending)
    container.pending.clear()


def _begin(core: Core, container: Container) -> Making | None:
    """Have what needs no plan made while we plan, if a thread is free to follow soon."""
    record = container.record
    if core.config.cgroup_driver == "systemd" or core.threads.busy:
        return None
    host = record.host_config
    remapped, _ = usernamespaces.of(core, container)
    return core.launcher.begin(
        Outline(
            container_id=record.id,
            directory=core.exec_directory(record.id),
            cgroup=cgroup_path(core.cgroups_path(record), record.id),
            resources=resources(host, core.host),
            user_namespace=remapped == "",
            log=logconfig.settings(record),
            terminal=bool(record.config.tty),
            open_stdin=bool(record.config.open_stdin),
            stdin_once=bool(record.config.stdin_once),
        )
    )


def _plan(
    core: Core, container: Container, plugs: Sequence[Plug], making: Making | None
) -> _Launch:
    """Decide everything about this start; no effects."""
    record = container.record
    host = record.host_config
    security = parse_security_options(
        host.security_opt or [],
        apparmor="apparmor" in core.facts.lsm,
        selinux="selinux" in core.facts.lsm,
    )
    owner = namespacing.shared_network(core, container)
    hostname = owner.record.hostname if owner is not None else record.hostname
    files = None if owner is not None else naming.name_files(core, container, plugs)
    name_directory = core.directory((owner or container).id)
    shared_memory = sharedmemory.place(core, container)
    joined, ids = namespacing.namespaces(core, container)
    mounts = with_sources(record.mounts, record.id, core.config.pins)
    sources = [mount for mount in mounts if mount.type != "image"]
    resolved = Resolved(
        namespaces=joined,
        id_map=ids,
        cgroup=core.cgroups_path(record),
        hostname=hostname,
        mounts=sources,
        files=naming.bindings(name_directory),
        shared_memory=shared_memory,
        ulimits=[
            ResourcesUlimit(name=limit.name, soft=limit.soft, hard=limit.hard)
            for limit in core.config.default_ulimits
        ],
        environment=links.environment(core, container),
        no_new_privileges=core.config.no_new_privileges,
        security=security,
        seccomp=_seccomp(core, container, security),
    )
    return _Launch(
        request=_request(core, container, runtime_spec(record, core.host, resolved)),
        making=making,
        plugs=plugs,
        own_network=joined.get("network") == "",
        files=files,
        directory=core.directory(record.id),
        mounts=record.mounts,
        sources=sources,
        shared_memory=shared_memory if host.ipc_mode == "shareable" else "",
        shared_memory_size=host.shm_size or core.config.default_shm_size,
        id_map=ids,
        clients=tuple(container.pending),
    )


def _request(core: Core, container: Container, spec: oci.Spec) -> CreateRequest:
    record = container.record
    config, host = record.config, record.host_config
    size = host.console_size or [0, 0]
    return CreateRequest(
        container_id=record.id,
        spec=spec,
        rootfs=core.snapshots.mounts(record.id) + imagemounts.whole(core, container),
        directory=core.exec_directory(record.id),
        terminal=bool(config.tty),
        console_size=(size[0], size[1]) if any(size) else None,
        open_stdin=bool(config.open_stdin),
        stdin_once=bool(config.stdin_once),
        log=logconfig.settings(record),
        init=core.config.default_init if host.init is None else host.init,
        systemd=core.config.cgroup_driver == "systemd",
        user=config.user or "0",
        groups=tuple(host.group_add or ()),
        runtime=runtimes.command(core.config, host.runtime or ""),
    )


def _seccomp(core: Core, container: Container, security: SecurityOptions) -> oci.Seccomp | None:
    host = container.record.host_config
    profile = security.seccomp or core.seccomp
    if not core.facts.seccomp or profile == "unconfined":
        return None
    if host.privileged and not security.seccomp:
        return None
    granted = caps.effective(
        host.cap_add or [],
        host.cap_drop or [],
        privileged=bool(host.privileged),
        available=core.host.capabilities,
    )
    return seccomp_filter(profile, granted, core.facts.kernel, core.facts.machine)


def _perform(core: Core, container: Container, launch: _Launch, hold: bool) -> _Launched:
    """Act, in a thread; ``hold``: all but let the program run. Raises having undone everything."""
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, launch.request.directory, ignore_errors=True)
        if launch.files is not None:
            launch.files.write(launch.directory)
        edits = cdi.requested(container.record.host_config, core.config.cdi_spec_dirs)
        cdi.apply(launch.request.spec, edits, core.host.devices)
        core.volumes.prepare(container.id, launch.mounts, undo, launch.id_map)
        propagation.check(launch.mounts, str(core.config.data_root))
        imagemounts.pin_parts(core, container.id, launch.mounts, undo)
        _give_away(core, container, launch)
        if launch.shared_memory:
            sharedmemory.mount(launch.shared_memory, launch.shared_memory_size, launch.id_map)
            undo.callback(sharedmemory.unmount, launch.shared_memory)
        with runtimes.with_root(launch.request) as request:
            monitor = core.launcher.create(request, launch.making)
        undo.callback(monitor.close)
        # A start that fails has undone everything by itself; before it, we must.
        before_start = undo.enter_context(ExitStack())
        before_start.callback(_abort, monitor)
        with _present(monitor):
            pidfd = os.pidfd_open(monitor.pid)
        undo.callback(os.close, pidfd)
        # Asked before the network is plugged, answered meanwhile.
        wishes = [] if hold else [client.options for client in launch.clients]
        asked = [
            monitor.ask_attach(stdin=wish.stdin, stdout=wish.stdout, stderr=wish.stderr)
            for wish in wishes
        ]
        for stream in (*asked, watch := monitor.ask_watch()):
            undo.callback(stream.close)
        plugs = _connect(core, container, launch, monitor, undo)
        streams = [stream.answered() for stream in asked]
        events = watch.answered()
        undo.callback(_until_gone, events)
        before_start.pop_all()
        if hold:
            monitor.keep()
        else:
            monitor.start()
        undo.pop_all()
    return _Launched(monitor=monitor, events=events, pidfd=pidfd, plugs=plugs, streams=streams)


def _as_failure(error: OSError) -> StartFailed:
    what = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    return StartFailed(f"cannot start the container: {what}{error.strerror}")


@contextmanager
def _present(monitor: Monitor) -> Iterator[None]:
    """For what looks at the first process; one that has failed and gone raises what it failed for.

    Its network namespace has gone with it.
    """
    try:
        yield
    except (ProcessLookupError, FileNotFoundError) as error:
        monitor.start()  # the monitor knows why
        raise StartFailed("the container's first process is gone") from error


def _give_away(core: Core, container: Container, launch: _Launch) -> None:
    """Mounts with the option ``U`` become the container's user's."""
    chosen = [mount for mount in launch.sources if mount.chown]
    if not chosen:
        return
    root = roots.bare(core, container)
    try:
        user = users.lookup(root, launch.request.user or "0")
    finally:
        os.close(root)
    for mount in chosen:
        ownership.give(mount.source, *ownership.owner_on_disk(mount, user, launch.id_map))


def _abort(monitor: Monitor) -> None:
    """Undo a creation; one that has been started ends (or has ended) by itself."""
    with suppress(Conflict):
        monitor.abort()


def _connect(
    core: Core, container: Container, launch: _Launch, monitor: Monitor, undo: ExitStack
) -> Sequence[Plug]:
    """Plug the network, serve names, store the endpoints; init goes on mounting meanwhile."""
    with _present(monitor):
        plugs = core.fabric.attach(launch.plugs, monitor.pid, undo, container.record)
        if launch.own_network and not plugs:
            core.fabric.isolate(monitor.pid)
        if launch.files is not None and launch.files.resolver is not None:
            core.fabric.resolve_for(container.id, monitor.pid, launch.files.resolver)
            undo.callback(core.fabric.resolver.unplug, container.id)
    if plugs:
        core.state.submit(*core.fabric.insert_endpoints(container.id, plugs)).result()
        undo.callback(core.state.submit, *core.fabric.delete_endpoints(plugs))
    return plugs


def _until_gone(events: socket.socket) -> None:
    """Wait until a monitor whose start failed has ended, so that its directory is ours."""
    with events, suppress(OSError):
        events.settimeout(_GONE_TIMEOUT)
        while events.recv(65536):
            pass


def _run(core: Core, container: Container, launch: _Launch, launched: _Launched) -> Run:
    """What is there now, as the container's."""
    container.endpoints = {plug.network.id: plug for plug in launched.plugs}
    return Run(
        monitor=launched.monitor,
        events=launched.events,
        pidfd=launched.pidfd,
        cgroup=core.cgroup(container.record),
        id_map=launch.id_map,
        shared_memory=launch.shared_memory,
        ended=asyncio.get_running_loop().create_future(),
    )


def started(core: Core, container: Container, run: Run, *, automatic: bool = False) -> None:
    """The program runs: make it known, before somebody watches over it."""
    container.run = run
    state = container.state
    core.state.submit(
        core.change(
            container,
            status=after(state.status, Event.START),
            pid=run.monitor.pid,
            started_at=clock.now(),
            exit_code=0,
            error="",
            oom_killed=False,
            stopped_by_user=False,
            restart_count=state.restart_count if automatic else 0,
        )
    )
    container.pending = [c for c in container.pending if not c.socket.done()]
    _publish_connections(core, container)
    core.publish(container, "start")


def _publish_connections(core: Core, container: Container) -> None:
    """What dockerd tells of networks and volumes before it tells that a container started."""
    for mount in container.record.mounts:
        if mount.type == "volume":
            attributes = {
                "container": container.id,
                "destination": mount.destination,
                "driver": mount.driver,
                "propagation": mount.propagation,
                "read/write": str(mount.writable).lower(),
            }
            core.events.publish("volume", "mount", mount.name, attributes)
    for plug in container.endpoints.values():
        core.publish_network(plug.network.id, plug.network.record, container.id, "connect")


async def plug_pending(core: Core, container: Container) -> None:
    """Plug clients that came while the container was being started."""
    clients, container.pending = container.pending, []
    run = container.live
    if run is None:
        discard(clients)  # it has ended already
        return
    for client in clients:
        options = client.options
        try:
            stream = await core.threads.run(
                run.monitor.attach,
                stdin=options.stdin,
                stdout=options.stdout,
                stderr=options.stderr,
            )
        except SampanError:
            # The program has ended already; this client came too late to see anything.
            client.resolve(None)
        else:
            client.resolve(stream)
