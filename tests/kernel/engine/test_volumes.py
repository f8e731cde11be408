"""Volumes of the engine and of plugins: whatever happens, contents go by a remove alone."""

from __future__ import annotations

import asyncio
import io
import json
import os
import select
import signal
import tarfile
from pathlib import Path

import pytest

from sampan.engine.engine import Engine
from sampan.errors import Conflict, InvalidParameter, NotFound, SampanError, Unsupported
from sampan.kernel.mount import MNT_DETACH, MS_PRIVATE, MS_SHARED, umount2
from sampan.kernel.mount import mount as kernel_mount
from sampan.plugin import client
from sampan.runtime.client import read_live
from sampan.wire.container import HostConfig
from sampan.wire.hostconfig import (
    Mount,
    MountBindOptions,
    MountImageOptions,
    MountVolumeOptions,
    MountVolumeOptionsDriverConfig,
)
from sampan.wire.volume import VolumeCreateRequest
from tests.engines import World, chunks, import_busybox, request, run, start
from tests.kernel.engine.plugins import PluginWorld, plugin


def volume(name: str, target: str, *, subpath: str = "", driver: str = "") -> Mount:
    options = MountVolumeOptions(
        subpath=subpath or None,
        driver_config=MountVolumeOptionsDriverConfig(name=driver) if driver else None,
    )
    return Mount(type="volume", source=name, target=target, volume_options=options)


def kill_unseen(pid: int, monitor: int) -> None:
    """Kill a container while no engine watches; its monitor has noted it when this returns."""
    watched = os.pidfd_open(monitor)
    os.kill(pid, signal.SIGKILL)
    select.select([watched], [], [], 30)
    os.close(watched)


async def test_a_part_of_a_volume_is_filled_from_the_image(engine: Engine) -> None:
    """As a whole one is: when it is empty; nothing around it is touched."""
    await engine.volumes.create(VolumeCreateRequest(name="data"))
    data = Path((await engine.volumes.inspect("data")).mountpoint or "")
    for name in ("part", "full"):
        (data / name).mkdir()
    (data / "full" / "own").touch()
    (data / "out").symlink_to("/")
    wanted = {"/data": "part", "/etc": "full", "/x": "out"}
    parts = [volume("data", target, subpath=name) for target, name in wanted.items()]
    await engine.containers.create(request(["true"], HostConfig(mounts=parts)), "user")
    assert (data / "part" / "seed").read_text() == "seed\n"
    assert sorted(os.listdir(data)) == ["full", "out", "part"]
    assert os.listdir(data / "full") == ["own"]
    with pytest.raises(InvalidParameter, match="escapes the base directory, subpath: out"):
        await engine.containers.start("user")
    await engine.containers.remove("user")


async def test_contents_survive_every_end_but_removal(world: World) -> None:
    """Daemons killed, containers killed unseen, removals: a volume keeps what is in it."""
    async with await world.open() as engine:
        await import_busybox(engine)
        await engine.volumes.create(VolumeCreateRequest(name="data"))
        data = Path((await engine.volumes.inspect("data")).mountpoint or "")
        (data / "part").mkdir()
        (data / "part" / "file").write_text("kept")
        whole, part = volume("data", "/whole"), volume("data", "/part", subpath="part")
        await start(engine, "user", host=HostConfig(mounts=[whole, part]))
        live = read_live(engine.config.exec_containers / engine.core.containers.find("user").id)
        assert live is not None
    kill_unseen(live.pid, live.monitor_pid)
    async with await world.open() as engine:
        assert (data / "part" / "file").read_text() == "kept"
        assert not list(world.config.pins.iterdir())
        await engine.containers.start("user")
        with pytest.raises(Conflict, match="volume is in use"):
            await engine.volumes.remove("data", force=True)
        await engine.volumes.prune({"all": ["true"]})
        await engine.containers.remove("user", force=True, volumes=True)
        host = HostConfig(mounts=[volume("data", "/x", subpath="missing")])
        await engine.containers.create(request(["true"], host), "fails")
        with pytest.raises(NotFound, match="path missing in volume data: no such file"):
            await engine.containers.start("fails")
        await engine.containers.remove("fails", volumes=True)
        await engine.volumes.prune()  # a named volume is not anonymous
        assert (data / "part" / "file").read_text() == "kept"
        assert not list(world.config.pins.iterdir())
        await engine.volumes.prune({"all": ["true"]})
        assert os.listdir(world.config.data_root / "volumes") == []


