"""aiodocker (PyPI), as programs use it."""

from __future__ import annotations

import asyncio
import gc
import io
import tarfile
from collections.abc import AsyncIterator
from typing import Any

import aiodocker
import pytest

from tests.compat.conftest import Sampand


@pytest.fixture
async def client(sampand: Sampand) -> AsyncIterator[aiodocker.Docker]:
    """A client that removes what the test made."""
    async with aiodocker.Docker(url=sampand.host) as found:
        yield found
        for container in await found.containers.list(all=True):
            await container.delete(force=True, v=True)


def config(*command: str, **more: Any) -> dict[str, Any]:
    return {"Image": "busybox", "Cmd": list(command), **more}


async def test_run_wait_logs(client: aiodocker.Docker) -> None:
    script = "echo out; echo err >&2; exit 3"
    container = await client.containers.run(config("sh", "-c", script), name="aio-run")
    assert (await container.wait())["StatusCode"] == 3
    assert await container.log(stdout=True) == ["out\n"]
    assert await container.log(stderr=True) == ["err\n"]
    shown = await container.show()
    assert (shown["Name"], shown["State"]["ExitCode"]) == ("/aio-run", 3)
    listed = await client.containers.list(all=True, filters={"name": ["aio-run"]})
    assert [found.id for found in listed] == [container.id]
    await container.delete()
    with pytest.raises(aiodocker.DockerError) as missing:
        await container.show()
    assert missing.value.status == 404


async def test_following_logs(client: aiodocker.Docker) -> None:
    script = "for i in 1 2 3; do read x; echo $x$i; done"
    container = await client.containers.create(
        config("sh", "-c", script, OpenStdin=True, AttachStdin=True)
    )
    async with container.attach(stdin=True, stdout=True, stderr=True) as stream:
        await container.start()
        followed = container.log(stdout=True, follow=True)
        for number in (1, 2, 3):
            await stream.write_in(b"in\n")
            message = await stream.read_out()
            assert message is not None
            assert message.data == b"in%d\n" % number
            assert await anext(followed) == f"in{number}\n"
        assert await stream.read_out() is None
        with pytest.raises(StopAsyncIteration):
            await anext(followed)


async def test_exec(client: aiodocker.Docker) -> None:
    container = await client.containers.run(config("sleep", "1000"))
    made = await container.exec(["sh", "-c", "cat; exit 5"], stdin=True)
    async with made.start(detach=False) as stream:
        await stream.write_in(b"through")
        message = await stream.read_out()
        assert message is not None
        assert (message.stream, message.data) == (1, b"through")
    made = await container.exec(["sh", "-c", "stty size; exit 6"], tty=True, environment={"A": "b"})
    async with made.start(detach=False) as stream:
        output = b""
        while (message := await stream.read_out()) is not None:
            output += message.data
        assert output.endswith(b"\r\n")
    assert (await made.inspect())["ExitCode"] == 6


async def test_archives_and_stats(client: aiodocker.Docker) -> None:
    container = await client.containers.run(config("sleep", "1000"))
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        entry = tarfile.TarInfo("dir/file")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"hello"))
    await container.put_archive("/tmp", data.getvalue())
    with await container.get_archive("/tmp/dir") as tar:
        assert tar.getnames() == ["dir", "dir/file"]
    (once,) = await container.stats(stream=False)
    assert once["memory_stats"]["usage"] > 0
    many = container.stats(stream=True)
    assert (await anext(many))["pids_stats"]["current"] == 1
    await many.aclose()
    await container.pause()
    assert (await container.show())["State"]["Status"] == "paused"
    await container.unpause()
    await container.restart(t=0)
    await container.rename("aio-renamed")
    await container.kill()
    assert (await container.wait())["StatusCode"] == 137


async def test_networks_volumes_and_names(client: aiodocker.Docker) -> None:
    network = await client.networks.create({"Name": "aio-net", "CheckDuplicate": True})
    volume = await client.volumes.create({"Name": "aio-vol"})
    script = "echo served >/v/i; exec httpd -f -h /v"
    placed = {"HostConfig": {"NetworkMode": "aio-net", "Binds": ["aio-vol:/v"]}}
    server = await client.containers.run(config("sh", "-c", script, **placed), name="aio-server")
    fetch = "until wget -qO- http://aio-server/i; do sleep 0.1; done; cat /v/i"
    caller = await client.containers.run(config("sh", "-c", fetch, **placed))
    await caller.wait()
    assert await caller.log(stdout=True) == ["served\n", "served\n"]
    names = {entry["Name"] for entry in (await network.show())["Containers"].values()}
    assert "aio-server" in names
    await network.disconnect({"Container": server.id})
    await network.connect({"Container": server.id, "EndpointConfig": {"Aliases": ["other"]}})
    for container in (server, caller):
        await container.delete(force=True)
    await network.delete()
    await volume.delete()


@pytest.mark.filterwarnings(  # aiodocker leaves the stream's connection to the collector
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
async def test_events(client: aiodocker.Docker) -> None:
    seen: list[str] = []
    subscriber = client.events.subscribe()
    container = await client.containers.run(config("true", Labels={"aio": "1"}))
    await container.wait()
    await container.delete()
    async with asyncio.timeout(30):
        while "destroy" not in seen:
            event = await subscriber.get()
            assert event is not None
            if event["Actor"]["ID"] == container.id:
                seen.append(event["Action"])
    await client.events.stop()
    gc.collect()
    assert seen == ["create", "start", "die", "destroy"]


async def test_images_and_system(client: aiodocker.Docker) -> None:
    assert (await client.version())["Version"]
    assert (await client.system.info())["OSType"] == "linux"
    image = await client.images.inspect("busybox")
    await client.images.tag("busybox", "aio-image", tag="v")
    assert "aio-image:v" in (await client.images.inspect("aio-image:v"))["RepoTags"]
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w:gz") as tar:
        text = b"FROM busybox\nRUN echo made >/made\n"
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    context.seek(0)
    lines = await client.images.build(fileobj=context, encoding="gzip", tag="aio-built")
    assert any("aux" in line for line in lines)
    archive = b""
    async with client.images.export_image("aio-built") as exported:
        while chunk := await exported.read(1 << 20):
            archive += chunk
    await client.images.delete("aio-built", force=True)
    assert [line async for line in client.images.import_image(io.BytesIO(archive), stream=True)]
    layers = (await client.images.inspect("aio-built"))["RootFS"]["Layers"]
    assert layers[:1] == image["RootFS"]["Layers"]
    await client.images.delete("aio-built", force=True)
    await client.images.delete("aio-image:v")
