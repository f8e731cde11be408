"""Real cgroups: whatever layout this host has, below a parent of our own.

In the virtual machine of tools/vm the same tests run on a pure cgroup v2 host.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.errors import Unsupported
from sampan.kernel import cgroup, process
from sampan.kernel.cgroup import device_filter
from sampan.kernel.cgroup.devices import DEFAULT_DEVICES, policy
from sampan.model.oci import Resources

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

DENY: Resources = {"devices": [{"allow": False, "access": "rwm"}]}
FULL = os.makedev(1, 7)


@pytest.fixture(scope="module")
def layout() -> cgroup.Layout:
    return cgroup.probe()


@pytest.fixture
def path(layout: cgroup.Layout) -> Iterator[str]:
    """The path of a cgroup that does not exist yet, removed afterwards with its parent."""
    parent = f"/sampan-test-{os.getpid()}"
    try:
        yield f"{parent}/box"
    finally:
        cgroup.kill(layout, parent)
        cgroup.remove(layout, parent)


@contextlib.contextmanager
def member(layout: cgroup.Layout, path: str, body: Callable[[], None]) -> Iterator[int]:
    """A child in the cgroup that runs ``body`` and then waits to be killed."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(ready)
            cgroup.join_self(layout, path)
            os.write(tell, b"x")
            body()
            os.write(tell, b"y")
            signal.pause()
        finally:
            os._exit(code)
    os.close(tell)
    try:
        assert os.read(ready, 1) == b"x"
        yield pid
    finally:
        os.close(ready)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def in_child(layout: cgroup.Layout, path: str, body: Callable[[], int]) -> int:
    """Exit status of ``body`` run in the cgroup: its value, or -signal."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            cgroup.join_self(layout, path)
            code = body()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_life_of_a_cgroup(layout: cgroup.Layout, path: str) -> None:
    resources: Resources = {
        "memory": {"limit": 64 << 20, "swap": 64 << 20},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 20},
        **DENY,
    }
    made = cgroup.create(cgroup.plan(layout, path, resources))
    assert all(os.path.isdir(directory) for directory in made)
    with member(layout, path, lambda: None) as pid:
        assert cgroup.procs(layout, path) == [pid]
        own = Path(f"/proc/{pid}/cgroup").read_text()
        for hierarchy in layout.owning:
            for controller in hierarchy.controllers if not hierarchy.unified else [""]:
                assert cgroup.own_path(own, controller) == path
        reading = cgroup.stats(layout, path)
        assert reading.pids.current == 1
        assert reading.pids.limit == 20
        assert reading.memory.limit == 64 << 20
        assert reading.memory.usage > 0
        assert reading.cpu.total > 0
        cgroup.freeze(layout, path)
        assert cgroup.frozen(layout, path)
        cgroup.thaw(layout, path)
        assert not cgroup.frozen(layout, path)
        for limit in (256 << 20, 32 << 20):
            update: Resources = {"memory": {"limit": limit, "swap": limit}}
            cgroup.apply(cgroup.plan_update(layout, path, update))
            assert cgroup.stats(layout, path).memory.limit == limit
        with pytest.raises(OSError, match="box") as caught:
            cgroup.remove(layout, path, timeout=0.05)
        assert caught.value.errno == errno.EBUSY
        # The child is ours to reap, so its zombie must not count as a member.
        cgroup.kill(layout, path)
        cgroup.remove(layout, path)
    assert not any(os.path.exists(directory) for directory in layout.directories(path))
    cgroup.kill(layout, path)
    cgroup.remove(layout, path)


def test_only_an_empty_one_is_taken_along(layout: cgroup.Layout, path: str) -> None:
    parent = os.path.dirname(path)
    cgroup.create(cgroup.plan(layout, path, {}))
    cgroup.remove_empty(layout, parent)
    assert all(map(os.path.isdir, layout.directories(path)))
    cgroup.remove(layout, path)
    cgroup.remove_empty(layout, parent)
    assert not any(map(os.path.exists, layout.directories(parent)))
    cgroup.remove_empty(layout, parent)  # there is none: fine


def test_failed_creation_leaves_nothing(layout: cgroup.Layout, path: str) -> None:
    resources: Resources = {"cpu": {"cpus": "4000-5000"}}
    with pytest.raises(OSError, match=r"cpuset\.cpus"):
        cgroup.create(cgroup.plan(layout, path, resources))
    for directory in layout.directories(path):
        assert not os.path.exists(os.path.dirname(directory))


def test_missing_controller_file_is_named(layout: cgroup.Layout, path: str) -> None:
    resources: Resources = {"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}
    with pytest.raises(Unsupported, match="hugepageLimits"):
        cgroup.create(cgroup.plan(layout, path, resources))


def test_kill_reaches_frozen_and_nested_processes(layout: cgroup.Layout, path: str) -> None:
    cgroup.create(cgroup.plan(layout, path, {}))
    if layout.mode == "v2":
        # Without delegating controllers, which a cgroup that holds processes may not do.
        os.makedirs(f"{layout.directories(path)[0]}/deep/er")
    else:
        cgroup.create(cgroup.plan(layout, f"{path}/deep/er", {}))
    with (
        member(layout, path, lambda: None) as first,
        member(layout, f"{path}/deep/er", lambda: None) as second,
    ):
        assert cgroup.procs(layout, path) == sorted([first, second])
        cgroup.freeze(layout, path)
        cgroup.kill(layout, path)
        assert cgroup.procs(layout, path) == []
        cgroup.remove(layout, path)
    assert not any(os.path.exists(directory) for directory in layout.directories(path))


def test_kill_of_a_cgroup_that_goes_meanwhile(
    layout: cgroup.Layout, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As systemd takes an empty scope away between the opening of a file and its use."""
    cgroup.create(cgroup.plan(layout, path, {}))

    def late(file: str, value: str | None = None) -> str:
        if file.endswith("/pids.max"):
            return ""
        fd = os.open(file, os.O_RDONLY if value is None else os.O_WRONLY)
        try:
            cgroup.remove(layout, path)
            return str(os.read(fd, 100) if value is None else os.write(fd, value.encode()))
        finally:
            os.close(fd)

    monkeypatch.setattr("sampan.kernel.cgroup.members.read", late)
    monkeypatch.setattr("sampan.kernel.cgroup.members.write", late)
    cgroup.kill(layout, path)
    monkeypatch.undo()
    assert not any(Path(directory).exists() for directory in layout.directories(path))


