"""What containers have around them: networks, volumes, files, limits, namespaces, images."""

from __future__ import annotations

import asyncio
import io
import tarfile
from pathlib import Path

import pytest

from sampan.engine.engine import Engine
from sampan.engine.options import AttachOptions, CommitOptions, ImportOptions, LogsOptions
from sampan.errors import (
    ArchiveRefused,
    Conflict,
    Forbidden,
    InvalidParameter,
    NotFound,
    StartFailed,
)
from sampan.wire.container import ContainerCreateRequest, ContainerUpdateRequest, HostConfig
from sampan.wire.hostconfig import (
    HostConfigLogConfig,
    Mount,
    MountVolumeOptions,
    PortBinding,
    ResourcesUlimit,
)
from sampan.wire.network import (
    NetworkConnectRequest,
    NetworkCreateRequest,
    NetworkDisconnectRequest,
)
from sampan.wire.volume import VolumeCreateRequest
from tests.engines import (
    BUSYBOX,
    chunks,
    converse,
    execute,
    import_busybox,
    logged,
    logs,
    request,
    run,
    start,
)


async def test_containers_find_each_other_by_name(engine: Engine) -> None:
    await engine.networks.create(NetworkCreateRequest(name="net"))
    await start(engine, "server", host=HostConfig(network_mode="net"))
    client = HostConfig(network_mode="net")
    assert (await run(engine, "ping", "-c1", "-W2", "server", host=client)).code == 0
    assert (await run(engine, "ping", "-c1", "-W1", "server")).code != 0
    await start(engine, "late")
    await engine.networks.connect("net", NetworkConnectRequest(container="late"))
    assert (await run(engine, "ping", "-c1", "-W2", "late", host=client)).code == 0
    shown = await engine.networks.inspect("net")
    assert {r.name for r in (shown.containers or {}).values()} == {"server", "late"}
    with pytest.raises(Forbidden, match="has active endpoints"):
        await engine.networks.remove("net")
    await engine.networks.disconnect("net", NetworkDisconnectRequest(container="late"))
    assert (await run(engine, "ping", "-c1", "-W1", "late", host=client)).code != 0
    await engine.containers.remove("server", force=True)
    await engine.networks.remove("net")


async def test_published_port(engine: Engine) -> None:
    script = "while :; do echo hello | nc -l -p 80; done"
    bindings = {"80/tcp": [PortBinding(host_ip="127.0.0.1", host_port="8099")]}
    made = await engine.containers.create(
        request(["sh", "-c", script], HostConfig(port_bindings=bindings)), "web"
    )
    await engine.containers.start("web")
    shown = await engine.containers.inspect("web")
    assert shown.network_settings is not None
    assert shown.network_settings.ports == {
        "80/tcp": [PortBinding(host_ip="127.0.0.1", host_port="8099")]
    }
    async with asyncio.timeout(10):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", 8099)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
                continue
            data = await reader.read()
            writer.close()
            if data:
                break
    assert data == b"hello\n"
    second = await engine.containers.create(
        request(["true"], HostConfig(port_bindings=bindings)), "other"
    )
    with pytest.raises(StartFailed, match="port is already allocated"):
        await engine.containers.start("other")
    assert second.id != made.id
    await engine.containers.remove("web", force=True)
    await engine.containers.start("other")


async def test_network_namespace_shared(engine: Engine) -> None:
    await start(engine, "owner", hostname="the-owner")
    done = await run(
        engine,
        "sh",
        "-c",
        "hostname; ip -o -4 addr show eth0",
        host=HostConfig(network_mode="container:owner"),
    )
    own = (await engine.containers.inspect("owner")).network_settings
    assert own is not None
    [endpoint] = (own.networks or {}).values()
    assert done.output.startswith("the-owner\n")
    assert endpoint.ip_address
    assert endpoint.ip_address in done.output
    await engine.containers.stop("owner", timeout=0)
    made = await engine.containers.create(
        request(["true"], HostConfig(network_mode="container:owner"))
    )
    with pytest.raises(Conflict, match="non running container"):
        await engine.containers.start(made.id or "")


async def test_ipc_and_pid_shared(engine: Engine) -> None:
    await start(engine, "donor", host=HostConfig(ipc_mode="shareable"))
    assert await execute(engine, "donor", "sh", "-c", "echo x > /dev/shm/file") == 0
    host = HostConfig(ipc_mode="container:donor", pid_mode="container:donor")
    done = await run(engine, "sh", "-c", "cat /dev/shm/file; cat /proc/1/comm", host=host)
    assert done.output == "x\nsleep\n"
    await start(engine, "private")
    with pytest.raises(InvalidParameter, match="non-shareable IPC"):
        await run(engine, "true", host=HostConfig(ipc_mode="container:private"))


