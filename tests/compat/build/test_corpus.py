"""The corpus, by the docker CLI's classic protocol: sampand beside Debian's dockerd."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.compat.build.corpus import CONTEXT, MODERN, REFUSED, SHARED
from tests.compat.conftest import CLI, DockerCli, busybox_archive
from tests.compat.dockerd import Docker, dockerd

__all__ = ["dockerd"]

CONFIG = (
    *("Env", "Cmd", "Entrypoint", "WorkingDir", "User", "Labels", "ExposedPorts", "Volumes"),
    *("Healthcheck", "OnBuild", "Shell", "StopSignal"),
)
# What a daemon itself puts into a container it creates.
FOREIGN = {".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"}
Tree = dict[str, tuple[Any, ...]]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build context every Dockerfile of the corpus is built in."""
    root = tmp_path_factory.mktemp("context")
    for name, (mode, text) in CONTEXT.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    for directory in root.glob("**/"):
        directory.chmod(0o755)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("in", "deep/er"):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.uid, entry.gid = 2, 0o604, 12, 34
            tar.addfile(entry, io.BytesIO(b"x\n"))
    (root / "archive.tar.gz").write_bytes(gzip.compress(archive.getvalue(), mtime=0))
    return root


@pytest.fixture(scope="module")
def peer(dockerd: Docker) -> Docker:
    """Debian's dockerd with the same base image."""
    dockerd("load", input=busybox_archive())
    return dockerd


def _docker(
    host: str, *words: str, input: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [CLI, "-H", host, *words],
        input=input,
        capture_output=True,
        timeout=120,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "DOCKER_BUILDKIT": "0"},
    )


def _build(host: str, context: Path, text: str, *flags: str) -> subprocess.CompletedProcess[bytes]:
    # Outside the context, so that copies of all of it see no Dockerfile of one test only.
    dockerfile = context.parent / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.Dockerfile"
    dockerfile.write_text(text + "\n")
    return _docker(host, "build", "-q", "-f", str(dockerfile), *flags, str(context))


def _history(host: str, image: str) -> list[str]:
    """What each instruction is said to be, oldest first, without what only one builder says.

    The classic builder names copied files by a digest and BuildKit by their names, and they differ
    in how they write ports, durations and build arguments; ONBUILD has an entry in one alone.
    """
    rows = _docker(host, "history", "--no-trunc", "--format", "{{json .CreatedBy}}", image).stdout
    found = []
    for line in reversed(rows.decode().splitlines()):
        said = re.sub(r"^.*#\(nop\) ", "", json.loads(line)).removesuffix(" # buildkit").strip()
        said = re.sub(r"^\|\d+ (?:\w+=\S* )*", "", said.removeprefix("RUN "))
        said = re.sub(r"^(COPY|ADD|EXPOSE) .*", r"\1", said)
        said = re.sub(r"^(ARG \w+)=.*", r"\1", said)
        found.append(re.sub(r"^(HEALTHCHECK) .*?(CMD|NONE).*", r"\1 \2", said))
    return [said for said in found if not said.startswith("ONBUILD")]


def _built(
    host: str, context: Path, text: str, *flags: str
) -> tuple[Tree, dict[str, Any], list[str]]:
    result = _build(host, context, text, *flags)
    assert result.returncode == 0, (host, result.stdout.decode(), result.stderr.decode())
    image = result.stdout.decode().split()[-1]
    inspected = json.loads(_docker(host, "image", "inspect", image).stdout)[0]["Config"]
    container = _docker(host, "create", image, "x").stdout.decode().strip()
    try:
        exported = _docker(host, "export", container)
        assert exported.returncode == 0, exported.stderr
    finally:
        _docker(host, "rm", "-f", "-v", container)
    if inspected["WorkingDir"] == "/":  # BuildKit says it of scratch, the classic builder nothing
        inspected["WorkingDir"] = ""
    config = {key: inspected.get(key) or None for key in CONFIG}
    return _tree(exported.stdout), config, _history(host, image)


