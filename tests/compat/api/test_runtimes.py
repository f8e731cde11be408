"""``--runtime``: containers whose processes runc and crun make, driven by the real docker CLI."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.conftest import (
    CLI,
    DockerCli,
    Eventually,
    Sampand,
    _clean_up,
    busybox_archive,
)

RUNTIMES = ("runc", "crun")
PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
#: what a shell does that ends at once when it is asked to
PATIENT = "trap 'exit 3' TERM; while :; do sleep 0.05; done"


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if shutil.which(name, path=PATH) is None:
        pytest.skip(f"needs {name}")
    return name


@pytest.fixture(scope="module")
def place(runtime: str) -> Iterator[list[str]]:
    """Where the daemon runs. crun refuses a tree of cgroups that is neither version's alone."""
    if runtime != "crun" or not Path("/sys/fs/cgroup/unified").exists():
        yield []
        return
    script = "umount /sys/fs/cgroup/unified; echo; exec sleep 10000"
    holder = subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        yield ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt"]
    finally:
        holder.kill()
        holder.communicate()


@pytest.fixture(scope="module")
def sampand(
    place: list[str], namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sampand]:
    """A daemon of this module's own, with ``busybox`` loaded."""
    root = tmp_path_factory.mktemp("runtimes")
    (root / "daemon.json").write_text("{}")
    (root / "cli").mkdir()
    daemon = Sampand(root, namespace, prefix=place)
    try:
        daemon.start()
        archive = root / "busybox.tar"
        archive.write_bytes(busybox_archive())
        DockerCli(CLI, daemon.host, root / "cli")("load", "-i", str(archive))
        yield daemon
    finally:
        _clean_up(daemon)


def run(
    docker: DockerCli, runtime: str, name: str, *command: str, flags: tuple[str, ...] = ()
) -> str:
    return docker.out(
        "run", "-d", "--runtime", runtime, "--name", name, *flags, "busybox", *command
    )


def state(docker: DockerCli, name: str, form: str = "{{.State.Status}}") -> str:
    return docker.out("inspect", "-f", form, name)


def left(sampand: Sampand) -> list[str]:
    """What of containers is still there: directories of runs, mounts, cgroups."""
    found = [entry.name for entry in (sampand.root / "exec" / "containers").iterdir()]
    found += [
        line.split()[4]
        for line in Path(f"/proc/{sampand.pid}/mountinfo").read_text().splitlines()
        if f"{sampand.root}/exec/containers" in line
    ]
    for hierarchy in Path("/sys/fs/cgroup").glob(f"*/{sampand.namespace}"):
        found += [str(entry) for entry in hierarchy.iterdir() if entry.is_dir()]
    return found


