"""More of what moby's integration-cli suite found us to do otherwise than dockerd."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from tests.compat.api.test_habits import Api
from tests.compat.conftest import DockerCli, Sampand

NO_CONTAINER = "invalid network mode: invalid container format container:<name|id>"


@pytest.fixture
def api(sampand: Sampand) -> Api:
    return Api(sampand.host)


def test_links_on_a_network_of_the_users_own(docker: DockerCli, name: str) -> None:
    """They are names for whoever may be there one day; the default bridge asks for a container."""
    docker("network", "create", name)
    docker("create", "--name", f"{name}-stopped", "busybox", "true")
    try:
        for target in ("no-such-container", f"{name}-stopped"):
            link = ("--link", f"{target}:db")
            docker("run", "--rm", "--network", name, *link, "busybox", "true")
            docker("run", "--rm", *link, "busybox", "true", status=125)
        refused = docker("create", "--link", "no-such-container:db", "busybox", "true", status=1)
        assert "could not get container for no-such-container" in refused.stderr
    finally:
        docker("rm", f"{name}-stopped")
        docker("network", "rm", name)


@pytest.mark.parametrize("mode", ["container", "container:"])
def test_a_network_of_no_container(docker: DockerCli, mode: str) -> None:
    refused = docker("run", "--rm", "--net", mode, "busybox", "true", status=125)
    assert NO_CONTAINER in refused.stderr


def test_an_address_for_another_containers_interface(docker: DockerCli, name: str) -> None:
    docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    options = ("--net", f"container:{name}", "--mac-address", "92:d0:c6:0a:29:33")
    refused = docker("run", "--rm", *options, "busybox", "true", status=125)
    assert "conflicting options: mac-address and the network mode" in refused.stderr


def test_memory_nodes_there_are(docker: DockerCli, api: Api, name: str) -> None:
    docker("create", "--name", name, "--cpuset-mems", "0", "busybox", "true")
    said = "Requested memory nodes are not available - requested 0-63, available: "
    refused = docker("create", "--cpuset-mems", "0-63", "busybox", "true", status=1)
    assert said in refused.stderr
    answer = api.json("POST", f"/containers/{name}/update", {"CpusetMems": "0-63"}, 400)
    assert answer["message"].startswith(said)


def test_a_filter_that_is_neither_true_nor_false(docker: DockerCli) -> None:
    refused = docker("network", "ls", "-f", "dangling=maybe", status=1)
    assert "invalid filter 'dangling=[maybe]'" in refused.stderr


@pytest.mark.parametrize("program", ["/etc", "/etc/passwd"])
def test_what_cannot_be_executed(docker: DockerCli, program: str) -> None:
    refused = docker("run", "--rm", "busybox", program, status=126)
    assert f'exec: "{program}": ' in refused.stderr


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/context", "http://127.0.0.1:9/x.git", "git://127.0.0.1:9/x.git"]
)
def test_contexts_of_hosts_that_do_not_answer(api: Api, address: str) -> None:
    """Clients in Go try a 503 again."""
    assert api("POST", f"/build?remote={address}")[0] == 500


def test_a_working_directory_is_made_at_create(docker: DockerCli, name: str) -> None:
    docker("create", "--name", name, "-w", "/made/here", "busybox", "true")
    assert docker.out("diff", name).split() == ["A", "/made", "A", "/made/here"]
    for path in ("/etc/passwd", "/etc/passwd/below"):
        refused = docker("create", "-w", path, "busybox", "true", status=1)
        assert f"Cannot mkdir: {path} is not a directory" in refused.stderr
    refused = docker("run", "--rm", "-w", "/etc/passwd", "busybox", "true", status=125)
    assert "Cannot mkdir: /etc/passwd is not a directory" in refused.stderr
    assert name in docker.out("ps", "-a", "--format", "{{.Names}}").split()


@pytest.mark.parametrize(
    ("user", "owner"),
    [("", "2 3"), ("1000", "1000 1000"), ("7777:", "7777 0"), (":7777", "0 7777")],
)
def test_a_copied_archive_belongs_to_the_user(
    docker: DockerCli, name: str, tmp_path: Path, user: str, owner: str
) -> None:
    source = tmp_path / "owned"
    source.touch()
    os.chown(source, 2, 3)
    program = ("busybox", "stat", "-c", "%u %g", "/owned")
    docker("create", "--name", name, "--user", user, *program)
    docker("cp", "-a", str(source), f"{name}:/")
    assert docker.out("start", "-a", name) == owner


def test_a_loaded_image_takes_a_name_over(docker: DockerCli, name: str, tmp_path: Path) -> None:
    docker("create", "--name", name, "busybox", "true")
    tag, archive = f"{name}:x", str(tmp_path / "image.tar")
    docker("commit", "-c", "ENV WHICH=old", name, tag)
    docker("save", "-o", archive, tag)
    assert "already exists" not in docker.out("load", "-i", archive)
    made = docker.out("commit", "-c", "ENV WHICH=new", name, tag)
    try:
        told = f"The image {tag} already exists, renaming the old one with ID {made} to empty "
        assert docker.out("load", "-i", archive).split("\n") == [
            f"{told}string",
            f"Loaded image: {tag}",
        ]
    finally:
        docker("rmi", tag, made)


def test_an_image_of_several_names_is_removed_by_id(docker: DockerCli, name: str) -> None:
    docker("create", "--name", name, "busybox", "true")
    made = docker.out("commit", "-c", "ENV SEVERAL=names", name, f"{name}:a")
    docker("tag", f"{name}:a", f"{name}-other:b")
    refused = docker("rmi", made, status=1)
    short = made.removeprefix("sha256:")[:12]
    assert f"conflict: unable to delete {short} (must be forced) - image is" in refused.stderr
    docker("rmi", "-f", made)
    docker("inspect", "--type", "image", made, status=1)


def test_a_commit_keeps_triggers_with_paths(docker: DockerCli, name: str) -> None:
    docker("create", "--name", name, "busybox", "true")
    changes = ("--change", "ONBUILD ADD foo /bar", "--change", 'ONBUILD COPY ["a b", "/c"]')
    made = docker.out("commit", *changes, name)
    try:
        shown = docker.out("inspect", "-f", "{{range .Config.OnBuild}}{{println .}}{{end}}", made)
        assert shown.split("\n")[:2] == ["ADD foo /bar", 'COPY ["a b", "/c"]']
    finally:
        docker("rmi", made)


@pytest.mark.parametrize("source", ["../file", "/../file", "./../file", "a/../../file"])
def test_a_classic_build_stays_in_its_context(api: Api, source: str) -> None:
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for path, text in (
            ("file", "inside"),
            ("Dockerfile", f"FROM busybox\nCOPY {source} /copied\n"),
        ):
            entry = tarfile.TarInfo(path)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    _, answer = api.send("POST", "/build", context.getvalue(), "application/x-tar")
    assert f"COPY failed: forbidden path outside the build context: {source} ()" in answer.decode()
