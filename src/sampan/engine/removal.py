"""Removing containers: the row first, then what it meant."""

from __future__ import annotations

import shutil
import signal as signals

import msgspec

from sampan.engine import collecting, imageremoval, logforwarding, preparing, stopping, waiting
from sampan.engine.attaching import discard
from sampan.engine.backoff import cancel_restart
from sampan.engine.core import Core, delete_container, log, update_record
from sampan.engine.lifecycle import Event, Status, after
from sampan.engine.record import replace_state
from sampan.engine.table import Container
from sampan.errors import Conflict, NotFound, SampanError

#: annotation of a container whose image is its own (``run --rootfs``) and goes with it
ROOTFS = "sampan.rootfs"


async def remove(core: Core, ref: str, *, force: bool, volumes: bool, link: bool) -> None:
    """See :meth:`sampan.engine.containers.Containers.remove`."""
    if link:
        await _remove_link(core, ref)
        return
    container = core.containers.find(ref)
    if container.state.status == Status.REMOVING or container.removed:
        raise Conflict(f"removal of container {ref} is already in progress")
    if container.state.alive or container.run is not None:
        if not force:
            hint = (
                "container is paused and must be unpaused first"
                if container.state.status == Status.PAUSED
                else f"container is {container.state.status}: stop the container before removing "
                "or force remove"
            )
            raise Conflict(f'cannot remove container "{container.name}": {hint}')
    elif container.state.status == Status.RESTARTING and not force:
        raise Conflict(
            f'cannot remove container "{container.name}": container is restarting: stop the '
            "container before removing or force remove"
        )
    while not container.removed:
        cancel_restart(core, container)
        await _kill(core, container)
        async with container.lock:
            if container.run is not None and force:
                continue  # somebody started it meanwhile
            if not container.removed:
                await remove_locked(core, container, volumes=volumes)


async def _kill(core: Core, container: Container) -> None:
    """End a run; auto-removal that follows from it counts as ours."""
    run = container.run
    if run is None:
        return
    core.state.submit(core.change(container, stopped_by_user=True))
    await stopping.end(core, container, run, int(signals.SIGKILL), stopping.KILL_TIMEOUT)


async def remove_locked(core: Core, container: Container, *, volumes: bool) -> None:
    """Remove a container that does not run; its lock is held.

    Once the row is gone nothing is left that could bring it back; what remains of it on disk
    after a failure is swept by the next reconciliation.
    """
    await preparing.give_up(core, container)
    status = after(container.state.status, Event.REMOVE)
    if container.run is not None:
        raise Conflict(f"container {container.id} was started while being removed")
    container.state = replace_state(container.state, status=status)
    try:
        await core.state.write(delete_container(container))
    except SampanError:
        failed = after(container.state.status, Event.REMOVE_FAILED)
        container.state = replace_state(container.state, status=failed)
        raise
    container.removed = True
    core.containers.discard(container)
    core.ids.give(container.id)
    for exec_id in [found.id for found in core.execs.values() if found.container is container]:
        del core.execs[exec_id]
    discard(container.pending)
    await logforwarding.finish(container)
    anonymous = (
        [mount.name for mount in container.record.mounts if mount.anonymous] if volumes else []
    )
    try:
        layers = core.snapshots.stat(container.id).parent
        await core.threads.run(_erase, core, container, anonymous)
        target = container.record.image_target
        if target and core.images.by_target(target) is None:
            await collecting.collect_below(core, layers)
    except (OSError, SampanError) as error:
        log.warning("removal of container %s left something: %s", container.id[:12], error)
    if (container.record.host_config.annotations or {}).get(ROOTFS) == "true":
        try:
            await imageremoval.remove_unneeded(core, container.record.image_target)
        except SampanError as error:
            log.warning("the root of container %s is left: %s", container.id[:12], error.message)
    waiting.resolve(container, "removed", "not-running", "next-exit")
    core.publish(container, "destroy")


def _erase(core: Core, container: Container, anonymous: list[str]) -> None:
    """Remove snapshot, directories and anonymous volumes; in a thread."""
    core.snapshots.remove(container.id)
    for number, mount in enumerate(container.record.mounts):
        if mount.type == "image":
            core.snapshots.remove(f"{container.id}-image-{number}")
    shutil.rmtree(core.directory(container.id), ignore_errors=True)
    shutil.rmtree(core.exec_directory(container.id), ignore_errors=True)
    for name in anonymous:
        if not core.volumes.references(core.containers, name):
            core.volumes.remove(name, force=True)


async def _remove_link(core: Core, ref: str) -> None:
    """``rm --link /container/alias``: forget the alias only."""
    name, _, alias = ref.strip("/").rpartition("/")
    if not name:
        raise NotFound(f"Cannot get parent / for name {ref}")
    container = core.containers.find(name)
    host = container.record.host_config
    kept = [link for link in host.links or [] if link.rpartition(":")[2] != alias]
    if len(kept) == len(host.links or []):
        raise NotFound(f"No such link: {ref}")
    container.record = msgspec.structs.replace(
        container.record, host_config=msgspec.structs.replace(host, links=kept)
    )
    await core.state.write(update_record(container))
