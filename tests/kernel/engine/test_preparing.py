"""``container init``: everything is set up, and the program waits."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from sampan.engine.engine import Engine
from sampan.engine.options import AttachOptions
from sampan.errors import CommandNotFound, Conflict, StartFailed
from sampan.wire.container import HostConfig
from sampan.wire.hostconfig import Mount
from tests.engines import World, converse, import_busybox, logs, request

_SCRIPT = "hostname; ls /bound; read line; echo $line; exit 4"


def _there(path: str | Path) -> bool:
    return Path(path).exists()


def _cgroups(container: str) -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(f"**/{container}"))


async def _state(engine: Engine, name: str) -> tuple[str, int]:
    state = (await engine.containers.inspect(name)).state
    assert state is not None
    assert state.status is not None
    assert state.pid is not None
    return state.status, state.pid


async def _text(engine: Engine, name: str) -> str:
    found = await engine.containers.list(all=True, filters={"name": [name]})
    return found[0].status or ""


async def test_the_program_waits_in_its_namespaces(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "bound").mkdir()
    (tmp_path / "bound/file").touch()
    host = HostConfig(mounts=[Mount(type="bind", source=str(tmp_path / "bound"), target="/bound")])
    body = request(["sh", "-c", _SCRIPT], host, open_stdin=True, hostname="waits")
    await engine.containers.create(body, "early")
    await engine.containers.init("early")
    status, pid = await _state(engine, "early")
    assert status == "created"
    assert await _text(engine, "early") == "Initialized"
    assert [c.id for c in await engine.containers.list(filters={"status": ["initialized"]})]
    assert await engine.containers.list() == []  # it does not run
    for kind in ("mnt", "net", "pid", "uts"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    assert _there(f"/proc/{pid}/root/bound/file")
    assert await logs(engine, "early") == ""
    with pytest.raises(Conflict, match="cannot init a container that is initialized"):
        await engine.containers.init("early")

    attachment = await engine.containers.attach("early", AttachOptions(stdin=True))
    waiting = await engine.containers.wait("early", "next-exit")
    await engine.containers.start("early")
    assert await _state(engine, "early") == ("running", pid)
    with pytest.raises(Conflict, match="cannot init a container that is running"):
        await engine.containers.init("early")
    assert await converse(attachment, b"said\n") == "waits\nfile\nsaid\n"
    assert (await waiting).status_code == 4
    await engine.containers.init("early")  # what has ended may be prepared again
    assert (await _state(engine, "early"))[0] == "created"
    await engine.containers.remove("early")


async def test_stopping_and_removing_undo_it(engine: Engine, world: World) -> None:
    await engine.containers.create(request(["sleep", "100"]), "early")
    await engine.containers.init("early")
    _, pid = await _state(engine, "early")
    await engine.containers.stop("early")
    assert await _state(engine, "early") == ("created", 0)
    assert await _text(engine, "early") == "Created"
    assert not _there(f"/proc/{pid}")
    await engine.containers.init("early")
    _, pid = await _state(engine, "early")
    found = (await engine.containers.inspect("early")).id or ""
    await engine.containers.remove("early")
    assert not _there(f"/proc/{pid}")
    assert not _there(world.config.exec_containers / found)
    assert not _cgroups(found)


async def test_a_program_that_is_not_there(engine: Engine) -> None:
    await engine.containers.create(request(["nowhere"]), "early")
    with pytest.raises(CommandNotFound):
        await engine.containers.init("early")
    state = (await engine.containers.inspect("early")).state
    assert state is not None
    assert (state.status, state.exit_code, state.pid) == ("created", 127, 0)
    await engine.containers.remove("early")


async def test_a_set_up_that_fails_leaves_nothing(engine: Engine, world: World) -> None:
    host = HostConfig(mounts=[Mount(type="tmpfs", target="/bin/busybox")])
    made = await engine.containers.create(request(["true"], host), "early")
    with pytest.raises(StartFailed):
        await engine.containers.init("early")
    assert (await _state(engine, "early")) == ("created", 0)
    assert not _there(world.config.exec_containers / (made.id or ""))


async def test_it_is_found_again(world: World) -> None:
    async with await world.open() as first:
        await import_busybox(first)
        await first.containers.create(request(["echo", "one"]), "early")
        await first.containers.init("early")
        before = await _state(first, "early")
        await first.containers.create(request(["true"]), "killed")
        await first.containers.init("killed")
        _, victim = await _state(first, "killed")
    async with await world.open() as second:
        assert await _state(second, "early") == before
        waiting = await second.containers.wait("early", "next-exit")
        await second.containers.start("early")
        assert (await waiting).status_code == 0
        assert await logs(second, "early") == "one\n"
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(StartFailed):
            await second.containers.start("killed")
        assert (await _state(second, "killed")) == ("created", 0)
        for name in ("early", "killed"):
            await second.containers.remove(name)
