"""User namespaces and idmapped mounts of config.json, as podman and containerd ask for them."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from sampan.kernel import mount
from sampan.runtime.oci_documents import template
from sampan.runtime.userns import mapped_namespace
from tests.kernel.oci.conftest import Runtime

BASE = 1_000_000


def mapping(*rows: tuple[int, int, int]) -> list[dict[str, int]]:
    return [{"containerID": c, "hostID": h, "size": s} for c, h, s in rows]


def linux(runtime: Runtime, **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {**template()["linux"], "cgroupsPath": f"{runtime.parent}/u"}
    return {**made, **changes}


def remapped(runtime: Runtime, **changes: Any) -> dict[str, Any]:
    """The linux part of config.json with a user namespace; the root file system is given to the
    container's root, as such a bundle's maker does."""
    for directory, names, files in os.walk(runtime.bundle / "rootfs"):
        for name in (".", *names, *files):
            os.lchown(os.path.join(directory, name), BASE, BASE)
    namespaces = [*template()["linux"]["namespaces"], {"type": "user"}]
    maps = {name: mapping((0, BASE, 65536)) for name in ("uidMappings", "gidMappings")}
    return {"linux": linux(runtime, namespaces=namespaces, **{**maps, **changes})}


def bind(source: Path, **more: Any) -> list[Any]:
    entry = {"destination": "/m", "type": "bind", "source": str(source), "options": ["bind"]}
    return [*template()["mounts"], {**entry, **more}]


def test_ids_devices_and_streams(runtime: Runtime) -> None:
    script = """
        cat /proc/self/uid_map /proc/self/gid_map; id -u; stat -c '%u:%g' / /bin/sh
        for d in null zero full random urandom tty fuse net/tun; do stat -c '%n %u:%g %t,%T' /dev/$d
        done; echo x > /dev/null; echo y > /dev/stdout; touch /made
        echo no > /proc/sys/kernel/hostname 2>&1 || echo refused; mount | grep -c ' /sys '
    """
    devices = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "uid": 5, "gid": 6},
        {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200},
    ]
    result = runtime.run("sh", "-c", script, **remapped(runtime, devices=devices))
    assert result.stderr == "sh: can't create /proc/sys/kernel/hostname: Read-only file system\n"
    lines = result.stdout.split("\n")
    row = ["0", str(BASE), "65536"]
    assert [line.split() for line in lines[:2]] == [row, row]
    assert lines[2:5] == ["0", "0:0", "0:0"]
    assert lines[5:13] == [
        *("/dev/null 0:0 1,3", "/dev/zero 0:0 1,5", "/dev/full 0:0 1,7", "/dev/random 0:0 1,8"),
        *(
            "/dev/urandom 0:0 1,9",
            "/dev/tty 0:0 5,0",
            "/dev/fuse 5:6 a,e5",
            "/dev/net/tun 0:0 a,c8",
        ),
    ]
    assert lines[13:] == ["y", "refused", "1", ""]
    assert (runtime.bundle / "rootfs/made").stat().st_uid == BASE


def test_mounts_are_listed_in_their_order(runtime: Runtime, tmp_path: Path) -> None:
    """Also where some of them were made from outside, before the others."""
    (tmp_path / "d").mkdir()
    (tmp_path / "f").touch()
    binds = [
        {"destination": f"/{name}", "type": "bind", "source": str(tmp_path / name)}
        for name in ("d", "f")
    ]
    ordinary = template()["mounts"]
    wanted = [ordinary[0], {**binds[0], "options": ["rbind"]}, *ordinary[1:], binds[1]]
    runtime.config("c", "sleep", "1000", **remapped(runtime), mounts=wanted)
    assert runtime.create("c").returncode == 0
    runtime.ok("start", "c")
    told = runtime.ok("exec", "c", "cat", "/proc/self/mountinfo")
    listed = [line.split()[4] for line in told.splitlines()]
    destinations = [entry["destination"] for entry in wanted]
    assert [path for path in listed if path in ("/", *destinations)] == ["/", *destinations]
    assert "parked" not in told


def test_an_exec_joins_it_and_owns_its_streams(runtime: Runtime) -> None:
    runtime.config("c", "sleep", "100", **remapped(runtime))
    assert runtime.create("c").returncode == 0
    runtime.ok("start", "c")
    told = runtime.ok("exec", "--user", "7:8", "c", "sh", "-c", "id -u; id -g; echo z >/dev/stdout")
    assert told == "7\n8\nz\n"
    runtime.ok("kill", "c", "KILL")


def test_a_namespace_of_another_container_is_joined(runtime: Runtime) -> None:
    changes = remapped(runtime)
    runtime.config("first", "sleep", "100", **changes)
    assert runtime.create("first").returncode == 0
    runtime.ok("start", "first")
    pid = runtime.pid("first")
    paths = {"user": "user", "network": "net", "pid": "pid"}
    changes["linux"]["namespaces"] = [
        {**entry, "path": f"/proc/{pid}/ns/{paths[entry['type']]}"}
        if entry["type"] in paths
        else entry
        for entry in changes["linux"]["namespaces"]
    ]
    changes["linux"]["cgroupsPath"] += "2"
    result = runtime.run("sh", "-c", "cat /proc/self/uid_map; ps | grep -c 'sleep 100'", **changes)
    assert result.stderr == ""
    first, *rest = result.stdout.splitlines()
    assert first.split() == ["0", str(BASE), "65536"]
    assert int(rest[0]) >= 1
    runtime.ok("kill", "first", "KILL")


def idmappable(path: Path) -> bool:
    """Whether this kernel idmaps the file system there (tmpfs: since Linux 6.3)."""
    shift = [(0, BASE, 1)]
    with (
        mount.descriptor(mount.clone_tree(mount.AT_FDCWD, str(path), recursive=False)) as clone,
        mount.descriptor(mapped_namespace(shift, shift)) as userns,
    ):
        try:
            mount.mount_setattr(clone, "", set_=mount.MOUNT_ATTR_IDMAP, userns=userns)
        except OSError as error:
            return error.errno != errno.EINVAL
    return True


def test_idmapped_mounts(runtime: Runtime, tmp_path: Path) -> None:
    """``mounts[].uidMappings``: on disk -> host; without a user namespace, and with one."""
    if not idmappable(tmp_path):
        refused = runtime.run(
            "true",
            mounts=bind(tmp_path, uidMappings=mapping((5, 70, 1)), gidMappings=mapping((6, 80, 1))),
        )
        assert refused.returncode == 1
        assert f"{tmp_path}: this kernel cannot idmap its file system" in refused.stderr
        pytest.skip("this kernel idmaps no mounts of the file system tests are on (tmpfs: 6.3)")
    source = tmp_path / "source"
    source.mkdir(0o755)
    (source / "file").touch()
    os.chown(source, 5, 6)
    own = {"uidMappings": mapping((5, 70, 1)), "gidMappings": mapping((6, 80, 1))}
    script = "stat -c '%u:%g' /m; touch /m/new; stat -c '%u:%g' /m/new"
    # Nobody's id is the owner of what is not mapped, and root makes nothing where it has no id.
    plain = runtime.run("sh", "-c", script, mounts=bind(source, **own), user={"uid": 70, "gid": 80})
    assert (plain.stdout, plain.stderr) == ("70:80\n70:80\n", "")
    assert (source / "new").stat().st_uid == 5
    (source / "new").unlink()
    inside = {
        "uidMappings": mapping((5, BASE + 70, 1)),
        "gidMappings": mapping((6, BASE + 80, 1)),
    }
    user = {"uid": 70, "gid": 80}
    changes = {**remapped(runtime), "mounts": bind(source, **inside), "user": user}
    result = runtime.run("sh", "-c", script, **changes)
    assert (result.stdout, result.stderr) == ("70:80\n70:80\n", "")
    status = (source / "new").stat()
    assert (status.st_uid, status.st_gid) == (5, 6)

    os.chown(source, 0, 0)
    changes["mounts"] = bind(source, options=["bind", "idmap"])
    changes["user"] = {"uid": 0, "gid": 0}
    result = runtime.run("sh", "-c", "stat -c '%u:%g' /m /m/new", **changes)
    assert (result.stdout, result.stderr) == ("0:0\n5:6\n", "")


def test_refusals_leave_nothing(runtime: Runtime, tmp_path: Path) -> None:
    for changes, words in (
        ({"linux": linux(runtime, uidMappings=mapping((0, BASE, 10)))}, "no user namespace to map"),
        ({"mounts": bind(tmp_path, options=["bind", "idmap"])}, "without mappings or a user names"),
        (
            {"mounts": bind(tmp_path, uidMappings=mapping((0, 1, 1)))},
            "needs both uidMappings and gidMappings",
        ),
        (
            remapped(runtime, gidMappings=[]),
            "a new user namespace needs uid and gid mappings",
        ),
        (
            remapped(runtime, uidMappings=mapping((0, BASE, 10), (5, BASE + 50, 10))),
            "uid_map",
        ),
    ):
        result = runtime.run("true", **changes)
        assert result.returncode == 1
        assert words in result.stderr, result.stderr
    assert json.loads(runtime.ok("list", "--format", "json")) in (None, [])
