"""Where controllers live, from /proc text of the three kinds of host."""

from __future__ import annotations

import pytest

from sampan.errors import InvalidParameter, Unsupported
from sampan.kernel.cgroup import check_path, detect, own_path

CGROUPS = """#subsys_name\thierarchy\tnum_cgroups\tenabled
cpuset\t3\t1\t1
cpu\t1\t1\t1
cpuacct\t1\t1\t1
blkio\t7\t1\t1
memory\t4\t20\t1
devices\t5\t1\t1
freezer\t6\t1\t1
pids\t8\t1\t1
"""

V1 = """27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
44 27 0:32 / /var/lib/x\\040y/memory rw,relatime - cgroup cgroup rw,memory
"""
UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
V2 = "31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"


def test_v1() -> None:
    layout = detect(V1, CGROUPS, "4:memory:/user/me\n1:cpu,cpuacct:/\n")
    assert (layout.mode, layout.unified) == ("v1", None)
    assert layout.directory("cpuacct", "/sampan/x") == "/sys/fs/cgroup/cpu,cpuacct/sampan/x"
    assert layout.directory("memory", "/") == "/sys/fs/cgroup/memory"
    assert layout.directory("memory", "rel") == "/sys/fs/cgroup/memory/user/me/rel"
    assert layout.directory("pids", "/sampan/x") is None, "not mounted"
    assert layout.controllers == {"cpu", "cpuacct", "memory"}
    assert [d.split("/")[4] for d in layout.directories("/a")] == [
        "cpu,cpuacct",
        "memory",
        "systemd",
    ]


def test_hybrid_keeps_limits_in_v1() -> None:
    layout = detect(V1 + UNIFIED, CGROUPS)
    assert layout.mode == "hybrid"
    assert layout.unified is not None
    assert layout.unified.mountpoint == "/sys/fs/cgroup/unified"
    assert all("/unified" not in directory for directory in layout.directories("/a"))


def test_v2() -> None:
    layout = detect(V2, CGROUPS, "0::/system.slice/x.service\n")
    assert layout.mode == "v2"
    assert {"io", "memory", "pids", "cpu", "cpuset"} <= layout.controllers
    assert not {"devices", "freezer", "cpuacct", "blkio"} & layout.controllers
    assert layout.directories("rel") == ("/sys/fs/cgroup/system.slice/x.service/rel",)


def test_inside_a_container_the_mount_shows_a_subtree() -> None:
    text = "9 8 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    layout = detect(text, CGROUPS, "4:memory:/docker/abc/inner\n")
    assert layout.directory("memory", "rel") == "/sys/fs/cgroup/memory/inner/rel"
    assert layout.directory("memory", "/abs") == "/sys/fs/cgroup/memory/abs"


def test_nothing_mounted() -> None:
    with pytest.raises(Unsupported, match="no cgroup hierarchy"):
        detect("27 1 254:0 / / rw - ext4 /dev/vda rw\nrubbish\n", CGROUPS)


def test_own_path() -> None:
    text = "4:memory:/a\n1:cpu,cpuacct:/b\n0::/c:d\n"
    assert own_path(text, "cpuacct") == "/b"
    assert own_path(text) == "/c:d"
    assert own_path(text, "pids") is None


@pytest.mark.parametrize("path", ["", "/", "/a/../..", "..", "a/../b", "/a\0b", "//", "/./"])
def test_paths_that_leave_their_place_are_refused(path: str) -> None:
    with pytest.raises(InvalidParameter):
        check_path(path)


def test_paths_are_normalised() -> None:
    assert check_path("//a/./b/") == "/a/b"
    assert check_path("a//b") == "a/b"
