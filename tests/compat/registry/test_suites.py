"""The conformance suite of the OCI distribution project against our server; our client against
Debian's docker-registry."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from sampan.content.store import FileStore
from sampan.errors import NotFound
from sampan.model.reference import Reference
from sampan.registry import Event, LayerProgress, Registry, Settings, Step
from tests.compat.registry.conftest import TIMEOUT, Place, from_go, needs
from tests.unit.registry import samples

SUITE = "github.com/opencontainers/distribution-spec/conformance"
VERSION = "v0.0.0-20260831232431-97274622c111"


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite's program, built from its Go module."""
    return from_go(f"{SUITE}@{VERSION}", tmp_path_factory.mktemp("suite"))


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_official_suite_passes(suite: Path, place: Place, tmp_path: Path, version: str) -> None:
    command = place.command(str(suite))
    environment = {
        **os.environ,
        "OCI_REGISTRY": place.registry,
        "OCI_TLS": "disabled",
        "OCI_VERSION": version,
        "OCI_REPO1": f"conformance/one-{version}",
        "OCI_REPO2": f"conformance/two-{version}",
        "OCI_RESULTS_DIR": str(tmp_path),
    }
    if version != "1.0":
        for name in (
            "API_BLOBS_UPLOAD_CANCEL",
            "API_BLOBS_DIGEST_HEADER",
            "API_MANIFESTS_DIGEST_HEADER",
            "API_MANIFESTS_TAG_PARAM",
        ):
            environment[f"OCI_{name}"] = "true"
    result = subprocess.run(
        command,
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    said = result.stdout + result.stderr
    assert result.returncode == 0, said[-4000:]
    assert ": Pass" in said
    assert ": Fail" not in said
    assert ": Error" not in said


@pytest.mark.parametrize("chunk", [None, 300_000])
def test_our_client_and_debians_registry(tmp_path: Path, chunk: int | None) -> None:
    needs("docker-registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {tmp_path / 'root'}}}, "
        "delete: {enabled: true}}\n"
        f"http: {{addr: 127.0.0.1:{port}}}\n"
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + TIMEOUT
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        asyncio.run(_there_and_back(f"127.0.0.1:{port}", tmp_path, chunk))
    finally:
        process.terminate()
        process.wait(TIMEOUT)


async def _there_and_back(address: str, tmp_path: Path, chunk: int | None) -> None:
    content, other = FileStore(tmp_path / "one"), FileStore(tmp_path / "two")
    image = samples.image(2, 1_000_000)
    signature = samples.image(1, subject=image.descriptor(), artifact_type="x/signature")
    index = samples.index(image.descriptor(platform={"os": "linux", "architecture": "amd64"}))
    for sample in (image, signature, index):
        sample.store(content)
    reference = Reference.parse(f"{address}/team/app:v1")
    events: list[Event] = []
    async with Registry(Settings(chunk=chunk)) as registry:
        await registry.push(reference, index.digest, content=content, listener=events.append)
        pulled = await registry.pull(reference, content=other)
        assert (pulled.root.digest, pulled.manifest.digest) == (index.digest, image.digest)
        second = Reference.parse(f"{address}/team/second:v1")
        await registry.push(
            second,
            image.digest,
            content=content,
            listener=events.append,
            sources=lambda _: [reference],
        )
        mounted = [item for item in events if isinstance(item, LayerProgress)]
        assert sum(item.step is Step.MOUNTED for item in mounted) == 3
        # Without the referrers API: the tag is kept by the client.
        await registry.push(
            Reference.parse(f"{address}/team/app:sig"), signature.digest, content=content
        )
        async with registry.origin(reference, actions="pull,push,delete") as repository:
            found = await repository.referrers(image.digest, "x/signature")
            assert [item.digest for item in found] == [signature.digest]
            await repository.delete_manifest(image.digest)
        with pytest.raises(NotFound):
            await registry.pull(
                Reference.parse(f"{address}/team/app@{image.digest}"), content=other
            )
        assert "v1" in await registry.tags(reference)