async def test_limits_are_in_force(engine: Engine) -> None:
    host = HostConfig(
        memory=32 << 20,
        nano_cpus=500_000_000,
        pids_limit=20,
        shm_size=1 << 20,
        ulimits=[ResourcesUlimit(name="nofile", soft=64, hard=128)],
        sysctls={"net.core.somaxconn": "77"},
    )
    script = "ulimit -n; cat /proc/sys/net/core/somaxconn; grep /dev/shm /proc/mounts; sleep 100"
    await engine.containers.create(request(["sh", "-c", script], host), "limited")
    await engine.containers.start("limited")
    found = engine.core.containers.find("limited")
    assert found.run is not None
    stats = [s async for s in await engine.containers.stats("limited", stream=False, one_shot=True)]
    assert stats[0].memory_stats is not None
    assert stats[0].pids_stats is not None
    assert (stats[0].memory_stats.limit, stats[0].pids_stats.limit) == (32 << 20, 20)
    # As dockerd: lists on cgroup v1, nothing on v2, but where something was read or written.
    queue = stats[0].blkio_stats.io_queue_recursive if stats[0].blkio_stats else "missing"
    assert queue == (None if engine.core.host.cgroup_v2 else [])
    await engine.containers.update(
        "limited", ContainerUpdateRequest(memory=64 << 20, memory_swap=128 << 20)
    )
    stats = [s async for s in await engine.containers.stats("limited", stream=False, one_shot=True)]
    assert stats[0].memory_stats is not None
    assert stats[0].memory_stats.limit == 64 << 20
    await logged(engine, "limited", "shm")
    lines = (await logs(engine, "limited")).splitlines()
    assert lines[:2] == ["64", "77"]
    assert "size=1024k" in lines[2]


async def test_out_of_memory_is_told(engine: Engine) -> None:
    host = HostConfig(memory=16 << 20, memory_swap=16 << 20)
    done = await run(engine, "sh", "-c", "x=$(yes | head -c 64000000); echo $x | wc", host=host)
    assert done.code == 137
    state = (await engine.containers.inspect(done.id)).state
    assert state is not None
    assert state.oom_killed


async def test_volumes(engine: Engine, tmp_path: Path) -> None:
    done = await run(engine, "cat", "/data/seed", volumes={"/data": {}})
    assert done.output == "seed\n"  # an anonymous volume is filled from the image
    [volume] = (await engine.volumes.list()).volumes or []
    await engine.containers.remove(done.id, volumes=True)
    with pytest.raises(NotFound, match="no such volume"):
        await engine.volumes.inspect(volume.name or "")
    await engine.volumes.create(VolumeCreateRequest(name="mine"))
    await run(
        engine, "sh", "-c", "mkdir /v/sub; echo y > /v/sub/f", host=HostConfig(binds=["mine:/v"])
    )
    with pytest.raises(Conflict, match="volume is in use"):
        await engine.volumes.remove("mine")
    bound = tmp_path / "made" / "here"
    host = HostConfig(
        binds=[f"{bound}:/b"],
        readonly_rootfs=True,
        tmpfs={"/t": "size=64k"},
        mounts=[
            _subpath("mine", "sub", "/s"),
        ],
    )
    done = await run(
        engine, "sh", "-c", "cat /s/f; echo z > /b/f; echo t > /t/f; echo r > /r", host=host
    )
    assert done.output.startswith("y\n")
    assert "Read-only file system" in done.output
    assert (bound / "f").read_text() == "z\n"


def _subpath(name: str, subpath: str, target: str) -> Mount:
    return Mount(
        type="volume",
        source=name,
        target=target,
        volume_options=MountVolumeOptions(subpath=subpath),
    )


async def test_image_mount(engine: Engine) -> None:
    host = HostConfig(mounts=[Mount(type="image", source="busybox", target="/img", read_only=True)])
    done = await run(engine, "cat", "/img/data/seed", host=host)
    assert done.output == "seed\n"
    await engine.containers.remove(done.id)


async def test_copying_in_and_out(engine: Engine) -> None:
    made = await engine.containers.create(request(["cat", "/tmp/in/file"]), "box")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        entry = tarfile.TarInfo("in/file")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"abc"))
    await engine.containers.archive_put("box", "/tmp", chunks(data.getvalue()))
    stat = await engine.containers.archive_stat("box", "/tmp/in/file")
    assert (stat.name, stat.size) == ("file", 3)
    await engine.containers.start("box")
    assert (await (await engine.containers.wait("box"))).status_code == 0
    assert await logs(engine, "box") == "abc"
    _, stream = await engine.containers.archive_get("box", "/tmp/in")
    content = b"".join([chunk async for chunk in stream])
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert archive.getnames() == ["in", "in/file"]
    with pytest.raises(NotFound):
        await engine.containers.archive_stat("box", "/nosuch")
    changed = {(c.path, c.kind) for c in await engine.containers.changes(made.id or "")}
    assert changed == {("/tmp", 0), ("/tmp/in", 1), ("/tmp/in/file", 1)}


