"""``manifest`` prints what docker prints: of a registry's manifests and of lists made here."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.cli.conftest import Both
from tests.compat.conftest import TIMEOUT, DockerCli, Sampand

REGISTRY = "127.0.0.1:5006"
IMAGE = f"{REGISTRY}/manifests/busybox:1"
LIST = f"{REGISTRY}/manifests/list:1"


@pytest.fixture(scope="module")
def image(sampand: Sampand, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``busybox`` in a registry of another maker, in the daemon's network namespace."""
    from tests.compat.conftest import CLI

    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry")
    root = tmp_path_factory.mktemp("registry")
    settings = root / "settings.yml"
    settings.write_text(
        "version: 0.1\n"
        f"storage: {{filesystem: {{rootdirectory: {root}/store}}}}\n"
        f"http: {{addr: '{REGISTRY}'}}\n"
    )
    inside = ["nsenter", f"--net=/run/netns/{sampand.namespace}"]
    with open(root / "log", "wb") as log:
        server = subprocess.Popen(
            [*inside, "docker-registry", "serve", str(settings)], stdout=log, stderr=log
        )
    docker = DockerCli(CLI, sampand.host, sampand.root / "cli")
    try:
        docker("tag", "busybox", IMAGE)
        deadline = time.monotonic() + TIMEOUT
        while docker("push", IMAGE, status=None).returncode:
            assert time.monotonic() < deadline, (root / "log").read_text()
            time.sleep(0.1)
        yield IMAGE
    finally:
        docker("rmi", IMAGE, status=None)
        server.terminate()
        server.wait(TIMEOUT)


@pytest.fixture
def inside(both: Both, sampand: Sampand, tmp_path: Path) -> Both:
    """Both command lines, started where the registry is."""
    found = []
    for name, cli in (("one", both.docker), ("two", both.sampan)):
        (tmp_path / name).mkdir()
        program = tmp_path / name / "docker"
        program.write_text(
            f'#!/bin/sh\nexec nsenter --net=/run/netns/{sampand.namespace} {cli.program} "$@"\n'
        )
        program.chmod(0o755)
        # Lists are kept below the configuration's directory: one each.
        found.append(DockerCli(str(program), cli.host, tmp_path / name))
    return Both(*found)


def test_manifests_of_images_and_lists(image: str, inside: Both) -> None:
    for flags in ([], ["-v"]):
        shown = inside("manifest", "inspect", "--insecure", *flags, image)
        assert shown.stdout.startswith('{\n\t"')
    inside("manifest", "create", "--insecure", LIST, image)
    inside("manifest", "inspect", LIST)
    inside("manifest", "inspect", "-v", LIST)
    inside("manifest", "inspect", LIST, image)
    inside("manifest", "annotate", "--os-version", "7", "--variant", "v2", LIST, image)
    inside("manifest", "inspect", LIST)
    inside("manifest", "push", "--insecure", LIST)
    for flags in ([], ["-v"]):
        inside("manifest", "inspect", "--insecure", *flags, LIST)
    inside("manifest", "rm", LIST)
    inside("manifest", "rm", LIST)
