"""Containers from creation to removal, in real namespaces."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import tarfile
import time
from collections.abc import AsyncIterator

import pytest

from sampan.engine.engine import Engine
from sampan.engine.options import AttachOptions, CommitOptions
from sampan.errors import (
    CommandNotExecutable,
    CommandNotFound,
    Conflict,
    InvalidParameter,
    NotFound,
    NotModified,
    StartFailed,
)
from sampan.runtime.client import CreateRequest, Launcher, Making, Monitor
from sampan.wire.container import ContainerCreateRequest, HealthConfig, HostConfig
from sampan.wire.exec import ExecCreateRequest, ExecStartRequest
from sampan.wire.hostconfig import Mount
from tests.engines import (
    World,
    converse,
    execute,
    import_busybox,
    logged,
    logs,
    request,
    restart,
    run,
    start,
)


async def test_output_exit_code_and_log(engine: Engine) -> None:
    done = await run(engine, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert done.code == 3
    assert sorted(done.output.split()) == ["err", "out"]
    assert await logs(engine, done.id, stderr=False) == "out\n"
    state = (await engine.containers.inspect(done.id)).state
    assert state is not None
    assert (state.status, state.exit_code, state.running, state.pid) == ("exited", 3, False, 0)


async def test_what_a_program_finds(engine: Engine) -> None:
    script = "id; pwd; hostname; echo $A:$PATH:$HOME; cat /proc/1/comm; true"
    done = await run(engine, "sh", "-c", script, env=["A=b"], working_dir="/tmp/new", user="user")
    lines = done.output.splitlines()
    assert lines[0].startswith("uid=1000(user) gid=1000(user)")
    assert lines[1] == "/tmp/new"
    assert lines[2] == done.id[:12]
    assert lines[3].startswith("b:/usr/local/sbin:")
    assert lines[3].endswith(":/home/user")
    assert lines[4] == "sh"


async def test_standard_input_ends(engine: Engine) -> None:
    done = await run(engine, "cat", stdin=b"hello\n")
    assert (done.output, done.code) == ("hello\n", 0)


async def test_terminal(engine: Engine) -> None:
    done = await run(engine, "tty", tty=True)
    assert done.output == "/dev/pts/0\r\n"


@pytest.mark.parametrize(
    ("command", "kind", "code", "message"),
    [
        ("nosuch", CommandNotFound, 127, "executable file not found in $PATH"),
        ("/etc/passwd", CommandNotExecutable, 126, "permission denied"),
    ],
)
async def test_a_program_that_cannot_run(
    engine: Engine, command: str, kind: type[Exception], code: int, message: str
) -> None:
    made = await engine.containers.create(request([command]))
    assert made.id
    attachment = await engine.containers.attach(made.id, AttachOptions())
    with pytest.raises(kind, match="exec: "):
        await engine.containers.start(made.id)
    assert await attachment.open() is None
    state = (await engine.containers.inspect(made.id)).state
    assert state is not None
    assert (state.status, state.exit_code) == ("created", code)
    assert message in (state.error or "")
    assert not (engine.config.exec_containers / made.id).exists()
    await engine.containers.remove(made.id)


async def test_create_is_refused(engine: Engine) -> None:
    with pytest.raises(NotFound, match="No such image: nosuch:latest"):
        await engine.containers.create(ContainerCreateRequest(image="nosuch", cmd=["true"]))
    await engine.containers.create(request(["true"]), "taken")
    with pytest.raises(Conflict, match='The container name "/taken" is already in use'):
        await engine.containers.create(request(["true"]), "taken")
    host = HostConfig(mounts=[Mount(type="bind", source="/nosuch", target="/x")])
    with pytest.raises(InvalidParameter, match="bind source path does not exist: /nosuch"):
        await engine.containers.create(request(["true"], host))
    assert [c.names for c in await engine.containers.list(all=True)] == [["/taken"]]


async def test_start_twice_stop_twice(engine: Engine) -> None:
    made = await engine.containers.create(request(["sleep", "100"]), "one")
    assert made.id
    await engine.containers.start("one")
    with pytest.raises(NotModified):
        await engine.containers.start("/one")
    with pytest.raises(Conflict, match="container is running: stop the container"):
        await engine.containers.remove(made.id[:6])
    await engine.containers.stop("one", timeout=0)
    with pytest.raises(NotModified):
        await engine.containers.stop("one")
    state = (await engine.containers.inspect("one")).state
    assert state is not None
    assert (state.exit_code, state.status) == (137, "exited")
    await engine.containers.start("one")
    await engine.containers.remove("one", force=True)
    with pytest.raises(NotFound, match="No such container: one"):
        await engine.containers.inspect("one")


async def test_stop_signal_and_restart_policy(engine: Engine) -> None:
    script = "trap 'exit 5' USR1; echo up; while :; do sleep 0.05; done"
    await engine.containers.create(
        request(
            ["sh", "-c", script],
            HostConfig(restart_policy=restart("always")),
            stop_signal="SIGUSR1",
        ),
        "loyal",
    )
    await engine.containers.start("loyal")
    waiting = await engine.containers.wait("loyal", "next-exit")
    await logged(engine, "loyal", "up")
    await engine.containers.stop("loyal")
    assert (await waiting).status_code == 5
    state = (await engine.containers.inspect("loyal")).state
    assert state is not None
    assert state.status == "exited"


async def test_failing_container_is_restarted(engine: Engine) -> None:
    await engine.containers.create(
        request(["sh", "-c", "exit 4"], HostConfig(restart_policy=restart("on-failure", 2))),
        "again",
    )
    events = await engine.events.subscribe(filters={"event": ["die"]})
    await engine.containers.start("again")
    for _ in range(3):
        event = await anext(events)
        assert event.actor is not None
        assert (event.actor.attributes or {})["exitCode"] == "4"
    await (await engine.containers.wait("again"))
    shown = await engine.containers.inspect("again")
    assert shown.restart_count == 2
    assert shown.state is not None
    assert shown.state.status == "exited"
    await events.aclose()


async def test_auto_remove_leaves_nothing(engine: Engine) -> None:
    made = await engine.containers.create(
        request(["true"], HostConfig(auto_remove=True), volumes={"/data": {}})
    )
    assert made.id
    waiting = await engine.containers.wait(made.id, "removed")
    await engine.containers.start(made.id)
    assert (await waiting).status_code == 0
    assert await engine.containers.list(all=True) == []
    assert (await engine.volumes.list()).volumes == []
    assert not list(engine.config.containers.iterdir())
    assert not list(engine.config.exec_containers.iterdir())


async def test_what_is_removed_at_exit_is_not_synced(engine: Engine) -> None:
    show = ("grep", " / overlay ", "/proc/mounts")
    assert "volatile" not in (await run(engine, *show)).output
    assert "volatile" in (await run(engine, *show, host=HostConfig(auto_remove=True))).output
    await start(engine, "brief", host=HostConfig(auto_remove=True))
    assert await execute(engine, "brief", "sh", "-c", "echo 1 > /f") == 0
    await engine.containers.restart("brief", timeout=0)  # mounts what was volatile once more
    assert await execute(engine, "brief", "sh", "-c", "echo 2 >> /f && sync /f") == 0
    _, taken = await engine.containers.archive_get("brief", "/f")
    assert b"1\n2\n" in b"".join([chunk async for chunk in taken])
    await engine.containers.commit("brief", CommitOptions(repo="kept"))
    waiting = await engine.containers.wait("brief", "removed")
    await engine.containers.kill("brief")
    await waiting
    again = ContainerCreateRequest(image="kept", cmd=["cat", "/f"], host_config=HostConfig())
    made = await engine.containers.create(again, "after")
    assert made.id
    waiting = await engine.containers.wait(made.id, "next-exit")
    await engine.containers.start(made.id)
    await waiting
    assert await logs(engine, made.id) == "1\n2\n"


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_what_is_removed_at_exit_is_looked_into_before_it_starts(engine: Engine) -> None:
    wanted = request(["true"], HostConfig(auto_remove=True), volumes={"/data": {}})
    await engine.containers.create(wanted, "early")
    for text in (b"one", b"two"):  # each mounts its root, with the volume in it
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as archive:
            entry = tarfile.TarInfo("f")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
        await engine.containers.archive_put("early", "/etc", chunks(data.getvalue()))
        _, taken = await engine.containers.archive_get("early", "/etc/f")
        assert text in b"".join([chunk async for chunk in taken])
    waiting = await engine.containers.wait("early", "removed")
    await engine.containers.start("early")
    await waiting


async def test_pause_and_kill(engine: Engine) -> None:
    await engine.containers.create(request(["sleep", "100"]), "cold")
    await engine.containers.start("cold")
    await engine.containers.pause("cold")
    with pytest.raises(Conflict, match="already paused"):
        await engine.containers.pause("cold")
    [shown] = await engine.containers.list()
    assert (shown.status or "").endswith("(Paused)")
    await engine.containers.unpause("cold")
    waiting = await engine.containers.wait("cold")
    await engine.containers.kill("cold", "9")
    assert (await waiting).status_code == 137
    with pytest.raises(Conflict, match="is not running"):
        await engine.containers.kill("cold")


async def test_exec(engine: Engine) -> None:
    await engine.containers.create(request(["sleep", "100"], env=["A=1"]), "host")
    await engine.containers.start("host")
    exec_id = await engine.execs.create(
        "host",
        ExecCreateRequest(
            cmd=["sh", "-c", "cat; echo $A $B; id -un; exit 9"],
            env=["B=2"],
            user="user",
            attach_stdin=True,
            attach_stdout=True,
        ),
    )
    attachment = await engine.execs.start(exec_id, ExecStartRequest())
    assert await converse(attachment, b"in ") == "in 1 2\nuser\n"
    found = await engine.execs.inspect(exec_id)
    assert (found.running, found.exit_code) == (False, 9)
    with pytest.raises(Conflict, match="has already run"):
        await engine.execs.start(exec_id, ExecStartRequest(detach=True))
    again = await engine.execs.start(exec_id, ExecStartRequest())
    with pytest.raises(Conflict, match="has already run"):  # a server has answered by then
        await converse(again)
    missing = await engine.execs.create("host", ExecCreateRequest(cmd=["nosuch"]))
    with pytest.raises(CommandNotFound):
        await engine.execs.start(missing, ExecStartRequest(detach=True))
    assert (await engine.execs.inspect(missing)).exit_code == 127


async def test_an_exec_is_filtered_as_its_container(engine: Engine) -> None:
    filtered = ("grep", "-q", "^Seccomp:.2", "/proc/self/status")
    await start(engine, "plain")
    assert await execute(engine, "plain", *filtered) == 0
    await start(engine, "free", host=HostConfig(security_opt=["seccomp=unconfined"]))
    assert await execute(engine, "free", *filtered) == 1
    calls = {"names": ["chown", "lchown", "fchownat"], "action": "SCMP_ACT_ERRNO"}
    profile = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [calls]})
    await start(engine, "own", host=HostConfig(security_opt=[f"seccomp={profile}"]))
    assert await execute(engine, "own", "/bin/busybox", "chown", "1", "/etc/passwd") == 1
    assert await execute(engine, "plain", "/bin/busybox", "chown", "1", "/etc/passwd") == 0
    for name in ("plain", "free", "own"):
        await engine.containers.remove(name, force=True)


async def test_twenty_at_once(engine: Engine) -> None:
    async def one(number: int) -> None:
        host = HostConfig(auto_remove=True)
        done = await run(engine, "echo", str(number), host=host)
        assert done.output == f"{number}\n"

    await asyncio.gather(*(one(number) for number in range(20)))


async def test_health_becomes_unhealthy_and_healthy(engine: Engine) -> None:
    check = HealthConfig(
        test=["CMD-SHELL", "test -e /tmp/well"], interval=50_000_000, timeout=10**10, retries=1
    )
    await engine.containers.create(request(["sleep", "100"], healthcheck=check), "patient")
    events = await engine.events.subscribe(filters={"event": ["health_status"]})
    await engine.containers.start("patient")
    assert (await anext(events)).action == "health_status: unhealthy"
    cure = await engine.execs.create("patient", ExecCreateRequest(cmd=["touch", "/tmp/well"]))
    await engine.execs.start(cure, ExecStartRequest(detach=True))
    assert (await anext(events)).action == "health_status: healthy"
    state = (await engine.containers.inspect("patient")).state
    assert state is not None
    assert state.health is not None
    assert state.health.status == "healthy"
    await events.aclose()


async def test_an_unhealthy_container_is_restarted(engine: Engine) -> None:
    check = HealthConfig(test=["CMD", "test", "-e", "/nosuch"], interval=50_000_000, retries=1)
    labels = {"sampan.health.on-failure": "restart"}
    await engine.containers.create(
        request(["sleep", "100"], healthcheck=check, labels=labels, stop_signal="SIGKILL"), "sick"
    )
    events = await engine.events.subscribe(filters={"event": ["start"]})
    await engine.containers.start("sick")
    for _ in range(2):
        assert (await anext(events)).action == "start"
    await events.aclose()
    assert (await engine.containers.inspect("sick")).restart_count == 1
    await engine.containers.remove("sick", force=True)


async def test_a_closed_engine_is_found_again(world: World) -> None:
    async with await world.open() as first:
        await import_busybox(first)
        await first.containers.create(request(["sh", "-c", "echo one; sleep 100"]), "stays")
        await first.containers.start("stays")
    async with await world.open() as second:
        shown = await second.containers.inspect("stays")
        assert shown.state is not None
        assert shown.state.running
        assert await logs(second, "stays") == "one\n"
        await second.containers.remove("stays", force=True)


async def test_a_first_process_that_is_gone_before_anybody_looks(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Launcher.create

    def slow(launcher: Launcher, wanted: CreateRequest, making: Making | None = None) -> Monitor:
        monitor = create(launcher, wanted, making)
        end = time.monotonic() + 10
        while os.path.exists(f"/proc/{monitor.pid}") and time.monotonic() < end:
            time.sleep(0.01)
        return monitor

    monkeypatch.setattr(Launcher, "create", slow)
    made = await engine.containers.create(request(["/etc/passwd"]))
    assert made.id
    with pytest.raises(CommandNotExecutable, match="permission denied"):
        await engine.containers.start(made.id)
    state = (await engine.containers.inspect(made.id)).state
    assert state is not None
    assert (state.status, state.exit_code) == ("created", 126)
    await engine.containers.remove(made.id)


async def test_a_call_that_fails_in_the_middle_of_a_start(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, flags: int = 0) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    made = await engine.containers.create(request(["true"]))
    assert made.id
    with monkeypatch.context() as patched:
        patched.setattr(os, "pidfd_open", refuse)
        with pytest.raises(StartFailed, match="Too many open files"):
            await engine.containers.start(made.id)
    await engine.containers.start(made.id)
    assert (await (await engine.containers.wait(made.id))).status_code == 0
