"""Containers that go on: start, stop, pause, wait, exec, attach, logs, by the command line."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.compat.conftest import DockerCli, Eventually, Sampand


def run(docker: DockerCli, name: str, *command: str, flags: tuple[str, ...] = ()) -> str:
    return docker.out("run", "-d", "--name", name, *flags, "busybox", *command)


def state(docker: DockerCli, name: str, form: str = "{{.State.Status}}") -> str:
    return docker.out("inspect", "-f", form, name)


def test_stop_kill_start_restart_wait(docker: DockerCli, name: str, eventually: Eventually) -> None:
    script = "trap 'exit 3' TERM; while :; do sleep 0.05; done"
    run(docker, name, "sh", "-c", script)
    docker("stop", name)
    assert state(docker, name, "{{.State.Status}} {{.State.ExitCode}}") == "exited 3"
    docker("start", name)
    docker("kill", "-s", "KILL", name)
    assert docker.out("wait", name) == "137"
    docker("restart", "-t", "0", name)
    assert state(docker, name) == "running"
    waiting = docker.popen("wait", name)
    docker("stop", "-t", "0", name)
    out, _ = waiting.communicate(timeout=30)
    assert out in (b"137\n", b"3\n")
    assert "exited" in docker.out("ps", "-a", "--filter", f"name={name}", "--format", "{{.State}}")


def test_stop_signal_and_timeout(docker: DockerCli, name: str) -> None:
    run(
        docker, name, "sh", "-c", "trap 'exit 5' USR1; while :; do sleep 0.05; done",
        flags=("--stop-signal", "SIGUSR1"),
    )  # fmt: skip
    docker("stop", name)
    assert state(docker, name, "{{.State.ExitCode}}") == "5"


def test_pause_and_top(docker: DockerCli, name: str) -> None:
    run(docker, name, "sleep", "1000")
    docker("pause", name)
    assert state(docker, name, "{{.State.Status}} {{.State.Paused}}") == "paused true"
    assert "Paused" in docker.out("ps", "--filter", f"name={name}", "--format", "{{.Status}}")
    result = docker("exec", name, "true", status=1)
    assert "is paused, unpause the container before exec" in result.stderr
    docker("unpause", name)
    assert state(docker, name) == "running"
    title, row = docker.out("top", name).splitlines()
    assert title.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert row.endswith("sleep 1000")
    assert docker.out("top", name, "-o", "pid,comm").splitlines()[1].split()[1] == "sleep"


def test_exec(docker: DockerCli, name: str) -> None:
    run(docker, name, "sleep", "1000", flags=("-e", "FROM=run"))
    result = docker("exec", name, "sh", "-c", "echo out; echo err >&2; exit 5", status=5)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    assert docker("exec", "-i", name, "cat", input="through\n").stdout == "through\n"
    flags = ("-u", "user", "-w", "/tmp", "-e", "X=y")
    script = "id -u; pwd; echo $X$FROM"
    assert docker.out("exec", *flags, name, "sh", "-c", script) == "1000\n/tmp\nyrun"
    assert docker.out("exec", "-t", name, "tty").strip() == "/dev/pts/0"
    script = "grep CapEff /proc/self/status"
    plain = docker.out("exec", name, "sh", "-c", script)
    assert plain != docker.out("exec", "--privileged", name, "sh", "-c", script)
    docker("exec", "-d", name, "touch", "/tmp/made")
    docker("exec", name, "sh", "-c", "while ! test -e /tmp/made; do sleep 0.01; done")
    for command, status in (("nope", 127), ("/etc", 126)):
        result = docker("exec", name, command, status=status)
        assert f'exec: "{command}": ' in result.stdout + result.stderr


def test_logs(docker: DockerCli, name: str) -> None:
    script = "for i in 1 2 3 4 5; do echo out$i; done; echo err >&2"
    docker("run", "--name", name, "busybox", "sh", "-c", script)
    result = docker("logs", name)
    assert (result.stdout, result.stderr) == ("out1\nout2\nout3\nout4\nout5\n", "err\n")
    assert docker.out("logs", "--tail", "2", name).splitlines()[-1:] == ["out5"]
    lines = docker.out("logs", "-t", name).splitlines()
    stamp, text = lines[0].split(" ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", stamp)
    assert text == "out1"
    assert docker.out("logs", "--since", "1h", name).count("out") == 5
    assert docker.out("logs", "--until", "1h", name) == ""


def test_following_logs_ends_with_the_container(docker: DockerCli, name: str) -> None:
    run(docker, name, "sh", "-c", "echo first; read x; echo last", flags=("-i",))
    following = docker.popen("logs", "-f", name)
    assert following.stdout is not None
    assert following.stdout.readline() == b"first\n"
    docker("attach", "--sig-proxy=false", name, input="go\n")
    out, _ = following.communicate(timeout=30)
    assert (out, following.returncode) == (b"last\n", 0)


def test_attach_and_detach(docker: DockerCli, name: str) -> None:
    run(docker, name, "sh", "-c", "read x; echo got $x; exit 4", flags=("-i",))
    result = docker("attach", name, input="word\n", status=4)
    assert result.stdout == "got word\n"


def test_many_attached_at_once(docker: DockerCli, name: str) -> None:
    script = "read x; i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done"
    run(docker, name, "sh", "-c", script, flags=("-i",))
    clients = [docker.popen("attach", "--no-stdin", name) for _ in range(4)]
    time.sleep(0.5)  # the command line does not say when it is attached
    docker("attach", name, input="go\n")
    expected = "".join(f"line {number}\n" for number in range(2000)).encode()
    assert [client.communicate(timeout=30)[0] for client in clients] == [expected] * 4


def test_rename_inspect_list(docker: DockerCli, name: str) -> None:
    run(docker, name, "sleep", "1000", flags=("-l", "kind=compat"))
    docker("rename", name, f"{name}-2")
    assert docker.out("ps", "--filter", "label=kind=compat", "--format", "{{.Names}}") == (
        f"{name}-2"
    )
    docker("rename", f"{name}-2", name)
    (found,) = json.loads(docker.out("inspect", name))
    assert found["Name"] == f"/{name}"
    assert found["Config"]["Entrypoint"] is None
    assert found["HostConfig"]["Binds"] is None
    assert found["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert docker.out("inspect", "-s", "-f", "{{.SizeRootFs}}", name).isdigit()


def test_update_and_stats(docker: DockerCli, name: str) -> None:
    run(docker, name, "sleep", "1000", flags=("-m", "64m"))
    docker("update", "-m", "128m", "--memory-swap", "-1", name)
    assert state(docker, name, "{{.HostConfig.Memory}}") == str(128 << 20)
    line = docker.out("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", name)
    assert line.startswith(name)
    assert line.endswith("/ 128MiB")


def test_copy_both_ways(docker: DockerCli, name: str, tmp_path: Path) -> None:
    run(docker, name, "sleep", "1000")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("content")
    docker("cp", str(tmp_path / "in"), f"{name}:/tmp")
    assert docker.out("exec", name, "cat", "/tmp/in/file") == "content"
    docker("cp", f"{name}:/tmp/in/file", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "content"
    result = docker("cp", f"{name}:/nope", "-", status=1)
    assert f"Could not find the file /nope in container {name}" in result.stderr
    assert "A /tmp/in" in docker.out("diff", name)


def test_commit_export_import(docker: DockerCli, name: str, tmp_path: Path) -> None:
    docker("run", "--name", name, "busybox", "sh", "-c", "echo made > /file")
    docker("commit", "-c", 'CMD ["cat", "/file"]', name, "compat-committed")
    assert docker.out("run", "--rm", "compat-committed") == "made"
    archive = tmp_path / "root.tar"
    docker("export", "-o", str(archive), name)
    docker("import", str(archive), "compat-imported")
    assert docker.out("run", "--rm", "compat-imported", "cat", "/file") == "made"
    docker("rmi", "compat-committed", "compat-imported")


def test_events_tell_what_happened(docker: DockerCli, name: str) -> None:
    since = time.time()
    docker("run", "--rm", "--name", name, "busybox", "true")
    lines = docker.out(
        "events", "--since", f"{since:.3f}", "--until", f"{time.time() + 0.5:.3f}",
        "--filter", f"container={name}", "--format", "{{.Action}}",
    ).splitlines()  # fmt: skip
    for action in ("create", "attach", "start", "die", "destroy"):
        assert action in lines
    assert lines.index("create") < lines.index("start") < lines.index("die")


def test_containers_outlive_the_daemon(
    docker: DockerCli, sampand: Sampand, name: str, eventually: Eventually
) -> None:
    script = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done"
    run(docker, name, "sh", "-c", script)
    pid = state(docker, name, "{{.State.Pid}}")
    sampand.restart(signal.SIGKILL)
    assert state(docker, name, "{{.State.Status}} {{.State.Pid}}") == f"running {pid}"
    eventually(lambda: len(docker.out("logs", name).splitlines()) > 20)
    docker("exec", name, "true")
    sampand.restart(signal.SIGTERM)
    docker("stop", "-t", "0", name)
    numbers = [int(line) for line in docker.out("logs", name).splitlines()]
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("command", ["run", "exec"])
def test_burst(docker: DockerCli, name: str, command: str) -> None:
    """Many at once, none fails."""
    run(docker, name, "sleep", "1000")
    arguments = ("run", "--rm", "busybox") if command == "run" else ("exec", name)
    outputs: list[str] = []

    def one(number: int) -> None:
        outputs.append(docker.out(*arguments, "echo", str(number)))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, outputs)) == list(range(16))
