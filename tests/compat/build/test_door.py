"""``sampan build`` through sampand's own door: outputs, attestations, caches, inputs, failures."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.build.conftest import Serve
from tests.compat.conftest import DockerCli, Result, Sampand


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A directory with ``a``, ``many/0`` to ``many/9``, and a Dockerfile that uses them."""
    root = tmp_path / "context"
    (root / "many").mkdir(parents=True)
    (root / "a").write_text("a\n")
    for number in range(10):
        (root / "many" / str(number)).write_text(f"{number}\n")
    (root / "Dockerfile").write_text(
        "FROM busybox AS made\nRUN echo made; echo $RANDOM > /made\n"
        "FROM busybox\nCOPY many /many\nCOPY a /a\nRUN echo last; cat /a > /b\n"
        "COPY --from=made /made /made\nENV E=1\n"
    )
    return root


def layout(root: Path) -> tuple[dict[str, Any], Path]:
    """What an OCI layout's index names, and its blobs."""
    blobs = root / "blobs" / "sha256"
    (entry, *_) = json.loads((root / "index.json").read_text())["manifests"]
    return json.loads((blobs / entry["digest"][7:]).read_text()), blobs


def test_outputs_side_by_side(sampan: DockerCli, context: Path, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "stale").write_text("old")
    sampan(
        *("build", "-t", "out:1", "--metadata-file", str(tmp_path / "metadata")),
        *("--annotation", "manifest-descriptor:d=1", "--iidfile", str(tmp_path / "id")),
        *("-o", f"type=local,dest={tmp_path}/files,mode=delete"),
        *("-o", f"type=tar,dest={tmp_path}/files.tar"),
        *("-o", f"type=oci,dest={tmp_path}/oci,tar=false,compression=zstd,annotation.k=v"),
        *("-o", f"type=docker,dest={tmp_path}/docker.tar"),
        *("-o", "type=image,oci-mediatypes=false"),
        str(context),
    )
    assert sorted(os.listdir(tmp_path / "files" / "many")) == [str(number) for number in range(10)]
    assert not (tmp_path / "files" / "stale").exists()
    with tarfile.open(tmp_path / "files.tar") as tar:
        assert tar.extractfile("b").read() == b"a\n"  # type: ignore[union-attr]
    manifest, blobs = layout(tmp_path / "oci")
    assert manifest["annotations"] == {"k": "v"}
    kinds = [layer["mediaType"].rpartition("+")[2] for layer in manifest["layers"]]
    assert kinds[-4:] == ["zstd"] * 4  # the base's layer stays as it is
    for path in blobs.iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    described = json.loads((tmp_path / "oci" / "index.json").read_text())["manifests"][0]
    assert described["annotations"]["d"] == "1"
    assert "out:1" in sampan.out("load", "-i", str(tmp_path / "docker.tar"))
    metadata = json.loads((tmp_path / "metadata").read_text())
    assert metadata["image.name"] == "docker.io/library/out:1"
    assert metadata["containerimage.descriptor"]["mediaType"].startswith("application/vnd.docker")
    identity = (tmp_path / "id").read_text()
    assert identity == metadata["containerimage.config.digest"]
    for peer in filter(shutil.which, ("skopeo",)):
        subprocess.run(
            [peer, "inspect", f"oci:{tmp_path}/oci"], check=True, stdout=subprocess.DEVNULL
        )