def strangers(sampand: Sampand) -> dict[int, str]:
    """Processes that were told of this daemon's directories: runtimes that were called."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) in (os.getpid(), sampand.pid):
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(f"{sampand.root}/exec/containers".encode() in word for word in words):
            found[int(entry.name)] = b" ".join(words).decode(errors="replace")
    return found


def nothing_is_left(sampand: Sampand, eventually: Eventually) -> None:
    eventually(lambda: not left(sampand) and not strangers(sampand))


def test_output_input_status_and_removal(
    docker: DockerCli, runtime: str, sampand: Sampand, eventually: Eventually
) -> None:
    script = "echo out; echo err >&2; exit 42"
    result = docker("run", "--rm", "--runtime", runtime, "busybox", "sh", "-c", script, status=42)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    data = "line\n" * 20_000
    command = ("run", "--rm", "-i", "--runtime", runtime, "busybox", "wc", "-c")
    assert docker(*command, input=data).stdout == "100000\n"
    large = docker(
        "run", "--rm", "--runtime", runtime, "busybox", "head", "-c", "5000000", "/dev/zero"
    )
    assert len(large.stdout) == 5_000_000
    nothing_is_left(sampand, eventually)


@pytest.mark.parametrize(
    ("flags", "script", "expected"),
    [
        (["-e", "A=1"], "echo $A", "1"),
        (["-w", "/made/up"], "pwd", "/made/up"),
        (["-u", "user"], "id -u; id -g; id -G; echo $HOME", "1000\n1000\n1000 1001\n/home"),
        (["-u", "root", "--group-add", "extra"], "id -G", "0 1001"),
        (["--hostname", "box", "--domainname", "x.y"], "hostname; dnsdomainname", "box\nx.y"),
        (["--read-only"], "touch /x 2>&1", "touch: /x: Read-only file system"),
        (["--tmpfs", "/scratch"], "mount | grep -c ' /scratch type tmpfs'", "1"),
        (["--memory", "64m"], "cat /sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864"),
        (["--ulimit", "nofile=123:456"], "ulimit -n; ulimit -Hn", "123\n456"),
        (["--cap-drop", "ALL"], "grep CapEff /proc/self/status", "CapEff:\t0000000000000000"),
        (["--network", "none"], "ls /sys/class/net", "lo"),
        (["--sysctl", "net.ipv4.ip_default_ttl=33"], "cat /proc/sys/net/ipv4/ip_default_ttl", "33"),
        (["--privileged"], "grep -c . /proc/self/status >/dev/null; ls /dev/null", "/dev/null"),
        ([], "cat /proc/self/oom_score_adj", "0"),
        # Not the last digits but seven: the C library's own signals, 32 and 33, may be ignored.
        ([], "exec sed -n 's/^SigIgn:.*\\(.......\\)$/\\1/p' /proc/self/status", "0000000"),
        ([], "ls /proc/self/fd | wc -l", "4"),
        ([], "ls / | grep -c bundle", "0"),
    ],
)
def test_options(
    docker: DockerCli, runtime: str, flags: list[str], script: str, expected: str
) -> None:
    if "--memory" in flags and not Path("/sys/fs/cgroup/memory").exists():
        pytest.skip("needs cgroup version 1")
    command = ("run", "--rm", "--runtime", runtime, *flags, "busybox", "sh", "-c", script)
    assert docker(*command, status=None).stdout.strip() == expected


def test_binds_and_copies(docker: DockerCli, runtime: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("hello")
    run(
        docker, runtime, name, "sh", "-c", f"cat /v/in > /v/out; {PATIENT}",
        flags=("-v", f"{tmp_path}:/v", "-v", f"{tmp_path}:/r:ro"),
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while not (tmp_path / "out").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (
        docker("exec", name, "touch", "/r/x", status=1)
        .stderr.strip()
        .endswith("Read-only file system")
    )
    docker("cp", f"{tmp_path}/in", f"{name}:/tmp/copied")
    assert docker.out("exec", name, "cat", "/tmp/copied") == "hello"
    docker("stop", name)
    docker("cp", f"{name}:/tmp/copied", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "hello"
    assert "A /tmp/copied" in docker.out("diff", name)


def test_what_is_mounted_inside_shows_where_it_is_asked_to(
    docker: DockerCli, runtime: str, name: str, sampand: Sampand, tmp_path: Path
) -> None:
    def mounts() -> str:
        return Path(f"/proc/{sampand.pid}/mountinfo").read_text()

    there = ["nsenter", f"--mount=/proc/{sampand.pid}/ns/mnt"]
    subprocess.run([*there, "mount", "-t", "tmpfs", "none", str(tmp_path)], check=True)
    try:
        subprocess.run([*there, "mount", "--make-shared", str(tmp_path)], check=True)
        subprocess.run([*there, "mkdir", f"{tmp_path}/a", f"{tmp_path}/b"], check=True)
        flags = ("--privileged", "-v", f"{tmp_path}:/v:rshared", "-v", f"{tmp_path}:/s:rslave")
        run(docker, runtime, name, "sleep", "1000", flags=flags)
        assert "exec/containers" not in mounts()
        docker("exec", name, "mount", "-t", "tmpfs", "none", "/v/a")
        assert f"{tmp_path}/a" in mounts()
        subprocess.run([*there, "mount", "-t", "tmpfs", "none", f"{tmp_path}/b"], check=True)
        assert " /s/b " in docker.out("exec", name, "cat", "/proc/mounts")
        docker("rm", "-f", name)
    finally:
        subprocess.run([*there, "umount", "-R", str(tmp_path)], check=True)


def test_namespaces_of_others(
    docker: DockerCli, runtime: str, name: str, sampand: Sampand, eventually: Eventually
) -> None:
    run(docker, runtime, name, "sleep", "1000", flags=("--ipc", "shareable"))
    joined = ("--pid", f"container:{name}", "--ipc", f"container:{name}", "--uts", "host")
    script = "touch /dev/shm/x; sleep 999 & hostname; exit 5"
    words = ("run", "--rm", "--runtime", runtime, *joined, "busybox", "sh", "-c", script)
    assert docker(*words, status=5).stdout.strip() == os.uname().nodename
    docker("exec", name, "test", "-e", "/dev/shm/x")
    eventually(lambda: "sleep 999" not in docker.out("exec", name, "ps"))
    script = "ls /proc | grep -cx $0"
    words = ("run", "--rm", "--runtime", runtime, "--pid", "host", "busybox", "sh", "-c", script)
    assert docker.out(*words, str(os.getpid())) == "1"
    docker("rm", "-f", name)
    nothing_is_left(sampand, eventually)


def test_the_default_one(
    docker: DockerCli, runtime: str, name: str, sampand: Sampand, tmp_path: Path
) -> None:
    configuration = sampand.root / "daemon.json"
    before = configuration.read_text()
    configuration.write_text(json.dumps({"default-runtime": runtime}))
    sampand.restart()
    try:
        docker("run", "--name", name, "busybox", "true")
        assert state(docker, name, "{{.HostConfig.Runtime}}") == runtime
        (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo made > /made\n")
        docker("build", "-t", "made", str(tmp_path))
        assert docker.out("run", "--rm", "made", "cat", "/made") == "made"
        assert docker.out("run", "--rm", "--runtime", "sampan", "--init", "made", "cat", "/made")
    finally:
        configuration.write_text(before)
        sampand.restart()


def test_networks(docker: DockerCli, runtime: str, name: str, eventually: Eventually) -> None:
    run(docker, runtime, name, "sh", "-c", "while :; do echo hi | nc -l -p 80; done")
    address = docker.out("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", name)
    asking = ("run", "--rm", "--runtime", runtime, "busybox", "nc", "-w", "5", address, "80")
    eventually(lambda: docker(*asking, status=None).stdout == "hi\n")
    shared = ("run", "--rm", "--runtime", runtime, "--network", f"container:{name}", "busybox")
    assert docker.out(*shared, "hostname", "-i") == address


@pytest.mark.parametrize(
    ("command", "status", "text"),
    [
        (["nope"], 127, "nope"),
        (["/etc"], 126, ""),
        (["/nope"], 127, "/nope"),
        (["/etc/passwd"], 126, "permission denied"),
    ],
)
def test_programs_that_cannot_be_started(
    docker: DockerCli,
    runtime: str,
    command: list[str],
    status: int,
    text: str,
    name: str,
    sampand: Sampand,
    eventually: Eventually,
) -> None:
    words = ("run", "--name", name, "--runtime", runtime, "busybox", *command)
    result = docker(*words, status=None)
    assert f"daemon: {runtime}: " in result.stderr
    assert text in result.stderr
    assert state(docker, name, "{{.State.ExitCode}}") == str(status)
    if "peration not permitted" not in result.stderr:  # of which the command line makes nothing
        assert result.returncode == status
    nothing_is_left(sampand, eventually)


def test_terminals(docker: DockerCli, runtime: str, name: str) -> None:
    def on_terminal(*words: str, say: bytes) -> bytes:
        manager, child = pty.openpty()
        process = subprocess.Popen(
            [docker.program, *words],
            stdin=child, stdout=child, stderr=child, env=docker.environment,
        )  # fmt: skip
        os.close(child)
        os.write(manager, say)
        heard = bytearray()
        try:
            while data := os.read(manager, 4096):
                heard += data
        except OSError:
            pass  # the last to hold it has gone
        os.close(manager)
        assert process.wait(30) == 7
        return bytes(heard)

    script = "tty; stty size; read line; echo got:$line; exit 7"
    words = ("run", "--rm", "-it", "--runtime", runtime, "busybox", "sh", "-c", script)
    heard = on_terminal(*words, say=b"word\n")
    assert b"/dev/pts/0\r\n" in heard
    assert b"got:word\r\n" in heard
    run(docker, runtime, name, "sleep", "1000", flags=("-t",))
    heard = on_terminal("exec", "-it", name, "sh", "-c", script, say=b"other\n")
    assert b"/dev/pts/" in heard
    assert b"got:other\r\n" in heard


def test_exec(docker: DockerCli, runtime: str, name: str, eventually: Eventually) -> None:
    run(docker, runtime, name, "sleep", "1000", flags=("-e", "A=1"))
    script = "echo out$A$B; echo err >&2; cat; exit 9"
    result = docker("exec", "-i", "-e", "B=2", name, "sh", "-c", script, input="in\n", status=9)
    assert (result.stdout, result.stderr) == ("out12\nin\n", "err\n")
    assert docker.out("exec", "-u", "user", "-w", "/tmp", name, "sh", "-c", "id -G; pwd") == (
        "1000 1001\n/tmp"
    )
    assert docker.out("exec", name, "cat", "/proc/self/oom_score_adj") == "0"
    assert "nope" in docker("exec", name, "nope", status=127).stdout
    assert "permission denied" in docker("exec", name, "/etc/passwd", status=126).stdout
    assert "no matching entries" in docker("exec", "-u", "nobody9", name, "id", status=1).stderr
    docker("exec", "-d", name, "sh", "-c", "echo x > /tmp/made; exec sleep 900")
    eventually(lambda: docker("exec", name, "cat", "/tmp/made", status=None).stdout == "x\n")
    assert "sleep 900" in docker.out("top", name)
    for _ in range(5):  # whoever does it often gets no process that stands in
        assert docker.out("exec", name, "echo", "again") == "again"
    confined = "grep Seccomp: /proc/self/status"
    assert docker.out("exec", name, "sh", "-c", confined) == "Seccomp:\t2"


def test_stop_kill_restart_logs(docker: DockerCli, runtime: str, name: str) -> None:
    run(docker, runtime, name, "sh", "-c", f"echo one; echo two >&2; {PATIENT}")
    docker("stop", name)
    assert state(docker, name, "{{.State.Status}} {{.State.ExitCode}}") == "exited 3"
    result = docker("logs", name)
    assert (result.stdout, result.stderr) == ("one\n", "two\n")
    docker("start", name)
    docker("kill", name)
    assert docker.out("wait", name) == "137"
    docker("restart", "-t", "0", name)
    assert state(docker, name, "{{.State.Status}} {{.HostConfig.Runtime}}") == f"running {runtime}"


def test_pause_update_stats(docker: DockerCli, runtime: str, name: str) -> None:
    run(docker, runtime, name, "sh", "-c", "echo pid; exec sleep 1000", flags=("-m", "64m"))
    docker("pause", name)
    assert state(docker, name) == "paused"
    assert "is paused" in docker("exec", name, "true", status=1).stderr
    docker("unpause", name)
    docker("update", "--memory", "48m", "--memory-swap", "96m", name)
    if Path("/sys/fs/cgroup/memory").exists():
        limit = docker.out("exec", name, "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
        assert limit == str(48 << 20)
    told = json.loads(docker.out("stats", "--no-stream", "--format", "json", name))
    assert told["MemUsage"].endswith("/ 48MiB")
    assert told["PIDs"] == "1"


def test_memory_runs_out(docker: DockerCli, runtime: str, name: str) -> None:
    flags = ("-m", "24m", "--memory-swap", "24m")
    run(docker, runtime, name, "sh", "-c", "exec tail /dev/zero", flags=flags)
    assert docker.out("wait", name) == "137"
    assert state(docker, name, "{{.State.OOMKilled}}") == "true"


def test_restart_policy(docker: DockerCli, runtime: str, name: str, eventually: Eventually) -> None:
    run(docker, runtime, name, "sh", "-c", "echo run; exit 4", flags=("--restart", "on-failure:2"))
    form = "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}"
    eventually(lambda: state(docker, name, form) == "exited 2 4")
    assert docker.out("logs", name) == "run\nrun\nrun"


def test_health(docker: DockerCli, runtime: str, name: str, eventually: Eventually) -> None:
    flags = ("--health-cmd", "test -e /tmp/well", "--health-interval", "200ms")
    run(docker, runtime, name, "sh", "-c", f"touch /tmp/well; {PATIENT}", flags=flags)
    eventually(lambda: state(docker, name, "{{.State.Health.Status}}") == "healthy")


def test_a_new_daemon_finds_it(
    docker: DockerCli, runtime: str, name: str, sampand: Sampand, eventually: Eventually
) -> None:
    run(docker, runtime, name, "sh", "-c", f"echo before; {PATIENT}")
    run(docker, runtime, f"{name}-2", "sh", "-c", "exec sleep 1000")
    pid = state(docker, name, "{{.State.Pid}}")
    sampand.restart(signal.SIGKILL)
    assert state(docker, name, "{{.State.Status}} {{.State.Pid}}") == f"running {pid}"
    assert docker.out("exec", name, "echo", "again") == "again"
    sampand.stop(signal.SIGKILL)
    os.kill(int(pid), signal.SIGTERM)  # while nobody looks
    sampand.start()
    eventually(lambda: state(docker, name, "{{.State.ExitCode}}") == "3")
    docker("start", name)
    assert docker.out("logs", name) == "before\nbefore"
    docker("rm", "-f", name, f"{name}-2")
    nothing_is_left(sampand, eventually)


def parent_of(pid: int) -> int:
    """proc_pid_stat(5), field 4; a monitor, of a container's first process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_killed_monitor(
    docker: DockerCli, runtime: str, name: str, sampand: Sampand, eventually: Eventually
) -> None:
    run(docker, runtime, name, "sleep", "1000")
    os.kill(parent_of(int(state(docker, name, "{{.State.Pid}}"))), signal.SIGKILL)
    assert docker.out("wait", name) == "137"
    nothing_is_left(sampand, eventually)
    docker("start", name)
    assert state(docker, name) == "running"


