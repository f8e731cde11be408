"""Opening an engine: read the rows, look at what is there, do what :mod:`reconcile` says."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sampan.engine import (
    clock,
    logforwarding,
    naming,
    networkspec,
    removal,
    settling,
    sharedmemory,
    supervision,
)
from sampan.engine import reconcile as rec
from sampan.engine.core import Core, decode_container, log
from sampan.engine.fabric import Network, Plug
from sampan.engine.imagetable import read_referrers
from sampan.engine.lifecycle import ALIVE, Status
from sampan.engine.networkrecord import NetworkRecord
from sampan.engine.networks import insert_network
from sampan.engine.table import Container, Run
from sampan.engine.userns import Lease
from sampan.errors import NotFound, SampanError
from sampan.kernel import cgroup
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.network.hostroutes import used_networks
from sampan.runtime.client import ExitRecord, Live, Monitor, read_exit, read_live, recover
from sampan.runtime.userns import id_map_of
from sampan.snapshot import Kind

#: keys of snapshots that only live as long as one call
_UNFINISHED = ("unpack-", "look-", "diff-", "users-")


async def restore(core: Core) -> None:
    """Bring tables, containers and networks back to where they were. Idempotent."""
    await core.threads.run(_load_images, core)
    await _load_networks(core)
    endpoints = await core.threads.run(_load_containers, core)
    found = await core.threads.run(_observe, core)
    actions = rec.reconcile(_rows(core, endpoints), found.observed)
    await _perform_all(core, [a for a in actions if not isinstance(a, rec.Start)], found, endpoints)
    await core.threads.run(_converge, core)
    await core.threads.run(core.volumes.sweep, [c for c in core.containers if c.live is not None])
    await core.threads.run(_drop_unfinished, core)
    await core.threads.run(core.snapshots.sweep)
    await core.threads.run_long(settling.restore, core)
    await _perform_all(core, [a for a in actions if isinstance(a, rec.Start)], found, endpoints)


def _drop_unfinished(core: Core) -> None:
    """Remove snapshots of work that died with the engine: layers half unpacked, looks at trees."""
    for info in list(core.snapshots.walk()):
        if info.kind is not Kind.COMMITTED and info.key.startswith(_UNFINISHED):
            core.snapshots.remove(info.key)


async def _perform_all(
    core: Core, actions: Sequence[rec.Action], found: _Found, endpoints: dict[str, list[Plug]]
) -> None:
    """Perform actions in order; one that fails is told and keeps no other from being done."""
    for action in actions:
        try:
            await _perform(core, action, found, endpoints)
        except (SampanError, OSError) as error:
            log.warning("recovery: %s failed: %s", action, error)


def _load_images(core: Core) -> None:
    for digest, media_type, size, config, created, pushed, used, referrers in core.state.read(
        "SELECT digest, media_type, size, config, created, pushed, used, referrers FROM images"
    ):
        target = Descriptor(
            media_type=str(media_type), digest=Digest.parse(str(digest)), size=int(str(size))
        )
        entry = core.images.add(target, Digest.parse(str(config)), int(str(created)))
        entry.pushed = Digest.parse(str(pushed)) if pushed else None
        entry.referrers = read_referrers(str(referrers))
        entry.used = entry.used_stored = int(str(used))
    entries = {str(entry.target.digest): entry for entry in core.images}
    for name, digest in core.state.read("SELECT name, digest FROM image_names"):
        core.images.name(str(name), entries[str(digest)])


async def _load_networks(core: Core) -> None:
    """Networks of the state, and the three that are always there."""
    for (document,) in core.state.read("SELECT document FROM networks"):
        assert isinstance(document, bytes)
        record = msgspec.json.decode(document, type=NetworkRecord)
        core.fabric.add(Network(record=record, spec=networkspec.spec(record, core.config)))
    await _default_bridge(core)
    for name, driver in (("host", "host"), ("none", "null")):
        if not any(network.name == name for network in core.fabric.networks.values()):
            record = networkspec.plain(name, driver, core.new_id(), clock.now())
            await _add_network(core, record)


async def _add_network(core: Core, record: NetworkRecord) -> None:
    await core.state.write(insert_network(record))
    core.fabric.add(Network(record=record, spec=networkspec.spec(record, core.config)))


async def _default_bridge(core: Core) -> None:
    """The network ``bridge``: made from the daemon's options, made anew when they changed."""
    present = next((n for n in core.fabric.networks.values() if n.name == "bridge"), None)
    if not core.config.bridge_enabled:
        return
    others = [
        subnet.prefix
        for network in core.fabric.networks.values()
        if network is not present
        for subnet in network.spec.subnets
    ]
    skip = frozenset({core.config.bridge})
    taken = await core.threads.run(used_networks, skip)
    network_id = present.id if present is not None else core.new_id()
    created = present.record.created if present is not None else clock.now()
    subnets = present.spec.subnets if present is not None else ()
    wanted = networkspec.default_bridge(
        core.config, network_id, created, [*others, *taken], subnets
    )
    if present is None:
        await _add_network(core, wanted)
        return
    if wanted != present.record:
        await core.state.write(
            (
                "UPDATE networks SET document = ? WHERE id = ?",
                (msgspec.json.encode(wanted), network_id),
            )
        )
        core.fabric.add(Network(record=wanted, spec=networkspec.spec(wanted, core.config)))


