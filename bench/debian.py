"""An image of real Debian packages, at least 500 MB as gzip layers, as an OCI layout.

Made once below the directory for temporary files and kept there: mmdebstrap's minbase is the
lowest layer, each other layer holds what a group of packages installs.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

#: One layer each; chosen for many small files (sources, headers), large ones and fonts alike.
GROUPS = (
    ("gcc-12", "g++-12", "cpp-12", "libllvm14", "llvm-14-dev", "libclang-cpp14", "git"),
    ("golang-1.19-go", "golang-1.19-src", "libstd-rust-dev", "perl-modules-5.36"),
    ("openjdk-17-jre-headless", "libreoffice-core", "python3-numpy", "emacs-common"),
)
LEAST = 500_000_000
_LEVEL = 6


def layout() -> Path:
    """The directory of the OCI layout (one image, tag ``bench``), made if need be."""
    path = Path(tempfile.gettempdir()) / "sampan-bench-debian"
    if not (path / "index.json").exists():
        for name in ("mmdebstrap", "apt-get", "dpkg-deb", "tar"):
            if shutil.which(name) is None:
                raise FileNotFoundError(name)
        shutil.rmtree(path, ignore_errors=True)
        (path / "blobs/sha256").mkdir(parents=True)
        _make(path)
    return path


def _make(path: Path) -> None:
    layers, diff_ids = [], []
    with tempfile.TemporaryDirectory(prefix="sampan-bench-") as scratch:
        archives = [_base(Path(scratch))]
        archives += [
            _group(Path(scratch), str(number), names) for number, names in enumerate(GROUPS)
        ]
        for archive in archives:
            diff_ids.append(
                "sha256:" + hashlib.file_digest(archive.open("rb"), "sha256").hexdigest()
            )
            packed = archive.with_suffix(".gz")
            with archive.open("rb") as plain, gzip.GzipFile(packed, "wb", _LEVEL, mtime=0) as out:
                shutil.copyfileobj(plain, out, 1 << 20)
            archive.unlink()
            layers.append(_store(path, packed.read_bytes(), "layer.v1.tar+gzip"))
            packed.unlink()
    config = {
        "architecture": os.uname().machine.replace("x86_64", "amd64").replace("aarch64", "arm64"),
        "os": "linux",
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": "bench"} for _ in diff_ids],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _store(path, json.dumps(config).encode(), "config.v1+json"),
        "layers": layers,
    }
    size = sum(int(str(layer["size"])) for layer in layers)
    if size < LEAST:
        raise RuntimeError(f"the image for measurements has {size} bytes: too few")
    root = _store(path, json.dumps(manifest).encode(), "manifest.v1+json")
    root["annotations"] = {"org.opencontainers.image.ref.name": "bench"}
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [root]}))


def _store(path: Path, data: bytes, kind: str) -> dict[str, object]:
    name = hashlib.sha256(data).hexdigest()
    (path / "blobs/sha256" / name).write_bytes(data)
    return {
        "mediaType": f"application/vnd.oci.image.{kind}",
        "digest": f"sha256:{name}",
        "size": len(data),
    }


def _base(scratch: Path) -> Path:
    archive = scratch / "base.tar"
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", "bookworm", str(archive)],
        check=True,
    )
    return archive


def _group(scratch: Path, name: str, packages: tuple[str, ...]) -> Path:
    downloads, root = scratch / f"{name}.debs", scratch / f"{name}.root"
    downloads.mkdir()
    root.mkdir()
    subprocess.run(["apt-get", "-qq", "download", *packages], cwd=downloads, check=True)
    for package in sorted(downloads.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
    shutil.rmtree(downloads)
    archive = scratch / f"{name}.tar"
    subprocess.run(["tar", "--sort=name", "-C", str(root), "-cf", str(archive), "."], check=True)
    shutil.rmtree(root)
    return archive