def test_attestations(sampan: DockerCli, context: Path, tmp_path: Path) -> None:
    (context / "status").write_text(
        "Package: tool\nStatus: install ok installed\nArchitecture: all\nVersion: 1:2-3\n"
        "Maintainer: Some One <one@example.org>\n"
    )
    (context / "METADATA").write_text("Metadata-Version: 2.1\nName: Web_Thing\nVersion: 1.5\n")
    (context / "installed").write_text("P:musl\nV:1.2\nA:x86_64\nL:MIT\n\n")
    (context / "Dockerfile").write_text(
        "FROM busybox\nARG V\nCOPY status /var/lib/dpkg/\nCOPY installed /lib/apk/db/\n"
        "COPY METADATA /usr/lib/python3/dist-packages/web_thing-1.5.dist-info/\n"
    )
    sampan(
        *("build", "-t", "attested", "--provenance", "mode=max,builder-id=me", "--sbom", "true"),
        *("--build-arg", "V=told", "-o", f"type=oci,dest={tmp_path}/oci,tar=false", str(context)),
    )
    index, blobs = layout(tmp_path / "oci")
    image, about = index["manifests"]
    assert about["platform"] == {"architecture": "unknown", "os": "unknown"}
    assert about["annotations"] == {
        "vnd.docker.reference.digest": image["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    }
    manifest = json.loads((blobs / about["digest"][7:]).read_text())
    assert manifest["subject"]["digest"] == image["digest"]
    said = [json.loads((blobs / one["digest"][7:]).read_text()) for one in manifest["layers"]]
    sbom, provenance = said
    assert [one["subject"][0]["digest"]["sha256"] for one in said] == [image["digest"][7:]] * 2
    urls = {
        reference["referenceLocator"]
        for package in sbom["predicate"]["packages"]
        for reference in package.get("externalRefs", ())
    }
    assert {url.partition("?")[0] for url in urls} == {
        "pkg:deb/debian/tool@1%3A2-3",
        "pkg:apk/alpine/musl@1.2",
        "pkg:pypi/web-thing@1.5",
    }
    predicate = provenance["predicate"]
    assert provenance["predicateType"] == "https://slsa.dev/provenance/v1"
    request = predicate["buildDefinition"]["externalParameters"]["request"]
    assert request["args"] == {"build-arg:V": "told"}
    (base,) = predicate["buildDefinition"]["resolvedDependencies"]
    assert base["uri"].startswith("pkg:docker/busybox@latest?platform=linux%2F")
    assert predicate["runDetails"]["builder"] == {"id": "me"}
    assert predicate["runDetails"]["metadata"]["buildkit_hermetic"]


def steps(result: Result) -> set[str]:
    """Which RUN steps were run, by what they printed."""
    return set(re.findall(r"^#\d+ [\d.]+ (made|last)$", result.stderr, re.MULTILINE))


def test_caches_elsewhere(sampan: DockerCli, context: Path, tmp_path: Path, serve: Serve) -> None:
    if not shutil.which("docker-registry"):
        pytest.skip("needs docker-registry")
    (tmp_path / "registry.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}}}\n"
        "http: {addr: '127.0.0.1:5055'}\n"
    )
    bucket = (
        "type=s3,bucket=cache,region=us-east-1,endpoint_url=http://127.0.0.1:5056,"
        "use_path_style=true,access_key_id=a,secret_access_key=b,prefix=p/"
    )
    moto = (
        "import threading,boto3\nfrom moto.server import ThreadedMotoServer\n"
        "server=ThreadedMotoServer('127.0.0.1',5057); server.start()\n"
        "boto3.client('s3',endpoint_url='http://127.0.0.1:5057',region_name='us-east-1',"
        "aws_access_key_id='a',aws_secret_access_key='b').create_bucket(Bucket='cache')\n"
        "from moto.server import DomainDispatcherApplication,create_backend_app\n"
        "from werkzeug.serving import run_simple\n"
        "run_simple('127.0.0.1',5056,DomainDispatcherApplication(create_backend_app),threaded=True)\n"
    )
    with (
        serve(5055, "docker-registry", "serve", str(tmp_path / "registry.yml")),
        serve(5056, sys.executable, "-W", "ignore", "-c", moto),
    ):
        sampan("builder", "prune", "-af")
        first = sampan(
            *("build", "--progress", "plain", "-t", "127.0.0.1:5055/image:1", "--push"),
            *("--cache-to", "type=registry,ref=127.0.0.1:5055/cache,mode=max,compression=zstd"),
            *("--cache-to", f"type=local,dest={tmp_path}/cache,mode=max"),
            *("--cache-to", f"{bucket},mode=max", "--cache-to", "type=inline", str(context)),
        )
        assert steps(first) == {"made", "last"}
        identity = sampan.out("image", "inspect", "-f", "{{.Id}}", "127.0.0.1:5055/image:1")
        for source, again in (
            ("127.0.0.1:5055/cache", set()),
            (f"type=local,src={tmp_path}/cache", set()),
            (bucket, set()),
            ("127.0.0.1:5055/image:1", set()),  # its own steps alone, and what they are made of
        ):
            sampan("builder", "prune", "-af")
            result = sampan(
                *("build", "--progress", "plain", "--cache-from", source, "-t", "again"),
                str(context),
            )
            assert steps(result) == again
        assert identity.startswith("sha256:")
        result = sampan(
            *("build", "--progress", "plain", "--cache-from", "127.0.0.1:5055/none", str(context))
        )
        assert "ERROR" in result.stderr  # told, and ignored


def test_only_what_changed_is_sent(
    sampan: DockerCli, sampand: Sampand, context: Path, tmp_path: Path
) -> None:
    def built() -> dict[str, str]:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        sampan("build", "-q", "-o", str(tmp_path / "out"), str(context))
        many = tmp_path / "out" / "many"
        return {
            str(path.relative_to(many)): os.readlink(path)
            if path.is_symlink()
            else path.read_text()
            for path in many.rglob("*")
            if not path.is_dir() or path.is_symlink()
        }

    expected = {str(number): f"{number}\n" for number in range(10)}
    assert built() == expected
    many = context / "many"
    (many / "0").unlink()
    (many / "1").write_text("changed\n")
    (many / "2").unlink()
    (many / "2").mkdir()
    (many / "2" / "inside").write_text("deep\n")
    (many / "3").unlink()
    (many / "3").symlink_to("1")
    moment = os.stat(many).st_mtime_ns
    expected |= {"1": "changed\n", "2/inside": "deep\n", "3": "1"}
    del expected["0"], expected["2"]
    assert built() == expected
    assert os.stat(tmp_path / "out" / "many").st_mtime_ns // 10**9 == moment // 10**9
    shutil.rmtree(many / "2")
    (many / "2").write_text("a file again\n")
    del expected["2/inside"]
    expected["2"] = "a file again\n"
    assert built() == expected
    kept = [path.parent for path in (sampand.root / "data/build/kept").glob("*/listing")]
    assert any((path / "content/many/1").exists() for path in kept)


class Agent(threading.Thread):
    """A server on a Unix socket that answers every connection with what it got, reversed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(connection.recv(100)[::-1])


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "agent"
    server = Agent(path)
    server.start()
    yield path
    server.listener.shutdown(socket.SHUT_RDWR)
    server.listener.close()
    server.join()


def test_secrets_agents_and_named_contexts(
    sampan: DockerCli, sampand: Sampand, context: Path, tmp_path: Path, agent: Path
) -> None:
    secret = "never-told-" + os.urandom(16).hex()
    (tmp_path / "secret").write_text(secret)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "f").write_text("other\n")
    (context / "Dockerfile").write_text(
        "FROM tool AS from\nFROM busybox\n"
        "RUN --mount=type=secret,id=s,env=S --mount=type=secret,id=s "
        'test "$(cat /run/secrets/s)" = "$S" && echo "${#S}" > /length\n'
        "RUN --mount=type=ssh,mode=0666 echo abc | nc local:$SSH_AUTH_SOCK > /agent || "
        "echo no nc > /agent\n"
        "COPY --from=extra f /f\nCOPY --from=from /bin/busybox /copied\n"
    )
    result = sampan(
        *("build", "--secret", f"id=s,src={tmp_path}/secret", "--ssh", f"default={agent}"),
        *("--build-context", f"extra={tmp_path}/other"),
        *("--build-context", "tool=docker-image://busybox", "--provenance", "mode=max"),
        *("--cache-to", f"type=local,dest={tmp_path}/cache,mode=max"),
        *("-t", "secret", "-o", "type=image", "-o", f"type=local,dest={tmp_path}/out"),
        str(context),
    )
    assert (tmp_path / "out" / "length").read_text() == f"{len(secret)}\n"
    assert (tmp_path / "out" / "f").read_text() == "other\n"
    needle = secret.encode()
    assert needle not in (result.stdout + result.stderr).encode()
    for root in (sampand.root, tmp_path / "out", tmp_path / "cache"):
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                assert needle not in path.read_bytes(), path
    missing = sampan("build", "-q", str(context), status=None)
    assert missing.returncode == 1


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("FROM busybox\nRUN echo before\nRUN echo why; \\\n exit 3\n", 3, "exit code: 3"),
        ("FROM busybox\nCOPY none /\n", 2, '"/none": not found'),
        ("FROM busybox\nENV A=1\nNOPE\n", 3, "unknown instruction: NOPE"),
    ],
)
def test_failures_show_their_lines(
    sampan: DockerCli, context: Path, text: str, line: int, sentence: str
) -> None:
    (context / "Dockerfile").write_text(text)
    result = sampan("build", "--progress", "plain", str(context), status=1)
    assert f"Dockerfile:{line}\n" in result.stderr
    assert f"{line:4d} | >>> {text.splitlines()[line - 1]}" in result.stderr
    assert sentence in result.stderr.splitlines()[-1]


def test_checks_and_targets(sampan: DockerCli, context: Path) -> None:
    assert sampan("build", "--check", str(context)).stdout.endswith("no warnings found.\n")
    (context / "Dockerfile").write_text("# the first\nFROM busybox as one\nCMD x\n")
    result = sampan("build", "--check", str(context), status=1)
    assert "FromAsCasing" in result.stdout
    assert "JSONArgsRecommended" in result.stdout
    targets = json.loads(sampan.out("build", "--call", "targets,format=json", str(context)))
    assert [one["name"] for one in targets["targets"]] == ["one"]


def test_one_digest_wherever_and_whenever(sampan: DockerCli, context: Path, tmp_path: Path) -> None:
    (context / "Dockerfile").write_text(
        "FROM busybox\nWORKDIR /made\nRUN echo x > x; touch /top\nCOPY . /context\n"
    )
    found = set()
    for number in range(20):
        copy = tmp_path / (f"copy-{number}" * (1 + number % 3))
        shutil.copytree(context, copy)
        for path in [copy, *copy.rglob("*")]:
            os.utime(path, (1_700_000_000 + number * 86_400,) * 2)
        metadata = tmp_path / "metadata"
        sampan(
            *("build", "-q", "--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1600000000"),
            *("--metadata-file", str(metadata), "-t", f"same:{number}", str(copy)),
        )
        found.add(json.loads(metadata.read_text())["containerimage.digest"])
    assert len(found) == 1


def test_several_platforms_and_the_builders_arguments(
    sampan: DockerCli, context: Path, tmp_path: Path
) -> None:
    (context / "Dockerfile").write_text(
        "FROM scratch\nARG TARGETPLATFORM\nLABEL p=$TARGETPLATFORM\nCOPY many /\n"
    )
    sampan(
        *("build", "--platform", "linux/amd64,linux/arm64/v8,linux/riscv64", "-t", "several"),
        *("-o", f"type=oci,dest={tmp_path}/oci,tar=false,annotation-index.k=v"),
        *("-o", f"type=local,dest={tmp_path}/files"),
        *("-o", "type=image", str(context)),
    )
    index, blobs = layout(tmp_path / "oci")
    assert index["annotations"] == {"k": "v"}
    architectures = [one["platform"]["architecture"] for one in index["manifests"]]
    assert architectures == ["amd64", "arm64", "riscv64"]
    for entry in index["manifests"]:
        manifest = json.loads((blobs / entry["digest"][7:]).read_text())
        config = json.loads((blobs / manifest["config"]["digest"][7:]).read_text())
        assert config["config"]["Labels"]["p"].split("/")[1] == config["architecture"]
    assert len(list((tmp_path / "files").iterdir())) == 3
    assert "several" in sampan.out("images", "--format", "{{.Repository}}")
    (context / "Dockerfile").write_text(
        "FROM busybox\nRUN --mount=type=cache,id=c,target=/c hostname > /h; cat /c/f > /f; "
        "echo told > /c/f; true\n"
    )

    def built(*arguments: str) -> tuple[str, str]:
        words = (f"--build-arg={one}" for one in arguments)
        sampan("build", "-q", "--no-cache", *words, "-o", str(tmp_path / "out"), str(context))
        return (tmp_path / "out" / "h").read_text(), (tmp_path / "out" / "f").read_text()

    spaced = ("BUILDKIT_CACHE_MOUNT_NS=n", "BUILDKIT_SANDBOX_HOSTNAME=own")
    assert built() == ("buildkitsandbox\n", "")
    assert built(*spaced) == ("own\n", "")
    assert built() == ("buildkitsandbox\n", "told\n")
    sampan(
        *("build", "-q", "--build-arg", "BUILDKIT_MULTI_PLATFORM=1"),
        *("-o", f"type=oci,dest={tmp_path}/one,tar=false", str(context)),
    )
    assert "manifests" in layout(tmp_path / "one")[0]


def test_an_image_of_a_layout(
    sampan: DockerCli, docker: DockerCli, context: Path, tmp_path: Path
) -> None:
    layout_directory = tmp_path / "layout"
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo based >/base\n")
    output = f"type=oci,dest={layout_directory},tar=false"
    sampan("build", "-q", "-t", "based", "-o", output, str(context))
    (context / "Dockerfile").write_text("FROM base\nRUN cat /base >/again\n")
    sampan("builder", "prune", "-af")
    named = f"--build-context=base=oci-layout://{layout_directory}:latest"
    sampan("build", "-q", named, "-t", "from-layout", str(context))
    assert docker.out("run", "--rm", "from-layout", "cat", "/again") == "based"
    failed = sampan("build", named.replace("latest", "other"), str(context), status=1)
    assert "the OCI layout has no image 'other'" in failed.stderr
