"""A mistake of ours about one exec ends that exec: its container and the other execs go on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import StartFailed
from sampan.runtime.client import Launcher, events
from sampan.runtime.requests import ExecRequest
from tests.kernel.runtime.test_containers import BUSYBOX, World, end, eventually, unframed, world
from tests.security.runtime.mutants import Cut, copy_code

__all__ = ["world"]
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs static busybox"),
]

#: where it happens -> a line of the runtime and what it becomes; each is about the exec "bad".
_RAISE = 'if {name} == "bad":\n{indent}    raise KeyError("a mistake")\n{indent}'
BEFORE_IT_RUNS = {
    "before it is made": ("exec_tasks", 'attach = {key: message[key] for key in ("stdin",', "name"),
    "once it is cloned": ("exec_tasks", "return Task(loop, self, child,", "name"),
    "while it is given what it needs": (
        "exec_tasks",
        "spawn.provision(task.child, plan,",
        "task.name",
    ),
    "when it tells that it executes": ("task", "self._executing = True\n", "self.name"),
    "when its program runs": ("exec_tasks", "answer = {", "task.name"),
}
LATER = {
    "when it has ended": ("task", "status = self._reap(self.child.pid)", "self.name"),
    "when it was reaped": ("task", "code = os.waitstatus_to_exitcode(status)", "self.name"),
    "when its output is complete": ("exec_tasks", "if task.streams.ended:\n", "task.name"),
}


def spoiled(directory: Path, place: tuple[str, str, str]) -> Path:
    module, line, name = place
    file = f"runtime/{module}.py"
    original = (Path(__file__).parents[3] / "src/sampan" / file).read_text()
    before = original.partition(line)[0]
    indent = before[before.rindex("\n") + 1 :]
    cut = Cut(file, line, _RAISE.format(name=name, indent=indent) + line)
    return copy_code(directory, cut)


@pytest.fixture
def spoil(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[World]:
    """A world whose runtime makes the mistake of the test's parameter."""
    tree = spoiled(tmp_path, request.param)
    monkeypatch.setattr("sampan.runtime.version.source_root", lambda: str(tree))
    exec_root = tmp_path / "exec"
    (exec_root / "containers").mkdir(parents=True)
    launcher = Launcher.spawn(exec_root)
    yield World(launcher, exec_root, world.root, count=1000)
    launcher.close(stop=True)


def one_more(name: str, *args: str) -> ExecRequest:
    return ExecRequest(exec_id=name, process={"args": list(args), "cwd": "/", "env": ["PATH=/bin"]})


def is_alone(container: int) -> bool:
    """Whether the container's first process is the only one of its pid namespace."""
    namespace = os.readlink(f"/proc/{container}/ns/pid")
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdecimal() and os.readlink(f"/proc/{entry}/ns/pid") == namespace:
                found.append(entry)
        except OSError:
            continue
    return found == [str(container)]


@pytest.mark.parametrize("spoil", BEFORE_IT_RUNS.values(), ids=list(BEFORE_IT_RUNS), indirect=True)
def test_it_fails_with_a_message(spoil: World) -> None:
    request = spoil.request("/bin/sleep", "1000")
    monitor = spoil.launcher.create(request)
    monitor.start()
    with pytest.raises(StartFailed, match="KeyError: 'a mistake'"):
        monitor.exec(one_more("bad", "/bin/sleep", "1000"))
    eventually(lambda: is_alone(monitor.pid), "the exec that failed is left")
    stream, _ = monitor.exec(one_more("good", "/bin/hostname"))
    assert stream is not None
    with stream:
        assert unframed(stream).split() == [b"box"]
    end(monitor, request)


@pytest.mark.parametrize("spoil", LATER.values(), ids=list(LATER), indirect=True)
def test_its_end_is_told(spoil: World) -> None:
    request = spoil.request("/bin/sleep", "1000")
    monitor = spoil.launcher.create(request)
    monitor.start()
    with monitor.watch() as watch:
        stream, _ = monitor.exec(one_more("bad", "/bin/true"))
        assert stream is not None
        with stream:
            assert unframed(stream) == b""
        told = next(event for event in events(watch) if event["event"] != "state")
    assert (told["event"], told["exec_id"]) == ("exec-exit", "bad")
    stream, _ = monitor.exec(one_more("good", "/bin/hostname"))
    assert stream is not None
    with stream:
        assert unframed(stream).split() == [b"box"]
    end(monitor, request)
