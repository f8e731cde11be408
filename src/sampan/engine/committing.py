"""``docker commit``: a container's changes and configuration become an image."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

from sampan.engine import imageflows, stopping
from sampan.engine.core import Core
from sampan.engine.imageviews import parse_repository
from sampan.engine.lifecycle import Status
from sampan.engine.merge import merge_config
from sampan.engine.options import CommitOptions
from sampan.engine.roots import MOUNT_POINTS
from sampan.engine.table import Container
from sampan.errors import Conflict, NotFound
from sampan.image import Image, apply_changes
from sampan.image import commit as commit_image
from sampan.snapshot import rootfs
from sampan.wire.container import ContainerConfig, IDResponse, ImageConfig


def image_config(config: ContainerConfig) -> ImageConfig:
    """The part of a container's configuration that images have."""
    return ImageConfig(
        user=config.user or None,
        exposed_ports=config.exposed_ports or None,
        env=config.env,
        cmd=config.cmd,
        healthcheck=config.healthcheck,
        args_escaped=config.args_escaped,
        volumes=config.volumes or None,
        working_dir=config.working_dir or None,
        entrypoint=config.entrypoint,
        on_build=config.on_build,
        labels=config.labels or None,
        stop_signal=config.stop_signal,
        shell=config.shell,
    )


def _config(options: CommitOptions, container: ContainerConfig) -> ImageConfig:
    """What the image is to run: as the request says, changed; what is left out, the container's.

    Changes see the variables of the request's configuration alone if it has one, as in dockerd.
    """
    changed = apply_changes(image_config(options.config or container), options.changes)
    wanted = ContainerConfig(
        **{name: getattr(changed, name) for name in ImageConfig.__struct_fields__}
    )
    return image_config(merge_config(wanted, image_config(container)))


async def commit(core: Core, container: Container, options: CommitOptions) -> IDResponse:
    """See :meth:`sampan.engine.containers.Containers.commit`."""
    names = (parse_repository(options.repo, options.tag),) if options.repo else ()
    paused = (
        options.pause and container.run is not None and container.state.status == Status.RUNNING
    )
    if paused:
        with suppress(Conflict):  # it ends just now, and need not be held still
            await stopping.pause(core, container)
    try:
        async with core.ingests:
            image = await core.threads.run_long(_build, core, container, options)
            entry = await imageflows.record(core, image.target, image.id, names)
    finally:
        if paused and container.state.status == Status.PAUSED:
            with suppress(Conflict):  # it ended just as it was held
                await stopping.unpause(core, container)
    shown = names[0].familiar if names else ""
    core.publish(
        container, "commit", comment=options.comment, imageID=str(entry.id), imageRef=shown
    )
    return IDResponse(id=str(entry.id))


def _build(core: Core, container: Container, options: CommitOptions) -> Image:
    record = container.record
    try:
        parent = core.images.of(record.image_manifest)
    except NotFound:
        raise NotFound(
            f"image {record.image_id} of container {container.id} was deleted: its layers cannot "
            "be committed on top of"
        ) from None
    image = commit_image(
        rootfs.diff(core.snapshots, record.id, without=MOUNT_POINTS),
        core.content,
        parent=parent,
        config=_config(options, record.config),
        author=options.author,
        message=options.comment,
        created_by=" ".join([record.path, *record.args]),
        container=record.id,
        now=datetime.now(UTC),
    )
    core.unpacker.unpack(image)
    return image
