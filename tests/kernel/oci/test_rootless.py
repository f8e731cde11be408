"""Containers of users who are not root: their own user namespace, no cgroup, no device nodes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.kernel import cgroup
from sampan.runtime.oci_documents import rootless, template
from tests.kernel.oci.conftest import PROGRAM, Config, Result

USER = 471_100
SUBORDINATE = 3_000_000
_OWN_ETC = (
    'mount -t tmpfs etc "$0" && cp -a /etc/passwd /etc/group "$0" && '
    f'echo "rl:x:{USER}:{USER}::/:/bin/sh" >> "$0/passwd" && echo "rl:x:{USER}:" >> "$0/group" && '
    f'echo "rl:{SUBORDINATE}:65536" | tee "$0/subuid" > "$0/subgid" && '
    'mount --rbind "$0" /etc && exec "$@"'
)
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else"),
    pytest.mark.skipif(not PROGRAM.exists(), reason="sampan-runtime is not installed"),
]


class User:
    """Somebody with a bundle, who calls sampan-runtime."""

    def __init__(self, place: Path, rootfs: Path) -> None:
        self.place = place
        self.bundle = place / "bundle"
        shutil.copytree(rootfs, self.bundle / "rootfs", symlinks=True)
        (place / "run").mkdir()
        (place / "etc").mkdir()
        for directory, names, files in os.walk(place):
            for name in (".", *names, *files):
                os.lchown(os.path.join(directory, name), USER, USER)

    def __call__(self, *words: str, prefix: tuple[str, ...] = ()) -> Result:
        drop = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(self.place / "run")}
        return subprocess.run(
            [*prefix, *drop, str(PROGRAM), *words],
            cwd=self.bundle,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def config(self, *args: str, **linux: Any) -> Config:
        """What ``spec --rootless`` says, for this user and program."""
        config: Config = json.loads(json.dumps(rootless(template())))
        config["process"].update(terminal=False, args=list(args))
        config["root"]["readonly"] = False
        config["linux"].update(uidMappings=row(0, USER, 1), gidMappings=row(0, USER, 1), **linux)
        self.write(config)
        return config

    def write(self, config: Config) -> None:
        (self.bundle / "config.json").write_text(json.dumps(config))

    def run(self, *args: str, **linux: Any) -> Result:
        self.config(*args, **linux)
        return self("run", "c")

    def start(self) -> None:
        """A container that sleeps, detached from our pipes."""
        self.config("sh", "-c", "exec sleep 1000 > /dev/null 2>&1")
        made = self("run", "--detach", "c")
        assert made.returncode == 0, made.stderr


def row(*numbers: int) -> list[dict[str, int]]:
    return [dict(zip(("containerID", "hostID", "size"), numbers, strict=True))]


@pytest.fixture
def user(rootfs: Path) -> Iterator[User]:
    """In a directory that others than root may enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="sampan-rootless-") as place:
        os.chmod(place, 0o711)
        made = User(Path(place), rootfs)
        try:
            yield made
        finally:
            made("delete", "--force", "c")


def test_spec_of_a_user_runs_as_it_is(user: User) -> None:
    assert user("spec", "--rootless").returncode == 0
    config = json.loads((user.bundle / "config.json").read_text())
    config["process"].update(terminal=False, args=["sh", "-c", "cat /proc/self/uid_map; id -u"])
    user.write(config)
    done = user("run", "c")
    assert (done.stdout.split(), done.stderr) == (["0", str(USER), "1", "0"], "")
    assert os.listdir(user.place / "run" / "sampan-runtime") == []


def test_what_it_finds(user: User) -> None:
    """The host's devices, as it may use them; nothing more of the host than it had."""
    script = """
        for d in null zero full random urandom tty; do stat -c '%n %t,%T' /dev/$d; done
        echo x > /dev/null; touch /made; stat -c %u:%g /made; cat /proc/self/setgroups
        mount -t tmpfs x /tmp || echo refused
    """
    done = user.run("sh", "-c", script)
    assert done.stderr == "mount: permission denied (are you root?)\n"
    assert done.stdout.splitlines() == [
        *("/dev/null 1,3", "/dev/zero 1,5", "/dev/full 1,7", "/dev/random 1,8"),
        *("/dev/urandom 1,9", "/dev/tty 5,0", "0:0", "deny", "refused"),
    ]
    assert (user.bundle / "rootfs" / "made").stat().st_uid == USER


