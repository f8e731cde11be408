"""RUN steps as containers nobody sees: the engine's side of :mod:`sampan.build.executor`.

A step's container has a row while it runs, marked for automatic removal, so that whatever a crash
leaves is found and swept like any other container's; it is in no list.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace

import msgspec

from sampan.build.executor import ExtraMount, Limits, Output, RunRequest
from sampan.engine import clock, completion, stopping, supervision
from sampan.engine.attaching import PendingAttachment
from sampan.engine.core import Core, delete_container, insert_container
from sampan.engine.creation import find_image
from sampan.engine.images import Images
from sampan.engine.lifecycle import Status
from sampan.engine.options import AttachOptions, RegistryAuth
from sampan.engine.record import MountRecord, Record, State
from sampan.engine.starting import start
from sampan.engine.table import Container, Run
from sampan.errors import NotFound, SampanError
from sampan.image import Image
from sampan.model.platform import Platform
from sampan.model.reference import Reference
from sampan.wire.container import (
    ContainerCreateRequest,
    HostConfig,
    HostConfigLogConfig,
    ImageConfig,
    ResourcesUlimit,
)

HOSTNAME = "buildkitsandbox"
_HEADER = struct.Struct(">BxxxL")
#: Asked for the credentials of a registry when something is pulled from it.
Credentials = Callable[[str], Awaitable[RegistryAuth | None]]


class StepExecutor:
    """Runs a build's steps in the engine's runtime, finds its bases among the engine's images."""

    def __init__(self, core: Core, images: Images, credentials: Credentials) -> None:
        self._core = core
        self._images = images
        self._credentials = credentials

    async def base(self, reference: str, platform: Platform, *, pull: bool) -> Image:
        """See :meth:`sampan.build.executor.Executor.base`."""
        if not pull:
            try:
                return await self._local(reference, platform)
            except NotFound:
                if (found := await self._tagged(reference, platform)) is not None:
                    return found
        name = Reference.parse(reference).with_default_tag()
        async for progress in await self._images.pull(
            str(name), platform=str(platform), auth=await self._credentials(name.domain)
        ):
            if error := progress.get("error"):
                raise NotFound(str(error))
        return await self._local(reference, platform)

    async def _tagged(self, reference: str, platform: Platform) -> Image | None:
        """The image whose tag a reference has beside a digest, if that digest is its own.

        So an image that came from no registry, and has no name with its digest, is found by what a
        client was told of it.
        """
        name = Reference.parse(reference)
        if name.digest is None or not name.tag:
            return None
        try:
            entry, _ = await find_image(self._core, str(replace(name, digest=None)), str(platform))
        except NotFound:
            return None
        if entry.target.digest != name.digest:
            return None
        return await self._local(str(replace(name, digest=None)), platform)

    async def _local(self, reference: str, platform: Platform) -> Image:
        entry, image = await find_image(self._core, reference, str(platform))
        entry.used = clock.now()
        await self._core.threads.run(self._core.unpacker.unpack, image)
        return image

    async def run(self, request: RunRequest, output: Output) -> int:
        """See :meth:`sampan.build.executor.Executor.run`."""
        core = self._core
        container = Container(record=_record(core, request, request.hidden))
        directory = core.directory(request.key)
        # stored as one being removed, and once it runs as one to remove automatically: after a
        # crash recovery does what we do below; and without what may be secret
        stored = _record(core, request)
        host = msgspec.structs.replace(stored.host_config, auto_remove=True)
        row = Container(
            record=msgspec.structs.replace(stored, host_config=host),
            state=State(status=Status.REMOVING),
        )
        await core.state.write(insert_container(row))
        try:
            await core.threads.run(directory.mkdir, 0o710, True, True)
            return await self._run(container, output)
        finally:
            await core.state.write(delete_container(container))
            await core.threads.run(shutil.rmtree, directory, True)
            await core.threads.run(shutil.rmtree, core.exec_directory(request.key), True)

    async def _run(self, container: Container, output: Output) -> int:
        core = self._core
        client = PendingAttachment(AttachOptions())
        container.pending.append(client)
        starting = asyncio.ensure_future(start(core, container))
        try:
            run = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # A start is not stopped half-way: what it makes is ended as soon as it runs.
            await asyncio.shield(self._end_started(container, client, starting))
            raise
        supervision.watch(core, container, run)
        try:
            stream = await client.socket
            if stream is not None:
                await _forward(stream, output)
            record = await asyncio.shield(run.ended)
            await run.finished.wait()
        except BaseException:
            await asyncio.shield(self._kill(container, run))
            raise
        if record.error:
            raise SampanError(record.error)
        return record.code

    async def _end_started(
        self, container: Container, client: PendingAttachment, starting: asyncio.Task[Run]
    ) -> None:
        try:
            run = await starting
        except SampanError:
            return  # it has left nothing
        supervision.watch(self._core, container, run)
        stream = await client.socket
        if stream is not None:
            stream.close()
        await self._kill(container, run)

    async def _kill(self, container: Container, run: Run) -> None:
        seconds = stopping.KILL_TIMEOUT
        await stopping.end(self._core, container, run, int(signal.SIGKILL), seconds)


