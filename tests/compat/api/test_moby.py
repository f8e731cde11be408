"""What moby's own integration suites found us to do otherwise than dockerd."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.compat.api.test_habits import Api
from tests.compat.conftest import CLI, DockerCli, Eventually, Sampand, busybox_archive

INHIBITED = "com.docker.network.bridge.inhibit_ipv4=true"
FAMILIES = {"com.docker.network.enable_ipv4": "false", "com.docker.network.enable_ipv6": "true"}


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
    told = [item["aux"] for item in news if isinstance(item.get("aux"), dict)]
    (made,) = [aux["ID"] for aux in told if "ID" in aux]
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


def test_prune_leaves_one_tag_of_an_image_in_use(docker: DockerCli, image: str, name: str) -> None:
    text = f"FROM busybox\nLABEL prune={image}\n"
    docker("build", "-q", "-t", f"{image}:b", "-", input=text)
    docker("tag", f"{image}:b", f"{image}:a")
    docker("tag", f"{image}:b", f"{image}:c")
    docker("create", "--name", name, f"{image}:b")
    try:
        said = docker.out("image", "prune", "-a", "-f", "--filter", f"label=prune={image}")
        gone = [line.partition(": ")[2] for line in said.splitlines() if ": " in line]
        assert gone[:2] == [f"{image}:a", f"{image}:b"]
        assert "deleted" not in said
        listed = docker.out("images", "--format", "{{.Repository}}:{{.Tag}}", image)
        assert listed == f"{image}:c"
    finally:
        docker("rm", name)
        docker("rmi", f"{image}:c", status=None)


def test_a_network_can_go_once_the_output_of_its_container_has_ended(
    docker: DockerCli, api: Api, name: str
) -> None:
    """A program closes its output a moment before it is gone; its end is known by then."""
    for turn in range(10):
        network = f"{name}-n{turn}"
        docker("network", "create", network)
        host = {"NetworkMode": network}
        body = {"Image": "busybox", "Cmd": ["echo", "out"], "HostConfig": host}
        made = api.json("POST", f"/containers/create?name={name}", body, 201)["Id"]
        with api.attached(made) as stream:
            assert api("POST", f"/containers/{made}/start")[0] == 204
            assert b"out" in stream.read()
        state = api.json("GET", f"/containers/{made}/json")["State"]
        removed = api("DELETE", f"/networks/{network}")
        assert (state["Status"], removed[0]) == ("exited", 204), removed
        docker("rm", "-f", made)


def test_a_pair_of_addresses_without_a_gateway(docker: DockerCli, name: str) -> None:
    network = f"{name}-pair"
    flags = ("--subnet", "10.201.7.0/31", "--internal", "-o", INHIBITED)
    docker("network", "create", *flags, network)
    try:
        docker("run", "-d", "--network", network, "--name", name, "busybox", "sleep", "1000")
        said = docker.out("run", "--rm", "--network", network, "busybox", "ping", "-c1", name)
        assert "1 packets received" in said
        assert docker.out("network", "inspect", "-f", "{{json .IPAM.Config}}", network) == (
            '[{"Subnet":"10.201.7.0/31"}]'
        )
    finally:
        docker("rm", "-f", name)
        docker("network", "rm", network)


def test_names_of_networks(docker: DockerCli, api: Api, name: str) -> None:
    """dockerd takes any name, spaces and all, but none that is empty."""
    docker("network", "create", f"{name} x")
    assert docker.out("network", "rm", f"{name} x") == f"{name} x"
    for empty in ("", "  "):
        refused = api.json("POST", "/networks/create", {"Name": empty}, 400)
        assert refused["message"] == "invalid name: name is empty"


@pytest.mark.parametrize("path", ["foobar/set", "foobar/upgrade", "pull?remote=a/b"])
def test_bodies_about_plugins_are_looked_at(api: Api, path: str) -> None:
    def said(data: bytes, kind: str = "application/json") -> tuple[int, str]:
        status, text = api.send("POST", f"/plugins/{path}", data, kind)
        return status, json.loads(text)["message"]

    assert said(b"[]", "text/plain") == (
        400, "unsupported Content-Type header (text/plain): must be 'application/json'",
    )  # fmt: skip
    status, text = said(b"{invalid json")
    assert (status, "looking for beginning of object key string" in text) == (400, True)
    assert said(b"[] trailing") == (400, "unexpected content after JSON")
    assert said(b'"' + b"x" * (8 << 20) + b'"')[0] == 400
    assert said(b"[]")[0] == (501 if path.startswith("pull") else 404)


@pytest.fixture(scope="module")
def own(namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sampand]:
    """A daemon with a socket named twice, one on the network, and no bridge."""
    root = tmp_path_factory.mktemp("moby")
    (root / "cli").mkdir()
    config = {
        "default-network-opts": {"bridge": FAMILIES},
        "insecure-registries": ["192.168.1.0/24", "insecure.example:5000"],
        "registry-mirrors": ["http://mirror.example:5000"],
    }
    (root / "daemon.json").write_text(json.dumps(config))
    flags = [f"--host=unix://{root}/d.sock", "--host=tcp://127.0.0.1:23756", "--bridge=none"]
    daemon = Sampand(root, namespace, flags=flags)
    try:
        daemon.start()
        (root / "b.tar").write_bytes(busybox_archive())
        DockerCli(CLI, daemon.host, root / "cli")("load", "-i", str(root / "b.tar"))
        yield daemon
    finally:
        if daemon.process is not None:
            daemon.stop()


def test_info_tells_of_open_sockets_and_registries(own: Sampand) -> None:
    info = Api(own.host).json("GET", "/info")
    (warning,) = info["Warnings"]
    assert "API is accessible on http://127.0.0.1:23756 without encryption" in warning
    assert "Access to the remote API is equivalent to root access" in warning
    registries = info["RegistryConfig"]
    assert registries["InsecureRegistryCIDRs"] == ["192.168.1.0/24", "::1/128", "127.0.0.0/8"]
    assert registries["IndexConfigs"].keys() == {"docker.io", "insecure.example:5000"}
    assert registries["Mirrors"] == ["http://mirror.example:5000/"]


def test_without_a_bridge_its_containers_have_no_network(own: Sampand) -> None:
    docker = DockerCli(CLI, own.host, own.root / "cli")
    for flags in ((), ("--network", "bridge")):
        assert "eth0" not in docker.out("run", "--rm", *flags, "busybox", "ip", "link")


@pytest.mark.parametrize("ipv4", [None, True])
@pytest.mark.parametrize("ipv6", [None, True])
def test_families_by_default(own: Sampand, name: str, ipv4: bool | None, ipv6: bool | None) -> None:
    """What a network itself says is not shown beside the default it overrules."""
    api = Api(own.host)
    body = {"Name": name, "EnableIPv4": ipv4, "EnableIPv6": ipv6}
    made = api.json("POST", "/networks/create", body, 201)["Id"]
    shown = api.json("GET", f"/networks/{made}")
    assert api("DELETE", f"/networks/{made}")[0] == 204
    assert (shown["EnableIPv4"], shown["EnableIPv6"]) == (bool(ipv4), True)
    asked = {"com.docker.network.enable_ipv4": ipv4, "com.docker.network.enable_ipv6": ipv6}
    assert shown["Options"] == {key: FAMILIES[key] for key, said in asked.items() if said is None}


def create(api: Api, name: str, status: int = 201, **body: Any) -> Any:
    command = {"Image": "busybox", "Cmd": ["sleep", "1000"], **body}
    return api.json("POST", f"/containers/create?name={name}", command, status)


def refused(api: Api, name: str, **host: Any) -> str:
    """What a container is refused for, when it is created or when it starts."""
    found = api("POST", f"/containers/create?name={name}", {"Image": "busybox", "HostConfig": host})
    if found[0] == 201:
        found = api("POST", f"/containers/{name}/start")
        api("DELETE", f"/containers/{name}?force=1")
    assert found[0] >= 400
    message: str = json.loads(found[2])["message"]
    return message


def test_what_a_container_is_refused_for(api: Api, name: str) -> None:
    """In dockerd's words, which moby's suites look for."""
    other = create(api, f"{name}-other")["Id"]
    try:
        for host, text in (
            ({"PidMode": f"container:{name}-other"},
             f"failed to join PID namespace: container {other} is not running"),
            ({"NetworkMode": f"container:{name}"}, "cannot join own network"),
            ({"CpusetCpus": "0-1,,"}, "Invalid value 0-1,, for cpuset cpus"),
            ({"CpusetMems": "42-3,1--"}, "Invalid value 42-3,1-- for cpuset mems"),
            ({"Binds": ["foo:/test:shared"]}, "invalid mount config"),
            ({"VolumesFrom": [f"{name}-other:nocopy"]}, "invalid mode: nocopy"),
            ({"Devices": [{"PathOnHost": "/etc", "PathInContainer": "/etc",
                           "CgroupPermissions": "rwm"}]}, '"/etc": not a device node'),
        ):  # fmt: skip
            assert text in refused(api, name, **host)
        start = api("POST", f"/containers/{name}-other/start")
        assert start[0] == 204
    finally:
        api("DELETE", f"/containers/{name}-other?force=1")
    for user in ("2147483648", "-1"):
        create(api, name, User=user)
        message = api.json("POST", f"/containers/{name}/start", status=500)["message"]
        assert "uids and gids must be in range 0-2147483647" in message
        api("DELETE", f"/containers/{name}?force=1")
    for body, text in (({}, "config cannot be empty"), ({"Image": ""}, "no command specified")):
        assert text in api.json("POST", "/containers/create", body, 400)["message"]


def test_errors_that_are_no_json(api: Api) -> None:
    status, headers, text = api("POST", "/containers/nosuch/attach")
    kind = "application/vnd.docker.raw-stream"
    assert (status, headers["Content-Type"]) == (404, kind)
    assert text == b"No such container: nosuch\r\n"
    assert api("GET", "/containers/nosuch/attach/ws")[0] == 404
    status, headers, text = api("GET", "/v1.23/version")
    assert (status, headers["Content-Type"]) == (400, "text/plain; charset=utf-8")
    assert text.startswith(b"client version 1.23 is too old")
    status, text = api.send("POST", "/containers/create", b'{"Image": "busybox"}', "")
    assert (status, b"malformed Content-Type header" in text) == (400, True)


def test_ports_that_are_taken(docker: DockerCli, api: Api, name: str) -> None:
    docker("run", "-d", "--name", f"{name}-first", "-p", "8765:80", "busybox", "sleep", "1000")
    try:
        host = {"PortBindings": {"80/tcp": [{"HostPort": "8765"}]}}
        create(api, name, HostConfig=host)
        message = api.json("POST", f"/containers/{name}/start", status=500)["message"]
        begins = "failed to set up container networking: driver failed programming external "
        assert message.startswith(f"{begins}connectivity on endpoint {name} (")
        assert "Bind for 0.0.0.0:8765 failed: port is already allocated" in message
    finally:
        docker("rm", "-f", f"{name}-first")


def test_networks_of_a_request_are_all_there_are(docker: DockerCli, api: Api, name: str) -> None:
    networks = [f"{name}-{letter}" for letter in "ab"]
    for network in networks:
        docker("network", "create", network)
    try:
        for mode, wanted in (("", networks), ("bridge", networks[:1]), (networks[0], networks[1:])):
            endpoints: dict[str, Any] = {"EndpointsConfig": {network: {} for network in wanted}}
            create(api, name, HostConfig={"NetworkMode": mode}, NetworkingConfig=endpoints)
            assert api("POST", f"/containers/{name}/start")[0] == 204
            shown = api.json("GET", f"/containers/{name}/json")["NetworkSettings"]["Networks"]
            assert sorted(shown) == wanted
            docker("rm", "-f", name)
        docker("run", "-d", "--network", "none", "--name", name, "busybox", "sleep", "1000")
        said = docker("network", "connect", networks[0], name, status=1).stderr
        assert "one of the networks in private (none) mode" in said
    finally:
        docker("rm", "-f", name, status=None)
        docker("network", "rm", *networks)


def test_execs_of_a_container(docker: DockerCli, api: Api, name: str) -> None:
    """Those that ended are not listed; those that never started end with the container's run."""
    docker("run", "-d", "--name", f"{name}-db", "--expose", "80", "busybox", "sleep", "1000")
    docker("run", "-d", "--name", name, "--link", f"{name}-db:db", "busybox", "sleep", "1000")
    try:
        assert f"DB_NAME=/{name}/db" in docker.out("exec", name, "env").splitlines()
        shown = api.json("GET", f"/containers/{name}/json")
        assert shown["ExecIDs"] is None
        path = f"/containers/{name}/exec"
        made, paused = (api.json("POST", path, {"Cmd": ["true"]}, 201)["Id"] for _ in range(2))
        docker("pause", name)
        message = api.json("POST", f"/exec/{paused}/start", {"Detach": True}, 409)["message"]
        assert message.startswith(f"Container {shown['Id']} is paused")
        docker("unpause", name)
        assert api.json("GET", f"/containers/{name}/json")["ExecIDs"] == sorted([made, paused])
        docker("stop", "-t0", name)
        api.json("POST", f"/exec/{made}/start", {"Detach": True}, 404)
        docker("start", name)
        api.json("POST", f"/exec/{made}/start", {"Detach": True}, 404)
    finally:
        docker("rm", "-f", f"{name}-db")


