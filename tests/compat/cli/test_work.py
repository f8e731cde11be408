"""Everyday work: life cycle, copying, archives, logs, events, pruning, contexts."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from tests.compat.cli.conftest import Both
from tests.compat.cli.terminal import Terminal
from tests.compat.conftest import CLI, DockerCli


def test_life_cycle(both: Both, sampan: DockerCli, name: str) -> None:
    sampan("create", "--name", name, "busybox", "sleep", "1000")
    for words in (
        ("start", name),
        ("pause", name),
        ("unpause", name),
        ("update", "-m", "64m", "--memory-swap", "-1", name),
        ("restart", "-t", "0", name),
        ("kill", name),
        ("wait", name),
        ("start", name),
        ("stop", "--time", "0", name),
        ("stop", name),
        ("rename", name, f"{name}-x"),
        ("rename", f"{name}-x", name),
    ):
        # Each must succeed with either; what one did is not always there for the other.
        result = sampan(*words, status=None)
        assert result.returncode == 0, (words, result)
        assert result.stdout in ("", f"{name}\n", "137\n"), (words, result)
    both("kill", name)
    both("pause", name)
    both("top", name)
    both("inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}", name)


def test_init_lets_the_program_wait(sampan: DockerCli, name: str) -> None:
    sampan("create", "--name", name, "busybox", "echo", "began")
    assert sampan("container", "init", name).stdout == f"{name}\n"
    listed = sampan("ps", "-a", "--filter", f"name={name}", "--format", "{{.State}} {{.Status}}")
    assert listed.stdout == "created Initialized\n"
    assert sampan("logs", name).stdout == ""
    assert sampan("start", "-a", name).stdout == "began\n"
    sampan("container", "init", name)
    sampan("rm", name)
    missing = sampan("container", "init", "nope", status=1)
    assert missing.stderr == "Error response from daemon: No such container: nope\n"


def test_several_at_once_and_some_missing(sampan: DockerCli, name: str) -> None:
    sampan("create", "--name", name, "busybox", "true")
    result = sampan("rm", "nope", name, "nope2", status=1)
    assert result.stdout == f"{name}\n"
    assert result.stderr == (
        "Error response from daemon: No such container: nope\n"
        "Error response from daemon: No such container: nope2\n"
    )


def _tree(root: Path) -> dict[str, tuple[str, int]]:
    """Names of a tree with their content and mode."""
    found = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode
        if path.is_symlink():
            content = f"-> {os.readlink(path)}"
        else:
            content = "/" if path.is_dir() else path.read_text()
        found[str(path.relative_to(root))] = (content, mode)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "sub/deep").mkdir(parents=True)
    (root / "sub/deep/file").write_text("deep")
    (root / "file").write_text("top")
    (root / "file").chmod(0o640)
    (root / "link").symlink_to("sub/deep")
    (root / "run").write_text("#!/bin/sh")
    (root / "run").chmod(0o4755)
    os.link(root / "file", root / "hard")
    return root


@pytest.mark.parametrize(
    ("what", "where"),
    [
        ("source", "/to"),
        ("source/.", "/to"),
        ("source", "/to/new"),
        ("source/.", "/to/new"),
        ("source/file", "/to"),
        ("source/file", "/to/"),
        ("source/file", "/to/named"),
        ("source/file", "/to/link"),
        ("source/link", "/to/other"),
    ],
)
def test_copy_in_and_out(
    docker: DockerCli,
    sampan: DockerCli,
    name: str,
    source: Path,
    what: str,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What sampan puts in is what docker puts in; what it takes out is what docker takes out."""
    trees = []
    for place, cli in (("a", docker), ("b", sampan)):
        cli("rm", "-f", name, status=None)
        cli("run", "-d", "--name", name, "busybox", "sh", "-c",
            "mkdir /to /other; ln -s /other /to/link; sleep 1000")  # fmt: skip
        cli("exec", name, "sh", "-c", "until [ -h /to/link ]; do sleep 0.01; done")
        monkeypatch.chdir(source.parent)
        cli("cp", what, f"{name}:{where}")
        listing = cli.out(
            "exec", name, "sh", "-c", "find /to /other | sort | xargs ls -lnd | cut -c1-42,57-"
        )
        for number, path in enumerate(("/to", "/to/.", "/to/link", "/bin/busybox", "/etc/passwd")):
            target = source.parent / place / str(number)
            target.mkdir(parents=True)
            cli("cp", f"{name}:{path}", str(target))
            if number == 0:
                cli("cp", f"{name}:{path}", str(target / "new"))
            if number == 4:
                cli("cp", "-L", f"{name}:/to/link", str(target / "followed"))
        (source.parent / place / "3/busybox").unlink()
        trees.append((listing, _tree(source.parent / place)))
    assert trees[0] == trees[1]


