"""skopeo, podman, buildah, docker and crane push to and pull from our registry."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from sampan.model.descriptor import INDEXES
from sampan.model.digest import Digest
from sampan.registry import manifest as manifests
from sampan.registry.server.filesystem import FileDriver
from sampan.registry.server.store import Store
from tests.compat.registry.conftest import Place, from_go, needs

BUSYBOX = Path("/bin/busybox")


def stored(place: Place, repository: str, tag: str) -> manifests.Manifest:
    """What our registry has under a tag; every blob of it is there and has its digest."""

    async def look() -> manifests.Manifest:
        driver = FileDriver(place.root / "registry")
        store = Store(driver)
        digest = await store.tag(repository, tag)
        assert digest
        view = await store.view(repository, digest)
        assert view
        for blob in view.blobs:
            entry = await store.blob(repository, blob.digest)
            assert entry
            data = (place.root / "registry" / entry.key).read_bytes()
            assert Digest.of(data) == blob.digest
        await driver.close()
        return view

    return asyncio.run(look())


@pytest.fixture(scope="module")
def layout(place: Place) -> Path:
    """An OCI layout of a busybox image, made by skopeo from a docker-archive."""
    needs("skopeo")
    if not BUSYBOX.exists():
        pytest.skip("needs static busybox")
    layer = BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(BUSYBOX, "bin/busybox")
        link = tarfile.TarInfo("bin/sh")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        tar.addfile(link)
    diff_id = str(Digest.of(layer.getvalue()))
    config = {
        "os": "linux",
        "architecture": "amd64",
        "config": {"Cmd": ["/bin/sh", "-c", "echo it runs"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    archive = place.root / "archive.tar"
    manifest = [{"Config": "c.json", "RepoTags": ["bb:1"], "Layers": ["l.tar"]}]
    with tarfile.open(archive, "w") as tar:
        for name, data in (
            ("c.json", json.dumps(config).encode()),
            ("l.tar", layer.getvalue()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, BytesIO(data))
    target = place.root / "layout"
    place.run("skopeo", "copy", f"docker-archive:{archive}", f"oci:{target}:1")
    return target


def seed(place: Place, layout: Path, name: str) -> str:
    """Have skopeo push the image as ``name``; the reference."""
    reference = f"{place.registry}/{name}"
    target = f"docker://{reference}"
    place.run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}:1", target)
    return reference


def test_skopeo(place: Place, layout: Path) -> None:
    name = f"docker://{place.registry}/skopeo/bb"
    place.run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}:1", f"{name}:1")
    view = stored(place, "skopeo/bb", "1")
    said = json.loads(place.run("skopeo", "inspect", "--tls-verify=false", f"{name}:1"))
    assert said["Digest"] == str(view.digest)
    tags = json.loads(place.run("skopeo", "list-tags", "--tls-verify=false", name))
    assert tags["Tags"] == ["1"]
    insecure = ("--src-tls-verify=false", "--dest-tls-verify=false")
    other = f"docker://{place.registry}/skopeo/copy:1"
    place.run("skopeo", "copy", *insecure, f"{name}:1", other)
    assert stored(place, "skopeo/copy", "1").digest == view.digest
    schema2 = f"docker://{place.registry}/skopeo/schema2:1"
    place.run("skopeo", "copy", "--format=v2s2", *insecure, f"{name}:1", schema2)
    assert "docker" in stored(place, "skopeo/schema2", "1").media_type
    target = place.root / "back"
    place.run("skopeo", "copy", "--src-tls-verify=false", f"{name}:1", f"dir:{target}")
    assert (target / "manifest.json").read_bytes() == view.raw
    place.run("skopeo", "delete", "--tls-verify=false", other)
    with pytest.raises(AssertionError):
        place.run("skopeo", "inspect", "--tls-verify=false", other)


SIGN = """
import asyncio, sys
from pathlib import Path
from sampan.content.store import FileStore
from sampan.model.reference import Reference
from sampan.registry import Registry, Signer

async def main(name: str, key: str, content: str) -> None:
    reference = Reference.parse(name)
    store = FileStore(Path(content))
    async with Registry() as registry:
        pulled = await registry.pull(reference, content=store)
        signer = Signer.load(Path(key).read_bytes())
        await registry.push(reference, pulled.root.digest, content=store, signer=signer)

asyncio.run(main(*sys.argv[1:]))
"""


def test_openssl_accepts_our_signatures(place: Place, layout: Path) -> None:
    """As a stand-in for cosign: Debian's skopeo and podman are built without sigstore."""
    needs("openssl")
    signed = seed(place, layout, "signed/image:1")
    key, public = place.root / "key.pem", place.root / "public.pem"
    curve = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    place.run("openssl", "genpkey", *curve, "-out", str(key))
    place.run("openssl", "pkey", "-in", str(key), "-pubout", "-out", str(public))
    place.run(sys.executable, "-c", SIGN, signed, str(key), str(place.root / "signing"))
    digest = stored(place, "signed/image", "1").digest
    target = place.root / "signature"
    name = f"docker://{place.registry}/signed/image:sha256-{digest.hex}.sig"
    place.run("skopeo", "copy", "--src-tls-verify=false", name, f"dir:{target}")
    (layer,) = json.loads((target / "manifest.json").read_text())["layers"]
    assert layer["mediaType"] == "application/vnd.dev.cosign.simplesigning.v1+json"
    payload = target / Digest.parse(layer["digest"]).hex
    critical = json.loads(payload.read_text())["critical"]
    assert critical["image"]["docker-manifest-digest"] == str(digest)
    assert critical["identity"]["docker-reference"] == signed
    signature = target / "signature"
    text = layer["annotations"]["dev.cosignproject.cosign/signature"]
    signature.write_bytes(base64.b64decode(text))
    verify = ("openssl", "dgst", "-sha256", "-verify", str(public), "-signature", str(signature))
    assert "Verified OK" in place.run(*verify, str(payload))


