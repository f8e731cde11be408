"""What clients' own suites (docker-compose 1, moby's integration tests) expect of a dockerd."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from typing import Any, BinaryIO
from urllib.parse import urlencode

import pytest

from tests.compat.conftest import BUSYBOX, DockerCli, Sampand

JSON = {"Content-Type": "application/json"}


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


class Api:
    """Raw requests."""

    def __init__(self, host: str) -> None:
        self._path = host.removeprefix("unix://")

    def __call__(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(_Connection(self._path)) as connection:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {**JSON, **sent})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def raw(self, method: str, path: str, body: bytes) -> bytes:
        """What is answered to a body that is no JSON."""
        with closing(_Connection(self._path)) as connection:
            connection.request(method, path, body, {"Content-Type": "application/x-tar"})
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            return answer.read()

    def send(self, method: str, path: str, body: bytes, kind: str) -> tuple[int, bytes]:
        """Status and answer to a body of some kind."""
        with closing(_Connection(self._path)) as connection:
            connection.request(method, path, body, {"Content-Type": kind})
            answer = connection.getresponse()
            return answer.status, answer.read()

    @contextmanager
    def attached(self, container: str) -> Iterator[BinaryIO]:
        """A container's output as it comes, from before it starts."""
        with closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.settimeout(60)
            connection.connect(self._path)
            path = f"/containers/{container}/attach?stream=1&stdout=1&stderr=1"
            head = f"POST {path} HTTP/1.1\r\nHost: d\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n"
            connection.sendall(head.encode() + b"\r\n")
            stream = connection.makefile("rb")
            while stream.readline() != b"\r\n":
                pass
            yield stream

    def json(self, method: str, path: str, body: object = None, status: int = 200) -> Any:
        found, _, data = self(method, path, body)
        assert found == status, data
        return json.loads(data)


@pytest.fixture
def api(sampand: Sampand) -> Api:
    return Api(sampand.host)


@pytest.fixture
def network(docker: DockerCli, name: str) -> Iterator[str]:
    docker("network", "create", "_habits net")  # dockerd takes any name that is not blank
    yield "_habits net"
    docker("rm", "-f", name, status=None)
    docker("network", "rm", "_habits net")


def test_addresses_are_taken_where_the_user_gave_a_subnet(
    docker: DockerCli, api: Api, network: str, name: str
) -> None:
    settings: dict[str, object] = {"LinkLocalIPs": ["169.254.8.8"]}
    endpoints = {network: {"IPAMConfig": settings}}
    body = {
        "Image": "busybox",
        "Cmd": ["sleep", "1000"],
        "HostConfig": {"NetworkMode": network},
        "NetworkingConfig": {"EndpointsConfig": endpoints},
    }
    api.json("POST", f"/containers/create?name={name}", body, 201)
    docker("start", name)
    assert "169.254.8.8/16" in docker.out("exec", name, "ip", "address", "show", "eth0")
    shown = api.json("GET", f"/v1.41/containers/{name}/json")["NetworkSettings"]["Networks"]
    assert shown[network]["IPAMConfig"] == settings
    docker("rm", "-f", name)
    wrong = docker(
        *("run", "--rm", "--network", network, "--ip", "172.31.99.9", "busybox", "true"),
        status=125,
    )
    assert "only when connecting to networks with user configured subnets" in wrong.stderr


def test_links_follow_their_container(docker: DockerCli, name: str) -> None:
    target, moved = f"{name}-t", f"{name}-m"
    try:
        docker("run", "-d", "--name", target, "busybox", "sleep", "1000")
        docker("run", "-d", "--name", name, "--link", f"{target}:t", "busybox", "sleep", "1000")
        docker("rename", target, moved)
        shown = docker.out("inspect", "-f", "{{json .HostConfig.Links}}", name)
        assert json.loads(shown) == [f"/{moved}:/{name}/t"]
        names = docker.out("ps", "--no-trunc", "--filter", f"name=^{moved}$", "--format", "json")
        assert json.loads(names)["Names"] == f"{moved},{name}/t"
        docker("rm", "-f", moved)
        docker("restart", "-t", "0", name)  # the link has gone with its container
        wrong = docker("create", "--link", "no-such:x", "busybox", status=1)
        assert "could not get container for no-such" in wrong.stderr
    finally:
        docker("rm", "-f", target, moved, status=None)