def test_copy_streams(both: Both, sampan: DockerCli, name: str, tmp_path: Path) -> None:
    sampan("create", "--name", name, "busybox", "true")
    archive = tmp_path / "a.tar"
    with open(archive, "wb") as file:
        subprocess.run(
            [sampan.program, "cp", f"{name}:/etc/passwd", "-"],
            stdout=file, env=sampan.environment, check=True,
        )  # fmt: skip
    with tarfile.open(archive) as tar:
        assert tar.getnames() == ["passwd"]
    with open(archive, "rb") as file:
        subprocess.run(
            [sampan.program, "cp", "-", f"{name}:/tmp"],
            stdin=file, env=sampan.environment, check=True,
        )  # fmt: skip
    sampan("cp", f"{name}:/tmp/passwd", str(tmp_path / "back"))
    assert "root:x:0:0" in (tmp_path / "back").read_text()
    refused = sampan("cp", str(archive), f"{name}:/nonexistent/dir/", status=1)
    assert refused.stderr == "no such directory\n"
    both("cp", f"{name}:/etc", str(archive))


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("/nonexistent", "NAME:"),
        ("/nonexistent/a/b", "NAME:/"),
        ("here/nonexistent", "NAME:/"),
        ("-L here/nonexistent", "NAME:/"),
        ("NAME:", "."),
        ("NAME:nope", "."),
        ("NAME:etc/passwd", "here/nonexistent/dir/"),
        ("NAME:etc/passwd", "/dev/null"),
        ("here/dir", "NAME:/etc/passwd"),
        ("here/dir", "NAME:/null"),
        ("nonexistent:/etc", "."),
        ("here/dir", "nonexistent:/etc"),
    ],
)
def test_copy_complaints(
    both: Both,
    sampan: DockerCli,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    destination: str,
) -> None:
    (tmp_path / "real/dir").mkdir(parents=True)
    (tmp_path / "here").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    sampan("create", "--name", name, "-v", "/dev/null:/null", "busybox")
    words = f"{source} {destination}".replace("NAME", name).split()
    # docker's packing may complain of the pipe nobody reads any more: it races.
    assert both("cp", *words, without="level=error").returncode == 1


def test_copying_to_nowhere_in_particular(docker: DockerCli, sampan: DockerCli, name: str) -> None:
    sampan("create", "--name", name, "busybox")
    said = [cli("cp", "/etc/passwd", f"{name}:", status=1).stderr for cli in (docker, sampan)]
    assert said[0].splitlines()[-1:] == said[1].splitlines() == ["no such directory"]


