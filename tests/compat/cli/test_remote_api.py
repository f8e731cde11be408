"""``sampan.connect``: the Python API against a daemon, with and without ``await``."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Iterator

import pytest

import sampan
from sampan.client.remote import RemoteEngine, collect
from sampan.errors import Conflict, InvalidParameter, NotFound, Unavailable
from sampan.wire.container import ContainerCreateRequest
from sampan.wire.exec import ExecCreateRequest, ExecStartRequest
from sampan.wire.options import CommitOptions, ImportOptions, LogsOptions
from sampan.wire.volume import VolumeCreateRequest
from tests.compat.conftest import Sampand


@pytest.fixture
def engine(sampand: Sampand) -> Iterator[RemoteEngine]:
    with sampan.connect(sampand.host) as found:
        yield found


def test_run(engine: RemoteEngine) -> None:
    done = engine.run("busybox", ["sh", "-c", "cat; echo err >&2; exit 3"], stdin=b"in" * 100_000)
    assert (done.exit_code, done.stdout, done.stderr) == (3, "in" * 100_000, "err\n")
    assert engine.run("busybox", "echo two words", network="none").stdout == "two words\n"
    with pytest.raises(sampan.RunFailed, match="exit code 4"):
        engine.run("busybox", ["sh", "-c", "exit 4"], check=True)
    with pytest.raises(TimeoutError):
        engine.run("busybox", ["sleep", "100"], timeout=0.3)
    with pytest.raises(NotFound):
        engine.run("nosuch:image", pull=False)
    with pytest.raises(InvalidParameter, match="executable file not found"):
        engine.run("busybox", ["nosuchprogram"])


def test_life_of_a_container(engine: RemoteEngine, name: str) -> None:
    body = ContainerCreateRequest(image="busybox", cmd=["sh", "-c", "echo hi; sleep 1000"])
    made = engine.containers.create(body, name)
    assert made.id
    engine.containers.start(name)
    engine.containers.pause(name)
    with pytest.raises(Conflict):
        engine.containers.pause(name)
    engine.containers.unpause(name)
    found = engine.containers.inspect(name)
    assert found.id == made.id
    assert found.state is not None
    assert found.state.running
    assert [c.id for c in engine.containers.list(filters={"name": [name]})] == [made.id]
    top = engine.containers.top(name)
    assert top.processes
    sample = next(iter(engine.containers.stats(name, stream=False, one_shot=True)))
    assert sample.memory_stats is not None
    exec_id = engine.execs.create(
        name, ExecCreateRequest(cmd=["sh", "-c", "echo out; echo err >&2"],
                                attach_stdout=True, attach_stderr=True)
    )  # fmt: skip
    connection = engine.execs.start(exec_id, ExecStartRequest())
    assert connection is not None
    assert collect(connection, None) == (b"out\n", b"err\n")
    connection.close()
    assert engine.execs.inspect(exec_id).exit_code == 0
    logs = b"".join(engine.containers.logs(name, LogsOptions()))
    assert logs.endswith(b"hi\n")
    engine.containers.kill(name)
    assert engine.containers.wait(name).status_code == 137
    image = engine.containers.commit(name, CommitOptions(repo=name, tag="1", comment="kept"))
    assert engine.images.inspect(f"{name}:1").id == image.id
    engine.images.remove(f"{name}:1")
    engine.containers.remove(name)
    with pytest.raises(NotFound):
        engine.containers.inspect(name)


def test_archives(engine: RemoteEngine, name: str) -> None:
    engine.containers.create(ContainerCreateRequest(image="busybox", cmd=["true"]), name)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = 7
        tar.addfile(entry, io.BytesIO(b"content"))
    engine.containers.archive_put(name, "/tmp", [buffer.getvalue()])
    stat, pieces = engine.containers.archive_get(name, "/tmp/file")
    assert (stat.name, stat.size) == ("file", 7)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        member = tar.extractfile("file")
        assert member is not None
        assert member.read() == b"content"
    root = list(engine.containers.export(name))
    records = list(engine.images.import_(root, ImportOptions(repo=name, tag="2")))
    identity = str(records[-1]["status"])
    saved = b"".join(engine.images.save([f"{name}:2"]))
    engine.images.remove(f"{name}:2")
    loaded = list(engine.images.load([saved]))
    assert any(name in str(record.get("stream")) for record in loaded)
    assert engine.images.inspect(f"{name}:2").id == identity
    engine.images.remove(f"{name}:2")


def test_networks_volumes_system(engine: RemoteEngine, name: str) -> None:
    volume = engine.volumes.create(VolumeCreateRequest(name=name, labels={"a": "b"}))
    assert engine.volumes.inspect(name).labels == {"a": "b"} == volume.labels
    assert name in {v.name for v in engine.volumes.list({"label": ["a=b"]}).volumes or []}
    engine.volumes.remove(name)
    assert "none" in {network.name for network in engine.networks.list()}
    assert engine.system.info().ncpu
    assert engine.system.version().api_version
    assert engine.system.df().image_usage is not None
    assert engine.system.ping() > 0
    with pytest.raises(NotFound):
        engine.networks.inspect("nope")


def test_events_and_threads(engine: RemoteEngine, name: str) -> None:
    events = engine.events.subscribe(filters={"container": [name], "event": ["create"]})
    body = ContainerCreateRequest(image="busybox", cmd=["true"])
    worker = threading.Thread(target=engine.containers.create, args=(body, name))
    worker.start()
    event = next(iter(events))
    worker.join()
    assert (event.type, event.action) == ("container", "create")


def test_nobody_there() -> None:
    with sampan.connect("unix:///nonexistent.sock") as engine, pytest.raises(Unavailable):
        engine.system.info()
    with pytest.raises(InvalidParameter):
        sampan.connect("ftp://x")


async def test_asynchronous(sampand: Sampand, name: str) -> None:
    async with sampan.connect_async(sampand.host) as engine:
        done = await engine.run("busybox", ["echo", "hi"], network="none")
        assert done.stdout == "hi\n"
        body = ContainerCreateRequest(image="busybox", cmd=["sh", "-c", "echo one; exit 5"])
        await engine.containers.create(body, name)
        ended = await engine.containers.wait(name, "next-exit")
        await engine.containers.start(name)
        assert (await ended).status_code == 5
        options = LogsOptions(follow=True)
        pieces = [piece async for piece in await engine.containers.logs(name, options)]
        assert b"".join(pieces).endswith(b"one\n")
        with pytest.raises(NotFound):
            await engine.images.inspect("nope")
