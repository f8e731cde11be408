"""The network of a container is plugged while that is made, or made up for, or taken back."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from sampan.engine.engine import Engine
from sampan.errors import StartFailed
from sampan.runtime.channel import Message
from sampan.runtime.client import Making
from sampan.wire.container import HostConfig
from tests.engines import request, run

LINKS = ["sh", "-c", "ip -o link | grep -c eth; ip -o -4 addr show eth0 | wc -l"]


def ports() -> list[str]:
    """The ends of containers' links on the host."""
    text = subprocess.run(["ip", "-o", "link", "show", "type", "veth"], capture_output=True).stdout
    return text.decode().splitlines()


def elsewhere() -> subprocess.Popen[bytes]:
    """A process in another network namespace."""
    return subprocess.Popen(["unshare", "-n", "sleep", "1000"])


def links_of(pid: int) -> bytes:
    inside = ["nsenter", "-t", str(pid), "-n", "ip", "-o", "link"]
    return subprocess.run(inside, capture_output=True, check=True).stdout


def gone() -> int:
    """The pid of nobody."""
    with subprocess.Popen(["true"]) as process:
        return process.pid


class Spy:
    """What is done meanwhile; ``pid`` puts another process in the place of the one that waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pid: int = 0, fails: bool = False) -> None:
        self.asked: list[int] = []
        self.seen: list[int] = []
        submit = Making.submit

        def spied(
            making: Making,
            plan: Message,
            blob: bytes,
            meanwhile: Callable[[int], None] | None,
        ) -> Message:
            def watched(waiting: int) -> None:
                self.asked.append(waiting)
                assert meanwhile is not None
                meanwhile(pid or waiting)
                self.seen.append(len(ports()))
                if fails:
                    raise StartFailed("a mistake")

            return submit(making, plan, blob, watched if meanwhile else None)

        monkeypatch.setattr(Making, "submit", spied)


async def test_it_is_plugged_while_the_container_is_made(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(ports())
    spy = Spy(monkeypatch)
    done = await run(engine, *LINKS)
    assert done.output.split() == ["1", "1"]
    assert len(spy.asked) == 1
    assert spy.seen == [before + 1]
    assert len(ports()) == before


async def test_another_namespace_is_plugged_anew(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ports()
    with elsewhere() as other:
        try:
            spy = Spy(monkeypatch, pid=other.pid)
            done = await run(engine, *LINKS)
            left = links_of(other.pid)
        finally:
            other.kill()
    assert done.output.split() == ["1", "1"]
    assert len(spy.seen) == 1
    assert b"eth0" not in left
    assert ports() == before


async def test_one_that_has_gone_is_nobody(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    Spy(monkeypatch, pid=gone())
    assert (await run(engine, *LINKS)).output.split() == ["1", "1"]


async def test_the_hosts_network_is_left_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    assert (await run(engine, "true", host=HostConfig(network_mode="host"))).code == 0
    assert spy.asked == []


async def test_what_was_plugged_is_taken_back(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ports()
    made = await engine.containers.create(request(["sleep", "1000"]), "failing")
    assert made.id
    with monkeypatch.context() as patch:
        spy = Spy(patch, fails=True)
        with pytest.raises(StartFailed, match="a mistake"):
            await engine.containers.start("failing")
        assert spy.seen == [len(before) + 1]
    assert ports() == before
    state = (await engine.containers.inspect("failing")).state
    assert state is not None
    assert (state.status, state.pid) == ("created", 0)
    await engine.containers.start("failing")
    await engine.containers.remove("failing", force=True)
    assert ports() == before
