"""sampand as a systemd service with systemd's cgroup driver, driven by docker's command line.

The whole machine is this test's: it is the virtual machine of tools/vm.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sampan.kernel import cgroup

pytestmark = pytest.mark.skipif(
    "SAMPAN_VM" not in os.environ, reason="installs a service: for make test-vm alone"
)
SAMPAN = Path(sys.executable).parent / "sampan"
HOST = "unix:///run/sampan.sock"


def run(*words: str | Path, input: bytes | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*map(str, words)], input=input, capture_output=True, check=False)
    return subprocess.CompletedProcess(
        words, done.returncode, done.stdout.decode().strip(), done.stderr.decode().strip()
    )


def ok(*words: str | Path, input: bytes | None = None) -> str:
    done = run(*words, input=input)
    said = f"{done.stdout}\n{done.stderr}\n{journal()}" if done.returncode else ""
    assert done.returncode == 0, f"{' '.join(map(str, words))}: {done.returncode}\n{said}"
    return done.stdout


def image() -> bytes:
    """A root file system of static busybox (not tests.engines: its imports take a while here)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add("/bin/busybox", "bin/busybox")
        for name in ("sh", "sleep", "cat", "echo"):
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
    return out.getvalue()


def docker(*words: str, input: bytes | None = None) -> str:
    return ok("docker", "-H", HOST, *words, input=input)


def journal() -> str:
    return run("journalctl", "--no-pager", "-u", "sampan.service", "-n", "40").stdout


def show(unit: str, *properties: str) -> dict[str, str]:
    text = ok("systemctl", "show", unit, f"--property={','.join(properties)}")
    return dict(line.split("=", 1) for line in text.splitlines())


@pytest.fixture(scope="module")
def service() -> Iterator[None]:
    """Installed, and not running yet."""
    configuration = Path("/etc/sampan/daemon.json")
    configuration.parent.mkdir(exist_ok=True)
    configuration.write_text(json.dumps({"exec-opts": ["native.cgroupdriver=systemd"]}))
    assert "is enabled" in ok(SAMPAN, "system", "service", "install")
    yield
    ok("systemctl", "disable", "--now", "sampan.socket", "sampan.service")


@dataclass(frozen=True)
class Running:
    id: str
    pid: int

    @property
    def unit(self) -> str:
        return f"sampan-{self.id}.scope"

    @property
    def path(self) -> str:
        return f"/system.slice/{self.unit}"


@pytest.fixture(scope="module")
def container(service: None) -> Running:
    """A container with limits; importing its image is what starts the service."""
    status = run(SAMPAN, "system", "service", "status")
    assert status.returncode == 3, status
    assert "sampan.socket: active" in status.stdout
    assert "sampan.service: inactive" in status.stdout
    docker("import", "-", "busybox", input=image())
    assert "sampan.service: active" in ok(SAMPAN, "system", "service", "status")
    limits = ("--memory=64m", "--pids-limit=50", "--cpus=0.5", "--cpuset-cpus=0")
    docker("run", "-d", "--name=box", "--network=none", *limits, "busybox", "sleep", "10000")
    text = docker("inspect", "--format={{.Id}} {{.State.Pid}}", "box")
    return Running(text.split()[0], int(text.split()[1]))


def test_containers_are_scopes(container: Running) -> None:
    names = ("Slice", "ControlGroup", "MemoryMax", "TasksMax", "CPUQuotaPerSecUSec", "AllowedCPUs")
    assert show(container.unit, *names) == {
        "Slice": "system.slice",
        "ControlGroup": container.path,
        "MemoryMax": str(64 << 20),
        "TasksMax": "50",
        "CPUQuotaPerSecUSec": "500ms",
        "AllowedCPUs": "0",
    }
    assert docker("info", "--format={{.CgroupDriver}} {{.CgroupVersion}}") == "systemd 2"
    # A cgroup namespace of its own, as with dockerd on v2; exec is born in it too.
    seen = docker("exec", "box", "sh", "-c", "cd /sys/fs/cgroup; cat memory.max /proc/self/cgroup")
    assert seen.splitlines() == [str(64 << 20), "0::/"]
    docker("update", "--memory=32m", "--memory-swap=32m", "--pids-limit=40", "box")
    assert show(container.unit, "MemoryMax", "TasksMax") == {
        "MemoryMax": str(32 << 20),
        "TasksMax": "40",
    }
    reading = cgroup.stats(cgroup.probe(), container.path)
    assert (reading.memory.limit, reading.pids.limit) == (32 << 20, 40)
    usage = docker("stats", "--no-stream", "--format={{.MemUsage}} {{.PIDs}}", "box")
    assert usage.endswith("/ 32MiB 1"), usage
    docker("pause", "box")
    assert cgroup.frozen(cgroup.probe(), container.path)
    docker("unpause", "box")


def test_containers_survive_the_service(container: Running) -> None:
    """Restarted, stopped, started again by its socket; the container knows nothing of it."""
    before = show("sampan.service", "MainPID")
    ok("systemctl", "restart", "sampan.service")
    assert show("sampan.service", "MainPID") != before
    assert docker("inspect", "--format={{.State.Status}} {{.State.Pid}}", "box") == (
        f"running {container.pid}"
    )
    ok("systemctl", "stop", "sampan.service")
    assert cgroup.procs(cgroup.probe(), container.path) == [container.pid]
    assert docker("exec", "box", "echo", "alive") == "alive"
    docker("rm", "-f", "box")
    assert show(container.unit, "LoadState") == {"LoadState": "not-found"}
    assert not Path(f"/sys/fs/cgroup{container.path}").exists()


def test_out_of_memory_is_told(container: Running) -> None:
    eat = "x=12345678; while :; do x=$x$x; done"
    done = run(
        *("docker", "-H", HOST, "run", "--name=oom", "--network=none", "--memory=16m"),
        *("--memory-swap=16m", "busybox", "sh", "-c", eat),
    )
    assert done.returncode == 137, done
    assert docker("inspect", "--format={{.State.OOMKilled}} {{.State.ExitCode}}", "oom") == (
        "true 137"
    )
    docker("rm", "oom")
    assert not list(Path("/sys/fs/cgroup/system.slice").glob("sampan-*.scope"))
