"""Removing images that containers use, as dockerd answers it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.conftest import DockerCli, Sampand


@pytest.fixture
def tag(docker: DockerCli, name: str) -> Iterator[str]:
    """The only name of an image of its own."""
    image = f"removal-{name}"
    docker("build", "-q", "-t", image, "-", input="FROM busybox\nLABEL of=removal\n")
    yield image
    docker("rm", "-f", name, status=None)
    docker("image", "prune", "-f")
    docker("rmi", "-f", image, status=None)


@pytest.mark.parametrize("running", [True, False])
def test_an_image_in_use(docker: DockerCli, name: str, tag: str, running: bool) -> None:
    docker(*("run", "-d") if running else ("create",), "--name", name, tag, "sleep", "1000")
    image = docker.out("images", "-q", tag)
    user = docker.out("ps", "-aq", "--filter", f"name={name}")
    refused = docker("rmi", tag, status=1)
    assert (
        f'conflict: unable to remove repository reference "{tag}" (must force) - container {user} '
        f"is using its referenced image {image}"
    ) in refused.stderr
    refused = docker("rmi", image, status=1)
    how, kind = ("cannot be forced", "running") if running else ("must be forced", "stopped")
    assert (
        f"conflict: unable to delete {image} ({how}) - image is being used by {kind} container "
        f"{user}"
    ) in refused.stderr
    if running:
        docker("rmi", "-f", image, status=1)
    gone = docker.out("rmi", "-f", tag).splitlines()
    assert gone[0] == f"Untagged: {tag}:latest"
    # One that does not run keeps what it is made of, but no image.
    assert [line.startswith(f"Deleted: sha256:{image}") for line in gone[1:]] == [True] * (
        not running
    )
    docker("image", "inspect", image, status=0 if running else 1)
    docker("restart", "-t", "0", name)


def test_layers_outlive_an_image_no_longer_than_its_container(
    docker: DockerCli, sampand: Sampand, name: str
) -> None:
    image = f"removal-{name}"
    docker("build", "-t", image, "-", input="FROM busybox\nRUN echo own > /own\n")
    layer = docker.out("image", "inspect", "-f", "{{index .RootFS.Layers 1}}", image)
    docker("create", "--name", name, image, "cat", "/own")
    docker("rmi", "-f", image)
    docker("builder", "prune", "-af")
    assert docker.out("start", "-a", name) == "own"
    docker("rm", name)
    assert own_files(sampand) == [], layer


def own_files(sampand: Sampand) -> list[Path]:
    """Where the file of that test is stored."""
    return sorted((sampand.root / "data" / "snapshots").glob("**/own"))


def test_a_mounted_image_is_in_use(docker: DockerCli, name: str, tag: str) -> None:
    mount = f"type=image,source={tag},target=/image"
    docker("create", "--name", name, "--mount", mount, "busybox")
    refused = docker("rmi", tag, status=1)
    user = docker.out("ps", "-aq", "--filter", f"name={name}")
    assert f"container {user} is using its referenced image" in refused.stderr
    docker("rmi", "-f", tag)
    docker("start", name)


def test_ps_that_does_not_understand(docker: DockerCli, name: str) -> None:
    docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    wrong = docker("top", name, "--frob", status=1)
    assert wrong.stderr.strip() == (
        "Error response from daemon: ps: error: unknown gnu long option"
    )
