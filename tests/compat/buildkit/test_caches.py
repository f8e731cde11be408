"""Caches of builds elsewhere, through docker buildx: exported, forgotten, and taken in again."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.build.conftest import Serve, serve  # noqa: F401
from tests.compat.buildkit import githubcache
from tests.compat.buildkit.conftest import Buildx
from tests.compat.conftest import DockerCli, Result, Sampand

DOCKERFILE = """\
FROM busybox AS made
COPY f /f
RUN echo made | tee /made
FROM busybox
COPY --from=made /made /made
RUN echo last | tee /last
"""
HERE = "127.0.0.1:5055"
OURS = "127.0.0.1:5058"


def steps(result: Result) -> set[str]:
    """Which RUN steps were run, by what they printed."""
    return set(re.findall(r"^#\d+ [\d.]+ (made|last)$", result.stderr, re.MULTILINE))


@pytest.fixture
def files(context: Path) -> Path:
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "f").write_text("one\n")
    return context


@pytest.fixture
def registry(serve: Serve, tmp_path: Path) -> Iterator[None]:  # noqa: F811
    """Debian's registry on :5055 and our own on :5058."""
    if not shutil.which("docker-registry"):
        pytest.skip("needs docker-registry")
    (tmp_path / "registry.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}}}\n"
        f"http: {{addr: '{HERE}'}}\n"
    )
    (tmp_path / "ours.toml").write_text(f'listen = "{OURS}"\n[storage]\nroot = "{tmp_path}/ours"\n')
    with (
        serve(5055, "docker-registry", "serve", str(tmp_path / "registry.yml")),
        serve(5058, sys.executable, "-m", "sampan.registry.server", str(tmp_path / "ours.toml")),
    ):
        yield


def again(buildx: Buildx, context: Path, *sources: str) -> set[str]:
    """The steps run when all that is known is what ``sources`` have."""
    buildx("buildx", "prune", "-af")
    buildx("rmi", "-f", "bk:cached", status=None)
    words = [f"--cache-from={source}" for source in sources]
    result = buildx.build(context, "-t", "bk:cached", *words)
    print(result.stderr)
    return steps(result)


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("where", [HERE, OURS])
def test_in_a_registry(buildx: Buildx, docker: DockerCli, files: Path, where: str) -> None:
    buildx("buildx", "prune", "-af")
    words = ("--push", "-t", f"{where}/image:1", "--provenance=false")
    full = f"type=registry,ref={where}/cache:full,mode=max,compression=zstd"
    brief = f"type=registry,ref={where}/cache:brief,mode=min"
    first = buildx.build(
        files, *words, f"--cache-to={full}", f"--cache-to={brief}", "--cache-to=type=inline"
    )
    assert steps(first) == {"made", "last"}
    docker("rmi", "-f", f"{where}/image:1")
    for source in (f"{where}/cache:full", f"type=registry,ref={where}/cache:brief"):
        assert again(buildx, files, source) == set()
        assert docker.out("run", "--rm", "bk:cached", "cat", "/made", "/last") == "made\nlast"
    assert again(buildx, files, f"{where}/image:1") == set()
    assert docker.out("run", "--rm", f"{where}/image:1", "cat", "/made", "/last") == "made\nlast"
    (files / "f").write_text("two\n")
    assert "made" in again(buildx, files, f"{where}/cache:full"), "it sees another file"
    (files / "f").write_text("one\n")
    assert again(buildx, files, f"{where}/cache:none") == {"made", "last"}


def test_in_a_directory_of_the_clients(
    buildx: Buildx, docker: DockerCli, files: Path, tmp_path: Path
) -> None:
    buildx("buildx", "prune", "-af")
    place = tmp_path / "cache"
    to = f"--cache-to=type=local,dest={place},mode=max,tag=mine"
    assert steps(buildx.build(files, to)) == {"made", "last"}
    index = json.loads((place / "index.json").read_text())
    (top,) = index["manifests"]
    assert top["annotations"]["org.opencontainers.image.ref.name"] == "mine"
    manifest = json.loads((place / "blobs" / top["digest"].replace(":", "/")).read_text())
    for blob in (manifest["config"], *manifest["layers"]):
        path = place / "blobs" / blob["digest"].replace(":", "/")
        assert path.stat().st_size == blob["size"]
    source = f"type=local,src={place},tag=mine"
    assert again(buildx, files, source) == set()
    assert docker.out("run", "--rm", "bk:cached", "cat", "/made", "/last") == "made\nlast"
    buildx.build(files, to)  # over one that is there
    assert again(buildx, files, source) == set()
    layer = place / "blobs" / manifest["layers"][-1]["digest"].replace(":", "/")
    layer.write_bytes(b"x" * layer.stat().st_size)
    assert again(buildx, files, source), "what is not what it is called is not taken"
    assert docker.out("run", "--rm", "bk:cached", "cat", "/made", "/last") == "made\nlast"


