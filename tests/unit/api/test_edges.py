"""Small parts of the API server: spool, frames, routes, sockets, pid file."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from sampan.api import listeners
from sampan.api.frames import Deframer, frame
from sampan.api.pidfile import pidfile
from sampan.api.router import Effect, Match, Route, Router, split_version
from sampan.api.routes import all_routes
from sampan.api.spool import CHUNK, MEMORY, Spool
from sampan.api.version import ApiVersion, negotiate
from sampan.errors import Conflict, InvalidParameter, NoSpace, NotFound, Unavailable


@pytest.mark.parametrize("size", [10, MEMORY, MEMORY + 3 * CHUNK])
async def test_a_spool_gives_back_what_it_took(tmp_path: Path, size: int) -> None:
    spool = Spool(tmp_path)
    spilling = asyncio.create_task(spool.spill())
    data = os.urandom(size)
    for at in range(0, size, 50_000):
        spool.push(data[at : at + 50_000])
        if at % 300_000 == 0:
            await asyncio.sleep(0)
    spool.end()
    found = b""
    while piece := await spool.pop():
        found += piece
    assert found == data
    assert spool.empty
    assert os.listdir(tmp_path) == []
    spilling.cancel()
    with suppress(asyncio.CancelledError):
        await spilling
    await spool.close()


async def test_a_spool_is_bounded(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit=CHUNK)
    spool.push(b"x" * MEMORY)
    spool.push(b"x" * CHUNK)
    with pytest.raises(NoSpace, match="behind its stream"):
        spool.push(b"x")
    await spool.close()


def test_frames_survive_being_cut_anywhere() -> None:
    data = frame(1, b"out") + frame(2, b"") + frame(2, b"error")
    for size in range(1, len(data)):
        deframer = Deframer()
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        assert b"".join(map(deframer.feed, pieces)) == b"outerror"


def test_routes_match_as_their_table_says() -> None:
    router = Router(all_routes())
    newest = ApiVersion(1, 55)

    def pattern(method: str, path: str) -> tuple[str, dict[str, str]]:
        found = router.match(method, path, newest)
        assert isinstance(found, Match), (method, path)
        return found.route.pattern, found.parts

    assert pattern("GET", "/images/get") == ("/images/get", {})
    assert pattern("GET", "/images/a/b:1/json") == ("/images/{name:*}/json", {"name": "a/b:1"})
    assert pattern("DELETE", "/images/a/json") == ("/images/{name:*}", {"name": "a/json"})
    assert pattern("GET", "/networks/") == ("/networks/", {})
    assert pattern("POST", "/containers/create") == ("/containers/create", {})
    assert router.match("POST", "/containers/json", newest) == {"GET", "DELETE"}
    assert router.match("GET", "/nope", newest) == set()
    assert router.match("POST", "/build/prune", ApiVersion(1, 30)) == set()


def test_every_endpoint_of_the_reference_has_a_route() -> None:
    """The 83 endpoints outside swarm and debugging, and swarm's own."""
    router = Router(all_routes())
    for line in REFERENCE.split("\n"):
        methods, _, path = line.strip().partition(" ")
        for method in methods.split("|"):
            name = path.replace("{}", "x")
            assert isinstance(router.match(method, name, ApiVersion(1, 55)), Match), line