def test_a_killed_worker(
    docker: DockerCli, runtime: str, name: str, sampand: Sampand, eventually: Eventually
) -> None:
    run(docker, runtime, name, "sleep", "1000")
    docker("exec", "-d", name, "sleep", "1001")  # of which a worker is the parent
    eventually(lambda: "sleep 1001" in docker.out("top", name))
    rows = docker.out("top", name, "-o", "pid,args").splitlines()
    (pid,) = (int(row.split()[0]) for row in rows if "sleep 1001" in row)
    os.kill(parent_of(pid), signal.SIGKILL)
    assert docker.out("wait", name) == "137"
    nothing_is_left(sampand, eventually)


def test_info_names_them(docker: DockerCli, runtime: str) -> None:
    told = json.loads(docker.out("info", "--format", "{{json .Runtimes}}"))
    assert told[runtime]["path"].endswith(f"/{runtime}")
    assert "sampan" in told


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--init",), "init"),
        (("--mount", "type=image,source=busybox,target=/i"), "a mount of a whole image"),
    ],
)
def test_what_only_ours_has_is_refused(
    docker: DockerCli, runtime: str, flags: tuple[str, ...], reason: str
) -> None:
    words = ("run", "--rm", "--runtime", runtime, *flags, "busybox", "true")
    assert f"runtime {runtime}: {reason}" in docker(*words, status=125).stderr