def test_its_life(user: User) -> None:
    user.start()
    state = json.loads(user("state", "c").stdout)
    assert state["status"] == "running"
    assert os.stat(f"/proc/{state['pid']}").st_uid == USER
    told = user("exec", "c", "sh", "-c", "echo y > /dev/null; id -u; readlink /proc/self/ns/pid")
    assert told.stdout.split() == ["0", os.readlink(f"/proc/{state['pid']}/ns/pid")], told.stderr
    # It is in the cgroup of whoever made it, with others: that is not frozen, listed or changed.
    for words in (
        ("pause", "c"),
        ("ps", "c"),
        ("events", "--stats", "c"),
        ("update", "--pids-limit", "9", "c"),
    ):
        refused = user(*words)
        assert refused.returncode == 1
        assert "container has no cgroup" in refused.stderr
    assert user("kill", "c", "KILL").returncode == 0
    assert user("delete", "--force", "c").returncode == 0
    assert "does not exist" in user("state", "c").stderr


def test_limits_nobody_could_keep_are_refused(user: User) -> None:
    limited = user.run("true", resources={"pids": {"limit": 10}})
    assert "linux.resources.pids: no cgroup can be made with our rights" in limited.stderr
    named = user.run("true", cgroupsPath="/sampan-test-rootless/c")
    assert "Permission denied" in named.stderr
    user.config("true")
    strict = user("--rootless=false", "run", "c")
    assert "Permission denied" in strict.stderr
    assert [strict.returncode, named.returncode, limited.returncode] == [1, 1, 1]
    assert "not true, false or auto" in user("--rootless=maybe", "list").stderr
    assert user("--rootless=true", "run", "c").returncode == 0


def test_cgroups_it_was_given_are_used(user: User) -> None:
    """Where it may make one, as a service with delegation may."""
    layout = cgroup.probe()
    parent = f"/sampan-test-{os.getpid()}-rootless"
    cgroup.create(cgroup.plan(layout, parent, {}))
    try:
        for directory in layout.directories(parent):
            for name in ("", "cgroup.procs", "tasks", "cgroup.subtree_control"):
                if os.path.exists(f"{directory}/{name}"):
                    os.chown(f"{directory}/{name}", USER, USER)
        path = f"{parent}/c"
        own = [{"type": kind} for kind in ("pid", "mount", "user", "uts", "ipc")]
        done = user.run("cat", "/proc/self/cgroup", cgroupsPath=path, namespaces=own)
        if layout.mode == "v2":  # the way there is not the user's
            assert "Permission denied" in done.stderr
        else:
            assert path in done.stdout, done.stderr
    finally:
        cgroup.destroy(layout, parent)


def test_another_device_than_the_hosts_is_refused(user: User) -> None:
    node = {"path": "/dev/null", "type": "c", "major": 1, "minor": 5}
    done = user.run("true", devices=[node])
    assert done.returncode == 1
    assert "the host has another device there" in done.stderr


def test_more_ids_by_newuidmap(user: User) -> None:
    if not shutil.which("newuidmap"):
        pytest.skip("needs newuidmap")
    maps = [*row(0, USER, 1), *row(1, SUBORDINATE, 100)]
    config = user.config("sh", "-c", "cat /proc/self/uid_map; id -u; id -G")
    config["linux"].update(uidMappings=maps, gidMappings=maps)
    config["process"]["user"] = {"uid": 7, "gid": 8, "additionalGids": [9]}
    user.write(config)
    own_etc = ("unshare", "--mount", "sh", "-c", _OWN_ETC, str(user.place / "etc"))
    done = user("run", "c", prefix=own_etc)
    words = done.stdout.split()
    assert words[:6] == ["0", str(USER), "1", "1", str(SUBORDINATE), "100"], done.stderr
    assert words[6:] == ["7", "8", "9"]
    config["linux"]["uidMappings"] = [*row(0, USER, 1), *row(1, 1, 100)]
    user.write(config)
    refused = user("run", "c", prefix=own_etc)
    assert refused.returncode == 1
    assert "newuidmap refused the id mappings" in refused.stderr
    assert user("list", "--quiet").stdout == ""