@pytest.mark.parametrize("version", ["1", "2"])
def test_in_githubs_service(
    buildx: Buildx,
    sampand: Sampand,
    files: Path,
    serve: Serve,  # noqa: F811
    version: str,
) -> None:
    buildx("buildx", "prune", "-af")
    where = "http://127.0.0.1:5059"
    key = "url" if version == "1" else "url_v2"
    gha = f"type=gha,{key}={where},token={githubcache.TOKEN},scope=tests,version={version}"
    with serve(5059, sys.executable, "-m", "tests.compat.buildkit.githubcache", "5059"):
        assert steps(buildx.build(files, f"--cache-to={gha},mode=max")) == {"made", "last"}
        assert again(buildx, files, gha) == set()
        assert again(buildx, files, gha.replace("scope=tests", "scope=other")) == {"made", "last"}
        wrong = gha.replace("token=", "token=not-")
        assert again(buildx, files, wrong) == {"made", "last"}
        failed = buildx.build(files, f"--cache-to={wrong},mode=max", status=1).stderr
        assert "status 401" in failed
        buildx.build(files, f"--cache-to={wrong},mode=max,ignore-error=true")
    assert githubcache.TOKEN not in sampand.log()


def test_in_a_bucket(
    buildx: Buildx,
    sampand: Sampand,
    files: Path,
    serve: Serve,  # noqa: F811
) -> None:
    pytest.importorskip("moto")
    buildx("buildx", "prune", "-af")
    where = "http://127.0.0.1:5060"
    make = (
        "import boto3\n"
        f"boto3.client('s3', endpoint_url={where!r}, region_name='us-east-1',"
        " aws_access_key_id='key', aws_secret_access_key='hidden').create_bucket(Bucket='cache')"
    )
    s3 = (
        f"type=s3,bucket=cache,region=us-east-1,endpoint_url={where},use_path_style=true,"
        "access_key_id=key,secret_access_key=hidden-key,prefix=p/,upload_parallelism=2"
    )
    with serve(5060, sys.executable, "-m", "moto.server", "-p", "5060"):
        nsenter = ["nsenter", f"--net=/run/netns/{sampand.namespace}"]
        subprocess.run([*nsenter, sys.executable, "-c", make], check=True)
        to = f"--cache-to={s3},mode=max,name=one;two"
        assert steps(buildx.build(files, to)) == {"made", "last"}
        assert again(buildx, files, f"{s3},name=two") == set()
        assert again(buildx, files, f"{s3},name=three") == {"made", "last"}
        assert again(buildx, files, f"{s3},name=one,blobs_prefix=x/") == {"made", "last"}
        gone = s3.replace("bucket=cache", "bucket=none")
        assert again(buildx, files, gone) == {"made", "last"}
        failed = buildx.build(files, f"--cache-to={gone},mode=max", status=1).stderr
        assert "the cache's bucket" in failed or "status 404" in failed, failed
        buildx.build(files, f"--cache-to={gone},mode=max,ignore-error=true")
    assert "hidden-key" not in sampand.log()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--cache-to=type=azblob,name=x", "cache exports of type 'azblob' are not supported"),
        ("--cache-from=type=azblob,name=x", "cache type 'azblob' is not supported"),
        ("--cache-from=type=registry,ref=x/y,nonsense=1", "'nonsense' of a registry cache"),
        ("--cache-to=type=registry,ref=x/y,mode=most", "invalid cache mode 'most'"),
    ],
)
def test_what_is_not_done_is_refused(buildx: Buildx, files: Path, words: str, message: str) -> None:
    assert message in buildx.build(files, words, status=1).stderr
