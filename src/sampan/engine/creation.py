"""Creating a container: resolve image -> prepare snapshot -> volumes -> row, undone on failure."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec

from sampan.engine import (
    cdi,
    clock,
    completion,
    links,
    logconfig,
    ownership,
    roots,
    runtimes,
    userns,
    validate,
)
from sampan.engine import mountspec as ms
from sampan.engine.core import Core, insert_container
from sampan.engine.endpointwishes import check_settings, requested_addresses
from sampan.engine.idranges import insert_lease
from sampan.engine.imagetable import Entry
from sampan.engine.merge import command_line
from sampan.engine.names import check_name, random_name
from sampan.engine.record import MountRecord, Record
from sampan.engine.state import Statement
from sampan.engine.table import Container
from sampan.engine.users import ids_needed
from sampan.errors import Conflict, InvalidParameter, NotFound
from sampan.image import Image
from sampan.image.document import wire_descriptor
from sampan.model.platform import Platform
from sampan.snapshot import VOLATILE
from sampan.wire.container import (
    ContainerConfig,
    ContainerCreateRequest,
    ContainerCreateResponse,
    EndpointSettings,
    HostConfig,
    OCIDescriptor,
)


async def create(
    core: Core,
    body: ContainerCreateRequest,
    name: str | None,
    platform: str | None,
    *,
    client: tuple[int, int] | None = None,
    read_only_recursive: bool = True,
    volume_labels: Mapping[str, str] | None = None,
) -> ContainerCreateResponse:
    """See :meth:`sampan.engine.containers.Containers.create`."""
    container_id = core.new_id()
    chosen = check_name(name) if name else random_name(core.random, core.containers.names)
    core.containers.reserve(chosen, container_id)
    try:
        record, image, warnings = await _record(
            core, body, container_id, chosen, platform, read_only_recursive=read_only_recursive
        )
        with ExitStack() as undo:
            record = _with_volume_labels(record, volume_labels or {})
            record, lease = await _with_ids(core, record, image, client, undo)
            container = Container(record=record)
            container.record = await core.threads.run(_prepare, core, record, image, undo)
            await core.state.write(insert_container(container), *lease)
            undo.pop_all()
    except BaseException:
        core.containers.release(chosen, container_id)
        raise
    core.containers.add(container)
    core.publish(container, "create")
    return ContainerCreateResponse(id=container_id, warnings=warnings)


async def _record(
    core: Core,
    body: ContainerCreateRequest,
    container_id: str,
    name: str,
    platform: str | None,
    *,
    read_only_recursive: bool,
) -> tuple[Record, Image, list[str]]:
    """Everything decided about the container, its image, and dockerd's warnings."""
    _check_image_named(body)
    entry, image = await find_image(core, body.image or "", platform)
    entry.used = clock.now()
    config = completion.container_config(
        body, image.config.defaults, container_id, os.uname().nodename
    )
    host = _host(core, body)
    mounts = _mounts(core, host, config, read_only_recursive=read_only_recursive)
    _check_idmaps(core, host, mounts)
    runtimes.check(core.config, host, mounts, remapped=core.remap is not None)
    path, args = command_line(config)
    directory = core.directory(container_id)
    log_driver = (host.log_config.type if host.log_config else None) or "none"
    networks = completion.networks(body, host.network_mode or "", core.config)
    _check_networks(core, networks)
    record = Record(
        id=container_id,
        name=name,
        created=clock.now(),
        image=body.image or "",
        image_id=str(image.id),
        image_target=str(entry.target.digest),
        image_manifest=_descriptor(image),
        path=path,
        args=args,
        config=config,
        host_config=host,
        networks=networks,
        mounts=mounts,
        driver=core.snapshots.name,
        log_path=logconfig.file(log_driver, directory, container_id),
    )
    return record, image, [*_warnings(image, platform), *validate.warnings(config, host)]


def _host(core: Core, body: ContainerCreateRequest) -> HostConfig:
    """The host's part, completed, with what it takes over from other containers."""
    host = completion.host_config(
        body.host_config,
        core.config,
        cpus=core.host.cpus,
        memory_nodes=core.host.memory_nodes,
        cgroup_v2=core.host.cgroup_v2,
        lsm=core.facts.lsm,
    )
    userns.check(host, remapped=core.remap is not None)
    host = _with_donors(core, host)
    _check_references(core, host)
    return msgspec.structs.replace(host, links=links.resolved(core.containers, host))


def _check_image_named(body: ContainerCreateRequest) -> None:
    if not body.image:
        if not (body.cmd or body.entrypoint):
            raise InvalidParameter("no command specified")
        raise InvalidParameter("no image specified: Config.Image must not be empty")


def _descriptor(image: Image) -> OCIDescriptor:
    """The image's manifest as inspect tells it: without a platform."""
    return msgspec.structs.replace(wire_descriptor(image.manifest.descriptor), platform=None)


