"""The same builds through every door: the classic endpoint, docker buildx and ``sampan build``."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.compat.build.conftest import Serve, program, serve  # noqa: F401
from tests.compat.conftest import CLI, TIMEOUT, DockerCli, Eventually, Sampand

DOORS = ("classic", "buildx", "sampan")
WEB = "http://127.0.0.1:5061"


@dataclass(frozen=True)
class Door(DockerCli):
    """A command line that builds, in the daemon's network namespace."""

    kind: str = ""

    @property
    def environment(self) -> dict[str, str]:
        found = {**super().environment, "BUILDX_CONFIG": str(self.config / "buildx")}
        return {**found, "DOCKER_BUILDKIT": "0" if self.kind == "classic" else "1"}


@pytest.fixture(params=DOORS)
def door(
    request: pytest.FixtureRequest,
    sampand: Sampand,
    program: Path,  # noqa: F811
    tmp_path: Path,
) -> Door:
    if sampand.foreign:
        pytest.skip("needs a daemon of its own")
    inner: str = str(program)
    config = tmp_path / "cli"
    if request.param != "sampan":
        inner = CLI
        config = request.getfixturevalue("buildx").config
    path = tmp_path / "door"
    path.write_text(f'#!/bin/sh\nexec nsenter --net=/run/netns/{sampand.namespace} {inner} "$@"\n')
    path.chmod(0o755)
    return Door(str(path), sampand.host, config, kind=request.param)


def cgroups(sampand: Sampand) -> set[str]:
    """The cgroups below the daemon's own parent, in every hierarchy."""
    return {
        str(path)
        for parent in Path("/sys/fs/cgroup").glob(f"**/{sampand.namespace}")
        for path in parent.rglob("*")
        if path.is_dir()
    }


def mounts(sampand: Sampand) -> set[str]:
    """What is mounted below the daemon's directories, as the daemon sees it."""
    lines = Path(f"/proc/{sampand.pid}/mountinfo").read_text().splitlines()
    return {line.split()[4] for line in lines if str(sampand.root) in line.split()[4]}


