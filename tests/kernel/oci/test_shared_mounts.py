"""Containers whose mount namespace is somebody else's: joined by path, or the caller's own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.kernel.oci.conftest import Config, Runtime
from tests.kernel.oci.test_runtime_commands import left_behind


def mounts(runtime: Runtime) -> list[str]:
    """Mount points of ours in the bundle."""
    with open("/proc/self/mountinfo") as file:
        found = [line.split()[4] for line in file]
    return [path for path in found if path.startswith(str(runtime.bundle))]


def shared(runtime: Runtime, *args: str) -> Config:
    """No namespace but for the cgroup's."""
    namespaces = [{"type": "cgroup"}]
    config = runtime.config("c", *args, namespaces=namespaces)
    del config["hostname"]
    runtime.write(config)
    return config


def test_no_mount_namespace(runtime: Runtime) -> None:
    """The root is mounted where it is, the program is confined to it, and delete takes it off."""
    shared(runtime, "sh", "-c", "ls /; cat /proc/keys; sleep 100")
    assert runtime.create("c").returncode == 0
    assert mounts(runtime)
    runtime.ok("start", "c")
    pid = runtime.pid("c")
    for kind in ("mnt", "pid", "net", "uts"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")
    assert os.path.samefile(f"/proc/{pid}/root", runtime.bundle / "rootfs")
    assert runtime.ok("exec", "c", "cat", "/etc/passwd").startswith("root:x:0:0:root:/root:/bin/sh")
    assert runtime.ok("exec", "c", "ls", "/") == runtime.output("c")
    runtime.ok("delete", "--force", "c")
    assert mounts(runtime) == []
    assert left_behind(runtime) == []


def test_no_mount_namespace_leaves_nothing_when_it_fails(runtime: Runtime) -> None:
    shared(runtime, "nothing")
    assert runtime.create("c").returncode == 1
    assert mounts(runtime) == []
    assert left_behind(runtime) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rootfsPropagation": "slave"}, "linux.rootfsPropagation needs a mount namespace"),
        ({"user": True}, "a user namespace needs a mount namespace"),
    ],
)
def test_what_needs_a_mount_namespace(
    runtime: Runtime, changes: dict[str, object], message: str
) -> None:
    config = shared(runtime, "true")
    if changes.pop("user", False):
        rows = [{"containerID": 0, "hostID": 100000, "size": 1000}]
        config["linux"]["namespaces"].append({"type": "user"})
        config["linux"].update(uidMappings=rows, gidMappings=rows)
    config["linux"].update(changes)
    runtime.write(config)
    assert message in runtime.create("c").stdout


@pytest.fixture
def namespace() -> Iterator[int]:
    """A process in a mount namespace of its own."""
    with subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 1000"],
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_joined_mount_namespace(runtime: Runtime, namespace: int) -> None:
    """In it the root becomes the container's; the paths of other namespaces are the caller's."""
    config = runtime.config("c", "cat", "/etc/passwd")
    for entry in config["linux"]["namespaces"]:
        if entry["type"] == "mount":
            entry["path"] = f"/proc/{namespace}/ns/mnt"
    config["linux"]["namespaces"] = [
        {"type": "mount", "path": f"/proc/{namespace}/ns/mnt"},
        {"type": "uts", "path": f"/proc/{namespace}/ns/uts"},
        {"type": "pid"},
    ]
    config.pop("hostname")
    runtime.write(config)
    assert runtime.ok("run", "--bundle", runtime.bundle, "c").startswith("root:x:0:0")
    assert mounts(runtime) == []
