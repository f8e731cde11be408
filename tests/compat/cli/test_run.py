"""run, exec, attach, start: streams, terminals, signals and exit statuses, as docker has them."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.compat.cli.conftest import Both
from tests.compat.cli.terminal import Terminal
from tests.compat.conftest import DockerCli


@pytest.mark.parametrize(
    "words",
    [
        ("echo", "hi"),
        ("sh", "-c", "echo out; echo err >&2; exit 3"),
        ("sh", "-c", "kill -9 $$"),
        ("sh", "-c", "kill -TERM $$"),
        ("nosuchprogram",),
        ("/etc/passwd",),
        ("/etc",),
        ("sh", "-c", "yes | head -c 300000"),
    ],
    ids=" ".join,
)
def test_streams_and_status(both: Both, words: tuple[str, ...]) -> None:
    both("run", "--rm", "--network", "none", "busybox", *words)


def test_stdin_is_passed_and_closed(both: Both) -> None:
    text = "line\n" * 50_000
    result = both(
        "run", "--rm", "-i", "--network", "none", "busybox", "sh", "-c", "wc -c; echo done",
        input=text,
    )  # fmt: skip
    assert result.stdout == f"{len(text)}\ndone\n"
    both("run", "--rm", "-i", "--network", "none", "busybox", "cat", input=text)


def test_output_goes_on_when_nobody_reads_stdin(sampan: DockerCli) -> None:
    """The container prints a lot and never reads; neither side may wait for the other."""
    result = sampan(
        "run", "--rm", "-i", "--network", "none", "busybox", "sh", "-c",
        "head -c 1000000 /dev/zero | tr '\\0' x", input="y" * 1_000_000,
    )  # fmt: skip
    assert result.stdout == "x" * 1_000_000


@pytest.mark.parametrize(
    ("flags", "command"),
    [
        ("-e A=1 -e B -e HOME", "env | grep -E '^(A|B|HOME)=' | sort"),
        ("-w /tmp -u 1000:1000", "pwd; id -u; id -g"),
        ("-h box --domainname d.test", "hostname"),
        ("--tmpfs /t:size=1m,mode=700", "grep ' /t ' /proc/mounts | cut -d' ' -f3"),
        ("--read-only", "touch /x; echo $?"),
        ("--cap-drop ALL --cap-add CHOWN", "grep CapEff /proc/self/status"),
        ("--ulimit nofile=64:128", "ulimit -n; ulimit -Hn"),
        ("--add-host a.test:10.1.2.3", "grep a.test /etc/hosts"),
        ("--dns 10.9.8.7 --dns-search s.test --dns-option ndots:3", "cat /etc/resolv.conf"),
        ("--entrypoint echo", "-n"),
        ("--pids-limit 50 -m 64m --cpus 0.5 --memory-swap -1", "echo ok"),
        ("--shm-size 2m", "df -k /dev/shm | tail -1 | awk '{print $2}'"),
        ("--sysctl net.ipv4.ip_unprivileged_port_start=80 --init", "echo ok"),
        ("--mount type=tmpfs,dst=/m,tmpfs-size=1m", "grep -c ' /m ' /proc/mounts"),
        ("--group-add 1001 --oom-score-adj 100", "id -G; cat /proc/self/oom_score_adj"),
        ("--security-opt no-new-privileges", "grep NoNewPrivs /proc/self/status"),
    ],
)
def test_flags_reach_the_container(both: Both, flags: str, command: str) -> None:
    words = ["sh", "-c", command] if "--entrypoint" not in flags else [command]
    both("run", "--rm", "--network", "none", *flags.split(), "busybox", *words)


def test_files_of_variables_labels_and_ids(
    both: Both, sampan: DockerCli, name: str, tmp_path: Path
) -> None:
    (tmp_path / "env").write_text("# comment\nA=1\nB=two words\nHOME\nNOT_SET_HERE\n\n")
    (tmp_path / "labels").write_text("x=1\ny\n")
    files = ("--env-file", str(tmp_path / "env"), "--label-file", str(tmp_path / "labels"))
    both("run", "--rm", "--network", "none", *files, "busybox", "sh", "-c",
         "env | grep -v HOSTNAME | sort")  # fmt: skip
    identity = tmp_path / "id"
    out = sampan.out("run", "-d", "--name", name, "--cidfile", str(identity), *files, "busybox",
                     "sleep", "100")  # fmt: skip
    assert identity.read_text() == out
    labels = sampan.out("inspect", "-f", "{{json .Config.Labels}}", name)
    assert labels == '{"x":"1","y":""}'
    assert sampan("run", "--cidfile", str(identity), "busybox", status=125).stdout == ""


def test_id_file_goes_when_nothing_was_created(sampan: DockerCli, tmp_path: Path) -> None:
    sampan("run", "--cidfile", str(tmp_path / "id"), "--runtime", "nope", "busybox", status=125)
    assert not (tmp_path / "id").exists()


def test_replace(sampan: DockerCli, name: str) -> None:
    first = sampan.out("run", "-d", "--name", name, "busybox", "sleep", "100")
    second = sampan.out("run", "-d", "--replace", "--name", name, "busybox", "sleep", "100")
    assert sampan.out("inspect", "-f", "{{.Id}}", name) == second != first
    assert sampan("container", "exists", name).stdout == ""
    sampan("container", "exists", f"{name}-not", status=1)


def test_rootfs_is_a_copy(sampan: DockerCli, name: str, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").write_bytes(Path("/bin/busybox").read_bytes())
    (tmp_path / "bin/sh").chmod(0o755)
    out = sampan.out("run", "--rm", "--network", "none", "--rootfs", str(tmp_path), "/bin/sh", "-c",
                     "echo mine > /file; read x < /file; echo $x")  # fmt: skip
    assert out == "mine"
    assert not (tmp_path / "file").exists()
    assert sampan.out("images", "-q", "--filter", "dangling=true") == ""
    sampan("create", "--name", name, "--rootfs", str(tmp_path), "/bin/sh")
    assert sampan.out("images", "-q", "--filter", "dangling=true") != ""
    sampan("rm", name)  # its copy goes with it
    assert sampan.out("images", "-q", "--filter", "dangling=true") == ""
    sampan("create", "--memory", "1", "--rootfs", str(tmp_path), "/bin/sh", status=1)
    assert sampan.out("images", "-q", "--filter", "dangling=true") == ""


def test_mounted_containers_are_listed(sampan: DockerCli, name: str) -> None:
    sampan("create", "--name", name, "busybox", "true")
    assert sampan.out("container", "mount") == ""
    place = sampan.out("mount", name)
    try:
        assert (Path(place) / "bin/busybox").exists()
        short = sampan.out("ps", "-aq", "--filter", f"name={name}")
        assert sampan.out("container", "mount").split() == [short, place]
    finally:
        sampan("unmount", name)
    assert sampan.out("container", "mount") == ""


def test_signals_are_passed_on(sampan: DockerCli, name: str) -> None:
    script = 'trap "echo got; exit 7" TERM; echo ready; while :; do sleep 0.05; done'
    process = sampan.popen("run", "--rm", "--network", "none", "busybox", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (out, err, process.returncode) == (b"got\n", b"", 7)


def test_interrupt_without_signal_proxy(sampan: DockerCli, name: str) -> None:
    process = sampan.popen("run", "--sig-proxy=false", "--name", name, "busybox", "sh", "-c",
                           "echo ready; sleep 100")  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert sampan.out("inspect", "-f", "{{.State.Running}}", name) == "true"


def test_terminal_size_follows_the_window(sampan: DockerCli, name: str) -> None:
    script = 'stty size; trap "stty size; exit 5" WINCH; echo ready; while :; do sleep 0.05; done'
    command = [sampan.program, "run", "-it", "--name", name, "busybox", "sh", "-c", script]
    with Terminal(command, sampan.environment, 31, 97) as terminal:
        terminal.expect(b"31 97\r\n")
        terminal.expect(b"ready\r\n")
        terminal.resize(40, 120)
        terminal.expect(b"40 120\r\n")
        assert terminal.wait() == 5


def test_detach_and_attach_again(sampan: DockerCli, name: str) -> None:
    command = [sampan.program, "run", "-it", "--name", name, "busybox", "sh"]
    with Terminal(command, sampan.environment) as terminal:
        terminal.type(b"echo a$((40+2))\n")
        terminal.expect(b"a42\r\n")
        terminal.type(b"\x10\x11")
        assert terminal.wait() == 0
    assert sampan.out("inspect", "-f", "{{.State.Running}}", name) == "true"
    command = [sampan.program, "attach", "--detach-keys", "ctrl-a,x", name]
    with Terminal(command, sampan.environment) as terminal:
        terminal.type(b"\x10\x11echo b$((40+3))\n")
        terminal.expect(b"b43\r\n")
        terminal.type(b"exit 9\n")
        assert terminal.wait() == 9


def test_start_attached(both: Both, sampan: DockerCli, name: str) -> None:
    sampan("create", "-i", "--name", name, "busybox", "sh", "-c", "cat; echo end; exit 4")
    result = both("start", "-ai", name, input="typed\n")
    assert (result.stdout, result.returncode) == ("typed\nend\n", 4)


def test_attach_ends_with_the_container(sampan: DockerCli, name: str) -> None:
    sampan("run", "-di", "--name", name, "busybox", "sh", "-c", "read x; echo got $x; exit 6")
    result = sampan("attach", name, input="word\n", status=6)
    assert result.stdout == "got word\n"


@pytest.mark.parametrize(
    "words",
    [
        ("exec", "{}", "sh", "-c", "echo out; echo err >&2; exit 4"),
        ("exec", "-e", "A=1", "-w", "/tmp", "-u", "1000", "{}", "sh", "-c", "pwd; id -u; echo $A"),
        ("exec", "-i", "{}", "cat"),
        ("exec", "{}", "nosuchprogram"),
        ("exec", "{}", "/etc/passwd"),
        ("exec", "-w", "/nonexistent", "{}", "pwd"),
        ("exec", "-d", "{}", "true"),
        ("exec", "-it", "{}", "true"),
        ("exec", "--detach-keys", "nonsense", "{}", "true"),
    ],
    ids=" ".join,
)
def test_exec(both: Both, sampan: DockerCli, name: str, words: tuple[str, ...]) -> None:
    sampan("run", "-d", "--name", name, "busybox", "sleep", "100")
    if "nonsense" in words:
        assert sampan(*(word.format(name) for word in words), status=1).stderr
        return
    both(*(word.format(name) for word in words), input="input\n")


def test_exec_on_a_terminal(sampan: DockerCli, name: str) -> None:
    sampan("run", "-d", "--name", name, "busybox", "sleep", "100")
    command = [sampan.program, "exec", "-it", name, "sh"]
    with Terminal(command, sampan.environment, 20, 70) as terminal:
        terminal.type(b"stty size\n")
        terminal.expect(b"20 70\r\n")
        terminal.type(b"exit 8\n")
        assert terminal.wait() == 8


def test_broken_pipe_ends_quietly(sampan: DockerCli, docker: DockerCli, name: str) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sampan.program, "run", "--name", name, "--network", "none", "busybox", "yes"]
    process = subprocess.run(
        command,
        stdout=write,
        stderr=subprocess.PIPE,
        env=sampan.environment,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert process.returncode == 141
    assert process.stderr == b""
    docker("rm", "-f", name)  # as with docker, the container goes on without its client
