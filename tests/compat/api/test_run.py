"""``docker run`` and its flags, by the real command line."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import tty
from pathlib import Path

import pytest

from tests.compat.conftest import DockerCli, Eventually, Sampand


def shell(docker: DockerCli, script: str, *flags: str) -> str:
    """What a shell script prints in a container made with ``flags``."""
    return docker.out("run", "--rm", *flags, "busybox", "sh", "-c", script)


def test_output_error_and_status_are_the_programs(docker: DockerCli) -> None:
    result = docker(
        "run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 42", status=42
    )
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


@pytest.mark.parametrize(
    ("command", "status", "text"),
    [
        (["nope"], 127, 'exec: "nope": executable file not found in $PATH'),
        (["/etc"], 126, 'exec: "/etc": '),
        (["/nope"], 127, 'exec: "/nope": stat /nope: no such file or directory'),
    ],
)
def test_programs_that_cannot_be_started(
    docker: DockerCli, command: list[str], status: int, text: str
) -> None:
    result = docker("run", "--rm", "busybox", *command, status=status)
    assert text in result.stderr
    assert docker.out("ps", "-aq", "--filter", "status=created") == ""


def test_input_is_piped_through_and_ends(docker: DockerCli) -> None:
    data = "line\n" * 20_000
    assert docker("run", "--rm", "-i", "busybox", "cat", input=data).stdout == data
    assert docker("run", "--rm", "-i", "busybox", "wc", "-c", input=data).stdout == "100000\n"
    assert docker("run", "--rm", "busybox", "cat", input=data).stdout == ""


def test_large_output_arrives_whole(docker: DockerCli) -> None:
    script = "head -c 30000000 /dev/zero; head -c 1000000 /dev/zero >&2"
    result = docker("run", "--rm", "busybox", "sh", "-c", script)
    assert (len(result.stdout), len(result.stderr)) == (30_000_000, 1_000_000)


def test_detached(docker: DockerCli, name: str, eventually: Eventually) -> None:
    identity = docker.out("run", "-d", "--name", name, "busybox", "sleep", "1000")
    assert len(identity) == 64
    assert docker.out("ps", "-q", "--no-trunc", "--filter", f"name={name}") == identity
    assert docker.out("inspect", "-f", "{{.State.Status}} {{.State.Running}}", name) == (
        "running true"
    )
    docker("rm", "-f", name)
    assert docker.out("ps", "-aq", "--filter", f"name={name}") == ""


@pytest.mark.parametrize(
    ("flags", "script", "expected"),
    [
        (["-e", "A=1", "-e", "B=2"], "echo $A$B", "12"),
        (["-w", "/tmp"], "pwd", "/tmp"),
        (["-w", "/made/up"], "pwd", "/made/up"),
        (["-u", "user"], "id -u; id -g; echo $HOME", "1000\n1000\n/home"),
        (["-u", "1000:1001"], "id -u; id -g", "1000\n1001"),
        (["-u", "root", "--group-add", "1001"], "id -G", "0 1001"),
        (["--hostname", "box"], "hostname; grep -c box /etc/hosts", "box\n1"),
        (["--add-host", "there:10.9.8.7"], "grep there /etc/hosts", "10.9.8.7\tthere"),
        (["--dns", "10.1.1.1", "--dns-search", "x.y"], "grep -E '^(nameserver|search)' "
         "/etc/resolv.conf | sort", "nameserver 10.1.1.1\nsearch x.y"),
        (["--read-only"], "touch /x 2>/dev/null || echo no", "no"),
        (["--read-only", "--tmpfs", "/t:size=1m"], "touch /t/x && df -k /t | tail -1 | "
         "awk '{print $2}'", "1024"),
        (["--shm-size", "8m"], "df -k /dev/shm | tail -1 | awk '{print $2}'", "8192"),
        (["--ulimit", "nofile=100:200"], "ulimit -Sn; ulimit -Hn", "100\n200"),
        (["--cap-drop", "ALL"], "grep CapEff /proc/self/status", "CapEff:\t0000000000000000"),
        (["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"], "grep CapEff /proc/self/status",
         "CapEff:\t0000000000001000"),
        (["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status",
         "NoNewPrivs:\t1"),
        (["--security-opt", "seccomp=unconfined"], "grep Seccomp: /proc/self/status",
         "Seccomp:\t0"),
        ([], "grep Seccomp: /proc/self/status", "Seccomp:\t2"),
        (["--device", "/dev/null:/dev/mine"], "test -c /dev/mine && echo yes", "yes"),
        (["--sysctl", "net.ipv4.ip_forward=1"], "cat /proc/sys/net/ipv4/ip_forward", "1"),
        (["--network", "none"], "ls /sys/class/net", "lo"),
        (["--entrypoint", "echo"], "x", "sh -c x"),
        (["-l", "a=b"], "echo $$", "1"),
        (["--init"], "test $$ != 1 && echo child", "child"),
        (["--privileged"], "test -w /proc/sys/kernel/hostname && echo yes", "yes"),
        (["--oom-score-adj", "77"], "cat /proc/self/oom_score_adj", "77"),
        (["--pids-limit", "50"], "cd /sys/fs/cgroup; cat pids.max pids/pids.max 2>/dev/null; "
         "true", "50"),
        (["-m", "64m"], "cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes "
         "2>/dev/null; true", "67108864"),
        (["--cpuset-cpus", "0"], "grep Cpus_allowed_list /proc/self/status",
         "Cpus_allowed_list:\t0"),
        (["--userns=host"], "cat /proc/self/uid_map | awk '{print $1,$2,$3}'", "0 0 4294967295"),
        (["--uts=host"], "hostname", os.uname().nodename),
    ],
    ids=lambda value: "".join(value[:1]) if isinstance(value, list) else "",
)  # fmt: skip
def test_flags_reach_the_program(
    docker: DockerCli, flags: list[str], script: str, expected: str
) -> None:
    assert shell(docker, script, *flags) == expected


def test_environment_files_and_mounts(docker: DockerCli, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("FROM_FILE=yes\n# comment\nPATH\n")
    assert shell(docker, "echo $FROM_FILE", "--env-file", str(tmp_path / "env")) == "yes"
    source = tmp_path / "dir"
    source.mkdir()
    shell(docker, "echo hi > /m/file", "-v", f"{source}:/m")
    assert (source / "file").read_text() == "hi\n"
    script = "cat /m/file; touch /m/x 2>/dev/null || echo no"
    assert shell(docker, script, "-v", f"{source}:/m:ro") == "hi\nno"
    assert shell(docker, script, "--mount", f"type=bind,src={source},dst=/m,readonly") == "hi\nno"
    made = tmp_path / "not" / "there"
    shell(docker, "touch /m/x", "-v", f"{made}:/m")
    assert (made / "x").exists()
    result = docker(
        "run", "--rm", "--mount", f"type=bind,src={tmp_path}/missing,dst=/m", "busybox", "true",
        status=125,
    )  # fmt: skip
    assert "bind source path does not exist" in result.stderr


def test_volumes_outlive_containers(docker: DockerCli) -> None:
    shell(docker, "echo kept > /v/file", "-v", "compat-volume:/v")
    assert shell(docker, "cat /v/file", "-v", "compat-volume:/v") == "kept"
    assert "compat-volume" in docker.out("volume", "ls", "-q").splitlines()
    docker("volume", "rm", "compat-volume")


def test_namespaces_are_shared_on_request(docker: DockerCli, name: str) -> None:
    docker("run", "-d", "--name", name, "--ipc", "shareable", "busybox", "sleep", "1000")
    script = "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc"
    own = docker.out("exec", name, "sh", "-c", script)
    theirs = shell(
        docker,
        script,
        f"--network=container:{name}",
        f"--ipc=container:{name}",
    )
    assert own == theirs
    assert "sleep 1000" in shell(docker, "ps", f"--pid=container:{name}")
    host = os.readlink("/proc/self/ns/pid")
    assert shell(docker, "readlink /proc/self/ns/pid", "--pid=host") == host


def test_signals_reach_the_program(docker: DockerCli, name: str, eventually: Eventually) -> None:
    script = "trap 'echo got; exit 7' INT; echo ready; while :; do sleep 0.1; done"
    process = docker.popen("run", "--rm", "--name", name, "busybox", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert (out, process.returncode) == (b"got\n", 7)


def test_a_terminal(docker: DockerCli) -> None:
    """``-it`` on a real terminal: sizes, echo, line discipline."""
    leader, follower = pty.openpty()
    tty.setraw(follower)
    process = subprocess.Popen(
        [docker.program, "run", "--rm", "-it", "busybox", "sh", "-c",
         "stty size; read x; echo got $x; test -t 0 && test -t 1 && exit 9"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=docker.environment,
        start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    with os.fdopen(leader, "r+b", buffering=0) as terminal:
        seen = b""
        while b"\r\n" not in seen:
            seen += terminal.read(1000) or b""
        terminal.write(b"word\r")
        while b"got word\r\n" not in seen:
            seen += terminal.read(1000) or b""
        assert process.wait(30) == 9
    assert b"word\r\ngot word\r\n" in seen


def test_running_leaves_nothing_behind(docker: DockerCli, sampand: Sampand) -> None:
    def descriptors() -> int:
        if sampand.foreign:
            pytest.skip("needs a daemon of its own")
        return len(os.listdir(f"/proc/{sampand.pid}/fd"))

    for _ in range(3):
        docker("run", "--rm", "busybox", "true")
    before = descriptors()
    for _ in range(10):
        docker("run", "--rm", "busybox", "true")
    assert descriptors() <= before + 2
    assert docker.out("ps", "-aq") == ""
    assert os.listdir(sampand.root / "exec" / "containers") == []