def test_unknown_ones_are_refused(docker: DockerCli) -> None:
    result = docker("run", "--rm", "--runtime", "kata", "busybox", "true", status=125)
    assert "unknown or invalid runtime name: kata" in result.stderr


#: A runtime that does as runc does but for the step it is told to spoil.
FAKE = """#!/bin/sh
step=
for word; do
    case $word in
        create|start|exec|delete) [ -n "$step" ] || step=$word ;;
    esac
done
echo "$step" >> {root}/steps
[ "$step" != "$(cat {root}/spoiled)" ] || case $(cat {root}/how) in
    fails) echo "on stderr: $step" >&2; exit 3 ;;
    tells) for word; do
               [ "$last" != --log ] || echo '{{"level":"error","msg":"told why"}}' > "$word"
               last=$word
           done
           exit 1 ;;
    dies) kill -9 $$ ;;
    late) {real} "$@"; exit 4 ;;
    nothing) exit 0 ;;
    slow) touch {root}/reached; sleep 5 ;;
esac
exec {real} "$@"
"""


@pytest.fixture
def fake(sampand: Sampand, docker: DockerCli, runtime: str) -> Iterator[Path]:
    """A directory with the files ``spoiled`` (a step) and ``how``; the runtime is ``fake``."""
    root = sampand.root / "fake"
    root.mkdir(exist_ok=True)
    (root / "spoiled").write_text("none")
    real = shutil.which(runtime, path=PATH)
    program = root / "runtime"
    program.write_text(FAKE.format(root=root, real=real))
    program.chmod(0o755)
    configuration = sampand.root / "daemon.json"
    before = configuration.read_text()
    configuration.write_text(
        json.dumps({"runtimes": {"fake": {"path": str(program), "runtimeArgs": []}}})
    )
    sampand.restart()
    yield root
    configuration.write_text(before)
    shutil.rmtree(root)


