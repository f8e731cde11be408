"""What moby's own integration suites found us to do otherwise than dockerd."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.compat.api.test_habits import Api
from tests.compat.conftest import DockerCli, Sampand


@pytest.fixture
def api(sampand: Sampand) -> Api:
    return Api(sampand.host)


def test_an_exec_starts_once(docker: DockerCli, api: Api, name: str) -> None:
    """Whoever is attached is told in the stream, as the answer was given by then."""
    docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    program = {"Cmd": ["true"], "AttachStdout": True}
    made = api.json("POST", f"/containers/{name}/exec", program, 201)["Id"]
    assert api("POST", f"/exec/{made}/start", {})[2] == b""
    while api.json("GET", f"/exec/{made}/json")["Running"]:  # its output ends before it does
        time.sleep(0.01)
    said = f"exec command {made} has already run"
    status, _, stream = api("POST", f"/exec/{made}/start", {})
    assert (status, stream[8:]) == (200, f"{said}\r\n".encode())
    refused = api.json("POST", f"/exec/{made}/start", {"Detach": True}, 409)
    assert refused["message"] == said
    program = {"Cmd": ["sleep", "1000"]}
    made = api.json("POST", f"/containers/{name}/exec", program, 201)["Id"]
    assert api("POST", f"/exec/{made}/start", {"Detach": True})[0] == 200
    refused = api.json("POST", f"/exec/{made}/start", {"Detach": True}, 409)
    assert refused["message"] == f"exec command {made} is already running"


def test_links_name_containers(docker: DockerCli, api: Api, name: str) -> None:
    target = docker.out("run", "-d", "--name", f"{name}-db", "busybox", "sleep", "1000")
    docker("run", "-d", "--name", name, "--link", f"{name}-db:db", "busybox", "sleep", "1000")
    try:
        assert api.json("GET", f"/containers/{name}/db/json")["Id"] == target
        assert docker.out("inspect", "-f", "{{.Id}}", f"/{name}/db") == target
        docker("rename", f"{name}-db", f"{name}-renamed")
        assert docker.out("exec", f"{name}/db", "echo", "x") == "x"
        docker("rm", "--link", f"{name}/db")
        api.json("GET", f"/containers/{name}/db/json", status=404)
    finally:
        docker("rm", "-f", name, target)


@pytest.mark.parametrize(("version", "word"), [("v1.43", "rw"), ("v1.44", "ro")])
def test_older_clients_read_only_binds(
    docker: DockerCli, api: Api, name: str, version: str, word: str
) -> None:
    """/dev has a mount below it on most hosts: /dev/shm, or others."""
    config: dict[str, Any] = {"Image": "busybox", "Cmd": ["cat", "/proc/self/mountinfo"]}
    mount = {"Type": "bind", "Source": "/dev", "Target": "/mounted", "ReadOnly": True}
    for host, at in (({"Binds": ["/dev:/bound:ro"]}, "/bound"), ({"Mounts": [mount]}, "/mounted")):
        body = {**config, "HostConfig": host}
        made = api.json("POST", f"/{version}/containers/create?name={name}", body, 201)["Id"]
        lines = [line.split() for line in docker.out("start", "-a", made).splitlines()]
        found = {fields[4]: fields[5].split(",")[0] for fields in lines}
        assert found[at] == "ro"
        below = {found[point] for point in found if point.startswith(f"{at}/")}
        assert below in (set(), {word})
        docker("rm", made)


@pytest.fixture
def image(docker: DockerCli, name: str) -> Iterator[str]:
    yield f"moby-{name}"
    docker("rmi", "-f", f"moby-{name}", status=None)


@pytest.mark.parametrize("version", ["1", "2"])
def test_builds_without_a_session_tell_of_their_image(
    docker: DockerCli, api: Api, image: str, version: str
) -> None:
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        text = f"FROM busybox\nCOPY Dockerfile /\nLABEL version={version}\n".encode()
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    began = api.json("GET", "/info")["SystemTime"]
    said = api.raw("POST", f"/build?version={version}&t={image}&nocache=1", context.getvalue())
    news = [json.loads(line) for line in said.splitlines()]
    (made,) = [item["aux"]["ID"] for item in news if "ID" in (item.get("aux") or ())]
    assert docker.out("image", "inspect", "-f", "{{.Id}}", image) == made
    ended = api.json("GET", "/info")["SystemTime"]
    lines = docker.out(
        *("events", "--since", began, "--until", ended, "--filter", "type=image"),
        *("--format", "{{.Action}} {{.Actor.ID}} {{.Actor.Attributes.name}}"),
    )
    assert lines.splitlines() == [f"create {made} {made}", f"tag {made} {image}:latest"]


def test_until_is_before(docker: DockerCli, image: str) -> None:
    docker("build", "-q", "-t", image, "-", input=f"FROM busybox\nLABEL a={image}\n")
    docker("run", "--name", f"{image}-c", "busybox", "true")
    made = docker.out("commit", f"{image}-c", image)
    docker("rm", f"{image}-c")
    created = docker.out("image", "inspect", "-f", "{{.Created}}", made)
    later = datetime.fromisoformat(created) + timedelta(milliseconds=1)
    for until, found in ((created, []), (later.isoformat(), [made])):
        listed = docker.out("images", "-q", "--no-trunc", "--filter", f"until={until}", image)
        assert listed.split() == found