def test_an_exec_is_framed_as_its_start_says(docker: DockerCli, api: Api, name: str) -> None:
    docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    body = {"Cmd": ["echo", "hi"], "AttachStdout": True}
    for tty in (False, True):
        made = api.json("POST", f"/containers/{name}/exec", {**body, "Tty": tty}, 201)
        _, _, said = api("POST", f"/exec/{made['Id']}/start", {"Tty": not tty})
        assert said == (b"hi\n" if not tty else b"\x01\0\0\0\0\0\0\x04hi\r\n")


def test_an_exec_without_a_terminal_has_no_size(docker: DockerCli, api: Api, name: str) -> None:
    """Compose tells the size of its own terminal to every hook it runs."""
    docker("run", "-d", "--name", name, "busybox", "sleep", "300")
    program = {"Cmd": ["echo", "x"], "AttachStdout": True}
    made = api.json("POST", f"/containers/{name}/exec", program, 201)
    size = {"Tty": False, "ConsoleSize": [24, 80]}
    assert api("POST", f"/exec/{made['Id']}/start", size)[2] == b"\1\0\0\0\0\0\0\2x\n"


@pytest.mark.parametrize("mode", ["NetworkMode", "PidMode", "IpcMode"])
def test_a_shared_namespace_follows_its_container(
    docker: DockerCli, api: Api, name: str, mode: str
) -> None:
    """A mode that names a container is kept by its id; one that is not there, told of."""
    donor = f"{name}-donor"
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {mode: f"container:{donor}"}}
    missing = f"No such container: {donor}"
    status, _, text = api("POST", f"/containers/create?name={name}", body)
    if mode == "NetworkMode":  # asked at the start only
        assert status == 201
        message = json.loads(api("POST", f"/containers/{name}/start")[2])["message"]
        assert message == f"joining network namespace of container: {missing}"
        docker("rm", name)
    else:
        assert (status, json.loads(text)["message"]) == (400, missing)
    made = docker.out("create", "--name", donor, "--ipc", "shareable", "busybox", "sleep", "300")
    try:
        assert api("POST", f"/containers/create?name={name}", body)[0] == 201
        host = api.json("GET", f"/containers/{name}/json")["HostConfig"]
        assert host[mode] == f"container:{made}"
        docker("rename", donor, f"{donor}-2")
        message = json.loads(api("POST", f"/containers/{name}/start")[2])["message"]
        assert (
            message
            == {
                "NetworkMode": "cannot join network namespace of a non running container: "
                f"container {donor}-2 is created",
                "PidMode": f"failed to join PID namespace: container {made} is not running",
                "IpcMode": f"failed to join IPC namespace: container {made} is not running",
            }[mode]
        )
        docker("start", made)
        assert docker.out("start", "-a", name) == ""
    finally:
        docker("rm", "-f", made)


def test_what_older_clients_read(docker: DockerCli, api: Api, name: str) -> None:
    mac = "02:00:00:00:00:09"
    made = api.json(
        "POST",
        f"/v1.38/containers/create?name={name}",
        {"Image": "busybox", "MacAddress": mac, "Volumes": {"/data": None}, "WorkingDir": "/tmp/"},
        201,
    )
    old = api.json("GET", f"/v1.38/containers/{made['Id']}/json")
    assert (old["Config"]["MacAddress"], old["Config"]["WorkingDir"]) == (mac, "/tmp")
    assert old["HostConfig"]["Dns"] is None
    new = api.json("GET", f"/v1.52/containers/{made['Id']}/json")
    assert "MacAddress" not in new["Config"]
    image = api.json("GET", "/v1.41/images/busybox/json")
    assert image["ContainerConfig"]["Cmd"] == ["tests"]
    assert "ContainerConfig" not in api.json("GET", "/v1.45/images/busybox/json")


