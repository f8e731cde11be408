"""What has to do with a registry prints what docker prints: ``manifest``, ``login``, ``logout``."""

from __future__ import annotations

import json
import os
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


def test_a_credential_helper_keeps_what_a_login_told(
    image: str, inside: Both, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper, kept = tmp_path / "docker-credential-compat", tmp_path / "kept"
    # What it is asked is told in the end, in the order asked; it keeps one login.
    helper.write_text(
        f'#!/bin/sh\nasked=$(cat); echo "$1 $asked" >> {tmp_path}/asked\n'
        f'case $1 in\nstore) echo "$asked" > {kept};;\nerase) rm -f {kept};;\n'
        f"get) [ -e {kept} ] || {{ echo credentials not found in native keychain; exit 1; }}; "
        f"cat {kept};;\nlist) echo '{{}}';;\nesac\n"
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    told = []
    for cli in (inside.docker, inside.sampan):
        (cli.config / "config.json").write_text(json.dumps({"credsStore": "compat"}))
        output = [
            cli(*words.split(), input=given, status=None)
            for words, given in (
                (f"login -u me --password-stdin {REGISTRY}", "secret\n"),
                (f"login {REGISTRY}", ""),
                (f"push -q {image}", ""),
                (f"logout {REGISTRY}", ""),
            )
        ]
        assert [one.returncode for one in output] == [0, 0, 0, 0]
        assert "secret" not in (cli.config / "config.json").read_text()
        first = [line.split(maxsplit=1) for line in (tmp_path / "asked").read_text().splitlines()]
        (tmp_path / "asked").unlink()
        asked = [(verb, what if verb != "store" else json.loads(what)) for verb, what in first]
        assert ("erase", REGISTRY) in asked
        told.append(
            (
                [(one.stdout, one.stderr) for one in output],
                [one for one in asked if one[0] != "erase"],
            )
        )
    assert told[0] == told[1]