def _tree(archive: bytes) -> Tree:
    found: Tree = {}
    inodes: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for entry in sorted(tar, key=lambda entry: entry.islnk()):
            name = entry.name.removeprefix("./").rstrip("/")
            if name in FOREIGN or name.split("/")[0] in {"dev", "proc", "sys", "", "."}:
                continue
            data = tar.extractfile(entry) if entry.isreg() or entry.islnk() else None
            contents = hashlib.sha256(data.read()).hexdigest() if data else ""
            kind = tarfile.REGTYPE if entry.islnk() else entry.type
            inodes[name] = inodes.get(entry.linkname, entry.linkname) if entry.islnk() else name
            target = entry.linkname if entry.issym() else ""
            device = (entry.devmajor, entry.devminor) if entry.ischr() or entry.isblk() else ()
            mode = oct(entry.mode & 0o7777)  # dockerd writes the type of the file there too
            found[name] = (kind, mode, entry.uid, entry.gid, target, device, contents)
    groups: dict[str, list[str]] = {}
    for name, inode in inodes.items():
        groups.setdefault(inode, []).append(name)
    return {name: (*entry, tuple(sorted(groups[inodes[name]]))) for name, entry in found.items()}


@pytest.mark.parametrize("case", SHARED)
def test_same_tree_and_configuration_as_dockerd(
    case: str, docker: DockerCli, peer: Docker, context: Path
) -> None:
    flags = ("--build-arg=PASSED=given", "--build-arg=HTTP_PROXY=http://p:1")
    with ThreadPoolExecutor(2) as pool:
        ours, theirs = pool.map(
            lambda host: _built(host, context, SHARED[case], *flags), (docker.host, peer.host)
        )
    assert ours[1:] == theirs[1:]
    assert {n: e for n, e in ours[0].items() if theirs[0].get(n) != e} == {}
    # Its init layer gives every container an /etc for the files it mounts there.
    assert set(theirs[0]) - set(ours[0]) <= {"etc"}


@pytest.mark.parametrize("case", MODERN)
def test_what_only_buildkit_has(case: str, docker: DockerCli, context: Path) -> None:
    text, expected = MODERN[case]
    tree, *_ = _built(docker.host, context, text)
    for name, (mode, uid, gid, contents) in expected.items():
        if not mode:
            assert name not in tree
            continue
        digest = hashlib.sha256(contents.encode()).hexdigest()
        assert tree[name][1:4] == (oct(mode), uid, gid)
        assert tree[name][6] == digest, name


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, docker: DockerCli, context: Path) -> None:
    text, sentence = REFUSED[case]
    result = _build(docker.host, context, text)
    assert result.returncode != 0
    assert sentence in (result.stdout + result.stderr).decode()


#: What buildah knows of what the classic builder does not.
BUILDAH = ("mount-bind", "mount-from", "mount-cache", "mount-tmpfs")


def test_same_tree_as_buildah(docker: DockerCli, context: Path, tmp_path: Path) -> None:
    if shutil.which("buildah") is None:
        pytest.skip("needs buildah")
    buildah = [
        *("buildah", "--root", str(tmp_path / "root"), "--runroot", str(tmp_path / "run")),
        *("--storage-driver", "vfs"),
    ]

    def run(*words: str) -> bytes:
        done = subprocess.run([*buildah, *words], capture_output=True, check=False, timeout=120)
        assert done.returncode == 0, (words, done.stderr.decode())
        return done.stdout

    (tmp_path / "busybox.tar").write_bytes(busybox_archive())
    run("pull", f"docker-archive:{tmp_path}/busybox.tar")
    for case in BUILDAH:
        text, _ = MODERN[case]
        (tmp_path / "Dockerfile").write_text(text + "\n")
        flags = ("--isolation", "chroot", "-q", "-t", case, "-f", str(tmp_path / "Dockerfile"))
        run("bud", *flags, str(context))
        container = run("from", case).decode().strip()
        root = run("mount", container).decode().strip()
        archive = subprocess.run(
            ["tar", "-C", root, "--numeric-owner", "-c", "."], capture_output=True, check=True
        )
        theirs = _tree(archive.stdout)
        ours, *_ = _built(docker.host, context, text)
        for tree in (ours, theirs):  # mount points that one or the other leaves or makes
            for name in ("m", "c", "t", "etc/mtab", "run", "etc/hosts", "etc/resolv.conf"):
                tree.pop(name, None)
        assert ours == theirs, case
        run("rm", container)
