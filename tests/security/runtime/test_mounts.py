"""Links and swaps in a hostile root: where mounts, masks and writes of the runtime must not go."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.kernel.oci.conftest import Config, Runtime
from tests.security.runtime.conftest import (
    GUARDED,
    Lab,
    both,
    engine_config,
    python,
    run,
    start,
)
from tests.security.runtime.mutants import Cut, mutant

IN_ROOT = "    return openat2(root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS, mode)\n"


def add_mount(config: Config, destination: str, source: str = "tmpfs", **more: object) -> None:
    """One more mount, before the interpreter's."""
    entry = {"destination": destination, "type": "tmpfs", "source": source, "options": [], **more}
    config["mounts"].insert(2, entry)


def bind(config: Config, destination: str, source: Path) -> None:
    add_mount(config, destination, str(source), type="bind", options=["rbind"])


@pytest.mark.parametrize(
    ("where", "guard"), [("absolute", GUARDED), ("absolute", "mutant"), ("climbing", GUARDED)]
)
def test_links_out_of_the_root(lab: Lab, guard: str, where: str, outside: Path) -> None:
    """CVE-2024-45310: a mount point behind a link of the image is made on the host.

    By ".." nobody gets out even of the mutant: the root is mounted on "/", above which nothing is.
    """
    runtime = lab(
        guard, Cut("kernel/openat.py", IN_ROOT, IN_ROOT.replace("RESOLVE_IN_ROOT | ", ""))
    )
    target = str(outside) if where == "absolute" else "../" * 20 + str(outside).lstrip("/")
    (lab.root / "evil").symlink_to(target)
    config = engine_config(runtime, "true")
    add_mount(config, "/evil/made")
    run(runtime, config)
    assert (outside / "made").exists() is (guard != GUARDED)


# The root's owner exchanges a directory and a link at the worst moments: around every look-up.
SWAP = """
def _swap(root):
    import ctypes
    call = ctypes.CDLL(None).renameat2
    call(root, b"dir", root, b"link", 2)


def in_root(root, path, flags=os.O_PATH, mode=0):
    _swap(root)
    try:
        return openat2(root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS, mode)
    finally:
        _swap(root)
"""
# What runc did before: find out where a path leads inside the root, then use the result by name.
CHECK_FIRST = """
    fd = openat2(root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS, mode)
    name = os.readlink(f"/proc/self/fd/{fd}")
    os.close(fd)
    _swap(root)
    try:
        return os.open(name.lstrip("/") or ".", flags | os.O_CLOEXEC, dir_fd=root)
    finally:
        _swap(root)
"""


@both
@pytest.mark.parametrize("first", ["dir", "link"])
def test_cve_2021_30465(lab: Lab, guard: str, first: str, outside: Path) -> None:
    """The mount point is exchanged for a link between its check and its use.

    The race is won every time: the look-up itself makes the exchange, in the product's code too.
    """
    head, _, tail = SWAP.partition("    _swap(root)\n    try:")
    body = SWAP if guard == GUARDED else head + CHECK_FIRST
    assert tail
    old = "def make_directories(root: int"
    lab.runtime.program = mutant(lab.directory, Cut("kernel/openat.py", old, f"{body}\n\n{old}"))
    (lab.root / "dir").mkdir()
    (lab.root / "link").symlink_to(outside)
    config = engine_config(lab.runtime, "true")
    add_mount(config, f"/{first}/made")
    run(lab.runtime, config)
    found = (outside / "made").exists()
    assert found is (guard != GUARDED and first == "dir")
    assert sorted(os.listdir(outside)) == ["made", "secret"] if found else ["secret"]


@both
@pytest.mark.parametrize("name", ["proc", "sys"])
def test_links_for_proc_and_sys(lab: Lab, guard: str, name: str) -> None:
    """CVE-2019-19921, CVE-2023-27561, CVE-2023-28642.

    /proc is a link, so that what is masked and labelled by name is elsewhere.
    """
    cut = Cut("runtime/mount_operations.py", "        if ordinary:\n", "        if False:\n")
    runtime = lab(guard, cut)
    (lab.root / name).rmdir()
    (lab.root / "evil").mkdir()
    (lab.root / name).symlink_to("evil")
    result = run(runtime, engine_config(runtime, "readlink", f"/{name}"))
    assert (result.stdout == "evil\n") is (guard != GUARDED)
    assert guard != GUARDED or f"mounting at /{name}" in result.stderr


