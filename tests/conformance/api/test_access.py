"""Sockets with fewer rights: read-only and label-scoped."""

from __future__ import annotations

import pytest

from sampan.api.access import Access
from sampan.errors import InvalidParameter
from tests.conformance.api.conftest import Serve


def test_options_of_a_socket() -> None:
    assert Access.parse("") == Access()
    assert Access.parse("mode=ro&label=a%3Db&label=c") == Access(
        read_only=True, labels={"a": "b", "c": ""}
    )
    for wrong in ("mode=wo", "colour=red", "label="):
        with pytest.raises(InvalidParameter, match="invalid socket option"):
            Access.parse(wrong)


async def test_a_read_only_socket_only_reads(serve: Serve) -> None:
    server = await serve(Access(read_only=True))
    for method, target in (
        ("POST", "/containers/create"),
        ("POST", "/containers/a/start"),
        ("DELETE", "/containers/a"),
        ("POST", "/containers/a/attach"),
        ("GET", "/containers/a/attach/ws"),
        ("POST", "/exec/e/start"),
        ("PUT", "/containers/a/archive?path=/"),
        ("POST", "/images/load"),
        ("POST", "/build"),
    ):
        answer = await server.ask(method, target)
        assert (answer.status, answer.message) == (403, "this socket is read-only"), target
    assert (await server.ask("GET", "/containers/a/json")).status == 200
    assert (await server.ask("GET", "/info")).status == 200


async def test_a_scoped_socket_sees_and_makes_only_what_carries_its_label(serve: Serve) -> None:
    mine = await serve(Access(labels={"team": "x"}))
    other = await serve(Access(labels={"team": "y"}))
    assert (await mine.ask("GET", "/containers/a/json")).status == 200
    hidden = await other.ask("GET", "/containers/a/json")
    missing = await other.ask("GET", "/containers/b/json")
    assert hidden.status == missing.status == 404
    assert hidden.message == missing.message.replace("b", "a")
    await mine.ask("GET", "/containers/json")
    assert mine.engine.containers.list_arguments["filters"] == {"label": ["team=x"]}
    await mine.ask("POST", "/containers/create", {"Image": "bb", "Labels": {"team": "y"}})
    assert mine.engine.containers.created[0][0].labels == {"team": "x"}
    for target in ("/images/load", "/build", "/images/prune", "/plugins/pull"):
        assert (await mine.ask("POST", target)).status == 403


@pytest.mark.parametrize(
    ("host", "what"),
    [
        ({"Privileged": True}, "Privileged"),
        ({"Binds": ["/etc:/e"]}, "binding the host's /etc"),
        ({"Mounts": [{"Type": "bind", "Source": "/", "Target": "/h"}]}, "a mount of type bind"),
        ({"PidMode": "host"}, "PidMode=host"),
        ({"NetworkMode": "host"}, "NetworkMode=host"),
        ({"CapAdd": ["SYS_ADMIN"]}, "CapAdd"),
        ({"SecurityOpt": ["seccomp=unconfined"]}, "SecurityOpt"),
        ({"Devices": [{"PathOnHost": "/dev/sda"}]}, "Devices"),
        ({"MaskedPaths": []}, "MaskedPaths"),
    ],
)
async def test_a_scoped_socket_makes_no_way_to_the_host(
    serve: Serve, host: dict[str, object], what: str
) -> None:
    server = await serve(Access(labels={"team": "x"}))
    answer = await server.ask("POST", "/containers/create", {"Image": "bb", "HostConfig": host})
    expected = f"{what} is not allowed through a socket limited to labels"
    assert (answer.status, answer.message) == (403, expected)
    assert server.engine.containers.created == []


async def test_a_scoped_socket_shares_only_with_its_own(serve: Serve) -> None:
    mine = await serve(Access(labels={"team": "x"}))
    other = await serve(Access(labels={"team": "y"}))
    for host in ({"NetworkMode": "container:a"}, {"VolumesFrom": ["a:ro"]}):
        body = {"Image": "bb", "HostConfig": host}
        assert (await mine.ask("POST", "/containers/create", body)).status == 201
        answer = await other.ask("POST", "/containers/create", body)
        assert (answer.status, answer.message) == (400, "No such container: a")
    answer = await mine.ask("POST", "/volumes/create", {"DriverOpts": {"o": "bind"}})
    assert answer.status == 403
    answer = await mine.ask("POST", "/containers/a/exec", {"Cmd": ["x"], "Privileged": True})
    assert answer.status == 403
