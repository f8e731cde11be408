"""What runc does beyond the specification, and what uses it relies on."""

from __future__ import annotations

import json
import os
import select
from pathlib import Path
from typing import Any

import pytest

from sampan.kernel import cgroup
from sampan.runtime import mount_options
from sampan.runtime.oci_documents import template
from tests.kernel.oci.conftest import Runtime

two_processors = pytest.mark.skipif(os.cpu_count() == 1, reason="needs two processors")


def mounts(*entries: dict[str, Any]) -> list[dict[str, Any]]:
    return [*template()["mounts"], *entries]


def running(runtime: Runtime, **changes: Any) -> str:
    """A container that sleeps."""
    runtime.config("c", "sleep", "1000", **changes)
    assert runtime.create("c").returncode == 0
    runtime.ok("start", "c")
    return "c"


@pytest.mark.parametrize(
    ("env", "home"),
    [
        ([], "/root"),
        (["HOME=/else"], "/else"),
        (["HOME="], "/root"),
        (["HOME=/else", "HOME="], "/root"),
    ],
)
def test_home(runtime: Runtime, env: list[str], home: str) -> None:
    """An empty one counts as none."""
    result = runtime.run("sh", "-c", "echo $HOME", env=["PATH=/bin", *env])
    assert result.stdout == f"{home}\n", result.stderr


@pytest.mark.parametrize("entry", ["NAME", "=value", ""])
def test_environment_is_made_of_assignments(runtime: Runtime, entry: str) -> None:
    result = runtime.run("true", env=["PATH=/bin", entry])
    assert result.returncode == 1
    assert json.dumps(f"process.env: {entry!r} is not NAME=value")[1:-1] in result.stderr


@pytest.mark.parametrize("kind", ["directory", "file"])
@pytest.mark.parametrize("target", ["/run/below/made", "../run/below/made", "/run/x/../made"])
def test_mount_point_behind_a_link_that_dangles(
    runtime: Runtime, tmp_path: Path, kind: str, target: str
) -> None:
    """As /etc/resolv.conf is of a Debian with systemd: what it leads to is made, inside."""
    root = runtime.bundle / "rootfs"
    (root / "etc/link").symlink_to(target)
    (tmp_path / "f").write_text("found\n")
    source, inner = (tmp_path, "/etc/link/f") if kind == "directory" else (tmp_path / "f", "")
    entry = {"destination": "/etc/link", "type": "bind", "source": str(source)}
    config = mounts({**entry, "options": ["bind"]})
    result = runtime.run("cat", inner or "/etc/link", mounts=config)
    if "x/.." in target:  # nothing is there to go up from
        assert result.returncode == 1
        return
    assert result.stdout == "found\n", result.stderr
    assert os.path.lexists(root / "run/below/made")
    assert not os.path.exists("/run/below")


def test_mount_point_behind_links_in_a_circle(runtime: Runtime) -> None:
    root = runtime.bundle / "rootfs"
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a/x")
    entry = {"destination": "/a", "type": "tmpfs", "source": "tmpfs"}
    result = runtime.run("true", mounts=mounts(entry))
    assert result.returncode == 1
    assert "Too many levels of symbolic links" in result.stderr


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ([], "710\n"),
        (["mode=750"], "750\n"),
        (["ro"], "710\n"),
        (["tmpcopyup"], "710\nfile\n"),
        (["ro", "tmpcopyup"], "710\nfile\n"),
    ],
)
def test_mode_of_a_tmpfs(runtime: Runtime, options: list[str], seen: str) -> None:
    """That of what it covers; a read-only one is filled nevertheless."""
    covered = runtime.bundle / "rootfs/covered"
    covered.mkdir()
    covered.chmod(0o710)
    (covered / "file").touch()
    entry = {"destination": "/covered", "type": "tmpfs", "source": "t", "options": options}
    script = "stat -c %a /covered; ls /covered; touch /covered/x"
    result = runtime.run("sh", "-c", script, mounts=mounts(entry))
    assert result.stdout == seen, result.stderr
    assert ("Read-only" in result.stderr) is ("ro" in options)


def test_mode_of_a_tmpfs_that_covers_nothing(runtime: Runtime) -> None:
    entry = {"destination": "/new/one", "type": "tmpfs", "source": "t"}
    result = runtime.run("stat", "-c", "%a", "/new/one", mounts=mounts(entry))
    assert result.stdout == "1777\n", result.stderr


WORDS = sorted(mount_options.WORDS)