def test_an_interrupted_build_leaves_nothing(
    door: Door, sampand: Sampand, context: Path, eventually: Eventually
) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo begun\n")
    door("build", "-t", "door:warm", "--no-cache", str(context))
    before = cgroups(sampand), mounts(sampand)
    nap = f"sleep 98{DOORS.index(door.kind)}7"
    (context / "Dockerfile").write_text(
        "FROM busybox\n"
        "RUN --mount=type=cache,target=/c --mount=type=bind,target=/b --mount=type=tmpfs,target=/t"
        f" echo begun; {nap} & {nap}\n"
    )
    words = () if door.kind == "classic" else ("--progress=plain",)
    process = subprocess.Popen(
        [door.program, "build", *words, str(context)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=door.environment,
    )
    assert process.stdout is not None
    try:
        while not (line := process.stdout.readline()).rstrip().endswith(b"begun"):
            assert line, "it ended"
        assert subprocess.run(["pgrep", "-f", f"^{nap}"], check=False).returncode == 0
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    assert process.returncode != 0
    eventually(lambda: not list((sampand.root / "exec" / "containers").iterdir()))
    assert subprocess.run(["pgrep", "-f", f"^{nap}"], check=False).returncode == 1
    eventually(lambda: (cgroups(sampand), mounts(sampand)) == before)
    assert not list((sampand.root / "data" / "build" / "contexts").iterdir())
    assert not list((sampand.root / "data" / "build" / "mounts").iterdir())
    assert not list((sampand.root / "exec" / "build").iterdir())
    (context / "Dockerfile").write_text("FROM busybox\nRUN --mount=type=cache,target=/c echo on\n")
    door("build", str(context))


@pytest.fixture
def site(tmp_path: Path, serve: Serve) -> Iterator[Path]:  # noqa: F811
    """A web server with a git repository, an archive and a Dockerfile."""
    root = tmp_path / "site"
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    root.mkdir()

    def git(*words: str) -> None:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        subprocess.run(["git", *identity, *words], cwd=work, check=True, capture_output=True)

    git("init", "-q", "-b", "master", ".")
    for branch in ("master", "side"):
        if branch == "side":
            git("checkout", "-q", "-b", branch)
        for place in (".", "sub"):
            (work / place / "f").write_text(f"{branch} {place}\n")
            (work / place / "Dockerfile").write_text("FROM busybox\nCOPY f /f\nCMD cat /f\n")
        git("add", "-A")
        git("commit", "-q", "-m", branch)
    git("checkout", "-q", "master")
    subprocess.run(
        ["git", "clone", "-q", "--bare", str(work), str(root / "repo.git")],
        check=True,
        capture_output=True,
    )
    subprocess.run(["git", "update-server-info"], cwd=root / "repo.git", check=True)
    git("checkout", "-q", "side")
    with tarfile.open(root / "context.tar.gz", "w:gz") as archive:
        archive.add(work / "sub", ".")
    (root / "Dockerfile").write_text("FROM busybox\nCMD echo alone\n")
    words = ("-m", "http.server", "--bind", "127.0.0.1", "--directory", str(root), "5061")
    with serve(5061, sys.executable, *words):
        yield root


def test_contexts_from_elsewhere(door: Door, docker: DockerCli, site: Path) -> None:
    if not shutil.which("git"):
        pytest.skip("needs git")
    for address, shown in (
        (f"{WEB}/repo.git", "master ."),
        (f"{WEB}/repo.git#side", "side ."),
        (f"{WEB}/repo.git#side:sub", "side sub"),
        (f"{WEB}/repo.git#:sub", "master sub"),
        (f"{WEB}/context.tar.gz", "side sub"),
        (f"{WEB}/Dockerfile", "alone"),
    ):
        door("build", "-t", "door:far", address)
        assert docker.out("run", "--rm", "--network=none", "door:far") == shown, address
    for address in (f"{WEB}/repo.git#none", f"{WEB}/none.tar.gz", f"{WEB}/repo.git#master:none"):
        failed = door("build", "-t", "door:far", address, status=None)
        assert failed.returncode != 0, address


def test_contexts_from_standard_input(door: Door, docker: DockerCli, site: Path) -> None:
    def shown() -> str:
        return docker.out("run", "--rm", "--network=none", "door:in")

    def build(*words: str, input: bytes) -> None:
        command = [door.program, "build", "-t", "door:in", *words]
        subprocess.run(command, input=input, env=door.environment, check=True, capture_output=True)

    build("-", input=(site / "context.tar.gz").read_bytes())
    assert shown() == "side sub"
    build("-", input=b"FROM busybox\nCMD echo piped\n")
    assert shown() == "piped"
    work = site.parent / "work" / "sub"
    build("-f", "-", str(work), input=b"FROM busybox\nCOPY f /g\nCMD cat /g\n")
    assert shown() == "side sub"


def _installed(name: str, root: Path) -> None:
    """A program of this machine with what it is linked to, below ``root``."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}")
    told = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout
    for path in [found, *(word for word in told.split() if word.startswith("/"))]:
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(path), target)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts an ssh-agent with one key; the key's fingerprint is returned."""
    started: list[int] = []

    def start(path: Path) -> str:
        if not shutil.which("ssh-agent"):
            pytest.skip("needs ssh-agent")
        told = subprocess.run(
            ["ssh-agent", "-a", str(path)], capture_output=True, text=True, check=True
        )
        started.append(int(told.stdout.split("SSH_AGENT_PID=")[1].split(";")[0]))
        key = tmp_path / f"key-{path.name}"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        subprocess.run(["ssh-add", "-q", key], env=environment, check=True)
        shown = subprocess.run(
            ["ssh-keygen", "-l", "-f", key], capture_output=True, text=True, check=True
        )
        return shown.stdout.split()[1]

    yield start
    for pid in started:
        os.kill(pid, signal.SIGTERM)


def test_agents_answer_from_inside(
    door: Door,
    sampand: Sampand,
    context: Path,
    tmp_path: Path,
    agent: Callable[..., str],
) -> None:
    _installed("ssh-add", context / "root")
    (context / "Dockerfile").write_text(
        "FROM busybox\nCOPY root /\n"
        "RUN --mount=type=ssh ssh-add -l\n"
        "RUN --mount=type=ssh,id=other,uid=7,mode=0600 stat -c %u:%a $SSH_AUTH_SOCK;"
        " ssh-add -l; ! chown 9 $SSH_AUTH_SOCK\n"
        "RUN ! ls /run/buildkit && test -z $SSH_AUTH_SOCK\n"
    )
    if door.kind == "classic":
        failed = door("build", "--no-cache", str(context), status=None)
        assert failed.returncode != 0, "it has no agents to offer"
        return
    first, second = agent(tmp_path / "one"), agent(tmp_path / "two")
    words = (f"--ssh=default={tmp_path / 'one'}", f"--ssh=other={tmp_path / 'two'}")
    done = door("build", "--progress=plain", "--no-cache", *words, str(context))
    assert f" {first} " in done.stderr
    assert f" {second} " in done.stderr
    assert "7:600" in done.stderr
    (context / "Dockerfile").write_text("FROM busybox\nRUN --mount=type=ssh,required=true true\n")
    missing = door("build", "--progress=plain", str(context), status=None)
    assert missing.returncode != 0
    assert "ssh" in missing.stderr
    for place in ("data", "exec"):
        assert not list((sampand.root / place).rglob("*agent*")), "a socket stays"


def _foreign() -> bytes:
    """A program of one segment for the architecture this machine has not."""
    machine = {"x86_64": 183, "aarch64": 62}[os.uname().machine]
    head = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 1 << 22, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 1 << 22, 1 << 22, 128, 128, 4096)
    return b"\x7fELF\x02\x01\x01" + bytes(9) + head + segment + bytes(8)


def test_programs_of_another_platform_need_a_handler(door: Door, context: Path) -> None:
    if Path("/proc/sys/fs/binfmt_misc/status").exists():
        pytest.skip("this machine may have handlers")
    (context / "foreign").write_bytes(_foreign())
    (context / "foreign").chmod(0o755)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY foreign /bin/sh\n")
    platform = "linux/arm64" if os.uname().machine == "x86_64" else "linux/amd64"
    words = (f"--platform={platform}", "-t", "door:foreign", str(context))
    door("build", *words)  # nothing is run
    (context / "Dockerfile").write_text("FROM scratch\nCOPY foreign /bin/sh\nRUN any\n")
    failed = door("build", *words, status=None)
    told = failed.stdout + failed.stderr
    assert failed.returncode != 0
    assert "exec format error" in told
    if door.kind != "classic":
        assert f"programs of {platform} takes a handler of this machine's binfmt_misc" in told
