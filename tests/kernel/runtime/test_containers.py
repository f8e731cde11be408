"""Launcher, monitor and init in real namespaces: what a program finds, what a kill leaves."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sampan.errors import (
    CommandNotExecutable,
    CommandNotFound,
    SampanError,
    StartFailed,
    Unsupported,
)
from sampan.model import oci
from sampan.model.mount import Mount
from sampan.runtime.client import Launcher, Monitor, events, read_exit, recover
from sampan.runtime.recovery import read_live
from sampan.runtime.requests import CreateRequest, ExecRequest, ExitRecord

BUSYBOX = Path("/bin/busybox")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs static busybox"),
]

CGROUPS = f"/sampan-test-{os.getpid()}-runtime"


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for something another process does; a bound, not a measurement."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def cgroups_of(name: str) -> list[Path]:
    return [path for path in Path("/sys/fs/cgroup").glob(f"*{CGROUPS}/{name}") if path.is_dir()]


@dataclass
class World:
    launcher: Launcher
    exec_root: Path
    root: Path
    count: int = 0

    def request(self, *args: str, **changes: object) -> CreateRequest:
        self.count += 1
        name = f"c{self.count}"
        spec: oci.Spec = {
            "ociVersion": "1.2.0",
            "process": {
                "args": list(args),
                "env": ["PATH=/bin"],
                "cwd": "/",
                "user": {"uid": 0, "gid": 0},
                "noNewPrivileges": True,
            },
            "root": {"path": "", "readonly": False},
            "hostname": "box",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": []},
                {
                    "destination": "/dev",
                    "type": "tmpfs",
                    "source": "tmpfs",
                    "options": ["nosuid", "mode=755"],
                },
            ],
            "linux": {
                "cgroupsPath": f"{CGROUPS}/{name}",
                "namespaces": [
                    {"type": kind} for kind in ("mount", "pid", "uts", "ipc", "network")
                ],
            },
        }
        request = CreateRequest(
            container_id=name,
            spec=spec,
            rootfs=(Mount(type="bind", source=str(self.root), options=("rbind",)),),
            directory=self.exec_root / "containers" / name,
        )
        return replace(request, **changes)  # type: ignore[arg-type]

    def run(self, *args: str) -> tuple[bytes, ExitRecord]:
        """Output (both streams, unframed) and end of a program."""
        request = self.request(*args)
        monitor = self.launcher.create(request)
        with monitor.attach(stdin=False, stdout=True, stderr=True) as stream:
            watch = monitor.watch()
            monitor.start()
            output = unframed(stream)
        monitor.close()
        with watch:
            assert [event["event"] for event in events(watch)][-1] == "exit"
        record = read_exit(request.directory)
        assert record is not None
        return output, record


def unframed(stream: socket.socket) -> bytes:
    """All output of an attached stream, frames taken off."""
    data = b""
    while chunk := stream.recv(65536):
        data += chunk
    out = b""
    while data:
        length = int.from_bytes(data[4:8], "big")
        out += data[8 : 8 + length]
        data = data[8 + length :]
    return out


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    base = tmp_path_factory.mktemp("runtime")
    root = base / "root"
    for name in ("bin", "proc", "dev", "etc"):
        (root / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin" / "busybox")
    for name in ("sh", "ls", "cat", "sleep", "true", "seq", "hostname"):
        (root / "bin" / name).symlink_to("busybox")
    (root / "bin" / "text").write_text("not a program\n")
    exec_root = base / "exec"
    (exec_root / "containers").mkdir(parents=True)
    usual = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usual)})
    try:
        launcher = Launcher.spawn(exec_root)
    finally:
        os.sched_setaffinity(0, usual)
    yield World(launcher, exec_root, root)
    launcher.close(stop=True)
    for hierarchy in Path("/sys/fs/cgroup").glob(f"*{CGROUPS}"):
        with contextlib.suppress(OSError):
            hierarchy.rmdir()


def test_output_status_and_nothing_left(world: World) -> None:
    output, record = world.run("/bin/sh", "-c", "echo out; echo err >&2; hostname; exit 7")
    assert sorted(output.split()) == [b"box", b"err", b"out"]
    assert (record.code, record.signal) == (7, 0)
    assert cgroups_of(f"c{world.count}") == []
    assert (world.exec_root / "containers" / f"c{world.count}" / "monitor.sock").exists() is False


def test_every_byte_before_the_program_runs_is_seen(world: World) -> None:
    output, _ = world.run("/bin/seq", "1", "20000")
    assert output == b"".join(b"%d\n" % number for number in range(1, 20001))


def test_it_runs_on_all_processors(world: World) -> None:
    """Although whoever started the launcher was on one."""
    output, _ = world.run("/bin/sh", "-c", "cat /proc/self/status")
    allowed = f"0-{last}" if (last := (os.cpu_count() or 1) - 1) else "0"
    assert f"Cpus_allowed_list:\t{allowed}\n" in output.decode()


def test_a_program_has_three_descriptors(world: World) -> None:
    output, _ = world.run("/bin/ls", "/proc/self/fd")
    assert output.split() == [b"0", b"1", b"2", b"3"]  # the fourth is ls reading the directory


def test_an_exec_has_three_descriptors(world: World) -> None:
    request = world.request("/bin/sleep", "1000")
    monitor = world.launcher.create(request)
    monitor.start()
    stream, pid = monitor.exec(
        ExecRequest(
            exec_id="e",
            process={"args": ["/bin/ls", "/proc/self/fd"], "cwd": "/", "env": ["PATH=/bin"]},
        )
    )
    assert stream is not None
    assert pid > 0
    with stream:
        assert unframed(stream).split() == [b"0", b"1", b"2", b"3"]
    end(monitor, request)


def end(monitor: Monitor, request: CreateRequest) -> None:
    watch = monitor.watch()
    monitor.signal(signal.SIGKILL)
    with watch:
        assert list(events(watch))[-1]["event"] == "exit"
    monitor.close()


@pytest.mark.parametrize(
    ("args", "error", "code"),
    [
        (("nothing",), CommandNotFound, 127),
        (("/bin/text",), CommandNotExecutable, 126),
        (("/bin",), CommandNotExecutable, 126),
    ],
)
def test_what_cannot_run_leaves_nothing(
    world: World, args: tuple[str, ...], error: type[SampanError], code: int
) -> None:
    request = world.request(*args)
    monitor = world.launcher.create(request)
    with pytest.raises(error) as raised:
        monitor.start()
    monitor.close()
    assert raised.value.exit_code == code
    eventually(lambda: not cgroups_of(request.container_id), "cgroups are left")


def test_a_mount_that_fails_is_named(world: World) -> None:
    request = world.request("/bin/true")
    request.spec["mounts"] = [
        {"destination": "/x", "type": "bind", "source": "/no/such/place", "options": ["rbind"]}
    ]
    with (
        pytest.raises(StartFailed, match="/no/such/place"),
        contextlib.closing(world.launcher.create(request)) as monitor,
    ):
        monitor.start()
    eventually(lambda: not cgroups_of(request.container_id), "cgroups are left")


def test_a_killed_monitor_ends_its_container(world: World) -> None:
    request = world.request("/bin/sh", "-c", "sleep 1000 & wait")
    monitor = world.launcher.create(request)
    monitor.start()
    live = read_live(request.directory)
    assert live is not None
    pidfd = os.pidfd_open(monitor.pid)
    os.kill(live.monitor_pid, signal.SIGKILL)
    eventually(lambda: gone(pidfd), "the container outlives its monitor")
    os.close(pidfd)
    monitor.close()
    record = recover(request.directory)
    assert record is not None
    assert record.code == 137
    assert read_exit(request.directory) == record
    assert cgroups_of(request.container_id) == []


def gone(pidfd: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return True
    return False


def launcher_pid(world: World) -> int:
    """The process that listens on the launcher's socket."""
    connection = socket.socket(socket.AF_UNIX)
    with connection:
        directory = os.open(world.exec_root, os.O_PATH)
        connection.connect(f"/proc/self/fd/{directory}/launcher.sock")
        os.close(directory)
        option = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(option[:4], "little")