def test_containers_share_a_network_in_turn(docker: DockerCli, name: str) -> None:
    shared = [f"{name}-1", f"{name}-2"]
    docker("run", "-d", "--name", name, "--hostname", "own", "busybox", "sleep", "1000")
    try:
        for other, first in zip(shared, (name, shared[0]), strict=True):
            run = ("run", "-d", "--name", other, "--network", f"container:{first}")
            docker(*run, "busybox", "sleep", "1000")
            assert "own" in docker.out("exec", other, "cat", "/etc/hosts")
    finally:
        docker("rm", "-f", *shared, status=None)


def test_anonymous_volumes_go_with_who_had_them_last(docker: DockerCli, name: str) -> None:
    docker("create", "--name", f"{name}-parent", "-v", "/data", "busybox")
    docker("create", "--name", name, "--volumes-from", f"{name}-parent", "busybox")
    volume = docker.out("inspect", "-f", "{{(index .Mounts 0).Name}}", name)
    docker("rm", f"{name}-parent")
    docker("rm", "-v", name)
    assert volume not in docker.out("volume", "ls", "-q").split()


def test_a_cgroup_parent_leads_nowhere_else(docker: DockerCli, name: str) -> None:
    shown = docker.out(
        *("run", "--rm", "--name", name, "--cgroup-parent", "../../../sampan-moby/here"),
        *("busybox", "cat", "/proc/1/cgroup"),
    )
    assert ".." not in shown