@both
def test_cve_2019_16884(lab: Lab, guard: str, outside: Path) -> None:
    """A volume at /proc gives the runtime a procfs of the image's making."""
    cut = Cut("runtime/mount_operations.py", 'if destination == "/proc" and', "if False and")
    runtime = lab(guard, cut)
    config = engine_config(runtime, "cat", "/proc/secret")
    config["linux"].update(maskedPaths=[], readonlyPaths=[])
    config["linux"].pop("sysctl")
    bind(config, "/proc", outside)
    config["mounts"] = [entry for entry in config["mounts"] if entry["type"] != "proc"]
    assert (run(runtime, config).stdout == "secret") is (guard != GUARDED)


def attackers_dev(lab: Lab, config: Config) -> Path:
    """/dev is a directory the attacker has prepared."""
    dev = lab.runtime.bundle / "dev"
    dev.mkdir()
    config["mounts"] = [
        entry for entry in config["mounts"] if not entry["destination"].startswith("/dev")
    ]
    bind(config, "/dev", dev)
    return dev


OPEN = """
import sys
for mode in ("r", "r+"):
    try:
        open(sys.argv[1], mode).close()
        print("opened", mode)
    except OSError as error:
        print(error)
"""
NULL = Cut(
    "runtime/hide_operations.py",
    'os.open("/dev/null", os.O_PATH | os.O_CLOEXEC)',
    'openat.in_root(context.root, "/dev/null")',
)
IS_NULL = Cut("runtime/hide_operations.py", "if not openat.is_device(null, 1, 3):", "if False:")


@pytest.mark.parametrize(
    ("cuts", "succeeds"),
    [((), False), ((NULL,), False), ((NULL, IS_NULL), True)],
    ids=["guarded", "checked", "mutant"],
)
def test_cve_2025_31133(lab: Lab, cuts: tuple[Cut, ...], succeeds: bool) -> None:
    """The container's /dev/null leads to core_pattern, which then covers a masked path, writable.

    Two guards: the host's null device is taken, and it is checked to be that.
    """
    runtime = lab("mutant", *cuts) if cuts else lab(GUARDED)
    config = engine_config(runtime, *python(OPEN), "/proc/keys")
    (attackers_dev(lab, config) / "null").symlink_to("/proc/sys/kernel/core_pattern")
    config["process"]["args"][3] = OPEN.replace(
        'print("opened", mode)', "print('opened', mode, open(sys.argv[1]).read().strip())"
    )
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    result = run(runtime, config)
    assert (f"opened r+ {pattern}" in result.stdout) is succeeds, result


def console_config(lab: Lab, *args: str) -> Config:
    config = engine_config(lab.runtime, *args)
    config["process"]["terminal"] = True
    return config


def run_on_console(runtime: Runtime, config: Config, directory: Path) -> bool:
    """Create a container with a terminal; whether that worked."""
    runtime.write(config)
    container_id = f"c{len(runtime.ids)}"
    runtime.ids.append(container_id)
    with socket.socket(socket.AF_UNIX) as listener:
        path = directory / "console.sock"
        listener.bind(str(path))
        listener.listen()
        made = runtime.create(container_id, "--console-socket", path)
        return made.returncode == 0


@both
def test_cve_2025_52565(lab: Lab, guard: str, tmp_path: Path) -> None:
    """/dev/console is a link of the image's, so that the terminal is mounted over something else.

    The other half of it, a false terminal in /dev/pts, is no way in: the terminal is no path here
    (TIOCGPTPEER), and the multiplexer is that of the devpts we mounted ourselves.
    """
    cut = Cut(
        "runtime/mount_operations.py",
        '            _check_ordinary(context.root, "/dev/console", target)\n',
        "",
    )
    runtime = lab(guard, cut)
    config = console_config(lab, "true")
    (lab.root / "dev" / "console").symlink_to("/proc/sys/kernel/core_pattern")
    for entry in config["mounts"]:
        if entry["destination"] == "/dev":
            entry["options"].append("tmpcopyup")
    assert run_on_console(runtime, config, tmp_path) is (guard != GUARDED)


