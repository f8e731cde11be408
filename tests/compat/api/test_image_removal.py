"""Removing images that containers use, as dockerd answers it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.compat.conftest import DockerCli


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
    assert docker.out("rmi", "-f", tag) == f"Untagged: {tag}:latest"
    docker("restart", "-t", "0", name)  # what it is made of is still there


def test_ps_that_does_not_understand(docker: DockerCli, name: str) -> None:
    docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    wrong = docker("top", name, "--frob", status=1)
    assert wrong.stderr.strip() == (
        "Error response from daemon: ps: error: unknown gnu long option"
    )