def test_copying_to_what_is_read_only(docker: DockerCli, name: str, tmp_path: Path) -> None:
    """Where a link in a volume leads counts, not where it is."""
    for directory in ("rw", "ro"):
        (tmp_path / directory).mkdir()
    (tmp_path / "rw" / "link").symlink_to("/root")
    binds = ("-v", f"{tmp_path}/rw:/rw", "-v", f"{tmp_path}/ro:/ro:ro")
    docker("create", "--name", name, "--read-only", *binds, "busybox", "sleep", "1000")
    (tmp_path / "f").write_text("f")
    for running in (False, True):
        if running:
            docker("start", name)
        for target, part in (("/rw/link/", "container rootfs"), ("/ro/", "mounted volume")):
            said = docker("cp", str(tmp_path / "f"), f"{name}:{target}", status=1).stderr
            assert f"{part} is marked read-only" in said
        docker("cp", str(tmp_path / "f"), f"{name}:/rw/f{running}")
        assert (tmp_path / "rw" / f"f{running}").exists()


def test_names_can_be_copied_from_a_stopped_container(
    docker: DockerCli, name: str, tmp_path: Path
) -> None:
    docker("run", "--name", name, "--add-host", "added:10.1.2.3", "busybox", "true")
    docker("cp", f"{name}:/etc/hosts", str(tmp_path / "hosts"))
    assert "10.1.2.3\tadded" in (tmp_path / "hosts").read_text()


