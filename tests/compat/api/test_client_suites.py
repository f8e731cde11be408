"""What suites of clients in Go, JavaScript and Java found us to do otherwise than dockerd."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator

import pytest

from tests.compat.api.test_habits import Api
from tests.compat.conftest import CLI, DockerCli, Sampand, busybox_archive

MIRROR = "127.0.0.1:5003"


@pytest.fixture
def api(sampand: Sampand) -> Api:
    return Api(sampand.host)


@pytest.fixture(scope="module")
def mirrored(namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sampand]:
    """A daemon whose network has no way out, with a mirror of Docker Hub's at hand."""
    root = tmp_path_factory.mktemp("mirrored")
    (root / "cli").mkdir()
    (root / "daemon.json").write_text(json.dumps({"registry-mirrors": [f"http://{MIRROR}"]}))
    inside = ["nsenter", f"--net=/run/netns/{namespace}"]
    serve = [sys.executable, "-m", "sampan.registry.server", "--listen", MIRROR]
    daemon = Sampand(root, namespace, flags=[f"--host=unix://{root}/d.sock", "--bridge=none"])
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((root / "mirror.log").open("wb"))
        mirror = subprocess.Popen(
            [*inside, *serve, "--root", str(root / "mirror")], stdout=log, stderr=log
        )
        stack.callback(mirror.wait, 60)
        stack.callback(mirror.terminate)
        probe = ["curl", "-sf", "--retry", "50", "--retry-connrefused", "--retry-delay", "0"]
        wait = [*inside, *probe, "--retry-max-time", "60", f"http://{MIRROR}/v2/"]
        subprocess.run(wait, check=True, capture_output=True)
        daemon.start()
        stack.callback(daemon.stop)
        (root / "b.tar").write_bytes(busybox_archive())
        docker = DockerCli(CLI, daemon.host, root / "cli")
        docker("load", "-i", str(root / "b.tar"))
        for tag in ("one", "two"):
            docker("tag", "busybox", f"{MIRROR}/library/mirrored:{tag}")
        docker("push", "--all-tags", f"{MIRROR}/library/mirrored")
        yield daemon


def test_hosts_that_do_not_answer_are_not_worth_another_try(mirrored: Sampand) -> None:
    """Clients in Go try again what is answered by 503, until their time is over."""
    api = Api(mirrored.host)
    for path in (
        "/images/create?fromImage=absent&tag=latest",
        "/images/create?fromImage=127.0.0.1:1/absent&tag=latest",
        "/images/create?fromSrc=http://127.0.0.1:1/absent.tar",
        "/images/search?term=absent",
    ):
        assert (
            "connect"
            in api.json("POST" if "create" in path else "GET", path, status=500)["message"]
        )
    account = {"username": "a", "password": "b", "serveraddress": "127.0.0.1:1"}
    assert "connect" in api.json("POST", "/auth", account, 500)["message"]


def test_all_tags_are_those_of_the_mirror(mirrored: Sampand) -> None:
    api = Api(mirrored.host)
    status, _, stream = api("POST", "/images/create?fromImage=mirrored")
    assert (status, b"errorDetail" in stream) == (200, False)
    for tag in ("one", "two"):
        api.json("GET", f"/images/mirrored:{tag}/json")


def test_a_push_of_nothing_fails_in_the_stream(api: Api) -> None:
    status, _, stream = api("POST", "/images/absent/push?tag=none")
    told = [json.loads(line) for line in stream.splitlines()]
    said = "An image does not exist locally with the tag: absent"
    assert (status, told) == (
        200,
        [
            {"status": "The push refers to repository [docker.io/library/absent]"},
            {"errorDetail": {"message": said}, "error": said},
        ],
    )


def test_an_archive_of_no_images(api: Api) -> None:
    status, _, body = api("GET", "/images/get")
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        assert {"index.json", "oci-layout"} <= set(archive.getnames())
        manifests = archive.extractfile("manifest.json")
        assert manifests is not None
        assert (status, json.load(manifests)) == (200, [])


def test_only_what_is_paused_can_be_unpaused(api: Api, docker: DockerCli, name: str) -> None:
    identifier = docker.out("create", "--name", name, "busybox", "sleep", "1000")
    said = {"message": f"Container {identifier} is not paused"}
    assert api.json("POST", f"/containers/{name}/unpause", status=500) == said
    docker("start", name)
    assert api.json("POST", f"/containers/{name}/unpause", status=500) == said
    docker("pause", name)
    api.json("POST", f"/containers/{name}/pause", status=409)


def test_what_containers_have_not_is_no_name(api: Api) -> None:
    """Of API 1.24's ``copy`` a client expects 404 for an absent container."""
    for path in ("/containers/absent/copy", "/images/absent/none"):
        assert api.json("POST", path, {"Resource": "/x"}, 404) == {"message": "page not found"}
    api.json("PUT", "/containers/json", status=405)


def test_the_language_of_the_daemon_is_told(api: Api) -> None:
    assert api.json("GET", "/version")["GoVersion"].startswith("python3.")


def test_maps_are_in_the_order_of_their_keys(api: Api, docker: DockerCli, name: str) -> None:
    wanted = {
        "Image": "busybox",
        "Volumes": {"/b": {}, "/a": {}},
        "Labels": {"b": "1", "a": "2"},
        "ExposedPorts": {"9/tcp": {}, "8/tcp": {}},
    }
    api.json("POST", f"/containers/create?name={name}", wanted, 201)
    made = api.json("GET", f"/containers/{name}/json")
    config = made["Config"]
    shown = [list(config[field]) for field in ("Volumes", "Labels", "ExposedPorts")]
    assert shown == [["/a", "/b"], ["a", "b"], ["8/tcp", "9/tcp"]]
    (item,) = api.json("GET", f'/containers/json?all=1&filters={{"name":["{name}"]}}')
    assert list(item["Labels"]) == ["a", "b"]
    assert list(made)[:2] == ["Id", "Created"]  # fields keep their own


def test_a_body_is_read_as_go_reads_it(api: Api, docker: DockerCli, name: str) -> None:
    """Null in a map of texts is an empty one; of several spellings of a field the last counts."""
    wanted = {
        "Image": "busybox",
        "Labels": {"none": None, "some": "x"},
        "HostConfig": {"NanoCpus": 1_000_000_000, "NanoCPUs": 500_000_000},
    }
    api.json("POST", f"/containers/create?name={name}", wanted, 201)
    made = api.json("GET", f"/containers/{name}/json")
    assert made["Config"]["Labels"] == {"none": "", "some": "x"}
    assert made["HostConfig"]["NanoCpus"] == 500_000_000


def test_a_commit_may_meet_the_end(api: Api, docker: DockerCli, name: str) -> None:
    docker("create", "--name", name, "busybox", "true")
    made = []
    try:
        for _ in range(20):
            docker("start", name)
            made.append(api.json("POST", f"/commit?container={name}", {}, 201)["Id"])
            docker("wait", name)
    finally:
        docker("rmi", *made)
