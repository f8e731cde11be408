"""Execs whose program is spawned by who waited for them: in everything like those forked."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import CommandNotFound
from sampan.kernel import cgroup
from sampan.model import oci
from sampan.runtime.client import Launcher, Monitor
from sampan.runtime.requests import CreateRequest, ExecRequest
from sampan.runtime.seccomp_profile import load_default, resolve
from tests.kernel.runtime.test_containers import (
    BUSYBOX,
    World,
    end,
    eventually,
    unframed,
    world,
)
from tests.security.runtime.mutants import Cut, copy_code

__all__ = ["world"]
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs static busybox"),
    pytest.mark.skipif(cgroup.probe().mode == "v2", reason="who waits cannot be born in a cgroup"),
]

#: What a process can find out about itself, but for its number.
ASK = (
    "cd /proc/self; cat status | grep -E '^(Name|Umask|Uid|Gid|Groups|Cap|NoNew|Seccomp:|Sig|Shd"
    "|NSsid|NStgid)'; cat limits oom_score_adj cgroup; readlink cwd root ns/*"
    "; ls fd; env; echo $PPID"
)
CAPABILITIES = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"]
#: Docker's
FILTER = resolve(
    load_default(), capabilities=CAPABILITIES, kernel=(5, 10), machine=os.uname().machine
)


class Box:
    """A container that sleeps, and execs in it."""

    def __init__(self, world: World, request: CreateRequest) -> None:
        self.request = request
        self.monitor: Monitor = world.launcher.create(request)
        self.monitor.start()
        self._watch = self.monitor.watch()
        self._lines = self._watch.makefile("rb")
        self._count = 0

    def exec(self, *args: str, **changes: object) -> tuple[bytes, int]:
        """Output and exit code."""
        self._count += 1
        name = f"e{self._count}"
        process: oci.Process = {"args": list(args), "cwd": "/", "env": ["PATH=/bin"]}
        process |= changes.pop("process", {})  # type: ignore[typeddict-item]
        request = ExecRequest(exec_id=name, process=process, **changes)  # type: ignore[arg-type]
        stream, pid = self.monitor.exec(request)
        assert pid > 0
        assert stream is not None
        with stream:
            output = unframed(stream)
        heard = (json.loads(line) for line in self._lines)
        ends = (event for event in heard if event["event"] == "exec-exit")
        return output, next(int(event["code"]) for event in ends if event["exec_id"] == name)

    def waiting(self) -> list[int]:
        """Who waits for this container's next exec."""
        found = []
        for entry in filter(str.isdecimal, os.listdir("/proc")):
            try:
                parts = Path(f"/proc/{entry}/stat").read_text().rpartition(")")
                name = Path(f"/proc/{entry}/comm").read_text().strip()
                if name == "sampan-exec" and monitor_of(int(parts[2].split()[1])) == self._monitor:
                    found.append(int(entry))
            except OSError:
                continue
        return found

    @property
    def _monitor(self) -> int:
        return int(json.loads((self.request.directory / "init.json").read_text())["monitor_pid"])

    def prepare(self) -> int:
        """Ask twice, so that somebody waits; their pid."""
        for _ in range(2):
            assert self.exec("/bin/true") == (b"", 0)
        eventually(lambda: bool(self.waiting()), "nobody waits")
        return self.waiting()[0]

    def end(self) -> None:
        self._lines.close()
        self._watch.close()
        end(self.monitor, self.request)


def monitor_of(worker: int) -> int:
    return int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])


def sleeping(world: World, **linux: object) -> CreateRequest:
    request = world.request("/bin/sleep", "1000")
    request.spec["linux"] |= linux  # type: ignore[typeddict-item]
    names = {"bounding": CAPABILITIES, "permitted": CAPABILITIES, "effective": CAPABILITIES}
    request.spec["process"]["capabilities"] = names  # type: ignore[typeddict-item]
    return request


@pytest.fixture
def box(world: World) -> Iterator[Box]:
    made = Box(world, sleeping(world))
    yield made
    made.end()


