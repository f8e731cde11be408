"""What the own suites of Python's clients (docker-py's above all) expect of a dockerd."""

from __future__ import annotations

from collections.abc import Iterator

import docker as docker_py
import pytest
from docker.errors import APIError

from tests.compat.conftest import Sampand


@pytest.fixture
def client(sampand: Sampand) -> Iterator[docker_py.APIClient]:
    """docker-py, speaking the last version that dockerd 28 has."""
    found = docker_py.APIClient(base_url=sampand.host, version="1.51", timeout=60)
    yield found
    found.close()


def test_a_mac_address_asked_for_on_connecting_is_kept(
    client: docker_py.APIClient, name: str
) -> None:
    mac = "02:42:ac:11:00:02"
    network = client.create_network(f"{name}-net")["Id"]
    try:
        container = client.create_container("busybox", ["sleep", "1000"], name=name)["Id"]
        client.connect_container_to_network(container, network, mac_address=mac)

        def shown() -> str:
            networks = client.inspect_container(container)["NetworkSettings"]["Networks"]
            return str(networks[f"{name}-net"]["MacAddress"])

        assert shown() == mac
        client.start(container)
        assert shown() == mac
        used = client.exec_create(container, ["cat", "/sys/class/net/eth1/address"])["Id"]
        assert client.exec_start(used) == f"{mac}\n".encode()
    finally:
        client.remove_container(name, force=True)
        client.remove_network(network)


@pytest.mark.parametrize("driver", ["host", "null"])
def test_there_is_one_network_of_the_host_and_one_of_none(
    client: docker_py.APIClient, name: str, driver: str
) -> None:
    with pytest.raises(APIError, match=f'only one instance of "{driver}"') as refused:
        client.create_network(name, driver=driver)
    assert refused.value.status_code == 403
    assert not client.networks(names=[name])


def test_the_log_of_a_program_just_started_has_what_it_prints_first(
    client: docker_py.APIClient, name: str
) -> None:
    """Ten times, because it was a race: each time the log is asked for as soon as start answers."""
    for _ in range(10):
        container = client.create_container("busybox", ["echo", "first"], name=name)["Id"]
        client.start(container)
        assert client.logs(container) == b"first\n"
        client.remove_container(container, force=True)
