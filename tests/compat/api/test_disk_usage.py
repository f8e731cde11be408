"""``system df`` tells what du(1) finds below the data root, each byte once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.conftest import CLI, DockerCli, Sampand, busybox_archive

MIB = 1 << 20


@pytest.fixture
def own(namespace: str, tmp_path: Path) -> Iterator[Sampand]:
    """A daemon of this test's own: what lies below its data root is known."""
    (tmp_path / "daemon.json").write_text("{}")
    (tmp_path / "cli").mkdir()
    daemon = Sampand(tmp_path, namespace)
    daemon.start()
    try:
        yield daemon
    finally:
        docker = DockerCli(CLI, daemon.host, daemon.root / "cli")
        left = docker("ps", "-aq", status=None).stdout.split()
        docker("rm", "-f", *left, status=None)
        daemon.stop()
        shutil.rmtree(tmp_path / "data", ignore_errors=True)


def _told(daemon: Sampand) -> dict[str, int]:
    """Bytes by kind, as the newest API sums them up."""
    words = ["curl", "-s", "--unix-socket", str(daemon.socket), "http://x/v1.52/system/df"]
    answer = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    return {kind: answer[kind]["TotalSize"] for kind in answer if kind.endswith("Usage")}


def _found(daemon: Sampand) -> int:
    """Bytes below the data root, but for logs and tables."""
    data = daemon.root / "data"
    places = [data / "content", data / "snapshots", data / "volumes", data / "build/caches"]
    words = ["du", "-sB1", "-c", *map(str, places)]
    printed = subprocess.run(words, capture_output=True, check=True).stdout.decode()
    return int(printed.splitlines()[-1].split()[0])


def _agree(daemon: Sampand) -> dict[str, int]:
    # The stores' own directories are nobody's.
    told, found = _told(daemon), _found(daemon) - 48 * 1024
    assert abs(sum(told.values()) - found) <= found // 100, (told, found)
    return told


def test_usage_is_what_du_finds(own: Sampand, tmp_path: Path) -> None:
    docker = DockerCli(CLI, own.host, own.root / "cli")
    archive = tmp_path / "busybox.tar"
    archive.write_bytes(busybox_archive())
    docker("load", "-i", str(archive))
    context = tmp_path / "context"
    context.mkdir()
    (context / "random").write_bytes(os.urandom(11 * MIB))
    (context / "Dockerfile").write_text(
        "FROM busybox\n"
        "RUN --mount=type=cache,target=/c head -c 5242880 /dev/urandom > /c/kept && "
        "head -c 9437184 /dev/urandom > /made\n"
        "COPY random /random\n"
    )
    docker("build", "-t", "df:1", str(context))  # (without buildx: the builder of the API)
    docker("tag", "df:1", "df:2")
    script = (
        "head -c 13631488 /dev/urandom > /v/a; head -c 7340032 /dev/urandom > /w; ln /w /w2; "
        "dd if=/dev/zero of=/sparse bs=1 count=1 seek=60000000 2>/dev/null; "
        "for i in $(seq 300); do mkdir -p /d/$i; echo $i > /d/$i/f; done; sleep 1000"
    )
    docker("run", "-d", "--name", "df", "--network", "none", "-v", "/v", "busybox",
           "sh", "-c", f"{script} & wait")  # fmt: skip
    docker("exec", "df", "sh", "-c", "until [ -e /d/300/f ]; do sleep 0.1; done")

    told = _agree(own)
    # What the image has of the build is the image's; the cache's own is its mount.
    assert 5 * MIB <= told["BuildCacheUsage"] < 6 * MIB
    assert told["ImageUsage"] >= 40 * MIB
    assert 13 * MIB <= told["VolumeUsage"] < 14 * MIB
    docker("rmi", "df:1", "df:2")
    told = _agree(own)
    assert told["BuildCacheUsage"] >= 40 * MIB
    docker("builder", "prune", "-af")
    told = _agree(own)
    assert told["BuildCacheUsage"] == 0
    docker("rm", "-fv", "df")
    told = _agree(own)
    assert told["ContainerUsage"] == told["VolumeUsage"] == 0