def told(result: tuple[bytes, int]) -> dict[str, str]:
    """What the shell found out, by line; its own number leads its session."""
    assert result[1] == 0
    lines = dict.fromkeys(result[0].decode().splitlines(), "")
    names = {line.partition(":")[0]: line.partition(":")[2] for line in lines}
    assert names["NStgid"] == names["NSsid"]
    # posix_spawn(3) has the two signals ignored that the C library keeps for threads it makes.
    names["SigIgn"] = hex(int(names["SigIgn"], 16) & ~0x180000000)
    return {name: value for name, value in names.items() if name not in ("NStgid", "NSsid", "SigQ")}


PROCESSES: dict[str, dict[str, object]] = {
    "as it comes": {},
    "a user": {"user": {"uid": 1000, "gid": 1001, "additionalGids": [7, 8], "umask": 0o77}},
    "rights": {"capabilities": {"bounding": CAPABILITIES, "permitted": ["CAP_KILL"]}},
    "no new ones": {"noNewPrivileges": True},
    "limits": {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}]},
    "a score": {"oomScoreAdj": 500},
    "a place": {"cwd": "/etc", "env": ["PATH=/bin", "A=1", "B=two words"]},
}


@pytest.mark.parametrize("profile", [False, True], ids=["free", "filtered"])
@pytest.mark.parametrize("process", PROCESSES.values(), ids=list(PROCESSES))
def test_it_is_as_if_it_were_forked(
    world: World, process: dict[str, object], profile: bool
) -> None:
    linux: dict[str, object] = {}
    if profile:
        linux["seccomp"] = FILTER
    box = Box(world, sleeping(world, **linux))
    try:
        forked = box.exec("/bin/sh", "-c", ASK, process=process)
        waiting = box.prepare()
        spawned = box.exec("/bin/sh", "-c", ASK, process=process)
        assert not Path(f"/proc/{waiting}").exists()
        assert told(spawned) == told(forked)
    finally:
        box.end()


def test_in_a_user_namespace(world: World) -> None:
    """Its root is nobody's outside; who stands in gives up the host's rights by joining it."""
    kinds = ("mount", "pid", "uts", "ipc", "network", "user")
    ids = [{"containerID": 0, "hostID": 200_000, "size": 65_536}]
    names = [{"type": kind} for kind in kinds]
    box = Box(world, sleeping(world, namespaces=names, uidMappings=ids, gidMappings=ids))
    process: dict[str, object] = {"user": {"uid": 7, "gid": 8}}
    try:
        forked = box.exec("/bin/sh", "-c", ASK, process=process)
        waiting = box.prepare()
        spawned = box.exec("/bin/sh", "-c", ASK, process=process)
        assert not Path(f"/proc/{waiting}").exists()
        assert told(spawned) == told(forked)
        assert told(spawned)["Uid"].split() == ["7"] * 4
        sleeper: oci.Process = {"args": ["/bin/sleep", "1000"], "cwd": "/", "env": ["PATH=/bin"]}
        box.prepare()
        stream, pid = box.monitor.exec(ExecRequest(exec_id="sleeper", process=sleeper))
        assert stream is not None
        stream.close()
        assert Path(f"/proc/{pid}").stat().st_uid == 200_000
    finally:
        box.end()


def test_its_end_is_its_own(world: World, box: Box) -> None:
    """Exit codes, signals, a program that cannot be executed, one that is missing."""
    (world.root / "bin" / "junk").write_text("not a program\n")
    (world.root / "bin" / "junk").chmod(0o755)
    for _ in range(3):
        box.prepare()
        assert box.exec("/bin/sh", "-c", "echo out; exit 7") == (b"out\n", 7)
        box.prepare()
        assert box.exec("/bin/sh", "-c", "kill -9 $$") == (b"", 128 + signal.SIGKILL)
        box.prepare()
        output, code = box.exec("/bin/junk")
        assert (output, code) == (b"exec /bin/junk: exec format error\n", 255)
    box.prepare()
    with pytest.raises(CommandNotFound, match="/bin/missing"):
        box.exec("/bin/missing")
    assert box.exec("/bin/hostname") == (b"box\n", 0)


