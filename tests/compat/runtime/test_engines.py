"""Debian's podman and dockerd run their containers with sampan-runtime in place of runc.

Each with its own roots, in a network namespace of its own, its cgroups below a parent of ours.
"""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.kernel import cgroup
from tests.engines import busybox_tar

PROGRAM = Path(sys.executable).parent / "sampan-runtime"
Result = subprocess.CompletedProcess[str]
Command = Callable[..., Result]

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="sampan-runtime is not installed")


def remove_cgroups(parent: str) -> None:
    layout = cgroup.probe()
    cgroup.kill(layout, parent)
    cgroup.remove(layout, parent)


def caller(*prefix: str | Path) -> Command:
    def call(*words: str, input: bytes | None = None) -> Result:
        result = subprocess.run(
            [str(word) for word in (*prefix, *words)],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            timeout=90,
            check=False,
        )
        return Result(
            result.args, result.returncode, result.stdout.decode(), result.stderr.decode()
        )

    return call


def on_terminal(prefix: tuple[str | Path, ...], *words: str) -> str:
    """Run with a terminal as standard streams; what was written to it."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [str(word) for word in (*prefix, *words)], stdin=slave, stdout=slave, stderr=slave
    ) as process:
        os.close(slave)
        text = b""
        while True:
            try:
                data = os.read(master, 4096)
            except OSError:
                break
            text += data
        assert process.wait(60) == 0, text
    os.close(master)
    return text.decode()


@pytest.fixture(scope="module")
def podman(namespace: str) -> Iterator[tuple[str, ...]]:
    """The words every podman command begins with; it takes a run root of 50 characters at most."""
    if shutil.which("podman") is None:
        pytest.skip("needs podman")
    root = Path(tempfile.mkdtemp(prefix="sampan-podman-"))
    words = (
        *("nsenter", f"--net=/run/netns/{namespace}", "podman"),
        *("--root", str(root / "root"), "--runroot", str(root / "run")),
        *("--tmpdir", str(root / "tmp"), "--cgroup-manager", "cgroupfs"),
        *("--storage-driver", "vfs", "--runtime", str(PROGRAM)),
    )
    call = caller(*words)
    try:
        imported = call("import", "-", "bb", input=busybox_tar())
        assert imported.returncode == 0, imported.stderr
        yield words
    finally:
        call("rm", "--all", "--force", "--time", "0")
        call("rmi", "--all", "--force")
        shutil.rmtree(root, ignore_errors=True)
        remove_cgroups(f"/sampan-test-{os.getpid()}-podman")


@pytest.fixture
def run_podman(podman: tuple[str, ...]) -> tuple[str, ...]:
    parent = f"/sampan-test-{os.getpid()}-podman"
    return (*podman, "run", "--network", "none", "--cgroup-parent", parent)


def test_podman_run(run_podman: tuple[str, ...]) -> None:
    run = caller(*run_podman, "--rm")
    assert run("bb", "echo", "hi").stdout == "hi\n"
    assert run("bb", "sh", "-c", "exit 7").returncode == 7
    missing = run("bb", "nope")
    assert missing.returncode == 127
    assert "executable file not found in $PATH" in missing.stderr
    assert run("bb", "/etc/passwd").returncode == 126
    limited = run("-m", "64m", "bb", "cat", "/proc/self/cgroup")
    assert limited.returncode == 0
    user = run("-u", "1000", "--read-only", "--tmpfs", "/t", "bb", "sh", "-c", "id -u; touch /x")
    assert user.stdout == "1000\n"
    assert "Read-only" in user.stderr
    assert run("--privileged", "bb", "mount", "-t", "tmpfs", "x", "/tmp").returncode == 0
    assert run("--pid", "host", "bb", "sh", "-c", "test $$ -gt 1").returncode == 0
    mapped = run("--uidmap", "0:100000:1000", "bb", "sh", "-c", "cat /proc/self/uid_map; id -u")
    assert mapped.stdout.split() == ["0", "100000", "1000", "0"]
    assert run("-i", "bb", "cat", input=b"in").stdout == "in"
    assert on_terminal((*run_podman, "--rm", "-it"), "bb", "tty").strip() == "/dev/pts/0"


def test_podman_life(podman: tuple[str, ...], run_podman: tuple[str, ...]) -> None:
    call = caller(*podman)
    started = caller(*run_podman)("-d", "--name", "p", "bb", "sh", "-c", "trap exit TERM; sleep 99")
    assert started.returncode == 0, started.stderr
    executed = call("exec", "p", "sh", "-c", "echo ex; exit 4")
    assert (executed.stdout, executed.returncode) == ("ex\n", 4)
    assert call("exec", "p", "nope").returncode == 127
    assert on_terminal((*podman, "exec", "-it"), "p", "tty").strip() == "/dev/pts/0"
    assert "sleep 99" in call("top", "p").stdout
    assert call("pause", "p").returncode == 0
    assert "Paused" in call("ps", "-a", "--format", "{{.Status}}").stdout.title()
    assert call("unpause", "p").returncode == 0
    assert call("update", "--memory", "100m", "p").returncode == 0
    assert call("stats", "--no-stream", "p").returncode == 0
    assert call("kill", "-s", "KILL", "p").returncode == 0
    assert call("wait", "p").stdout == "137\n"
    assert call("start", "p").returncode == 0
    assert call("rm", "-f", "-t", "0", "p").returncode == 0


def test_podman_work(podman: tuple[str, ...], run_podman: tuple[str, ...], tmp_path: Path) -> None:
    """What people do with a container that runs: copy, commit, pods, signals, mounts."""
    call, run = caller(*podman), caller(*run_podman)
    program = "trap 'echo got; exit 3' USR1; echo up; while :; do sleep 0.1; done"
    words = ("-d", "--log-driver", "k8s-file", "--stop-signal", "USR1", "--name", "w")
    assert run(*words, "bb", "sh", "-c", program).returncode == 0
    (tmp_path / "file").write_text("copied\n")
    assert call("cp", str(tmp_path / "file"), "w:/tmp/file").returncode == 0
    assert call("exec", "w", "cat", "/tmp/file").stdout == "copied\n"
    assert call("cp", "w:/tmp/file", str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back").read_text() == "copied\n"
    assert "A /tmp/file" in call("diff", "w").stdout
    assert call("commit", "-q", "w", "committed").returncode == 0
    assert run("--rm", "committed", "cat", "/tmp/file").stdout == "copied\n"
    assert call("stop", "w").returncode == 0
    assert call("logs", "w").stdout == "up\ngot\n"
    assert call("inspect", "-f", "{{.State.ExitCode}}", "w").stdout == "3\n"
    assert call("rm", "w").returncode == 0
    slave = ("--mount", f"type=bind,src={tmp_path},dst=/m,ro,bind-propagation=rslave")
    assert run("--rm", *slave, "bb", "cat", "/m/file").stdout == "copied\n"


def test_podman_pods(podman: tuple[str, ...]) -> None:
    """Containers of a pod share the namespaces of its first one."""
    call = caller(*podman)
    parent = f"/sampan-test-{os.getpid()}-podman"
    infra = ("--infra-image", "bb", "--infra-command", "sleep 1000", "--network", "none")
    shared = ("--share", "pid,ipc,uts,net", "--cgroup-parent", parent)
    assert call("pod", "create", "--name", "pod", *infra, *shared).returncode == 0
    for name in ("p1", "p2"):
        started = call("run", "-d", "--pod", "pod", "--name", name, "bb", "sleep", "99")
        assert started.returncode == 0, started.stderr
    assert call("exec", "p1", "ps").stdout.count("sleep 99") == 2
    assert call("pod", "stats", "--no-stream", "pod").returncode == 0
    for verb in ("pause", "unpause", "kill", "start"):
        done = call("pod", verb, "pod")
        assert done.returncode == 0, (verb, done.stderr)
    assert call("pod", "rm", "-f", "-t", "0", "pod").returncode == 0


@pytest.fixture(scope="module")
def docker(namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """The words a docker command begins with: Debian's dockerd with sampan as a runtime."""
    if shutil.which("dockerd") is None:
        pytest.skip("needs dockerd")
    root = tmp_path_factory.mktemp("dockerd")
    parent = f"/sampan-test-{os.getpid()}-dockerd"
    words = ("docker", "-H", f"unix://{root}/sock")
    with open(root / "log", "wb") as log:
        daemon = subprocess.Popen(
            [
                *("nsenter", f"--net=/run/netns/{namespace}", "dockerd", f"--host={words[2]}"),
                *(f"--data-root={root}/data", f"--exec-root={root}/exec"),
                *(f"--pidfile={root}/pid", "--bridge=none", "--iptables=false"),
                *("--ip6tables=false", f"--cgroup-parent={parent}", "--storage-driver=vfs"),
                f"--add-runtime=sampan={PROGRAM}",
            ],
            stdout=log,
            stderr=log,
        )
    call = caller(*words)
    try:
        deadline = time.monotonic() + 60
        while call("version").returncode:
            assert daemon.poll() is None, (root / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, "dockerd does not answer"
            time.sleep(0.1)
        imported = call("import", "-", "bb", input=busybox_tar())
        assert imported.returncode == 0, imported.stderr
        yield words
    finally:
        for container in call("ps", "-aq").stdout.split():
            call("rm", "-f", container)
        daemon.terminate()
        daemon.wait(60)
        remove_cgroups(parent)


def test_dockerd_run(docker: tuple[str, ...]) -> None:
    words = (*docker, "run", "--rm", "--network", "none", "--runtime", "sampan")
    run = caller(*words)
    assert run("bb", "echo", "hi").stdout == "hi\n"
    assert run("bb", "sh", "-c", "exit 7").returncode == 7
    missing = run("bb", "nope")
    assert missing.returncode == 127
    assert "executable file not found in $PATH" in missing.stderr
    assert run("bb", "/etc/passwd").returncode == 126
    assert run("-m", "16m", "bb", "sh", "-c", "x=a; while true; do x=$x$x; done").returncode == 137
    assert run("-w", "/x/y", "bb", "sh", "-c", "pwd").stdout == "/x/y\n"
    assert run("--privileged", "bb", "mount", "-t", "tmpfs", "x", "/tmp").returncode == 0
    assert run("-i", "bb", "cat", input=b"in").stdout == "in"
    assert on_terminal(words, "-it", "bb", "tty").strip() == "/dev/pts/0"


def test_dockerd_life(docker: tuple[str, ...]) -> None:
    call = caller(*docker)
    started = call("run", "-d", "--name", "dd", "--runtime", "sampan", "bb", "sleep", "99")
    assert started.returncode == 0, started.stderr
    executed = call("exec", "dd", "sh", "-c", "echo ex; exit 4")
    assert (executed.stdout, executed.returncode) == ("ex\n", 4)
    assert on_terminal((*docker, "exec", "-it"), "dd", "tty").strip() == "/dev/pts/0"
    assert "sleep 99" in call("top", "dd").stdout
    assert call("pause", "dd").returncode == 0
    assert "Paused" in call("ps", "--format", "{{.Status}}").stdout
    assert call("unpause", "dd").returncode == 0
    assert call("update", "-m", "100m", "--memory-swap", "200m", "dd").returncode == 0
    assert call("stats", "--no-stream", "dd").returncode == 0
    assert call("restart", "-t", "0", "dd").returncode == 0
    assert call("kill", "dd").returncode == 0
    assert call("wait", "dd").stdout == "137\n"
    assert call("rm", "dd").returncode == 0


def test_nothing_stays_behind(docker: tuple[str, ...]) -> None:
    parent = f"/sampan-test-{os.getpid()}-dockerd"
    for directory in cgroup.probe().directories(parent):
        assert not [entry for entry in os.scandir(directory) if entry.is_dir()]