REFERENCE = """GET /containers/json
POST /containers/create
GET /containers/{}/json
GET /containers/{}/top
GET /containers/{}/logs
GET /containers/{}/changes
GET /containers/{}/export
GET /containers/{}/stats
POST /containers/{}/resize
POST /containers/{}/start
POST /containers/{}/stop
POST /containers/{}/restart
POST /containers/{}/kill
POST /containers/{}/update
POST /containers/{}/rename
POST /containers/{}/pause
POST /containers/{}/unpause
POST /containers/{}/attach
GET /containers/{}/attach/ws
POST /containers/{}/wait
DELETE /containers/{}
GET|HEAD|PUT /containers/{}/archive
POST /containers/prune
GET /images/json
POST /build
POST /build/prune
POST /build/cancel
POST /images/create
GET /images/{}/json
GET /images/{}/attestations
GET /images/{}/history
POST /images/{}/push
POST /images/{}/tag
DELETE /images/{}
GET /images/search
POST /images/prune
POST /commit
GET /images/{}/get
GET /images/get
POST /images/load
GET /networks
GET|DELETE /networks/{}
POST /networks/create
POST /networks/{}/connect
POST /networks/{}/disconnect
POST /networks/prune
GET /volumes
POST /volumes/create
GET|PUT|DELETE /volumes/{}
POST /volumes/prune
POST /containers/{}/exec
POST /exec/{}/start
POST /exec/{}/resize
GET /exec/{}/json
POST /auth
GET /info
GET /version
GET|HEAD /_ping
GET /events
GET /system/df
GET /distribution/{}/json
POST /session
POST /grpc
GET|POST /containers/{}/checkpoints
DELETE /containers/{}/checkpoints/{}
GET /plugins
GET /plugins/privileges
POST /plugins/pull
GET /plugins/{}/json
DELETE /plugins/{}
POST /plugins/{}/enable
POST /plugins/{}/disable
POST /plugins/{}/upgrade
POST /plugins/create
POST /plugins/{}/push
POST /plugins/{}/set
GET /swarm
POST /swarm/init
POST /swarm/join
POST /swarm/leave
POST /swarm/update
GET /swarm/unlockkey
POST /swarm/unlock
GET /nodes
GET|DELETE /nodes/{}
POST /nodes/{}/update
GET /services
POST /services/create
GET|DELETE /services/{}
POST /services/{}/update
GET /services/{}/logs
GET /tasks
GET /tasks/{}
GET /tasks/{}/logs
GET|POST /secrets
GET /configs""".replace("GET|POST /secrets", "GET /secrets\nPOST /secrets/create")


def test_a_path_may_name_its_version() -> None:
    assert split_version("/v1.41/info") == ("1.41", "/info")
    assert split_version("/info") == (None, "/info")
    assert split_version("/volumes") == (None, "/volumes")
    assert negotiate("1.24") < negotiate("1.55")


async def unused(call: object) -> None:
    """A handler nobody calls."""


def test_the_first_row_wins() -> None:
    rows = [
        Route(method="GET", pattern=pattern, handler=unused, effect=Effect.READ)  # type: ignore[arg-type]
        for pattern in ("/a/b", "/a/{name}")
    ]
    found = Router(rows).match("GET", "/a/b", ApiVersion(1, 55))
    assert isinstance(found, Match)
    assert found.route is rows[0]


def open_(host: str, group: str = "docker", *, passed: int = 0) -> list[listeners.Listener]:
    return listeners.open_all(
        [host], group=group, group_required=group != "docker", tls=None, passed=passed
    )


def test_a_unix_socket_is_for_its_owner_and_group(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.sock"
    (listener,) = open_(f"unix://{path}?mode=ro", group=str(os.getgid()))
    state = path.stat()
    assert stat.S_IMODE(state.st_mode) == 0o660
    assert state.st_gid == os.getgid()
    assert listener.access.read_only
    with pytest.raises(Conflict, match="another daemon listens there"):
        open_(f"unix://{path}")
    listener.close()
    assert not path.exists()


def test_a_dead_socket_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    (listener,) = open_(f"unix://{path}")
    listener.close()
    path.write_text("precious")
    with pytest.raises(Conflict, match="is not a socket"):
        open_(str(path))
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("host", "error"),
    [
        ("foo://bar", InvalidParameter),
        ("unix://relative", InvalidParameter),
        ("unix:///" + "x" * 120, InvalidParameter),
        ("tcp://127.0.0.1:99999", InvalidParameter),
        ("fd://", Unavailable),
        ("unix:///tmp/x?mode=none", InvalidParameter),
    ],
)
def test_addresses_that_cannot_be_listened_on(host: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        open_(host)


def test_a_group_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no-such-group"):
        open_(f"unix://{tmp_path}/a", group="no-such-group")


def test_the_pid_file_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "run" / "a.pid"
    with pidfile(path):
        assert path.read_text() == str(os.getpid())
    assert not path.exists()
    path.write_text(str(os.getppid()))
    with pytest.raises(Conflict, match="is still running"), pidfile(path):
        pass
    path.write_text("4194305")  # beyond PID_MAX_LIMIT: nobody's
    with pidfile(path):
        path.write_text("1")
    assert path.read_text() == "1"


def test_a_zombie_holds_no_pid_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pid"
    ended = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)
    try:
        path.write_text(str(ended))
        with pidfile(path):
            assert path.read_text() == str(os.getpid())
    finally:
        os.waitpid(ended, 0)
