"""Images beyond docker's command line: transports, layers, platforms; judged by skopeo and tar."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan import connect as sampan_connect
from tests.compat.conftest import DockerCli, Eventually, Sampand


@pytest.fixture
def sampan(docker: DockerCli, sampand: Sampand) -> DockerCli:
    """Our own command line."""
    if sampand.foreign:
        pytest.skip("needs a daemon of its own")
    return DockerCli(str(Path(sys.executable).parent / "sampan"), docker.host, docker.config)


@pytest.fixture
def image(docker: DockerCli, tmp_path: Path) -> Iterator[str]:
    """An image of two layers."""
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo hi >/hi && rm /etc/group\n")
    docker("build", "-q", "-t", "surface:1", str(tmp_path))
    yield "surface:1"
    docker("rmi", "-f", "surface:1", status=None)


@contextlib.contextmanager
def another(sampand: Sampand, root: Path) -> Iterator[Sampand]:
    """A second daemon beside the first."""
    root.mkdir()
    (root / "daemon.json").write_text('{"bridge": "none"}')
    daemon = Sampand(root, sampand.namespace, flags=[])
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.stop()


PLACES = (
    "oci:{}/layout:v1",
    "oci-archive:{}/a.tar:v1",
    "docker-archive:{}/d.tar:x/y:2",
    "dir:{}/d",
)


@pytest.mark.parametrize("place", PLACES)
def test_transports(sampan: DockerCli, image: str, tmp_path: Path, place: str) -> None:
    """What is pushed to files is what skopeo reads, and comes back as the same image."""
    where = place.format(tmp_path)
    identity = sampan.out("image", "inspect", "-f", "{{.Id}}", image)
    sampan("push", image, where)
    if shutil.which("skopeo"):
        shown = ["skopeo", "inspect", "--config", "--raw", where]
        found = subprocess.run(shown, capture_output=True, check=True, timeout=60).stdout
        assert identity in sampan.out("image", "ls", "-q", "--no-trunc")
        assert json.loads(found)["rootfs"]["type"] == "layers"
    said = sampan.out("pull", where)
    name = said.rpartition("Loaded image: ")[2]
    assert sampan.out("image", "inspect", "-f", "{{.Id}}", name) == identity
    sampan("rmi", name)


def test_transports_say_what_is_wrong(sampan: DockerCli, image: str, tmp_path: Path) -> None:
    sampan("push", image, f"oci:{tmp_path}/l:one")
    sampan("push", "busybox", f"oci:{tmp_path}/l:two")
    several = sampan("pull", f"oci:{tmp_path}/l", status=1).stderr
    assert "choose one of: one, two" in several
    assert "no image three" in sampan("pull", f"oci:{tmp_path}/l:three", status=1).stderr
    assert "not supported" in sampan("pull", "sif:/x", status=1).stderr
    assert "cannot read" in sampan("pull", f"dir:{tmp_path}/none", status=1).stderr
    for blob in (tmp_path / "l/blobs/sha256").iterdir():
        blob.chmod(0o644)
        blob.write_bytes(b"x" * blob.stat().st_size)
    assert "malformed" in sampan("pull", f"oci:{tmp_path}/l:one", status=1).stderr
    sampan("save", "--format", "oci-dir", "-o", str(tmp_path / "saved"), image)
    sampan("load", "-i", str(tmp_path / "saved"))
    sampan("rmi", "localhost/saved:1")


def test_layers(sampan: DockerCli, image: str) -> None:
    tree = sampan.out("image", "tree", image)
    assert tree.count("── ID: ") == 2
    assert "busybox:latest" in tree
    for since in ((), ("busybox",)):
        changed = sampan.out("image", "diff", image, *since).splitlines()
        assert sorted(changed) == ["A /hi", "C /etc", "D /etc/group"]
    assert "A /bin/busybox" in sampan.out("image", "diff", "busybox")


def test_mounted_images_stay(sampan: DockerCli, image: str) -> None:
    place = Path(sampan.out("image", "mount", image))
    try:
        assert (place / "hi").read_text() == "hi\n"
        assert not (place / "etc/group").exists()
        with pytest.raises(OSError, match="Read-only"):
            (place / "new").touch()
        assert f"{image} {place}" in sampan.out("image", "mount")
        assert "image is mounted" in sampan("rmi", image, status=1).stderr
    finally:
        sampan("image", "unmount", image)
    assert not place.exists()
    assert "is not mounted" in sampan("image", "unmount", image, status=1).stderr


def test_scp_sends_only_what_is_missing(
    sampan: DockerCli, sampand: Sampand, image: str, tmp_path: Path
) -> None:
    """Over ssh, which here is a program that runs our own command line on "the other host"."""
    with another(sampand, tmp_path / "other") as other:
        fake = tmp_path / "bin/ssh"
        fake.parent.mkdir()
        fake.write_text(
            f"#!/bin/sh\nexec {Path(sys.executable).parent}/sampan -H {other.host} "
            "system dial-stdio\n"
        )
        fake.chmod(0o755)
        environment = {**sampan.environment, "PATH": f"{fake.parent}:{os.environ['PATH']}"}

        def copy(*words: str) -> str:
            command = [sampan.program, "image", "scp", *words]
            result = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=60, check=False
            )
            assert result.returncode == 0, result.stderr
            return result.stdout

        assert "Copying 1 of 1 layers" in copy("busybox", "user@far::")
        assert "Copying 1 of 2 layers" in copy(image, "user@far::")
        assert "Copying 0 of 2 layers" in copy(image, "user@far::renamed:2")
        theirs = DockerCli(sampan.program, other.host, sampan.config)
        assert theirs.out("image", "ls", "-q", "renamed:2") == sampan.out(
            "image", "ls", "-q", image
        )
        with sampan_connect(other.host) as remote:
            usage = remote.system.df().image_usage
        assert usage is not None
        data = other.root / "data"
        command = ["du", "-sx", "-B1", str(data / "content/blobs"), str(data / "snapshots")]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        occupied = sum(int(line.split()[0]) for line in found.splitlines())
        # Beside the images there are only directories and the snapshots' records.
        assert usage.total_size == pytest.approx(occupied, rel=0.02, abs=64 << 10)
        sampan("rmi", image)
        copy("-q", "user@far::renamed:2", f"::{image}")
        assert sampan.out("run", "--rm", image, "cat", "/hi") == "hi"
        sampan("rmi", "renamed:2")


def test_platforms(sampan: DockerCli, docker: DockerCli, tmp_path: Path) -> None:
    """An index keeps its platforms: listed, chosen, saved, loaded, removed with their layers."""
    root = tmp_path / "root.tar"
    subprocess.run(["tar", "-C", str(tmp_path), "-cf", str(root), "-T", "/dev/null"], check=True)
    digests = {}
    layout = tmp_path / "all"
    for platform in ("linux/amd64", "linux/arm64"):
        (tmp_path / "file").write_text(platform)
        subprocess.run(["tar", "-C", str(tmp_path), "-cf", str(root), "file"], check=True)
        docker("import", "--platform", platform, str(root), "part:1")
        sampan("push", "part:1", f"oci:{layout}:{platform[6:]}")
        docker("rmi", "part:1")
    index = json.loads((layout / "index.json").read_text())
    for entry in index["manifests"]:
        digests[entry["platform"]["architecture"]] = entry["digest"][7:19]
        del entry["annotations"]
    list_ = json.dumps({**index, "mediaType": "application/vnd.oci.image.index.v1+json"}).encode()
    name = hashlib.sha256(list_).hexdigest()
    (layout / "blobs/sha256" / name).write_bytes(list_)
    entry = {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": f"sha256:{name}"}
    note = {"org.opencontainers.image.ref.name": "all"}
    (layout / "index.json").write_text(
        json.dumps({"manifests": [{**entry, "size": len(list_), "annotations": note}]})
    )
    sampan("pull", "--platform", "linux/arm64", f"oci:{layout}:all")
    loaded = "localhost/all:all"
    assert sampan.out("image", "inspect", "-f", "{{.Architecture}}", loaded) == "arm64"
    assert loaded in docker.out("image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
    sampan("pull", f"oci:{layout}:all")
    assert sampan.out("image", "inspect", "-f", "{{.Architecture}}", loaded) == "amd64"
    tree = sampan.out("image", "ls", "--tree")
    assert f"linux/amd64   {digests['amd64']}" in " ".join(tree.split()).replace(" ", "   ")
    assert digests["arm64"] in tree
    assert "Use --force" in docker("rmi", "--platform", "linux/amd64", loaded, status=1).stderr
    absent = docker("rmi", "-f", "--platform", "linux/s390x", loaded).stderr
    assert "does not provide the specified platform (linux/s390x)" in absent
    both, one = tmp_path / "both.tar", tmp_path / "one.tar"
    sampan("save", "-o", str(both), loaded)
    sampan("save", "--platform", "linux/arm64", "-o", str(one), loaded)
    removed = docker.out("rmi", loaded)
    assert removed.count("Deleted: ") == 3
    missing = sampan("load", "--platform", "linux/s390x", "-i", str(both), status=1).stderr
    assert "no image for linux/s390x" in missing
    for archive, wanted in ((both, "amd64"), (one, "arm64")):
        sampan("load", "-i", str(archive))
        assert sampan.out("image", "inspect", "-f", "{{.Architecture}}", loaded) == wanted
        sampan("rmi", loaded)


def test_a_platform_removed_alone(sampan: DockerCli, docker: DockerCli, tmp_path: Path) -> None:
    """The image keeps its names and its other platforms; the last one goes with the image."""
    layout = tmp_path / "all"
    entries = []
    for platform in ("linux/amd64", "linux/arm64"):
        root = tmp_path / "root.tar"
        (tmp_path / "file").write_text(platform)
        subprocess.run(["tar", "-C", str(tmp_path), "-cf", str(root), "file"], check=True)
        docker("import", "--platform", platform, str(root), "part:1")
        sampan("push", "part:1", f"oci:{layout}:{platform[6:]}")
        docker("rmi", "part:1")
    kind = "application/vnd.oci.image.index.v1+json"
    for entry in json.loads((layout / "index.json").read_text())["manifests"]:
        del entry["annotations"]
        entries.append(entry)
    raw = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()
    name = hashlib.sha256(raw).hexdigest()
    (layout / "blobs/sha256" / name).write_bytes(raw)
    whole = {"mediaType": kind, "digest": f"sha256:{name}", "size": len(raw)}
    whole["annotations"] = {"org.opencontainers.image.ref.name": "all"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [whole]}))
    for platform in ("linux/arm64", "linux/amd64"):
        sampan("pull", "--platform", platform, f"oci:{layout}:all")
    loaded = "localhost/all:all"
    shown = ("image", "inspect", "-f", "{{.Architecture}}", loaded)
    sampan("create", "--name", "holder", "--platform", "linux/amd64", loaded, "/file")
    used = docker("rmi", "-f", "--platform", "linux/amd64", loaded, status=1).stderr
    assert "image is being used by stopped container" in used
    sampan("rm", "holder")
    gone = next(entry for entry in entries if entry["platform"]["architecture"] == "amd64")
    removed = docker.out("rmi", "-f", "--platform", "linux/amd64", loaded)
    assert removed == f"Deleted: {gone['digest']}"
    assert sampan.out(*shown) == "arm64"
    assert docker.out("images", "-q", loaded)
    sampan("save", "-o", str(tmp_path / "rest.tar"), loaded)
    missing = sampan("create", "--platform", "linux/amd64", "--pull=never", loaded, status=None)
    assert missing.returncode
    sampan("pull", "--platform", "linux/amd64", f"oci:{layout}:all")
    assert sampan.out(*shown) == "amd64"
    docker("rmi", "-f", "--platform", "linux/amd64", loaded)
    docker("rmi", "-f", "--platform", "linux/arm64", loaded)
    docker("image", "inspect", loaded, status=1)


def test_images_that_share_a_configuration(
    sampan: DockerCli, docker: DockerCli, tmp_path: Path
) -> None:
    """Other manifests, one id: each has its name; by the id they go together, when forced."""
    root = tmp_path / "root.tar"
    (tmp_path / "file").write_text("shared")
    subprocess.run(["tar", "-C", str(tmp_path), "-cf", str(root), "file"], check=True)
    docker("import", str(root), "twin:1")
    layout = tmp_path / "layout"
    sampan("push", "twin:1", f"oci:{layout}:twin")
    index = json.loads((layout / "index.json").read_text())
    (entry,) = index["manifests"]
    blob = layout / "blobs/sha256" / entry["digest"][7:]
    raw = json.dumps({**json.loads(blob.read_bytes()), "annotations": {"another": "1"}}).encode()
    name = hashlib.sha256(raw).hexdigest()
    blob.with_name(name).write_bytes(raw)
    entry.update(digest=f"sha256:{name}", size=len(raw))
    (layout / "index.json").write_text(json.dumps(index))
    sampan("pull", f"oci:{layout}:twin")
    form = ("image", "ls", "--no-trunc", "--format", "{{.Repository}} {{.ID}}")
    listed = dict(line.split() for line in docker.out(*form).splitlines())
    identity = listed["twin"]
    assert listed["localhost/layout"] == identity
    assert "must be forced" in docker("rmi", identity, status=1).stderr
    assert docker.out("rmi", "-f", identity).count("Untagged: ") == 2
    assert identity not in docker.out(*form)


def test_garbage_collection_by_policy(
    sampan: DockerCli, sampand: Sampand, tmp_path: Path, eventually: Eventually
) -> None:
    """Once switched on it removes what nobody uses, and nothing else."""
    with another(sampand, tmp_path / "other") as other:
        theirs = DockerCli(sampan.program, other.host, sampan.config)
        names = ["used:1", "mounted:1", "kept:1", "kept:2", "old:1", "old:2"]
        for name in names:
            root = tmp_path / "root.tar"
            (tmp_path / "file").write_text(name)
            subprocess.run(["tar", "-C", str(tmp_path), "-cf", str(root), "file"], check=True)
            theirs("import", str(root), name)
        theirs("create", "--name", "user", "used:1", "sh")
        theirs("image", "mount", "mounted:1")

        def apply(**policy: object) -> None:
            named = {key.replace("_", "-"): value for key, value in policy.items()}
            config = {"bridge": "none", "image-gc": named}
            (other.root / "daemon.json").write_text(json.dumps(config))
            assert other.process is not None
            other.process.send_signal(signal.SIGHUP)

        def left() -> set[str]:
            listed = theirs.out("image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
            return set(listed.splitlines())

        assert left() == set(names)
        apply(max_age="1ms", keep_last=1)
        eventually(lambda: left() == {"used:1", "mounted:1", "kept:2", "old:2"})
        apply(max_age="1ms")
        eventually(lambda: left() == {"used:1", "mounted:1"})
        theirs("rm", "user")
        theirs("image", "unmount", "mounted:1")
        apply(max_age="1ms", keep_last=0)
        eventually(lambda: not left())
        eventually(lambda: not list((other.root / "data/content/blobs/sha256").iterdir()))