@pytest.fixture(scope="module")
def containers(place: Place) -> Iterator[list[str]]:
    """The arguments that give podman and buildah a storage of their own.

    podman refuses a run directory of more than 50 characters.
    """
    with tempfile.TemporaryDirectory(prefix="sr-") as run:
        places = ["--root", str(place.root / "containers"), "--runroot", run]
        yield [*places, "--storage-driver=vfs"]


def test_buildah(place: Place, containers: list[str], layout: Path) -> None:
    needs("buildah")
    buildah = ["buildah", *containers]
    place.run(
        "skopeo",
        "copy",
        "--dest-tls-verify=false",
        f"oci:{layout}:1",
        f"docker://{place.registry}/base:1",
    )
    container = place.run(
        *buildah, "from", "--tls-verify=false", f"{place.registry}/base:1"
    ).strip()
    place.run(*buildah, "copy", container, str(layout / "oci-layout"), "/added")
    place.run(*buildah, "commit", "--rm", container, "made")
    place.run(*buildah, "push", "--tls-verify=false", "made", f"{place.registry}/buildah/made:1")
    assert len(stored(place, "buildah/made", "1").layers) == 2
    listed = ("manifest", "create", "list", f"docker://{place.registry}/buildah/made:1")
    place.run(*buildah, *listed[:2], "--tls-verify=false", *listed[2:])
    target = f"docker://{place.registry}/buildah/list:1"
    place.run(*buildah, "manifest", "push", "--all", "--tls-verify=false", "list", target)
    assert stored(place, "buildah/list", "1").media_type in INDEXES


def test_podman(place: Place, containers: list[str], layout: Path) -> None:
    needs("podman")
    podman = ["podman", *containers, "--tmpdir", f"{containers[3]}/libpod"]
    source = seed(place, layout, "podman/base:1")
    place.run(*podman, "pull", "--tls-verify=false", source)
    place.run(*podman, "tag", source, f"{place.registry}/podman/again:1")
    place.run(*podman, "push", "--tls-verify=false", f"{place.registry}/podman/again:1")
    config = stored(place, "podman/base", "1").config
    again = stored(place, "podman/again", "1").config
    assert config
    assert again
    assert config.digest == again.digest
    found = place.run(*podman, "search", "--tls-verify=false", "--list-tags", source[:-2])
    assert "podman/base" in found


@pytest.fixture(scope="module")
def docker(place: Place) -> Iterator[list[str]]:
    """Debian's dockerd beside our registry, and a command line for it."""
    needs("dockerd", "docker", "containerd")
    root = place.root / "docker"
    root.mkdir()
    host = f"unix://{root / 'd.sock'}"
    daemon = ["dockerd", f"--data-root={root / 'data'}", f"--exec-root={root / 'exec'}"]
    daemon += [f"--pidfile={root / 'pid'}", f"--host={host}", "--bridge=none", "--iptables=false"]
    daemon += ["--ip6tables=false", "--storage-driver=vfs", f"--cgroup-parent=/{place.namespace}"]
    with place.running(*daemon):
        place.await_answer("docker", "-H", host, "version")
        yield ["docker", "-H", host]
    subprocess.run(["umount", "-R", str(root)], capture_output=True, check=False)


def test_docker(place: Place, docker: list[str], layout: Path) -> None:
    source = seed(place, layout, "docker/base:1")
    said = place.run(*docker, "pull", source)
    assert f"Digest: {stored(place, 'docker/base', '1').digest}" in said
    assert "up to date" in place.run(*docker, "pull", source)
    target = f"{place.registry}/docker/again:1"
    place.run(*docker, "tag", source, target)
    said = place.run(*docker, "push", target)
    assert f"digest: {stored(place, 'docker/again', '1').digest}" in said
    other = f"{place.registry}/docker/mounted:1"
    place.run(*docker, "tag", source, other)
    assert "Mounted from docker/" in place.run(*docker, "push", other)
    place.run(*docker, "rmi", source, target, other)
    assert target in place.run(*docker, "pull", target)
    place.run(*docker, "rmi", target)


def test_crane(place: Place, layout: Path, tmp_path: Path) -> None:
    """go-containerregistry's client: push, list, copy (mounts), validate, delete."""
    program = str(
        from_go("github.com/google/go-containerregistry/cmd/crane@v0.21.7", tmp_path / "bin")
    )

    def crane(*words: str) -> str:
        return place.run(program, *words, "--insecure")

    name = f"{place.registry}/crane/app"
    pushed = crane("push", str(layout), f"{name}:1").strip()
    assert pushed.startswith(f"{name}@sha256:")
    digest = pushed.rpartition("@")[2]
    assert crane("digest", f"{name}:1").strip() == digest
    crane("copy", f"{name}:1", f"{place.registry}/crane/copy:2")
    crane("tag", f"{name}:1", "again")
    assert crane("ls", name).split() == ["1", "again"]
    assert {"crane/app", "crane/copy"} <= set(crane("catalog", place.registry).split())
    assert "PASS" in crane("validate", "--remote", f"{place.registry}/crane/copy:2")
    crane("pull", "--format=oci", f"{place.registry}/crane/copy:2", str(tmp_path / "pulled"))
    assert digest in (tmp_path / "pulled/index.json").read_text()
    crane("delete", f"{name}@{digest}")
    assert not crane("ls", name).split()
