"""Containers in a mount namespace that never held the host's mounts, and those that need a copy."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from sampan.kernel import namespaces
from sampan.kernel.mount import MNT_DETACH, MS_PRIVATE, MS_SHARED, MS_SLAVE, mount, umount2
from sampan.runtime import blank
from sampan.runtime.operation import Operation, operation
from tests.kernel.runtime.test_containers import World, eventually, pytestmark, unframed, world
from tests.kernel.runtime.test_spare import waiting

__all__ = ["pytestmark", "world"]

OVERLAY = operation("overlay", layers=True)
ATTACH = operation("attach_root", slot="mount1")
CLONE = operation("clone_tree", slot="mount2")


@pytest.mark.parametrize(
    ("setup", "suits"),
    [
        ([operation("host_propagation", kind=MS_SLAVE), OVERLAY, CLONE, ATTACH], True),
        ([operation("host_propagation", kind=MS_PRIVATE), OVERLAY, ATTACH], False),
        ([operation("host_propagation", kind=MS_SHARED), OVERLAY, ATTACH], False),
        ([operation("overlay", layers=False), ATTACH], False),
        ([OVERLAY, ATTACH, CLONE], True),
        ([OVERLAY, ATTACH, operation("hook", name="createContainer")], False),
        ([OVERLAY, ATTACH, operation("runtime_hooks")], False),
        ([operation("change_root", path="/x")], False),
    ],
)
def test_which_plans_need_no_copy(setup: list[Operation], suits: bool) -> None:
    assert blank.suits(setup) is suits


def test_what_is_made_of_the_host_s_mounts_comes_first() -> None:
    enter, wait, hide = operation("enter"), operation("await_cgroups"), operation("mask")
    attach = operation("attach", slot="mount2")
    setup = [enter, OVERLAY, ATTACH, CLONE, attach, wait, CLONE, attach, hide, wait]
    first = [enter, OVERLAY, CLONE, wait, CLONE]
    assert blank.arranged(setup) == [*first, ATTACH, attach, attach, hide, wait]


def _what_is_below(pid: int) -> set[str]:
    """The names in what is under a container's root, once that was unmounted."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            pidfd = os.pidfd_open(pid)
            namespaces.setns(pidfd, namespaces.CLONE_NEWNS)
            umount2("/", MNT_DETACH)
            namespaces.setns(pidfd, namespaces.CLONE_NEWNS)
            os.write(writer, "\n".join(os.listdir("/")).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        names = pipe.read().decode().split()
    os.waitpid(child, 0)
    return set(names)


def test_nothing_of_the_host_is_below_the_root(world: World) -> None:
    waiting(world)
    request = world.request("/bin/sleep", "1000")
    request.spec["linux"]["maskedPaths"] = ["/proc/acpi", "/proc/keys", "/proc/bus"]
    monitor = world.launcher.create(request)
    monitor.start()
    root = Path(f"/proc/{monitor.pid}/root")
    assert os.stat(root / "proc/keys").st_rdev == os.makedev(1, 3)
    assert os.stat(root / "proc/keys").st_dev != os.stat("/dev/null").st_dev
    assert [os.listdir(root / "proc" / name) for name in ("acpi", "bus")] == [[], []]
    assert os.path.samestat(os.stat(root / ".."), os.stat(root))
    assert _what_is_below(monitor.pid) == {"dev"}
    monitor.signal(signal.SIGKILL)
    monitor.close()


def test_a_user_namespace_may_be_made_inside(world: World) -> None:
    """Which the kernel refuses to whoever is in a chroot."""
    waiting(world)
    output, record = world.run("/bin/busybox", "unshare", "-U", "/bin/cat", "/proc/self/uid_map")
    assert (output, record.code) == (b"", 0)


@pytest.mark.parametrize("shared", [True, False])
def test_what_the_container_mounts_on_a_bind_mount_stays_its_own(
    world: World, tmp_path: Path, shared: bool
) -> None:
    """Unless it is asked to be shared, which takes a copy of the host's mounts."""
    mount("tmpfs", str(tmp_path), "tmpfs", 0, "size=64k")
    mount("", str(tmp_path), "", MS_SHARED)
    try:
        (tmp_path / "news").mkdir()
        waiting(world)
        script = "/bin/busybox mount -t tmpfs late /dev/late/news && echo $? && sleep 1000"
        request = world.request("/bin/sh", "-c", script)
        rights = ["CAP_SYS_ADMIN"]
        request.spec["process"]["capabilities"] = {
            "bounding": rights,
            "effective": rights,
            "permitted": rights,
        }
        words = ["rbind", "rshared"] if shared else ["rbind"]
        request.spec["mounts"].append(
            {
                "destination": "/dev/late",
                "type": "bind",
                "source": str(tmp_path),
                "options": words,
            }
        )
        if shared:
            request.spec["linux"]["rootfsPropagation"] = "shared"
        monitor = world.launcher.create(request)
        stream = monitor.attach(stdin=False, stdout=True, stderr=True)
        monitor.start()
        assert stream.recv(100).endswith(b"0\n")
        assert os.path.ismount(tmp_path / "news") is shared
        monitor.signal(signal.SIGKILL)
        unframed(stream)
        stream.close()
        monitor.close()
        eventually(lambda: not Path(f"/proc/{monitor.pid}").exists(), "it is still there")
    finally:
        umount2(str(tmp_path), MNT_DETACH)