async def test_rename_snapshot_export_import(engine: Engine) -> None:
    await engine.volumes.create(VolumeCreateRequest(name="one", labels={"a": "b"}))
    one = HostConfig(binds=["one:/v"])
    await run(engine, "sh", "-c", "mkdir /v/d; echo x > /v/d/f; busybox ln /v/d/f /v/g", host=one)
    copy = await engine.volumes.snapshot("one", "two")
    assert copy.labels == {"a": "b"}
    with pytest.raises(Conflict, match="volume name two is in use"):
        await engine.volumes.snapshot("one", "two")
    top = Path(copy.mountpoint or "")
    assert (top / "g").stat().st_ino == (top / "d" / "f").stat().st_ino
    (top / "g").write_text("changed")
    done = await run(engine, "cat", "/v/d/f", host=one)
    assert done.output == "x\n"
    with pytest.raises(Conflict, match="volume is in use"):
        await engine.volumes.rename("one", "three")
    for container in await engine.containers.list(all=True):
        await engine.containers.remove(container.id or "")
    with pytest.raises(Conflict, match="volume name two is in use"):
        await engine.volumes.rename("one", "two")
    assert (await engine.volumes.rename("one", "three")).name == "three"
    with pytest.raises(NotFound, match="get one: no such volume"):
        await engine.volumes.inspect("one")
    tar = b"".join([chunk async for chunk in await engine.volumes.export("three")])
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        assert sorted(archive.getnames()) == ["d", "d/f", "g"]
    await engine.volumes.create(VolumeCreateRequest(name="four"))
    await engine.volumes.import_("four", chunks(tar))
    done = await run(engine, "sh", "-c", "cat /v/d/f /v/g", host=HostConfig(binds=["four:/v"]))
    assert done.output == "x\nx\n"
    for name in ("../up", "x"):
        with pytest.raises(InvalidParameter, match="invalid characters"):
            await engine.volumes.snapshot("three", name)
    assert {v.name for v in (await engine.volumes.list()).volumes or []} == {"two", "three", "four"}