def test_archives_round_trip(sampan: DockerCli, name: str, tmp_path: Path) -> None:
    sampan("tag", "busybox", f"{name}:1")
    sampan("save", "-o", str(tmp_path / "image.tar"), f"{name}:1")
    sampan("rmi", f"{name}:1")
    assert sampan("load", "-i", str(tmp_path / "image.tar")).stdout == f"Loaded image: {name}:1\n"
    sampan("create", "--name", name, f"{name}:1", "true")
    sampan("export", "-o", str(tmp_path / "root.tar"), name)
    identity = sampan.out("import", "-c", 'CMD ["echo", "imported"]', "-m", "note",
                          str(tmp_path / "root.tar"), f"{name}:2")  # fmt: skip
    assert sampan.out("run", "--rm", "--network", "none", f"{name}:2") == "imported"
    assert sampan.out("history", "--format", "{{.Comment}}", f"{name}:2") == "note"
    assert sampan.out("images", "-q", "--no-trunc", f"{name}:2") == identity
    committed = sampan.out("commit", "-m", "kept", "-c", "ENV A=b", name, f"{name}:3")
    assert sampan.out("inspect", "-f", "{{.Id}} {{.Comment}}", f"{name}:3") == f"{committed} kept"
    assert not list(tmp_path.glob("*.tmp"))
    sampan("rm", name)
    result = sampan("rmi", f"{name}:1", f"{name}:2", f"{name}:3", "nope:9", status=1)
    assert f"Untagged: {name}:2\n" in result.stdout
    assert f"Deleted: {committed}\n" in result.stdout
    assert result.stderr == "Error response from daemon: No such image: nope:9\n"


def test_logs(both: Both, sampan: DockerCli, name: str) -> None:
    sampan("run", "--name", name, "--network", "none", "busybox", "sh", "-c",
           "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done; printf partial")  # fmt: skip
    for flags in ((), ("-n", "3"), ("--tail", "0"), ("-t",), ("--since", "1h"), ("--until", "1h"),
                  ("-f",), ("--since", "2020-01-01", "--details")):  # fmt: skip
        result = both("logs", *flags, name)
    assert result.stdout.startswith("out 1\n") or result.stdout.startswith(" out 1\n")


def test_logs_follow_until_the_end(sampan: DockerCli, name: str) -> None:
    sampan("run", "-di", "--name", name, "--network", "none", "busybox", "sh", "-c",
           "echo one; read x; echo two")  # fmt: skip
    process = sampan.popen("logs", "-f", name)
    assert process.stdout is not None
    assert process.stdout.readline() == b"one\n"
    sampan("attach", name, input="\n")
    assert process.communicate(timeout=30)[0] == b"two\n"
    assert process.returncode == 0


def test_events_as_they_happen(sampan: DockerCli, name: str) -> None:
    process = sampan.popen("events", "--filter", "type=container", "--filter", f"container={name}",
                           "--format", "{{.Action}} {{.Actor.Attributes.name}}")  # fmt: skip
    assert process.stdout is not None
    try:
        sampan("volume", "ls")  # by now the subscription may or may not be there
        seen: list[bytes] = []
        while not any(line.startswith(b"destroy") for line in seen):
            sampan("create", "--name", name, "busybox", "true")
            sampan("rm", name)
            os.set_blocking(process.stdout.fileno(), False)
            seen += process.stdout.readlines()
        assert f"destroy {name}\n".encode() in seen
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_stats(sampan: DockerCli, name: str) -> None:
    sampan("run", "-d", "--name", name, "-m", "64m", "busybox", "sleep", "1000")
    lines = sampan.out("stats", "--no-stream", name).splitlines()
    assert lines[0].split() == (
        [
            "CONTAINER",
            "ID",
            "NAME",
            "CPU",
            "%",
            "MEM",
            "USAGE",
            "/",
            "LIMIT",
            "MEM",
            "%",
            "NET",
            "I/O",
            "BLOCK",
            "I/O",
            "PIDS",
        ]
    )
    assert f" {name} " in lines[1]
    assert "/ 64MiB" in lines[1]
    shown = sampan.out("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", name)
    assert shown == f"{name} 1"
    with Terminal([sampan.program, "stats", name], sampan.environment, 20, 120) as terminal:
        terminal.expect(b"64MiB")
        terminal.expect(b"\x1b[H")
        terminal.expect(b"64MiB")
        terminal.type(b"\x03")
        assert terminal.wait() == 130