def test_a_root_of_a_brief_container_is_looked_at_twice_at_once(
    docker: DockerCli, api: Api, name: str
) -> None:
    """Its mounts are volatile, which overlay refuses twice."""
    docker("create", "--rm", "--name", name, "-v", "/data", "busybox")
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("empty"))

    def put() -> list[int]:
        path = f"/containers/{name}/archive?path=/tmp"
        data = body.getvalue()
        return [api.send("PUT", path, data, "application/x-tar")[0] for _ in range(20)]

    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(put) for _ in range(4)]
        assert {status for future in found for status in future.result()} == {200}


def test_a_container_that_restarts_can_be_killed(
    docker: DockerCli, name: str, eventually: Eventually
) -> None:
    docker("run", "-d", "--name", name, "--restart", "always", "busybox", "false")
    shown = ("inspect", "-f", "{{.State.Status}}", name)
    eventually(lambda: docker.out(*shown) == "restarting")
    docker("kill", name)
    assert docker.out(*shown) == "exited"


def test_events_of_a_container_are_its_own(docker: DockerCli, name: str) -> None:
    docker("run", "--name", name, "-v", "/data", "busybox", "true")
    until = docker.out("info", "-f", "{{.SystemTime}}")
    for ref in (name, docker.out("inspect", "-f", "{{.Id}}", name)):
        said = docker.out(
            *("events", "--since", "0", "--until", until, "-f", f"container={ref}"),
            *("--format", "{{.Type}} {{.Action}}"),
        )
        assert said.splitlines() == [
            f"container {action}" for action in ("create", "attach", "start", "die")
        ]


