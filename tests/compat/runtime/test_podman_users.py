"""User namespaces of Debian's podman, root's and another user's, with sampan-runtime.

Each podman has roots, an /etc (with ranges of ids) and a network namespace of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.compat.runtime.test_engines import PROGRAM, Result, caller, remove_cgroups
from tests.engines import busybox_tar

USER, FIRST = 47_120, 2_000_000
PARENT = f"/sampan-test-{os.getpid()}-podman-users"
_OWN_ETC = (
    'mount -t overlay etc -o "lowerdir=/etc,upperdir=$0/up,workdir=$0/work" /etc && exec "$@"'
)
_SHOW = """cat /proc/self/uid_map; id -u; touch /made 2>&1 && stat -c %u:%g /made; echo > /dev/null
    cat /v/file; touch /v/new && stat -c %u /v/new"""
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not PROGRAM.exists(), reason="sampan-runtime is not installed"),
    pytest.mark.skipif(not shutil.which("podman"), reason="needs podman"),
]


@dataclass(frozen=True)
class Podman:
    """``podman`` of a user; ``more``: what its ``run`` takes besides."""

    place: Path
    words: tuple[str, ...]
    more: tuple[str, ...] = ()

    def __call__(self, *words: str, input: bytes | None = None) -> Result:
        return caller(*self.words)(*words, input=input)

    def ok(self, *words: str, input: bytes | None = None) -> str:
        result = self(*words, input=input)
        assert result.returncode == 0, (words, result.stdout, result.stderr)
        return result.stdout

    def show(self, mode: str, *words: str) -> tuple[list[list[int]], list[str]]:
        """(rows of the uid map, what else ``_SHOW`` finds in a container with ``--userns``)."""
        volume = self.place / "v"
        (volume / "new").unlink(missing_ok=True)
        mounts = ("-v", f"{volume}:/v", *words)
        run = ("run", "--rm", *self.more, "--userns", mode, *mounts, "bb", "sh", "-c", _SHOW)
        lines = self.ok(*run).splitlines()
        rows = [list(map(int, line.split())) for line in lines if len(line.split()) == 3]
        return rows, lines[len(rows) :]


def places(root: Path, owner: int) -> Path:
    """Directories of one podman, whose user can get there."""
    root.chmod(0o711)
    for name in ("etc/up", "etc/work", "home", "run", "v"):
        (root / name).mkdir(parents=True)
    (root / "v" / "file").write_text("data\n")
    # What is above /etc is not the machine's; ranges are root's, or of podman's "containers".
    ranges = f"containers:{FIRST}:1000000\npm:{FIRST}:65536\n"
    for name in ("subuid", "subgid"):
        (root / "etc/up" / name).write_text(ranges)
    (root / "etc/up/passwd").write_text(
        Path("/etc/passwd").read_text() + f"pm:x:{USER}:{USER}::{root}/home:/bin/sh\n"
    )
    (root / "etc/up/group").write_text(Path("/etc/group").read_text() + f"pm:x:{USER}:\n")
    for name in ("home", "run", "v", "v/file"):
        os.chown(root / name, owner, owner)
    return root


def prefix(root: Path, namespace: str) -> tuple[str, ...]:
    inside = ("unshare", "--mount", "--propagation", "private", "sh", "-c", _OWN_ETC)
    return ("nsenter", f"--net=/run/netns/{namespace}", *inside, f"{root}/etc")


@pytest.fixture(scope="module")
def of_root(namespace: str) -> Iterator[Podman]:
    with tempfile.TemporaryDirectory(prefix="sampan-podman-") as name:
        root = places(Path(name), 0)
        options = ("--root", f"{root}/root", "--runroot", f"{root}/run", "--tmpdir", f"{root}/tmp")
        options += ("--cgroup-manager", "cgroupfs", "--storage-driver", "vfs")
        words = (*prefix(root, namespace), "podman", *options, "--runtime", str(PROGRAM))
        podman = Podman(root, words, ("--network", "none", "--cgroup-parent", PARENT))
        try:
            podman.ok("import", "-", "bb", input=busybox_tar())
            yield podman
        finally:
            podman("rm", "--all", "--force", "--time", "0")
            podman("rmi", "--all", "--force")
            remove_cgroups(PARENT)


def end_processes() -> None:
    """Of the user, whom nobody else uses: podman leaves one that keeps its namespaces."""
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if os.stat(f"/proc/{name}").st_uid == USER:
                os.kill(int(name), signal.SIGKILL)


@pytest.fixture(scope="module")
def of_user(namespace: str) -> Iterator[Podman]:
    if not shutil.which("newuidmap"):
        pytest.skip("needs newuidmap")
    with tempfile.TemporaryDirectory(prefix="sampan-podman-") as name:
        root = places(Path(name), USER)
        drop = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
        own = ("env", "-C", f"{root}/home", "-u", "DBUS_SESSION_BUS_ADDRESS", "USER=pm")
        own += (f"HOME={root}/home", f"XDG_RUNTIME_DIR={root}/run")
        options = ("--cgroup-manager", "cgroupfs", "--storage-driver", "vfs")
        options += ("--events-backend", "file", "--runtime", str(PROGRAM))
        words = (*prefix(root, namespace), *drop, *own, "podman", *options)
        podman = Podman(root, words, ("--network", "none"))
        try:
            imported = podman("import", "-", "bb", input=busybox_tar())
            if imported.returncode:
                pytest.skip(f"podman does not work for other users here: {imported.stderr[-300:]}")
            yield podman
        finally:
            podman("rm", "--all", "--force", "--time", "0")
            end_processes()


def test_of_root(of_root: Podman) -> None:
    whole = [[0, 0, (1 << 32) - 1]]
    assert of_root.show("host") == (whole, ["0", "0:0", "data", "0"])
    (of_root.place / "v").chmod(0o777)
    for mode, count in (("auto", 1024), ("auto:size=4096", 4096)):
        assert of_root.show(mode) == ([[0, FIRST, count]], ["0", "0:0", "data", "0"])
        assert (of_root.place / "v" / "new").stat().st_uid == FIRST


def test_of_another_container(of_root: Podman) -> None:
    (of_root.place / "v").chmod(0o777)
    of_root.ok(
        "run", "-d", "--name", "first", *of_root.more, "--userns", "auto", "bb", "sleep", "99"
    )
    first, _ = of_root.show("container:first")
    assert first == [[0, FIRST, 1024]]
    told = of_root.ok("exec", "first", "sh", "-c", "echo > /dev/null; cat /proc/self/uid_map")
    assert [list(map(int, told.split()))] == first
    told = of_root.ok(
        *("run", "--rm", *of_root.more, "--userns", "container:first", "--pid", "container:first"),
        *("bb", "ps"),
    )
    assert "sleep 99" in told
    of_root.ok("rm", "-f", "-t", "0", "first")


def test_of_a_pod(of_root: Podman) -> None:
    infra = ("--infra-image", "bb", "--infra-command", "sleep 1000", *of_root.more)
    of_root.ok("pod", "create", "--name", "pod", "--userns", "auto", *infra)
    told = of_root.ok("run", "--rm", "--pod", "pod", "bb", "cat", "/proc/self/uid_map")
    assert [int(word) for word in told.split()] == [0, FIRST, 1024]
    of_root.ok("pod", "rm", "-f", "-t", "0", "pod")


def test_of_a_user(of_user: Podman) -> None:
    """podman's own user namespace is the host's here; others are within it."""
    host = [[0, USER, 1], [1, FIRST, 65536]]
    assert of_user.show("host") == (host, ["0", "0:0", "data", "0"])
    assert (of_user.place / "v" / "new").stat().st_uid == USER
    kept = [[0, 1, USER], [USER, 0, 1], [USER + 1, USER + 1, 65536 - USER]]
    rows, found = of_user.show("keep-id")
    assert (rows, found[0], found[-1]) == (kept, str(USER), str(USER))
    named = [[0, 1, 7], [7, 0, 1], [8, 8, 65529]]
    rows, found = of_user.show("keep-id:uid=7,gid=8")
    assert rows == named
    assert found[0] == "7"
    assert found[-2:] == ["data", "7"]
    assert (of_user.place / "v" / "new").stat().st_uid == USER


@pytest.mark.parametrize(("mode", "first"), [("auto", 1), ("nomap", 1)])
def test_of_a_user_without_himself(of_user: Podman, mode: str, first: int) -> None:
    """The caller's own id is not in there: his files are nobody's."""
    words = ("run", "--rm", *of_user.more, "--userns", mode, "-v", f"{of_user.place}/v:/v", "bb")
    told = of_user.ok(*words, "sh", "-c", "cat /proc/self/uid_map; stat -c %u /v/file; id -u")
    row, owner, uid = told.splitlines()
    assert int(row.split()[1]) == first
    assert (owner, uid) == ("65534", "0")


def test_life_of_a_users_container(of_user: Podman) -> None:
    words = ("-d", "--name", "p", *of_user.more, "--userns", "keep-id:uid=7,gid=8")
    of_user.ok("run", *words, "bb", "sh", "-c", "trap exit TERM; while :; do sleep 0.1; done")
    assert of_user.ok("exec", "p", "id", "-u") == "7\n"
    assert of_user.ok("exec", "--user", "0", "p", "id", "-u") == "0\n"
    assert of_user("exec", "p", "nope").returncode == 127
    joined = ("run", "--rm", *of_user.more, "--userns", "container:p", "bb", "cat")
    assert of_user.ok(*joined, "/proc/self/uid_map") == of_user.ok(
        "exec", "p", "cat", "/proc/self/uid_map"
    )
    assert of_user("stop", "-t", "20", "p").returncode == 0
    assert of_user.ok("inspect", "-f", "{{.State.Status}}", "p") == "exited\n"
    of_user.ok("rm", "p")


def test_it_is_the_users_runtime(of_user: Podman) -> None:
    """Its state is below the user's own run directory, and gone with the containers."""
    of_user.ok("run", "--rm", *of_user.more, "bb", "true")
    assert os.listdir(of_user.place / "run" / "sampan-runtime") == []
    processes = subprocess.run(
        ["ps", "-o", "args=", "-u", str(USER)], capture_output=True, text=True
    )
    assert "sampan" not in processes.stdout