@pytest.mark.parametrize(
    "command",
    [
        "container prune",
        "image prune",
        "image prune -a --filter until=1h",
        "network prune",
        "volume prune",
        "volume prune -a",
        "system prune",
        "system prune -a --volumes --filter label=x --filter label!=y",
    ],
)
def test_pruning_asks(both: Both, command: str) -> None:
    both(*command.split(), input="n\n")


def test_pruning(sampan: DockerCli, docker: DockerCli) -> None:
    texts = []
    for cli in (docker, sampan):
        identity = cli.out("create", "-l", "prune=me", "busybox", "true")
        cli("network", "create", "--label", "prune=me", "prunable")
        cli("volume", "create", "--label", "prune=me", "prunable")
        filters = ("-f", "--filter", "label=prune=me")
        output = [
            cli("container", "prune", *filters).stdout.replace(identity, "ID"),
            cli("network", "prune", *filters).stdout,
            cli("volume", "prune", "-a", *filters).stdout,
            cli("image", "prune", *filters).stdout,
            cli("system", "prune", "-f", "--filter", "until=1000000h").stdout,
        ]
        texts.append(output)
    assert texts[0] == texts[1]
    assert "ID\n" in texts[1][0]


def test_contexts_are_shared_with_docker(sampan: DockerCli, tmp_path: Path) -> None:
    """Each command line does the same in a directory of its own, then reads the other's."""
    homes = []
    for program in (CLI, sampan.program):
        home = tmp_path / str(len(homes))
        environment = {"PATH": os.environ["PATH"], "DOCKER_CONFIG": str(home), "HOME": str(home)}
        output = []
        for command in (
            f"context create one --docker host={sampan.host} --description first",
            "context create two --docker host=tcp://127.0.0.1:1",
            "context create two",
            "context ls --format {{.Name}}={{.DockerEndpoint}}={{.Current}}",
            "context use one",
            "context show",
            "context ls -q",
            "images -q --filter reference=none",
            "context inspect one --format {{.Name}}{{.Endpoints.docker.Host}}",
            "context update two --description changed",
            f"context export two {home}/two.tar",
            f"context import three {home}/two.tar",
            "context inspect three",
            "context rm one",
            "context rm -f one two",
            "--context two ps",
            "context ls --format {{.Name}}",
        ):
            result = subprocess.run(
                [program, *command.split()],
                capture_output=True, text=True, env=environment, timeout=60, check=False,
            )  # fmt: skip
            lines = (result.returncode, result.stdout, result.stderr)
            output.append(str(lines).replace(str(home), "HOME"))
        homes.append((home, output[:3] + output[4:-1]))
    assert homes[1][1] == homes[0][1]
    for program, home in ((CLI, homes[1][0]), (sampan.program, homes[0][0])):
        environment = {"PATH": os.environ["PATH"], "DOCKER_CONFIG": str(home), "HOME": str(home)}
        result = subprocess.run(
            [program, "context", "inspect", "three", "--format", "{{.Endpoints.docker.Host}}"],
            capture_output=True, text=True, env=environment, timeout=60, check=True,
        )  # fmt: skip
        assert result.stdout == "tcp://127.0.0.1:1\n"


