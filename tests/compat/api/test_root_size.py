"""``--storage-opt size``: where the file system has project quotas a root has a size."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.conftest import CLI, DockerCli, Sampand, busybox_archive


@pytest.fixture(scope="module")
def limited(namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerCli]:
    """docker of a daemon whose data root is an XFS with project quotas."""
    if shutil.which("mkfs.xfs") is None or "xfs" not in Path("/proc/filesystems").read_text():
        pytest.skip("needs XFS")
    root = tmp_path_factory.mktemp("quota")
    disk, data = root / "disk", root / "data"
    with open(disk, "wb") as file:
        file.truncate(400 << 20)
    subprocess.run(["mkfs.xfs", "-q", str(disk)], check=True)
    data.mkdir()
    mounted = subprocess.run(
        ["mount", "-o", "loop,pquota", str(disk), str(data)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs project quotas: {mounted.stderr.decode()}")
    (root / "daemon.json").write_text("{}")
    (root / "cli").mkdir()
    daemon = Sampand(root, namespace)
    try:
        daemon.start()
        docker = DockerCli(CLI, daemon.host, root / "cli")
        archive = root / "busybox.tar"
        archive.write_bytes(busybox_archive())
        docker("load", "-i", str(archive))
        yield docker
        left = docker("ps", "-aq").stdout.split()
        if left:
            docker("rm", "-f", *left)
        daemon.stop()
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.process.kill()
        subprocess.run(["umount", "-l", str(data)], check=False)
        shutil.rmtree(root, ignore_errors=True)


FILL = "dd if=/dev/zero of=/big bs=64k count=320 2>/dev/null; du -m /big | cut -f1"


def test_roots_have_sizes(limited: DockerCli) -> None:
    made = {"small": "size=4m", "large": "size=12M", "free": ""}
    for name, option in made.items():
        flags = ["--storage-opt", option] if option else []
        limited("create", "--name", name, *flags, "--network", "none", "busybox", "sh", "-c", FILL)
    filled = {name: int(limited("start", "-a", name).stdout) for name in made}
    assert 3 <= filled["small"] <= 4
    assert 10 <= filled["large"] <= 12
    assert filled["free"] == 20
    # What was written stays counted, also after a restart of the container.
    assert int(limited("start", "-a", "small").stdout) <= 4
    (shown,) = json.loads(limited("inspect", "small").stdout)
    assert shown["HostConfig"]["StorageOpt"] == {"size": "4m"}
    limited("rm", "small")
    # A new container with the project of one that is gone has its own limit.
    again = limited("run", "--rm", "--storage-opt", "size=8m", "--network", "none", "busybox",
                    "sh", "-c", FILL)  # fmt: skip
    assert 6 <= int(again.stdout) <= 8
    # Renames from where overlay works into the root stay inside the project.
    kept = limited("run", "--rm", "--storage-opt", "size=8m", "--network", "none", "busybox",
                   "sh", "-c", "mv /etc /moved && mkdir /etc && ls /moved/passwd")  # fmt: skip
    assert kept.stdout == "/moved/passwd\n"


def test_elsewhere_it_is_refused_and_nothing_is_left(docker: DockerCli, name: str) -> None:
    for option, complaint in (
        ("size=1G", "--storage-opt size: "),
        ("colour=red", "Unknown option colour"),
        ("size=many", "invalid size: 'many'"),
    ):
        refused = docker("create", "--name", name, "--storage-opt", option, "busybox", status=1)
        assert complaint in refused.stderr
        assert docker("ps", "-aq", "--filter", f"name={name}").stdout == ""