def _load_containers(core: Core) -> dict[str, list[Plug]]:
    """Fill the table; returns the endpoints in the rows by container."""
    for record, state in core.state.read("SELECT record, state FROM containers"):
        assert isinstance(record, bytes)
        assert isinstance(state, bytes)
        decoded, lived = decode_container(record, state)
        core.containers.add(Container(record=decoded, state=lived))
    for name, uid, gid, size in core.state.read(
        "SELECT container, first_uid, first_gid, size FROM id_ranges"
    ):
        core.ids.add(str(name), Lease(*(int(str(number)) for number in (uid, gid, size))))
    endpoints: dict[str, list[Plug]] = {}
    for container, document in core.state.read("SELECT container, document FROM endpoints"):
        assert isinstance(document, bytes)
        plug = core.fabric.load(document)
        if plug is not None:
            endpoints.setdefault(str(container), []).append(plug)
    return endpoints


@dataclass(slots=True, kw_only=True)
class _Found:
    observed: rec.Observed
    monitors: dict[str, tuple[Monitor, Live]]


def _observe(core: Core) -> _Found:
    """Look at exec directories, snapshots and files. Blocks."""
    core.config.exec_containers.mkdir(parents=True, exist_ok=True, mode=0o711)
    core.config.containers.mkdir(parents=True, exist_ok=True, mode=0o710)
    monitors: dict[str, tuple[Monitor, Live]] = {}
    exits: dict[str, int] = {}
    directories = [
        entry.name for entry in os.scandir(core.config.exec_containers) if entry.is_dir()
    ]
    for name in directories:
        directory = core.config.exec_containers / name
        live = read_live(directory)
        if live is not None:
            with suppress(NotFound):
                monitors[name] = (Monitor.connect(directory), live)
        ended = read_exit(directory)
        if ended is not None:
            exits[name] = ended.code
    return _Found(
        observed=rec.Observed(
            monitors={name: live.status for name, (_, live) in monitors.items()},
            exits=exits,
            directories=directories,
            snapshots=[
                info.key
                for info in core.snapshots.walk()
                if info.kind is not Kind.COMMITTED and _of_container(info.key)
            ],
            files=os.listdir(core.config.containers),
        ),
        monitors=monitors,
    )


def _of_container(key: str) -> bool:
    """Whether a snapshot's key is a container's (64 hexadecimal digits, perhaps a mount's)."""
    head = key.partition("-image-")[0]
    return len(head) == 64 and all(digit in "0123456789abcdef" for digit in head)


def _rows(core: Core, endpoints: dict[str, list[Plug]]) -> list[rec.Row]:
    return [
        rec.Row(
            id=container.id,
            status=container.state.status,
            auto_remove=bool(container.record.host_config.auto_remove),
            policy=container.record.host_config.restart_policy,
            exit_code=container.state.exit_code,
            stopped_by_user=container.state.stopped_by_user,
            endpoints=len(endpoints.get(container.id, ())),
        )
        for container in core.containers
    ]


async def _perform(
    core: Core, action: rec.Action, found: _Found, endpoints: dict[str, list[Plug]]
) -> None:
    match action:
        case rec.Adopt(id=name):
            await _adopt(core, name, found, endpoints.get(name, []))
        case rec.Forget(id=name):
            await core.state.write(
                core.change(core.containers.find(name), status=Status.CREATED, pid=0)
            )
        case rec.Abort(id=name):
            await core.threads.run(_abort, core, name, found)
        case rec.NoteExit(id=name, recorded=recorded):
            await _note_exit(core, name, recorded=recorded)
        case rec.Release(id=name):
            plugs = endpoints.get(name, [])
            await core.threads.run(core.fabric.detach, plugs)
            await core.state.write(*core.fabric.delete_endpoints(plugs))
        case rec.Remove(id=name):
            await _remove(core, name)
        case rec.Start(id=name):
            container = core.containers.find(name)
            container.backoff = core.tasks.spawn(
                supervision.restart_later(core, container, 0.0), f"start {name[:12]}"
            )
        case rec.EraseExec(id=name):
            await core.threads.run(_erase_exec, core, name)
        case rec.EraseSnapshot(key=key):
            await core.threads.run(core.snapshots.remove, key)
        case rec.EraseFiles(id=name):
            await core.threads.run(shutil.rmtree, core.directory(name), ignore_errors=True)


