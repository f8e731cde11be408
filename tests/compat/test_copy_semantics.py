"""``docker cp``: our functions over a root answer as dockerd does for a container with it."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import socket
import tarfile
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sampan.errors import SampanError
from sampan.layer import (
    Destination,
    Whiteouts,
    apply,
    archive_get,
    archive_put,
    archive_stat,
)
from tests.archives import DIRECTORY, SYMLINK, member, tar
from tests.compat.dockerd import Docker, dockerd
from tests.property.trees import describe

__all__ = ["dockerd"]

TREE = tar(
    member("dir", type=DIRECTORY, mode=0o755),
    member("dir/a", b"aaa", mode=0o4755),
    member("dir/sub", type=DIRECTORY, mode=0o1777),
    member("dir/sub/b", b"b"),
    member("dir/rel", type=SYMLINK, link="sub/b"),
    member("dir/absfile", type=SYMLINK, link="/file"),
    member("link", type=SYMLINK, link="dir"),
    member("abs", type=SYMLINK, link="/dir/sub"),
    member("dangle", type=SYMLINK, link="/no/where"),
    member("up", type=SYMLINK, link="../../../dir/a"),
    member("chain", type=SYMLINK, link="link/sub"),
    member("file", b"file"),
)
PATHS = [
    *("/dir", "dir", "/dir/", "/dir/.", "/link", "/link/", "/link/.", "/abs", "/abs/"),
    *("/dangle", "/up", "/dir/rel", "/file", "/chain", "/chain/", "/chain/b", "/dir/absfile"),
    *("/link/../file", "//dir//sub//", "/abs/../file", "../../dir/a", "/dir/sub/../a"),
    *("/dir/sub/..", "/dir/sub/../"),
]
MISSING = ["/dangle/", "/nope", "/nope/x", "/abs/../a"]
WRONG = ["/up/", "/file/", "/file/.", "/file/x"]


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, host: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = host.removeprefix("unix://")

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


@dataclass(frozen=True)
class Container:
    """A container of dockerd's, never started, made of :data:`TREE`."""

    host: str
    name: str
    root: Path

    def ask(
        self, method: str, url: str, body: bytes | None = None, **query: str
    ) -> tuple[int, bytes, str | None]:
        connection = Connection(self.host)
        text = urllib.parse.urlencode(query)
        headers = {"Content-Type": "application/x-tar"}
        connection.request(method, f"{url}?{text}", body=body, headers=headers)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, data, response.getheader("X-Docker-Container-Path-Stat")

    def archive(
        self, method: str, body: bytes | None = None, **query: str
    ) -> tuple[int, bytes, str]:
        status, data, stat = self.ask(method, f"/containers/{self.name}/archive", body, **query)
        return status, data, stat or ""

    def message(self, data: bytes) -> str:
        text: str = json.loads(data)["message"]
        return text


@pytest.fixture
def container(dockerd: Docker, tmp_path: Path) -> Iterator[Container]:
    root = tmp_path / "root"
    root.mkdir()
    apply(io.BytesIO(TREE), Destination(root=root, whiteouts=Whiteouts.LITERAL))
    it = Container(dockerd.host, f"cp-{os.getpid()}", root)
    status, data, _ = it.ask("POST", "/images/create", TREE, fromSrc="-", repo="cp", tag="x")
    assert status == 200, data
    dockerd("create", "--name", it.name, "cp:x", "/none")
    try:
        yield it
    finally:
        dockerd("rm", "-f", it.name)


@pytest.fixture
def root(container: Container) -> Iterator[int]:
    fd = os.open(container.root, os.O_RDONLY)
    yield fd
    os.close(fd)