def test_a_killed_launcher_hurts_nobody(world: World) -> None:
    request = world.request("/bin/sleep", "1000")
    monitor = world.launcher.create(request)
    monitor.start()
    os.kill(launcher_pid(world), signal.SIGKILL)
    _, record = world.run("/bin/true")
    assert record.code == 0
    again = Monitor.connect(request.directory)
    assert again.pid == monitor.pid
    again.close()
    end(monitor, request)


def test_the_interpreter_is_a_sealed_copy(world: World) -> None:
    request = world.request("/bin/sleep", "1000")
    monitor = world.launcher.create(request)
    monitor.start()
    live = read_live(request.directory)
    assert live is not None
    names = {Path(f"/proc/{pid}/comm").read_text() for pid in (live.monitor_pid,)}
    assert names == {"sampan-monitor\n"}
    for pid in (live.monitor_pid, launcher_pid(world)):
        assert "memfd:" in os.readlink(f"/proc/{pid}/exe")
        fd = os.open(f"/proc/{pid}/exe", os.O_RDONLY)
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        os.close(fd)
        assert seals & fcntl.F_SEAL_WRITE
        with pytest.raises(OSError, match=r"Text file busy|Operation not permitted"):
            os.open(f"/proc/{pid}/exe", os.O_WRONLY)
    end(monitor, request)


def test_hooks_nobody_would_run_are_refused(world: World) -> None:
    request = world.request("/bin/true")
    request.spec["hooks"] = {"poststop": [{"path": "/bin/true"}]}
    with pytest.raises(Unsupported, match=r"hooks\.poststop"):
        world.launcher.create(request)
    assert not request.directory.exists()