def test_its_streams_and_signals(box: Box) -> None:
    waiting = box.prepare()
    process: oci.Process = {"args": ["/bin/cat"], "cwd": "/", "env": ["PATH=/bin"]}
    stream, pid = box.monitor.exec(ExecRequest(exec_id="cat", process=process, stdin=True))
    assert stream is not None
    eventually(lambda: not Path(f"/proc/{waiting}").exists(), "who stood in is left")
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Name:\tcat\n" in status
    with stream:
        stream.sendall(b"one\n")
        assert stream.recv(100).endswith(b"one\n")
        box.monitor.signal(signal.SIGTERM, exec_id="cat")
        assert stream.recv(100) == b""
    eventually(lambda: box.monitor.exec_exit("cat") == 128 + signal.SIGTERM, "no exit code")


def test_who_waits_goes_with_the_quiet(box: Box) -> None:
    waiting = box.prepare()
    eventually(lambda: not Path(f"/proc/{waiting}").exists(), "it waits for ever")
    assert box.exec("/bin/hostname") == (b"box\n", 0)


def test_who_waits_was_killed(box: Box) -> None:
    waiting = box.prepare()
    os.kill(waiting, signal.SIGKILL)
    stat = Path(f"/proc/{waiting}/stat")
    eventually(lambda: ") Z " in stat.read_text(), "it is not dead")
    assert box.exec("/bin/hostname") == (b"box\n", 0)


def test_a_full_container_can_still_be_looked_into(world: World) -> None:
    """Whoever joins a cgroup counts, and may be one too many; who spawns there is refused."""
    box = Box(world, sleeping(world, resources={"pids": {"limit": 2}}))
    try:
        box.prepare()
        process: oci.Process = {"args": ["/bin/sleep", "1000"], "cwd": "/", "env": ["PATH=/bin"]}
        stream, _ = box.monitor.exec(ExecRequest(exec_id="full", process=process))
        assert stream is not None
        assert box.exec("/bin/hostname") == (b"box\n", 0)
        stream.close()
    finally:
        box.end()


@pytest.fixture
def careless(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[World]:
    """A world whose runtime lacks a guard, if the test's parameter is one."""
    if request.param is None:
        yield world
        return
    tree = copy_code(tmp_path, request.param)
    monkeypatch.setattr("sampan.runtime.version.source_root", lambda: str(tree))
    exec_root = tmp_path / "exec"
    (exec_root / "containers").mkdir(parents=True)
    launcher = Launcher.spawn(exec_root)
    yield World(launcher, exec_root, world.root, count=2000)
    launcher.close(stop=True)


STANDIN = "runtime/standin.py"
ANYWHERE = Cut(STANDIN, "capabilities.bounding_of(", "0 & capabilities.bounding_of(")


@pytest.mark.parametrize("careless", [None, ANYWHERE], ids=["guarded", "careless"], indirect=True)
def test_nobody_waits_for_who_may_reach_into_it(
    careless: World, request: pytest.FixtureRequest
) -> None:
    """With CAP_SYS_PTRACE a container's process could, while the memory is shared."""
    wanted = sleeping(careless)
    names = wanted.spec["process"]["capabilities"]
    names["bounding"] = [*CAPABILITIES, "CAP_SYS_PTRACE"]
    box = Box(careless, wanted)
    try:
        for _ in range(3):
            assert box.exec("/bin/hostname") == (b"box\n", 0)
        unguarded = request.node.callspec.id == "careless"
        if unguarded:
            eventually(lambda: bool(box.waiting()), "nobody waits")
        else:
            assert not box.waiting()
    finally:
        box.end()


DENYING: oci.Seccomp = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["clone", "clone3", "vfork"], "action": "SCMP_ACT_ERRNO"}],
}


@pytest.mark.parametrize(
    "careless",
    [None, Cut(STANDIN, "    if seccomp is None:\n", "    if True:\n")],
    ids=["guarded", "careless"],
    indirect=True,
)
def test_a_filter_against_spawning(careless: World, request: pytest.FixtureRequest) -> None:
    box = Box(careless, sleeping(careless, seccomp=DENYING))
    try:
        codes = {box.exec("/bin/true")[1] for _ in range(6)}
        assert (codes == {0}) is (request.node.callspec.id == "guarded")
    finally:
        box.end()