async def _forward(stream: socket.socket, output: Output) -> None:
    """Pass on a step's output, frame by frame, until it ends."""
    loop = asyncio.get_running_loop()
    stream.setblocking(False)
    buffer = bytearray()
    with stream:
        while data := await loop.sock_recv(stream, 65536):
            buffer += data
            while len(buffer) >= _HEADER.size:
                kind, length = _HEADER.unpack_from(buffer)
                end = _HEADER.size + length
                if len(buffer) < end:
                    break
                output(kind, bytes(buffer[_HEADER.size : end]))
                del buffer[:end]


def _record(core: Core, request: RunRequest, hidden: tuple[str, ...] = ()) -> Record:
    """The step as a container's record, with ``hidden`` environment."""
    shared = request.network.startswith("container:")  # whose host name is that container's
    body = ContainerCreateRequest(
        hostname=None if shared else request.hostname or HOSTNAME,
        cmd=list(request.words),
        env=[*request.environment, *hidden],
        working_dir=request.directory,
        user=request.user,
        attach_stdout=True,
        attach_stderr=True,
        host_config=_host_config(request),
    )
    config = completion.container_config(body, ImageConfig(), request.key, os.uname().nodename)
    host = completion.host_config(
        body.host_config,
        core.config,
        cpus=core.host.cpus,
        memory_nodes=core.host.memory_nodes,
        cgroup_v2=core.host.cgroup_v2,
        lsm=core.facts.lsm,
    )
    return Record(
        id=request.key,
        name=f"build-{request.key[:12]}",
        created=clock.now(),
        image="",
        image_id="",
        path=request.words[0],
        args=list(request.words[1:]),
        config=config,
        host_config=host,
        networks=completion.networks(body, host.network_mode or "", core.config),
        mounts=[_mount(mount) for mount in request.mounts],
        driver=core.snapshots.name,
    )


def _host_config(request: RunRequest) -> HostConfig:
    limits: Limits = request.limits
    return HostConfig(
        network_mode=request.network,
        privileged=request.insecure,
        readonly_rootfs=request.read_only or None,
        userns_mode="host" if request.insecure else None,
        extra_hosts=list(request.extra_hosts) or None,
        log_config=HostConfigLogConfig(type="none"),
        memory=limits.memory or None,
        memory_swap=limits.memory_swap or None,
        cpu_shares=limits.cpu_shares or None,
        cpu_period=limits.cpu_period or None,
        cpu_quota=limits.cpu_quota or None,
        cpuset_cpus=limits.cpuset_cpus or None,
        cpuset_mems=limits.cpuset_mems or None,
        shm_size=limits.shm_size or None,
        cgroup_parent=limits.cgroup_parent or None,
        ulimits=[
            ResourcesUlimit(name=name, soft=soft, hard=hard) for name, soft, hard in limits.ulimits
        ]
        or None,
    )


def _mount(mount: ExtraMount) -> MountRecord:
    if not mount.source:
        size = [f"size={mount.size}"] if mount.size else []
        return MountRecord(type="tmpfs", destination=mount.target, options=["mode=1777", *size])
    return MountRecord(
        type="bind",
        destination=mount.target,
        source=mount.source,
        writable=not mount.read_only,
        propagation="rprivate",
        idmap="idmap",  # what is ours, caches for one, serves steps of any user namespace
    )