def test_limits_given_back_and_options_of_windows(docker: DockerCli, api: Api, name: str) -> None:
    host = {"PidsLimit": 32, "CpuCount": 2, "AutoRemove": True, "Privileged": True}
    body = {"Image": "busybox", "Healthcheck": {"Test": ["true"]}, "HostConfig": host}
    made = api.json("POST", f"/containers/create?name={name}", body, 201)
    assert ["CpuCount" in made["Warnings"][0], "Healthcheck" in made["Warnings"][1]] == [True, True]
    api.json("POST", f"/containers/{name}/update", {"PidsLimit": -1})
    shown = api.json("GET", f"/containers/{name}/json")["HostConfig"]
    assert (shown["PidsLimit"], shown["CpuCount"], shown["MaskedPaths"]) == (0, 2, None)
    policy = {"RestartPolicy": {"Name": "always"}}
    assert api("POST", f"/containers/{name}/update", policy)[0] == 409


def test_an_archive_is_compressed_for_those_who_ask(docker: DockerCli, api: Api, name: str) -> None:
    docker("create", "--name", name, "busybox")
    path = f"/containers/{name}/archive?path=/./"
    _, headers, plain = api("GET", path)
    assert "Content-Encoding" not in headers
    with tarfile.open(fileobj=BytesIO(plain)) as tar:
        assert {"./", "./bin/busybox"} <= {f"{m.name}/" if m.isdir() else m.name for m in tar}
    _, headers, packed = api("GET", path, Accept_Encoding="deflate, gzip")
    assert (headers["Content-Encoding"], gzip.decompress(packed)) == ("gzip", plain)
    assert len(packed) < len(plain)
    wrong, _, said = api("GET", f"/containers/{name}/archive?path=/etc/passwd/")
    assert (wrong, b"not a directory" in said) == (400, True)


def test_a_commit_keeps_what_it_does_not_change(docker: DockerCli, api: Api, name: str) -> None:
    """The request's configuration is completed from the container's, as clients rely on."""
    set_ = ["--env", "A=1", "--label", "m=1", "--expose", "1"]
    docker("create", "--name", name, *set_, "busybox", "true")
    query = urlencode({"container": name, "changes": "ENV B=$A\nLABEL l=$A"})
    made = []
    try:
        for body, env, labels, command in (
            (None, ["A=1", "B=1"], {"l": "1", "m": "1"}, ["true"]),
            ({}, ["A=1", "B=1"], {"l": "1", "m": "1"}, ["true"]),
            ({"Env": ["A=2"], "Cmd": ["x"]}, ["A=2", "B=2"], {"l": "2", "m": "1"}, ["x"]),
        ):
            made.append(api.json("POST", f"/commit?{query}", body, 201)["Id"])
            config = api.json("GET", f"/images/{made[-1]}/json")["Config"]
            assert [entry for entry in config["Env"] if not entry.startswith("PATH=")] == env
            assert (config["Labels"], config["Cmd"]) == (labels, command)
            assert list(config["ExposedPorts"]) == ["1/tcp"]
    finally:
        docker("rmi", "-f", *made)


def test_images_made_in_one_second_have_an_order(docker: DockerCli, api: Api, name: str) -> None:
    docker("create", "--name", name, "busybox")
    images = [docker.out("commit", name, f"{name}:v{number}") for number in range(4)]
    created = [api.json("GET", f"/images/{image}/json")["Created"] for image in images]
    try:
        for filters, found in (
            ({"since": [images[0]], "before": [images[3]]}, images[1:3]),
            ({"since": [images[0]], "until": created[2:]}, images[1:2]),
        ):
            query = urlencode({"filters": json.dumps(filters)})
            listed = {image["Id"] for image in api.json("GET", f"/images/json?{query}")}
            assert listed == set(found), filters
        _, _, archive = api("GET", f"/images/{name}/get")  # a repository: all its tags
        with tarfile.open(fileobj=BytesIO(archive)) as saved:
            member = saved.extractfile("manifest.json")
            assert member is not None
            tags = [tag for item in json.load(member) for tag in item["RepoTags"]]
        assert sorted(tags) == [f"{name}:v{number}" for number in range(4)]
    finally:
        docker("rmi", "-f", *images)