def _check_idmaps(core: Core, host: HostConfig, mounts: Sequence[MountRecord]) -> None:
    """Mount options about owners: nothing to map without a user namespace."""
    ownership.check(mounts)
    mode = userns.parse_mode(host.userns_mode or "")
    if mode.kind is userns.Kind.HOST or (mode.kind is userns.Kind.DEFAULT and core.remap is None):
        for mount in mounts:
            if mount.idmap == "idmap":
                raise InvalidParameter(
                    f"mount option idmap of {mount.destination}: the container has no user "
                    "namespace"
                )


async def _with_ids(
    core: Core,
    record: Record,
    image: Image,
    client: tuple[int, int] | None,
    undo: ExitStack,
) -> tuple[Record, list[Statement]]:
    """The record with the ids of its own user namespace, if it has one, and the lease's row."""
    mode = userns.parse_mode(record.host_config.userns_mode or "")
    if mode.kind not in userns.LEASED or (mode.kind is userns.Kind.PRIVATE and core.remap):
        return record, []
    client = client or (os.geteuid(), os.getegid())
    if mode.kind is userns.Kind.KEEP_ID:
        inside = userns.kept(mode, client)
        if not record.config.user:
            config = msgspec.structs.replace(record.config, user=f"{inside[0]}:{inside[1]}")
            record = msgspec.structs.replace(record, config=config)
    try:
        lease = core.ids.take(record.id, mode.size or userns.DEFAULT_SIZE)
    except Conflict:
        if mode.size:
            raise
        needed = await core.threads.run(ids_needed, core, image, record.config.user or "")
        lease = core.ids.take(record.id, needed)
    undo.callback(core.ids.give, record.id)
    ids = userns.id_map(mode, lease, client)
    record = msgspec.structs.replace(record, uid_map=list(ids.uids), gid_map=list(ids.gids))
    return record, [insert_lease(record.id, lease)]


async def find_image(core: Core, ref: str, platform: str | None) -> tuple[Entry, Image]:
    """The local image of a reference; NotFound when missing or made for another platform."""
    entry, _ = core.images.find(ref)
    wanted = Platform.parse(platform) if platform else None
    image = core.images.cached(entry) if wanted is None else None
    if image is None:
        image = await core.threads.run(core.images.view, entry, wanted)
    if wanted is not None and not wanted.runs(image.platform):
        raise NotFound(
            f"image with reference {ref} was found but its platform ({image.platform}) does not "
            f"match the specified platform ({wanted})"
        )
    return entry, image


def _warnings(image: Image, platform: str | None) -> list[str]:
    host = Platform.host()
    if platform is None and not host.runs(image.platform):
        return [
            f"The requested image's platform ({image.platform}) does not match the detected host "
            f"platform ({host}) and no specific platform was requested"
        ]
    return []


def _with_donors(core: Core, host: HostConfig) -> HostConfig:
    """Modes that name a container, with its id: the container may be renamed.

    One that does not exist is a wrong parameter, not a missing object: to a NotFound the docker
    command line would answer by pulling the image and trying again. Whose network it is to be is
    asked at the start only, as dockerd does.
    """
    found: dict[str, str] = {}
    for field in ("network_mode", "ipc_mode", "pid_mode", "userns_mode"):
        kind, _, ref = (getattr(host, field) or "").partition(":")
        if kind != "container":
            continue
        try:
            found[field] = f"container:{core.containers.find(ref).id}"
        except NotFound as error:
            if field != "network_mode":
                raise InvalidParameter(error.message) from None
    return msgspec.structs.replace(host, **found)


def _check_networks(core: Core, wanted: Mapping[str, EndpointSettings]) -> None:
    """Addresses must be of the networks they are for; one that does not exist may come yet."""
    for name, settings in wanted.items():
        with suppress(NotFound):
            network = core.fabric.find(name)
            try:
                check_settings(network, settings)
                requested_addresses(network, settings)
            except InvalidParameter as error:
                told = error.message.removeprefix(f"invalid config for network {name}: ")
                raise InvalidParameter(f"invalid config for network {name}: {told}") from None


def _check_references(core: Core, host: HostConfig) -> None:
    """Containers named by volumes-from, and by links that are not mere names, must exist."""
    for text in host.volumes_from or []:
        try:
            core.containers.find(ms.parse_volumes_from(text)[0])
        except NotFound as error:
            raise InvalidParameter(error.message) from None
    if not links.legacy(host):
        return
    for ref, _ in links.pairs(host):
        try:
            core.containers.find(ref)
        except NotFound as error:
            message = f"could not get container for {ref}: {error.message}"
            raise InvalidParameter(message) from None