@pytest.mark.parametrize("how", ["fails", "tells", "dies", "late", "nothing"])
def test_whatever_step_fails_nothing_is_left(
    docker: DockerCli,
    fake: Path,
    how: str,
    name: str,
    sampand: Sampand,
    eventually: Eventually,
) -> None:
    (fake / "how").write_text(how)
    run(docker, "fake", name, "sleep", "1000")  # as it should be
    docker("rm", "-f", name)
    for step in ("create", "start"):
        (fake / "spoiled").write_text(step)
        if (step, how) == ("start", "nothing"):
            continue  # nobody can tell that from a program that waits
        result = docker("run", "--name", name, "--runtime", "fake", "busybox", "true", status=125)
        assert "runtime" in result.stderr
        assert how != "tells" or "told why" in result.stderr
        assert docker.out("inspect", "-f", "{{.State.Status}}", name) == "created"
        docker("rm", name)
        nothing_is_left(sampand, eventually)
    (fake / "spoiled").write_text("exec")
    run(docker, "fake", name, "sleep", "1000")
    assert "runtime" in docker("exec", name, "true", status=126).stdout
    assert "sleep 1000" in docker.out("top", name)
    (fake / "spoiled").write_text("none")
    assert docker.out("exec", name, "echo", "well") == "well"
    (fake / "spoiled").write_text("delete")
    docker("rm", "-f", name)
    nothing_is_left(sampand, eventually)