@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_every_mount_option(runtime: Runtime, tmp_path: Path, kind: str) -> None:
    """All that ``features`` lists are taken by a new file system and by a bind mount."""
    skipped = {"remount", "idmap", "ridmap", "tryidmap", "bind", "rbind"}
    if kind == "tmpfs":
        entry = {"type": "tmpfs", "source": "t"}
        first = "mode=755"
    else:
        entry = {"type": "bind", "source": str(tmp_path)}
        first = "rbind"
    entries = []
    for word in WORDS:
        if word not in skipped:
            options = [first, word]
            entries.append({**entry, "destination": f"/o/{word}", "options": options})
    assert len(entries) > 50
    result = runtime.run("cat", "/proc/self/mountinfo", mounts=mounts(*entries))
    assert result.returncode == 0, result.stderr
    seen = [line.split()[4] for line in result.stdout.splitlines()]
    assert set(seen) >= {entry["destination"] for entry in entries}


def test_personality_and_memory_policy_are_also_of_exec(runtime: Runtime) -> None:
    """They are the container's, not the process's."""
    policy = {"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}
    linux = {
        **template()["linux"],
        "cgroupsPath": f"{runtime.parent}/c",
        "personality": {"domain": "LINUX32"},
        "memoryPolicy": policy,
    }
    name = running(runtime, linux=linux)
    told = runtime.ok("exec", name, "sh", "-c", "cat /proc/self/personality /proc/self/numa_maps")
    assert told.startswith("00000008\n")
    assert told.split("\n")[1].split()[1] == "prefer=relative:0"


@pytest.mark.parametrize(
    ("affinity", "seen"),
    [
        ({}, "0-1"),
        ({"initial": "1"}, "0-1"),
        ({"initial": "0", "final": "1"}, "1"),
        ({"final": "0"}, "0"),
    ],
)
@two_processors
def test_affinity_of_exec(runtime: Runtime, affinity: dict[str, str], seen: str) -> None:
    """``initial`` until it is in the container's cgroups; from then on ``final`` or its cpuset."""
    name = running(runtime, resources={"cpu": {"cpus": "0-1"}})
    process = {"args": ["/bin/grep", "Cpus_allowed_list", "/proc/self/status"], "cwd": "/"}
    path = runtime.bundle / "process.json"
    path.write_text(json.dumps({**process, "execCPUAffinity": affinity}))
    assert runtime.ok("exec", "--process", path, name).split() == ["Cpus_allowed_list:", seen]


@two_processors
@pytest.mark.parametrize("cpus", ["", "0-1", "1"])
def test_affinity_of_the_caller_is_not_the_containers(runtime: Runtime, cpus: str) -> None:
    """Kernels since 6.2 would keep it, also in another cpuset."""
    resources = {"cpu": {"cpus": cpus}} if cpus else {}
    every = f"0-{(os.cpu_count() or 1) - 1}"
    seen = f"Cpus_allowed_list:\t{cpus or every}\n"
    show = ("grep", "Cpus_allowed_list", "/proc/self/status")
    usual = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})
    try:
        assert runtime.run(*show, resources=resources).stdout == seen
        name = running(runtime, resources=resources)
        assert runtime.ok("exec", name, *show) == seen
    finally:
        os.sched_setaffinity(0, usual)


@pytest.mark.parametrize("kind", ["unbindable", "runbindable"])
def test_root_that_is_unbindable(runtime: Runtime, kind: str) -> None:
    linux = {
        **template()["linux"],
        "cgroupsPath": f"{runtime.parent}/c",
        "rootfsPropagation": kind,
    }
    result = runtime.run("cat", "/proc/self/mountinfo", linux=linux)
    assert result.returncode == 0, result.stderr
    (root,) = [line for line in result.stdout.splitlines() if line.split()[4] == "/"]
    assert " unbindable " in root


def test_flags_among_the_arguments(runtime: Runtime) -> None:
    """urfave/cli's way; but the words of exec and ps are another program's."""
    name = running(runtime)
    runtime.ok("update", name, "--pids-limit", "7")
    (directory,) = [
        found for found in cgroup.probe().directories(f"{runtime.parent}/c") if "pids" in found
    ] or [cgroup.probe().directories(f"{runtime.parent}/c")[0]]
    assert Path(directory, "pids.max").read_text() == "7\n"
    assert runtime.ok("exec", name, "echo", "--detach", "-x") == "--detach -x\n"
    result = runtime("update", "--no-such-flag", name)
    assert "flag provided but not defined: -no-such-flag" in result.stderr
    assert "unknown signal '-9'" in runtime("kill", name, "-9").stderr
    runtime.ok("delete", name, "--force")