async def test_volumes_of_a_plugin(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSES", ())  # how long it is waited for is not of interest here
    plugins = PluginWorld(world.root)
    with plugin(plugins) as process:
        async with await plugins.open() as engine:
            await import_busybox(engine)
            options = {"size": "1"}
            made = await engine.volumes.create(
                VolumeCreateRequest(
                    name="far", driver="other", driver_opts=options, labels={"k": ""}
                )
            )
            assert made.driver == "other"
            with pytest.raises(SampanError, match=r"create refused: VolumeDriver.Create: not this"):
                await engine.volumes.create(VolumeCreateRequest(name="refused", driver="other"))
            with pytest.raises(NotFound, match='plugin "nope" not found'):
                await engine.volumes.create(VolumeCreateRequest(name="x1", driver="nope"))
            with pytest.raises(Conflict, match="volume name must be unique"):
                await engine.volumes.create(VolumeCreateRequest(name="far", driver="local"))
            shown = await engine.volumes.inspect("far")
            assert (shown.scope, shown.status, shown.labels) == (
                "global",
                {"served": "here"},
                {"k": ""},
            )
            # image content is copied into it, as into one of ours
            mounts = [volume("far", "/data")]
            done = await run(engine, "cat", "/data/seed", host=HostConfig(mounts=mounts), name="c1")
            assert done.output == "seed\n"
            # one that is made with the container, and a part of it
            await run(
                engine,
                "mkdir",
                "/v/sub",
                host=HostConfig(binds=["near:/v"], volume_driver="other"),
            )
            host = HostConfig(mounts=[volume("near", "/s", subpath="sub", driver="other")])
            await start(engine, "user", host=host)
            assert {v.name: v.driver for v in (await engine.volumes.list()).volumes or []} == {
                "far": "other",
                "near": "other",
            }
            with pytest.raises(Unsupported, match="of driver other"):
                await engine.volumes.snapshot("far", "copy")
            tar = b"".join([chunk async for chunk in await engine.volumes.export("far")])
            assert b"seed" in tar
        mounted = [json.loads(c.partition(" ")[2]) for c in plugins.calls if ".Mount " in c]
        async with await plugins.open() as engine:
            await engine.containers.remove("user", force=True)
            ended = [json.loads(c.partition(" ")[2]) for c in plugins.calls if ".Unmount " in c]
            assert sorted(map(str, mounted)) == sorted(map(str, ended))
            for container in await engine.containers.list(all=True):
                await engine.containers.remove(container.id or "", volumes=True)
            await engine.volumes.prune({"all": ["true"]})  # takes our own alone
            await engine.volumes.remove("near")
            process.kill()
            process.wait()
            listed = await engine.volumes.list()
            assert [v.name for v in listed.volumes or []] == ["far"]
            assert listed.warnings
            assert "does not answer" in listed.warnings[0]
            with pytest.raises(SampanError, match="does not answer"):
                await engine.volumes.remove("far")
            await engine.volumes.remove("far", force=True)
            assert not (await engine.volumes.list()).volumes
    assert (plugins.root / "served" / "volumes" / "far" / "seed").read_text() == "seed\n"


async def test_a_plugin_is_asked_no_more_than_needed(world: World) -> None:
    """What it is capable of once; to mount, only for what is put into the volume or used."""
    plugins = PluginWorld(world.root)
    with plugin(plugins):
        async with await plugins.open() as engine:
            await import_busybox(engine)
            for number in range(3):
                wanted = VolumeCreateRequest(name=f"far{number}", driver="other")
                assert (await engine.volumes.create(wanted)).scope == "global"
                assert (await engine.volumes.inspect(f"far{number}")).scope == "global"
            host = HostConfig(binds=["far0:/absent"], volume_driver="other")
            done = await run(engine, "true", host=host)
            await engine.containers.remove(done.id)  # once all it had is given back
            methods = [call.partition(" ")[0].rpartition(".")[2] for call in plugins.calls]
    assert methods.count("Capabilities") == 1
    assert methods.count("Mount") == methods.count("Unmount") == 1


async def test_a_plugin_that_starts_late_is_waited_for(world: World) -> None:
    plugins = PluginWorld(world.root)
    async with await plugins.open() as engine:
        await import_busybox(engine)
        plugins.plugins.mkdir()
        early = asyncio.ensure_future(
            engine.volumes.create(VolumeCreateRequest(name="early", driver="other"))
        )
        await asyncio.sleep(0.5)
        assert not early.done()
        with plugin(plugins):
            assert (await early).driver == "other"
        # It went; its socket is there still.
        host = HostConfig(binds=["early:/absent"])
        starting = asyncio.ensure_future(run(engine, "true", host=host))
        await asyncio.sleep(0.5)
        assert not starting.done()
        with plugin(plugins):
            assert (await starting).code == 0


def image_part(subpath: str) -> Mount:
    """A part of the image, read-only, at ``/m``."""
    options = MountImageOptions(subpath=subpath)
    return Mount(type="image", source="busybox", target="/m", read_only=True, image_options=options)


async def test_parts_of_images_and_read_only_all_the_way(engine: Engine, tmp_path: Path) -> None:
    for subpath, command, output in (
        ("data", "cat /m/seed; touch /m/x", "seed\ntouch: /m/x: Read-only file system\n"),
        ("data/seed", "cat /m", "seed\n"),
    ):
        host = HostConfig(mounts=[image_part(subpath)])
        assert (await run(engine, "sh", "-c", command, host=host)).output == output
    for subpath, refusal in (
        ("bin/../etc/passwd", "subpath must be a relative path within the volume"),
        ("nosuch", "cannot access path nosuch in image busybox"),
    ):
        with pytest.raises(SampanError, match=refusal):
            await run(engine, "true", host=HostConfig(mounts=[image_part(subpath)]))
    host = HostConfig(mounts=[Mount(type="image", source="busybox", target="/m")])
    done = await run(engine, "touch", "/m/new", host=host)
    assert done.output == "touch: /m/new: Read-only file system\n"
    assert not list(engine.config.pins.iterdir())
    # a mount inside what is bound read-only is read-only too, unless only the top was meant
    top = tmp_path / "bound"
    (top / "inner").mkdir(parents=True)
    kernel_mount("tmpfs", str(top / "inner"), "tmpfs", 0, "")
    try:
        for options, code in (
            (MountBindOptions(), 1),
            (MountBindOptions(read_only_force_recursive=True, propagation="rprivate"), 1),
            (MountBindOptions(read_only_non_recursive=True), 0),
            (MountBindOptions(non_recursive=True), 1),
        ):
            bind = Mount(
                type="bind", source=str(top), target="/b", read_only=True, bind_options=options
            )
            done = await run(engine, "touch", "/b/inner/x", host=HostConfig(mounts=[bind]))
            assert done.code == code, (options, done)
        bound = [f"{top}:/b:ro,z", f"{top}:/c:ro,Z"]  # SELinux labels: accepted
        assert (await run(engine, "touch", "/b/inner/x", host=HostConfig(binds=bound))).code == 1
    finally:
        umount2(str(top / "inner"), MNT_DETACH)


async def test_a_mount_passes_on_what_its_own_mount_does(engine: Engine, tmp_path: Path) -> None:
    """A shared bind of a private mount would pass nothing on: it is refused, as dockerd does."""
    source = tmp_path / "a mount"
    source.mkdir()
    kernel_mount("none", str(source), "tmpfs", 0)
    try:
        for kind, asked, wanted in (
            (MS_PRIVATE, "shared", "a shared mount"),
            (MS_PRIVATE, "rslave", "a shared or slave mount"),
            (MS_SHARED, "rshared", ""),
            (MS_SHARED, "slave", ""),
            (MS_PRIVATE, "rprivate", ""),
        ):
            kernel_mount("", str(source), "", kind)
            bind = MountBindOptions(propagation=asked)
            mount = Mount(type="bind", source=str(source), target="/m", bind_options=bind)
            host = HostConfig(mounts=[mount])
            await engine.containers.create(request(["true"], host), "sharing")
            if wanted:
                message = f"path {source} is mounted on {source} but it is not {wanted}"
                with pytest.raises(InvalidParameter, match=message):
                    await engine.containers.start("sharing")
            else:
                await engine.containers.start("sharing")
                ended = await (await engine.containers.wait("sharing"))
                assert ended.status_code == 0
            await engine.containers.remove("sharing")
    finally:
        umount2(str(source), MNT_DETACH)
