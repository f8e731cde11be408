"""More of what moby's integration-cli suite found us to do otherwise than dockerd."""

from __future__ import annotations

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