def test_ssh_style_transport(sampan: DockerCli, tmp_path: Path) -> None:
    """``ssh://`` with a program in ssh's place that runs the far command here."""
    fake = tmp_path / "ssh"
    fake.write_text(
        '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift 2\n'
        f'export DOCKER_HOST={sampan.host}\nexec sh -c "$*"\n'
    )
    fake.chmod(0o755)
    program = Path(sampan.program)
    (tmp_path / "sampan").symlink_to(program)
    environment = {**sampan.environment, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    del environment["DOCKER_HOST"]
    result = subprocess.run(
        [sampan.program, "-H", "ssh://user@far.test:22", "run", "--rm", "-i", "--network", "none",
         "busybox", "cat"],
        input="over there\n", capture_output=True, text=True, env=environment, timeout=60,
        check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout, result.stderr) == (0, "over there\n", "")
    fake.write_text("#!/bin/sh\necho no such host >&2; exit 255\n")
    refused = subprocess.run(
        [sampan.program, "-H", "ssh://far.test", "ps"],
        capture_output=True, text=True, env=environment, timeout=60, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert refused.stderr.startswith("no such host\n")
    assert "error during connect: ssh to far.test has ended: make sure the URL" in refused.stderr


def test_why(sampan: DockerCli, name: str) -> None:
    sampan("run", "-d", "--name", name, "busybox", "sleep", "1000")
    assert "running" in sampan.out("why", name)
    sampan("kill", name)
    sampan("wait", name)
    said = sampan.out("why", name)
    assert "asked to end through the engine: SIGKILL" in said
    assert "Status 137: SIGKILL" in said


def test_why_a_system_call_ended_it(sampan: DockerCli, name: str, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(
        json.dumps(
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [
                    {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"},
                    {"names": ["symlink", "symlinkat"], "action": "SCMP_ACT_LOG"},
                    {"names": ["rmdir"], "action": "SCMP_ACT_ERRNO"},
                ],
            }
        )
    )
    options = ("--security-opt", f"seccomp={profile}", "--name", name)
    sampan("run", *options, "busybox", "mkdir", "/x", status=159)
    said = sampan.out("why", name)
    assert "had the kernel kill mkdir for the system call mkdir" in said
    assert "Status 159: SIGSYS ended it: a system call was denied by its seccomp profile" in said
    sampan("rm", name)
    script = "ln -s a b; ln -s a c; exec sleep 1000"
    sampan("run", "-d", *options, "busybox", "sh", "-c", script)
    assert "It is running, and nothing holds it back." in sampan.out("why", name)  # ln is gone
    sampan("rm", "-f", name)
    sampan("run", "-d", *options, "busybox", "ln", "-s", "a", "b")
    sampan("wait", name)
    assert "logged that ln made the system call symlink" in sampan.out("why", name)
    sampan("rm", "-f", name)
    sampan("run", *options, "busybox", "rmdir", "/tmp", status=1)
    said = sampan.out("why", name)
    assert "killed" not in said
    assert "If its seccomp profile refused it a system call, that left no trace" in said


def test_why_memory_and_processors(sampan: DockerCli, name: str) -> None:
    eat = "x=a; while true; do x=$x$x; done"
    limits = ("--memory", "16m", "--memory-swap", "16m")
    sampan("run", "--name", name, *limits, "busybox", "sh", "-c", eat, status=137)
    assert "because it reached its memory limit of 16MiB" in sampan.out("why", name)
    sampan("rm", name)
    busy = "while true; do :; done"
    sampan("run", "-d", "--name", name, "--cpus", "0.1", "busybox", "sh", "-c", busy)
    for _ in range(100):
        if "held it back" in (said := sampan.out("why", name)):
            break
        time.sleep(0.1)
    assert "Its CPU limit of 0.1 CPUs held it back in" in said


def test_clone(sampan: DockerCli, name: str) -> None:
    sampan("run", "-d", "--name", name, "-e", "A=1", "-l", "x=y", "-m", "64m", "busybox", "sleep",
           "1000")  # fmt: skip
    try:
        sampan("container", "clone", "--run", "-e", "A=2", name, f"{name}-2")
        shown = sampan.out("inspect", "-f",
                           "{{.State.Running}} {{.HostConfig.Memory}} {{.Config.Labels}}",
                           f"{name}-2")  # fmt: skip
        assert shown == "true 67108864 map[x:y]"
        assert sampan.out("exec", f"{name}-2", "sh", "-c", "echo $A") == "2"
    finally:
        sampan("rm", "-f", f"{name}-2", status=None)