def test_exec_in_cgroups_below(runtime: Runtime) -> None:
    """``--cgroup`` takes one for all controllers, or one for some of version 1."""
    layout = cgroup.probe()
    name = running(runtime)
    group = f"{runtime.parent}/c"
    for directory in layout.directories(group):
        os.mkdir(f"{directory}/sub")
        for file in ("cpuset.cpus", "cpuset.mems"):
            if layout.mode != "v2" and os.path.exists(f"{directory}/{file}"):
                Path(directory, "sub", file).write_text(Path(directory, file).read_text())
    try:
        told = runtime.ok("exec", "--cgroup", "sub", name, "cat", "/proc/self/cgroup")
        assert told.count("/sub\n") == len(layout.owning)
        for wrong, message in (
            ("whaaat:/", "unknown controller 'whaaat'"),
            ("..", "invalid"),
            ("nonexistent", "nonexistent"),
        ):
            result = runtime("exec", "--cgroup", wrong, name, "true")
            assert result.returncode == 255
            assert message in result.stderr
        if layout.legacy and layout.mode != "v2":
            words = ("--cgroup", "memory,pids:sub", "--cgroup", "freezer:/")
            told = runtime.ok("exec", *words, name, "cat", "/proc/self/cgroup")
            lines = [line.split(":", 2) for line in told.splitlines()]
            below = {kinds for _, kinds, path in lines if path.endswith("/sub")}
            assert below == {"memory", "pids"}
        missing = runtime("exec", "--cgroup", "cpu:nonexistent", name, "true")
        assert missing.returncode == 255
    finally:
        runtime.ok("delete", "--force", name)


def test_exec_where_the_cgroup_is_divided(runtime: Runtime) -> None:
    """A container's systemd goes below its cgroup and divides that, which takes no process then."""
    layout = cgroup.probe()
    if layout.mode != "v2":
        pytest.skip("cgroup v1 takes processes everywhere")
    name = running(runtime)
    (directory,) = layout.directories(f"{runtime.parent}/c")
    show = ("exec", name, "cat", "/proc/self/cgroup")
    assert runtime.ok(*show) == "0::/\n"  # of its cgroup namespace
    try:
        os.mkdir(f"{directory}/init")
        Path(directory, "init/cgroup.procs").write_text(str(runtime.pid(name)))
        assert runtime.ok(*show) == "0::/\n"  # of its cgroup namespace
        Path(directory, "cgroup.subtree_control").write_text("+pids")
        assert runtime.ok(*show) == "0::/init\n"
        result = runtime("exec", "--cgroup", "/", name, "true")
        assert result.returncode == 255
        assert "busy" in result.stderr
    finally:
        runtime.ok("delete", "--force", name)
    assert not os.path.exists(directory)


def test_failing_hooks_of_init_are_named(runtime: Runtime) -> None:
    for kind in ("createContainer", "startContainer"):
        config = runtime.config(f"h-{kind}", "true")
        config["hooks"] = {kind: [{"path": "/bin/true"}, {"path": "/bin/false"}]}
        (runtime.bundle / "rootfs/bin/false").unlink(missing_ok=True)
        (runtime.bundle / "rootfs/bin/false").symlink_to("busybox")
        runtime.write(config)
        result = runtime("run", "--bundle", runtime.bundle, f"h-{kind}")
        assert result.returncode == 1
        assert f"error running {kind} hook #1: hook /bin/false: ended with 1" in result.stderr


def test_a_device_in_place_of_a_usual_one(runtime: Runtime) -> None:
    null = {"path": "/dev/null", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600, "uid": 7}
    linux = {**template()["linux"], "devices": [null]}
    result = runtime.run("stat", "-c", "%t:%T %a %u", "/dev/null", linux=linux)
    assert result.stdout == "1:5 600 7\n", result.stderr


def test_a_start_that_fails_early_ends_the_container(runtime: Runtime) -> None:
    """Init, which waits to be started, does not stay alone."""
    config = runtime.config("c", "sleep", "1000")
    runtime.write({**config, "hooks": {"poststart": [{"path": "/bin/true"}]}})
    assert runtime.create("c").returncode == 0
    init = os.pidfd_open(runtime.pid("c"))
    try:
        (runtime.root / "c/config.json").unlink()
        assert runtime("start", "c").returncode == 1
        assert select.select([init], [], [], 5)[0]
    finally:
        os.close(init)
    assert runtime("state", "c").returncode == 1


def test_a_created_container_is_paused_and_goes_on(runtime: Runtime) -> None:
    runtime.config("c", "true")
    assert runtime.create("c").returncode == 0
    runtime.ok("pause", "c")
    assert runtime.status("c") == "paused"
    assert runtime("start", "c").returncode == 1
    runtime.ok("resume", "c")
    assert runtime.status("c") == "created"
    runtime.ok("start", "c")


def test_kinds_of_logs(runtime: Runtime) -> None:
    result = runtime("--log-format", "xml", "list")
    assert (result.returncode, result.stderr) == (1, "invalid log-format: xml\n")