def test_it_is_told_of_every_end(
    docker: DockerCli, fake: Path, name: str, eventually: Eventually
) -> None:
    def steps() -> list[str]:
        found = (fake / "steps").read_text().split()
        (fake / "steps").unlink()
        return found

    docker("run", "--name", name, "--runtime", "fake", "busybox", "true")
    assert steps() == ["create", "start", "delete"]
    docker("start", "-a", name)
    assert steps() == ["create", "start", "delete"]
    docker("rm", name)
    run(docker, "fake", name, "sleep", "1000")
    docker("exec", name, "true")
    os.kill(parent_of(int(state(docker, name, "{{.State.Pid}}"))), signal.SIGKILL)
    docker("wait", name)
    eventually((fake / "steps").exists)
    assert steps() == ["create", "start", "exec", "delete"]
    docker("run", "--runtime", "fake", "busybox", "nope", status=127)
    assert steps()[:1] == ["create"]


def test_a_runtime_that_is_gone(docker: DockerCli, fake: Path, name: str) -> None:
    docker("create", "--name", name, "--runtime", "fake", "busybox", "true")
    (fake / "runtime").unlink()
    assert "runtime fake: there is no program" in docker("start", name, status=1).stderr
    words = ("run", "--rm", "--runtime", "fake", "busybox", "true")
    assert "runtime fake: there is no program" in docker(*words, status=125).stderr


def begin(
    docker: DockerCli, fake: Path, name: str, sampand: Sampand
) -> tuple[int, subprocess.Popen[bytes]]:
    """Begin a run whose runtime takes its time; returns the runtime's pid, and the client."""
    (fake / "how").write_text("slow")
    (fake / "spoiled").write_text("create")
    process = docker.popen("run", "--name", name, "--runtime", "fake", "busybox", "true")
    deadline = time.monotonic() + 20
    while not (fake / "reached").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (found,) = (pid for pid, words in strangers(sampand).items() if "create" in words)
    (fake / "spoiled").write_text("none")
    return found, process


def test_a_daemon_killed_while_it_is_made(
    docker: DockerCli, fake: Path, name: str, sampand: Sampand, eventually: Eventually
) -> None:
    _, client = begin(docker, fake, name, sampand)
    sampand.restart(signal.SIGKILL)
    client.communicate(timeout=60)
    nothing_is_left(sampand, eventually)
    assert state(docker, name) == "created"
    assert docker("start", "-a", name).stdout == ""
    assert state(docker, name) == "exited"


@pytest.mark.parametrize("above", [1, 2, 3])
def test_a_helper_killed_while_it_is_made(
    docker: DockerCli,
    fake: Path,
    name: str,
    sampand: Sampand,
    eventually: Eventually,
    above: int,
) -> None:
    """The driver, the worker, the monitor."""
    pid, client = begin(docker, fake, name, sampand)
    for _ in range(above):
        pid = parent_of(pid)
    os.kill(pid, signal.SIGKILL)
    _, told = client.communicate(timeout=60)
    assert client.returncode == 125, told
    nothing_is_left(sampand, eventually)
    assert state(docker, name) == "created"
    docker("start", name)