async def test_commit_and_remove_images(engine: Engine) -> None:
    done = await run(engine, "sh", "-c", "echo new > /tmp/new", name="base")
    await engine.containers.commit(
        done.id, CommitOptions(repo="mine", tag="1", changes=('CMD ["cat", "/tmp/new"]',))
    )
    made = await engine.containers.create(ContainerCreateRequest(image="mine:1"), "user")
    await engine.containers.start("user")
    await (await engine.containers.wait("user"))
    assert await logs(engine, "user") == "new\n"
    with pytest.raises(Conflict, match="must force"):
        await engine.images.remove("mine:1")
    history = await engine.images.history("mine:1")
    assert len(history) == 2
    await engine.images.tag("mine:1", "also", "2")
    removed = await engine.images.remove("also:2")
    assert [item.untagged for item in removed] == ["also:2"]
    await engine.containers.remove(made.id or "")
    removed = await engine.images.remove("mine:1")
    assert removed[0].untagged == "mine:1"
    assert any(item.deleted for item in removed)
    assert [image.repo_tags for image in await engine.images.list()] == [["busybox:latest"]]


async def test_save_and_load(engine: Engine) -> None:
    archive = b"".join([chunk async for chunk in await engine.images.save(["busybox"])])
    image_id = (await engine.images.inspect("busybox")).id
    await engine.images.remove("busybox")
    with pytest.raises(NotFound, match="No such image: busybox:latest"):
        await engine.images.inspect("busybox")
    assert not list((engine.config.data_root / "content" / "blobs" / "sha256").iterdir())
    told = [p async for p in await engine.images.load(chunks(archive))]
    assert told == [{"stream": "Loaded image: busybox:latest\n"}]
    assert (await engine.images.inspect("busybox")).id == image_id
    assert (await run(engine, "echo", "again")).output == "again\n"
    told = [p async for p in await engine.images.load(chunks(archive[:100_000]))]
    assert "error" in told[-1]


async def test_following_a_rotating_log(engine: Engine) -> None:
    log = HostConfigLogConfig(type="json-file", config={"max-size": "100k", "max-file": "3"})
    script = "read go; n=0; while [ $n -lt 3000 ]; do echo line-$n; n=$((n+1)); done"
    await engine.containers.create(
        request(["sh", "-c", script], HostConfig(log_config=log), open_stdin=True), "loud"
    )
    await engine.containers.start("loud")
    followers = [asyncio.ensure_future(logs(engine, "loud", follow=True)) for _ in range(3)]
    attachment = await engine.containers.attach("loud", AttachOptions(stdin=True))
    assert (await converse(attachment, b"go\n")).count("\n") == 3000
    for text in await asyncio.gather(*followers):
        assert text.split() == [f"line-{number}" for number in range(3000)]
    path = Path((await engine.containers.inspect("loud")).log_path or "")
    assert {p.name for p in path.parent.glob("*.log*")} >= {path.name, f"{path.name}.1"}
    assert (await logs(engine, "loud", tail=2)).split() == ["line-2998", "line-2999"]


async def test_top_and_system(engine: Engine) -> None:
    await start(engine, "busy")
    found = await engine.containers.top("busy", "-eo pid,comm")
    assert found.titles == ["PID", "COMMAND"]
    assert [p[1] for p in found.processes or []] == ["sleep"]
    info = await engine.system.info()
    assert (info.containers_running, info.images) == (1, 1)
    usage = await engine.system.df()
    assert usage.image_usage is not None
    assert usage.image_usage.total_count == 1
    assert (usage.image_usage.total_size or 0) > BUSYBOX.stat().st_size


async def test_import_is_checked(engine: Engine) -> None:
    with pytest.raises(InvalidParameter):
        await engine.images.import_(chunks(b""), ImportOptions(repo="Bad Name"))
    broken = await engine.images.import_(chunks(b"x" * 2000), ImportOptions())
    with pytest.raises(ArchiveRefused):
        await anext(aiter(broken))
    assert await import_busybox(engine)
    stream = await engine.containers.logs(
        (await run(engine, "echo", "x")).id, LogsOptions(timestamps=True, tail=1)
    )
    assert (await anext(aiter(stream))).endswith(b" x\n")
    await stream.aclose()