async def _adopt(core: Core, name: str, found: _Found, plugs: list[Plug]) -> None:
    """Take a running container up again."""
    container = core.containers.find(name)
    monitor, live = found.monitors[name]
    pidfd = os.pidfd_open(live.pid)
    events = await core.threads.run(monitor.watch)
    shared = core.exec_directory(name) / "shm"
    run = Run(
        monitor=monitor,
        events=events,
        pidfd=pidfd,
        cgroup=live.cgroup,
        id_map=await core.threads.run(id_map_of, live.pid),
        shared_memory=str(shared) if shared.exists() else "",
        ended=asyncio.get_running_loop().create_future(),
    )
    prepared = live.status == "created"
    if prepared:
        await core.threads.run(monitor.keep)
        container.prepared = run
    else:
        container.run = run
    container.endpoints = {plug.network.id: plug for plug in plugs}
    for plug in plugs:
        core.fabric.hold(plug)
    core.fabric.enter(container, plugs)
    names = naming.name_files(core, container, plugs)
    if names.resolver is not None:
        await core.threads.run(core.fabric.resolve_for, name, live.pid, names.resolver)
    if prepared:
        return
    state = container.state
    frozen = await core.threads.run(cgroup.frozen, core.facts.layout, live.cgroup)
    core.state.submit(
        core.change(
            container,
            status=Status.PAUSED if frozen else Status.RUNNING,
            pid=live.pid,
            started_at=state.started_at if state.status in ALIVE else clock.now(),
        )
    )
    supervision.watch(core, container, run)


def _abort(core: Core, name: str, found: _Found) -> None:
    """End a monitor nobody wants, and what it held. Blocks."""
    monitor, live = found.monitors.get(name, (None, None))
    if monitor is not None and live is not None:
        if live.status == "created":
            monitor.abort()
        else:
            cgroup.kill(core.facts.layout, live.cgroup)
        monitor.close()
    _erase_exec(core, name)


def _erase_exec(core: Core, name: str) -> None:
    """Remove the live facts of a run, and first what they tell of, if it was never ended: who made
    the container was perhaps killed before there was one."""
    directory = core.exec_directory(name)
    if read_live(directory) is not None:
        recover(directory)
    shared = directory / "shm"
    if shared.exists():
        sharedmemory.unmount(str(shared))
    shutil.rmtree(directory, ignore_errors=True)


async def _note_exit(core: Core, name: str, *, recorded: bool) -> None:
    """A container ended while no engine watched: store how."""
    container = core.containers.find(name)
    directory = core.exec_directory(name)
    record = await core.threads.run(_exit_of, directory)
    if record is None:
        reason = "" if recorded else "the host went away while the container was running"
        record = ExitRecord(code=255 if not recorded else 0, at=clock.now(), error=reason)
    await core.state.write(
        core.change(
            container,
            status=Status.EXITED if container.state.status != Status.REMOVING else Status.REMOVING,
            pid=0,
            last_pid=container.state.pid,
            exit_code=record.code,
            oom_killed=record.oom,
            finished_at=record.at or clock.now(),
            started_at=container.state.started_at or record.at,
            error=record.error,
        )
    )
    await core.threads.run(_erase_exec, core, name)
    logforwarding.follow(core, container)


def _exit_of(directory: Path) -> ExitRecord | None:
    """The exit record; a killed monitor's container is ended and gets one. Blocks."""
    return read_exit(directory) or (recover(directory) if directory.exists() else None)


async def _remove(core: Core, name: str) -> None:
    container = core.containers.find(name)
    auto = bool(container.record.host_config.auto_remove)
    if container.run is not None:
        await removal.remove(core, name, force=True, volumes=auto, link=False)
        return
    async with container.lock:
        await removal.remove_locked(core, container, volumes=auto)


def _converge(core: Core) -> None:
    """Make interfaces, rules and published ports what the adopted containers need. Blocks."""
    desired = [
        (
            network.spec,
            [
                plug.endpoint
                for container in core.containers
                if (plug := container.endpoints.get(network.id)) is not None
            ],
        )
        for network in core.fabric.networks.values()
        if network.plugged and not network.record.config_only
    ]
    endpoints = {endpoint.endpoint_id for _, found in desired for endpoint in found}
    core.fabric.addresses.sweep(endpoints)
    for name, driver, pairs in core.fabric.drivers.groups(desired):
        try:
            lost = driver.converge(pairs)
        except SampanError as error:
            log.warning("%s networks cannot be restored: %s", name, error.message)
            continue
        for endpoint in lost:
            log.warning("endpoint %s could not be restored", endpoint[:12])