def test_disconnecting_from_a_network_that_is_gone(docker: DockerCli, api: Api, name: str) -> None:
    network = f"{name}-gone"
    docker("network", "create", network)
    docker("create", "--name", name, "--network", network, "busybox", "true")
    docker("network", "rm", network)
    assert docker("network", "disconnect", network, name, status=1).stderr
    docker("network", "disconnect", "-f", network, name)
    assert api.json("GET", f"/containers/{name}/json")["NetworkSettings"]["Networks"] == {}


def test_ipv4_comes_first_among_subnets(docker: DockerCli, name: str) -> None:
    subnets = ("--subnet", "fd80:24e2:f998:72d6::/64", "--subnet", "10.201.8.0/24")
    docker("network", "create", "--ipv6", *subnets, f"{name}-n")
    shown = docker.out("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", f"{name}-n")
    docker("network", "rm", f"{name}-n")
    assert shown == "10.201.8.0/24"


def test_words_of_refusals(docker: DockerCli, api: Api, name: str) -> None:
    mode = {"HostConfig": {"NetworkMode": "container:"}}
    refusals = (
        ("POST", "/networks/create", {"Name": "default"}, 403, "predefined default network"),
        ("POST", "/networks/host/connect", {"Container": name}, 400,
         "cannot connect container to host network"),
        ("DELETE", "/images/%20", None, 400, "image name cannot be blank"),
        ("POST", f"/containers/{name}/update", {"CpuQuota": 5000}, 409,
         "CPU Quota cannot be updated as NanoCPUs has already been set"),
        ("POST", "/containers/create", {"Image": "busybox", **mode}, 400,
         "invalid container format container:<name|id>"),
    )  # fmt: skip
    docker("run", "-d", "--name", name, "--cpus", "0.5", "busybox", "sleep", "1000")
    for method, path, body, status, text in refusals:
        assert text in api.json(method, path, body, status)["message"]
    assert docker.out("logs", "--tail", "random", name) == ""


def test_a_bridge_of_another_name_must_be_there(
    namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("bridge")
    (root / "daemon.json").write_text("{}")
    daemon = Sampand(root, namespace, flags=["--bridge=nosuch0"])
    with pytest.raises(AssertionError, match="nosuch0 must be created manually"):
        daemon.start()
    ip = ("ip", "-n", namespace, "link")
    subprocess.run([*ip, "add", "nosuch0", "type", "bridge"], check=True)
    try:
        daemon.start()
        assert daemon.stop() == 0
    finally:
        subprocess.run([*ip, "delete", "nosuch0"], check=True)


def test_an_interface_gets_no_name_another_has(docker: DockerCli, api: Api, name: str) -> None:
    docker("network", "create", f"{name}-n")
    docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    try:
        named = {"com.docker.network.endpoint.ifname": "eth0"}
        body = {"Container": name, "EndpointConfig": {"DriverOpts": named}}
        path = f"/networks/{name}-n/connect"
        message = api.json("POST", path, body, 500)["message"]
        assert "error renaming interface to eth0: file exists" in message
    finally:
        docker("rm", "-f", name)
        docker("network", "rm", f"{name}-n")


def test_since_and_before_choose_among_running_containers(docker: DockerCli, name: str) -> None:
    names = [f"{name}-{number}" for number in range(3)]
    docker("run", "-d", "--name", names[0], "busybox", "sleep", "1000")
    docker("run", "--name", names[1], "busybox", "true")
    docker("run", "-d", "--name", names[2], "busybox", "sleep", "1000")
    try:
        since = ("ps", "--format", "{{.Names}}", "--filter", f"since={names[0]}")
        assert docker.out(*since).split() == [names[2]]
        assert docker.out(*since, "--all").split() == [names[2], names[1]]
    finally:
        docker("rm", "-f", *names)


def test_connecting_names_the_missing_container_first(api: Api, name: str) -> None:
    body = {"Container": f"{name}-x"}
    message = api.json("POST", f"/networks/{name}-n/connect", body, 404)["message"]
    assert message == f"No such container: {name}-x"


def test_a_component_tells_what_it_was_written_in(api: Api) -> None:
    version = api.json("GET", "/version")
    assert version["Components"][0]["Details"]["GoVersion"] == version["GoVersion"]


def test_a_copied_archive_keeps_its_owners(docker: DockerCli, name: str, tmp_path: Path) -> None:
    """Where the container names no user: what ``cp -a`` is for."""
    source = tmp_path / "owned"
    source.touch()
    os.chown(source, 2, 3)
    docker("create", "--name", name, "busybox", "stat", "-c", "%u %g", "/owned")
    docker("cp", "-a", str(source), f"{name}:/")
    assert docker.out("start", "-a", name).split() == ["2", "3"]