def members(data: bytes) -> list[tuple[str, bytes, int, str]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        # dockerd puts the file type into the mode field as well, as old tars did
        return sorted(
            (entry.name, entry.type, entry.mode & 0o7777, entry.linkname) for entry in archive
        )


def test_reading(container: Container, root: int) -> None:
    for path in PATHS:
        status, _, header = container.archive("HEAD", path=path)
        assert status == 200, path
        theirs = json.loads(base64.b64decode(header))
        ours = archive_stat(root, path)
        assert (ours.name, ours.mode, ours.link_target) == (
            theirs["name"],
            theirs["mode"],
            theirs["linkTarget"],
        ), path
        status, data, _ = container.archive("GET", path=path)
        stat, chunks = archive_get(root, path)
        assert stat == ours
        assert members(b"".join(chunks)) == members(data), path
    for path in MISSING + WRONG:
        status, data, _ = container.archive("GET", path=path)
        with pytest.raises(SampanError) as caught:
            archive_get(root, path, container=container.name)
        if path in MISSING:
            assert (status, caught.value.http_status) == (404, 404)
            assert caught.value.message == container.message(data)
        else:  # not a directory: dockerd answers 500 with a path of its host
            assert (status, caught.value.http_status) == (500, 400)


WRITES: list[tuple[str, bytes]] = [
    ("/dir", tar(member("new", b"1"))),
    ("/link", tar(member("through-link", b"1"))),
    ("/abs", tar(member("through-abs", b"1", mode=0o600))),
    ("/chain/", tar(member("through-chain", b"1"))),
    ("/", tar(member("deep/er/file", b"1"))),
    ("/dir", tar(member("a", b"replaced"), member("rel", b"replaced"))),
    ("/dir", tar(member("sub/c", b"1"))),
    ("/", tar(member("link/through-member", b"1"))),
    ("/dir", tar(member("sub", b"a file in its place"))),
    ("/dir", tar(member("l", type=SYMLINK, link="/dir"), member("l/x", b"1"))),
    ("/", tar(member(".wh.file", b"no whiteout here"))),
    ("/file", tar(member("x", b"1"))),
    ("/nope", tar(member("x", b"1"))),
    ("/dangle", tar(member("x", b"1"))),
]


def exported(container: Container, dockerd: Docker) -> dict[bytes, tuple[object, ...]]:
    """The container's tree as dockerd has it, by path: kind, mode, size, link."""
    status, data, _ = container.ask("GET", f"/containers/{container.name}/export")
    assert status == 200
    found: dict[bytes, tuple[object, ...]] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for entry in archive:
            top = entry.name.split("/")[0]
            if top not in ("dev", "proc", "sys", "etc", ".dockerenv"):
                found[entry.name.encode()] = (
                    entry.type,
                    None if entry.issym() else entry.mode & 0o7777,
                    entry.size,
                    entry.linkname,
                )
    return found


def ours(container: Container) -> dict[bytes, tuple[object, ...]]:
    kinds = {0o100000: b"0", 0o040000: b"5", 0o120000: b"2"}
    found: dict[bytes, tuple[object, ...]] = {}
    for path, (mode, *_, content, _xattrs, _inode) in describe(container.root).items():
        assert isinstance(mode, int)
        assert isinstance(content, bytes)
        kind = kinds[mode & 0o170000]
        link = kind == b"2"
        found[path] = (
            kind,
            None if link else mode & 0o7777,
            0 if link else len(content),
            content.decode() if link else "",
        )
    return found


def refusal(root: int, path: str, data: bytes, name: str) -> SampanError | None:
    """How ours refuses to write, if it does."""
    try:
        archive_put(root, path, io.BytesIO(data), container=name)
    except SampanError as error:
        return error
    return None


def test_writing(container: Container, root: int, dockerd: Docker) -> None:
    for path, data in WRITES:
        status, answer, _ = container.archive("PUT", data, path=path)
        refused = refusal(root, path, data, container.name)
        if refused is None:
            assert status == 200, (path, answer)
        else:
            # 20.10 says 500 where the API's description and newer daemons say 400
            assert (status == 404) == (refused.http_status == 404), (path, answer)
            assert status >= 400
            assert refused.message == container.message(answer)
    assert ours(container) == exported(container, dockerd)


def test_not_overwriting_other_kinds(container: Container, root: int) -> None:
    for path, data in (
        ("/dir", tar(member("sub", b"x"))),
        ("/", tar(member("file", type=DIRECTORY, mode=0o755))),
    ):
        status, answer, _ = container.archive("PUT", data, path=path, noOverwriteDirNonDir="1")
        with pytest.raises(SampanError) as caught:
            archive_put(root, path, io.BytesIO(data), no_overwrite_dir_non_dir=True)
        assert caught.value.message in container.message(answer), status
