"""Many containers at once on one network, and none left over."""

from __future__ import annotations

import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from sampan.kernel import netns, rtdump
from sampan.kernel.netlink import NetlinkSocket
from sampan.network.model import PortBinding

from .conftest import World, make_endpoint, make_network


def test_containers_started_and_stopped_in_parallel(world: World) -> None:
    net = make_network(17)
    world.driver.ensure(net)
    before = world.driver.observe()
    rules = _rules()
    problems: list[str] = []
    reached = threading.Barrier(8)

    def live(worker: int) -> None:
        reached.wait(30)
        for turn in range(6):
            number = 2 + worker * 10 + turn
            endpoint = make_endpoint(net, number, ports=(PortBinding(container_port=80),))
            fd = netns.create()
            try:
                status = world.driver.attach(net, endpoint, fd)
                with netns.entered(fd):
                    sock = NetlinkSocket()
                with sock:
                    found = [str(a.interface) for a in rtdump.addresses(sock)]
                if f"172.17.0.{number}/16" not in found:
                    problems.append(f"{number}: {found}")
                world.driver.detach(net, replace(endpoint, ports=status.ports))
            finally:
                os.close(fd)

    home = netns.current()
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(live, range(8)):
            pass
    world.driver.flush()
    assert problems == []
    assert world.driver.observe() == before
    assert _rules() == rules
    here = netns.current()
    assert os.fstat(here).st_ino == os.fstat(home).st_ino
    os.close(here)
    os.close(home)


def _rules() -> bytes:
    return subprocess.run(
        ["nft", "list", "table", "inet", "sampan"], check=True, capture_output=True
    ).stdout