PROC_TARGET = Cut(
    "runtime/mount_operations.py", "        if not proc_file and ", "        if False and "
)
NO_XDEV = (
    Cut(
        "runtime/process_operations.py",
        "openat.RESOLVE_BENEATH | openat.RESOLVE_NO_XDEV | openat.RESOLVE_NO_SYMLINKS",
        "0",
    ),
    Cut(
        "runtime/process_operations.py",
        "            if openat.filesystem_magic(fd) != openat.PROC_SUPER_MAGIC:\n",
        "            if False:\n",
    ),
)


@pytest.mark.parametrize(
    ("cuts", "succeeds"),
    [((), False), ((PROC_TARGET,), False), (NO_XDEV, False), ((PROC_TARGET, *NO_XDEV), True)],
    ids=["guarded", "mounted", "followed", "mutant"],
)
def test_cve_2025_52881(lab: Lab, cuts: tuple[Cut, ...], succeeds: bool, tmp_path: Path) -> None:
    """A write of the runtime to /proc lands in a file of the attacker's choice.

    Two guards: nothing is mounted inside a procfs, whatever path leads there; and writes go to
    the procfs itself, never across something mounted on it.
    """
    runtime = lab("mutant", *cuts) if cuts else lab(GUARDED)
    victim = tmp_path / "victim"
    victim.write_text("")
    (lab.root / "x").symlink_to("/proc/sys/net/ipv4")
    config = engine_config(runtime, "true")
    bind(config, "/x/ping_group_range", victim)
    run(runtime, config)
    assert (victim.read_text() != "") is succeeds


@both
def test_false_multiplexer_of_terminals(lab: Lab, guard: str) -> None:
    """/dev/pts is the image's own: what is called ptmx there is not opened, be it what it may.

    A pipe, whose other end waits in the container, tells.
    """
    cut = Cut(
        "kernel/tty.py", "    if filesystem_magic(devpts) != DEVPTS", "    if False and DEVPTS"
    )
    runtime = lab(guard, cut)
    (lab.root / "dev/pts").mkdir()
    os.mkfifo(lab.root / "dev/pts/ptmx")
    script = "echo > /dev/pts/ptmx; touch /opened; sleep 1000"
    config = engine_config(runtime, "sh", "-c", script)
    config["mounts"] = [
        entry for entry in config["mounts"] if not entry["destination"].startswith("/dev")
    ]
    container_id = start(runtime, config)
    result = runtime("exec", "--tty", container_id, "true")
    assert result.returncode != 0
    assert (guard == GUARDED) is ("not a devpts" in result.stderr), result.stderr
    if guard == GUARDED:
        assert not (lab.root / "opened").exists()
        return
    waiting = f"until test -e {lab.root}/opened; do sleep 0.02; done"
    subprocess.run(["timeout", "30", "sh", "-c", waiting], check=True)


@both
def test_proc_and_core_pattern_are_not_writable(lab: Lab, guard: str) -> None:
    """/proc/sys, sysrq-trigger and core_pattern, by which a host is taken over as root.

    The mutant is a container without linux.readonlyPaths. Nothing is written, only opened.
    """
    config = engine_config(lab.runtime, *python(OPEN), "/proc/sys/kernel/core_pattern")
    if guard != GUARDED:
        config["linux"]["readonlyPaths"] = []
    result = run(lab.runtime, config)
    assert "opened r\n" in result.stdout, result
    assert ("opened r+" in result.stdout) is (guard != GUARDED)
    for path in ("/proc/sysrq-trigger", "/proc/sys/kernel/modprobe", "/proc/irq", "/proc/bus"):
        config["process"]["args"][-1] = path
        assert "opened r+" not in run(lab.runtime, config).stdout or guard != GUARDED


@both
def test_masked_files_tell_nothing(lab: Lab, guard: str) -> None:
    """/proc/kcore, /proc/keys and the rest are empty whoever asks."""
    config = engine_config(lab.runtime, "cat", "/proc/timer_list")
    if guard != GUARDED:
        config["linux"]["maskedPaths"] = []
    result = run(lab.runtime, config)
    assert result.returncode == 0, result.stderr
    assert bool(result.stdout) is (guard != GUARDED)