def _mounts(
    core: Core, host: HostConfig, config: ContainerConfig, *, read_only_recursive: bool
) -> list[MountRecord]:
    inherited: list[MountRecord] = []
    for text in host.volumes_from or []:
        ref, mode = ms.parse_volumes_from(text)
        inherited.extend(ms.inherit(core.containers.find(ref).record.mounts, mode))
    driver, root = host.volume_driver or "", str(core.config.data_root)
    binds = [ms.parse_bind(text, driver) for text in host.binds or []]
    parsed = [(mount, ms.parse_mount(mount)) for mount in host.mounts or []]
    if not read_only_recursive:
        binds = [ms.alone_read_only(bind) for bind in binds]
        parsed = [(mount, ms.alone_read_only(record)) for mount, record in parsed]
    found = ms.combine(
        inherited,
        [
            ms.beside_root(bind, root, asked=not ms.PROPAGATIONS.isdisjoint(bind.mode.split(",")))
            for bind in binds
        ],
        [
            ms.beside_root(
                record,
                root,
                asked=bool(mount.bind_options and mount.bind_options.propagation),
            )
            for mount, record in parsed
        ],
        host.tmpfs or {},
        list(config.volumes or {}),
        driver,
    )
    return [
        msgspec.structs.replace(mount, name=core.new_id(), anonymous=True)
        if mount.type == "volume" and not mount.name
        else mount
        for mount in found
    ]


def _with_volume_labels(record: Record, labels: Mapping[str, str]) -> Record:
    mounts = [
        msgspec.structs.replace(mount, labels={**mount.labels, **labels})
        if mount.type == "volume"
        else mount
        for mount in record.mounts
    ]
    return msgspec.structs.replace(record, mounts=mounts)


def _prepare(core: Core, record: Record, image: Image, undo: ExitStack) -> Record:
    """Make what the container needs on disk; returns the record with its mounts' sources known.

    Blocking. Each effect is undone by ``undo`` unless the caller takes it off.
    """
    directory = core.directory(record.id)
    _check_bind_sources(record)
    cdi.requested(record.host_config, core.config.cdi_spec_dirs)
    _prepare_root(core, record, image)
    undo.callback(core.snapshots.remove, record.id)
    if size := completion.root_size(record.host_config):
        core.snapshots.limit(record.id, size)
    roots.mark(core, record.id)
    # The image's own is there as a rule; where it is not, the start makes it.
    wanted = record.config.working_dir or "/"
    if wanted not in ("/", image.config.defaults.working_dir):
        roots.make_working_directory(core, record.id, wanted)
    directory.mkdir(mode=0o710, parents=True)
    undo.callback(shutil.rmtree, directory, ignore_errors=True)
    if record.log_path:
        Path(record.log_path).parent.mkdir(mode=0o700, exist_ok=True)
    mounts = [
        _prepare_mount(core, record, mount, number, undo)
        for number, mount in enumerate(record.mounts)
    ]
    return msgspec.structs.replace(record, mounts=mounts)


def _prepare_root(core: Core, record: Record, image: Image) -> None:
    """A writable snapshot of an image, which is unpacked if it never was (another platform's).

    What is removed when it exits is so after a crash of the host as well: nothing need be synced.
    """
    parent = str(image.chain_id) if image.chain_id else None
    labels = {VOLATILE: ""} if record.host_config.auto_remove else None
    try:
        core.snapshots.prepare(record.id, parent, labels)
    except NotFound:
        core.unpacker.unpack(image)
        core.snapshots.prepare(record.id, parent, labels)


def _check_bind_sources(record: Record) -> None:
    for mount in record.mounts:
        missing = mount.type == "bind" and not mount.create_source
        if missing and not os.path.lexists(mount.source):
            raise InvalidParameter(
                'invalid mount config for type "bind": bind source path does not exist: '
                f"{mount.source}"
            )


def _prepare_mount(
    core: Core, record: Record, mount: MountRecord, number: int, undo: ExitStack
) -> MountRecord:
    if mount.type == "image":
        return _prepare_image(core, record, mount, number, undo)
    if mount.type != "volume":
        return mount
    volume, made = core.volumes.ensure(
        mount.name, mount.driver, mount.driver_options, mount.labels, anonymous=mount.anonymous
    )
    if made:
        undo.callback(core.volumes.remove, volume.name, force=True)
    if mount.copy_up and mount.writable:
        layers = core.snapshots.mounts(record.id)
        core.volumes.copy_up(volume, layers, mount, record.id)
    return msgspec.structs.replace(mount, source=str(volume.mountpoint), driver=volume.driver)


def _prepare_image(
    core: Core, record: Record, mount: MountRecord, number: int, undo: ExitStack
) -> MountRecord:
    """A snapshot of another image's root, to be mounted in the container."""
    entry, _ = core.images.find(mount.name)
    image = core.images.view(entry)
    if image.chain_id is None:
        raise InvalidParameter(f"image {mount.name} has no layers to mount")
    key = f"{record.id}-image-{number}"
    make = core.snapshots.prepare if mount.writable else core.snapshots.view
    make(key, str(image.chain_id))
    undo.callback(core.snapshots.remove, key)
    return msgspec.structs.replace(mount, source=str(image.id))