def test_words_of_refusals_about_images(docker: DockerCli, api: Api) -> None:
    def refusal(path: str) -> str:
        status, _, text = api("POST", path)
        assert status == 400
        return str(json.loads(text)["message"])

    assert "ambiguous tag using digest algorithm" in refusal("/images/busybox/tag?repo=sha256")
    for platform, words in (
        ("/", '"" is an invalid OS component of "/"'),
        ("linux/", '"" is an invalid component of "linux/"'),
        ("linux/amd64/v1/x", "cannot parse platform specifier"),
        ("macos/arm64", "operating system is not supported"),
        ("windows", "operating system is not supported"),
        ("nintendo64", "unknown operating system or architecture"),
    ):
        assert words in refusal(f"/images/create?fromSrc=-&repo=x&platform={platform}")


def test_an_exec_of_nobody_is_refused_at_once(docker: DockerCli, api: Api, name: str) -> None:
    docker("run", "-d", "--name", name, "busybox", "sleep", "300")
    for user, words in (
        ("nosuch", "unable to find user nosuch: no matching entries in passwd file"),
        ("nosuch:0", "unable to find user nosuch: no matching entries in passwd file"),
        ("0:nosuch", "unable to find group nosuch: no matching entries in group file"),
    ):
        body = {"Cmd": ["id"], "User": user}
        status, _, text = api("POST", f"/containers/{name}/exec", body)
        assert (status, json.loads(text)["message"]) == (400, words)
    assert docker.out("exec", "-u", "root:0", name, "id", "-u") == "0"
    assert docker.out("exec", "-u", "1234:77", name, "id", "-g") == "77"


def test_binds_that_hold_the_data_root_follow_the_host(
    docker: DockerCli, api: Api, name: str
) -> None:
    """Whoever mounts ``/``, as monitoring does, keeps no mount of a container busy."""
    root = api.json("GET", "/info")["DockerRootDir"]
    for source in ("/", root, f"{root}/containers"):
        bind = {"Type": "bind", "Source": source, "Target": "/host"}
        for host in ({"Binds": [f"{source}:/host:ro"]}, {"Mounts": [bind]}):
            docker("rm", "-f", name)
            body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}
            api.json("POST", f"/containers/create?name={name}", body, 201)
            [mount] = api.json("GET", f"/containers/{name}/json")["Mounts"]
            assert mount["Propagation"] == "rslave"
            assert docker.out("start", "-a", name) == ""
        wrong = docker("create", "-v", f"{source}:/host:private", "busybox", status=1)
        assert "within the daemon root" in wrong.stderr
    assert docker.out("create", "--name", f"{name}-2", "-v", f"{root}-2:/host:private", "busybox")
    docker("rm", f"{name}-2")


def test_a_program_without_a_terminal_has_no_size(api: Api, docker: DockerCli, name: str) -> None:
    docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    assert api("POST", f"/containers/{name}/resize?h=50&w=50")[0] == 200
    made = api.json("POST", f"/containers/{name}/exec", {"Cmd": ["sleep", "1000"]}, 201)
    assert api("POST", f"/exec/{made['Id']}/start", {"Detach": True})[0] == 200
    assert api("POST", f"/exec/{made['Id']}/resize?h=50&w=50")[0] in (200, 201)


def test_what_we_made_for_mounts_is_no_change(api: Api, docker: DockerCli, name: str) -> None:
    """Not even in an image that lacks the directories: they are not the user's."""
    program = BytesIO()
    with tarfile.open(fileobj=program, mode="w") as tar:
        tar.add(BUSYBOX, "sh")
    answer = api.raw("POST", "/images/create?fromSrc=-&repo=bare", program.getvalue())
    assert b"sha256:" in answer
    try:
        docker("run", "--name", name, "bare", "/sh", "-c", "true")
        assert api.json("GET", f"/containers/{name}/changes") is None
        docker("rm", name)
        docker("run", "--name", name, "bare", "/sh", "-c", "echo x >/etc/y")
        paths = [change["Path"] for change in api.json("GET", f"/containers/{name}/changes")]
        assert paths == ["/etc", "/etc/y"]
    finally:
        docker("rm", "-f", name)
        docker("rmi", "bare")