def test_device_rules(layout: cgroup.Layout, path: str, tmp_path: Path) -> None:
    """/dev/full by default; a node of another device can be made but not opened."""

    def opens() -> int:
        node = tmp_path / "loop-control"
        os.mknod(node, 0o20600, os.makedev(10, 237))
        os.mknod(tmp_path / "full", 0o20600, FULL)
        os.close(os.open(tmp_path / "full", os.O_RDONLY))
        try:
            os.close(os.open(node, os.O_RDONLY))
        except PermissionError:
            return 0
        return 1

    cgroup.create(cgroup.plan(layout, path, DENY))
    assert in_child(layout, path, opens) == 0


def test_device_filter_on_the_unified_tree(layout: cgroup.Layout, tmp_path: Path) -> None:
    """The eBPF filter works on hybrid hosts too; attached twice it is there once."""
    if layout.unified is None:
        pytest.skip("no cgroup2 mount")
    path = f"/sampan-test-{os.getpid()}"
    directory = layout.unified.directory(path)
    program = device_filter.compile_policy(policy(DEFAULT_DEVICES))
    with contextlib.ExitStack() as stack:
        os.mkdir(directory)
        stack.callback(cgroup.remove, layout, path)
        stack.callback(cgroup.kill, layout, path)
        device_filter.attach(directory, program)
        device_filter.attach(directory, program)
        group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, group)
        assert len(device_filter.bpf.query(group, device_filter.bpf.CGROUP_DEVICE)) == 1
        pid, pidfd = process.clone3(0, cgroup=group)
        if pid == 0:
            code = 1
            try:
                assert cgroup.own_path(Path("/proc/self/cgroup").read_text()) == path
                os.mknod(tmp_path / "mem", 0o20600, os.makedev(1, 1))
                os.close(os.open("/dev/null", os.O_RDWR))
                try:
                    os.open(tmp_path / "mem", os.O_RDONLY)
                except PermissionError:
                    code = 0
            finally:
                os._exit(code)
        stack.callback(os.close, pidfd)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_pids_limit_stops_a_fork_bomb(layout: cgroup.Layout, path: str) -> None:
    def bomb() -> int:
        for _ in range(10):
            try:
                if os.fork() == 0:
                    signal.pause()
            except BlockingIOError:
                return 7
        return 0

    cgroup.create(cgroup.plan(layout, path, {"pids": {"limit": 4}}))
    assert in_child(layout, path, bomb) == 7
    cgroup.kill(layout, path)
    assert cgroup.procs(layout, path) == []


def test_oom_kill_is_noticed(layout: cgroup.Layout, path: str) -> None:
    def eat() -> int:
        held = [bytearray(1 << 20) for _ in range(256)]
        return len(held) & 1

    resources: Resources = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    cgroup.create(cgroup.plan(layout, path, resources))
    with cgroup.OomWatch(layout, path) as watch:
        poller = select.poll()
        poller.register(watch, select.POLLIN)
        assert in_child(layout, path, eat) == -signal.SIGKILL
        assert poller.poll(10_000)
        assert watch.consume() == 1
    assert cgroup.oom_kills(layout, path) == 1
    assert cgroup.stats(layout, path).memory.oom_kills == 1


def test_pressure_can_be_watched(layout: cgroup.Layout, path: str) -> None:
    cgroup.create(cgroup.plan(layout, path, {}))
    fd, event = cgroup.watch_memory_pressure(layout, path, "critical")
    poller = select.poll()
    poller.register(fd, event)
    assert poller.poll(0) == []
    os.close(fd)
    with pytest.raises(ValueError, match="unknown memory pressure level"):
        cgroup.watch_memory_pressure(layout, path, "some")
