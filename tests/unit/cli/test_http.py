"""The lean HTTP client against scripted peers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from sampan.client.api import ApiClient, encode_path, encode_query, json_objects
from sampan.client.endpoint import Endpoint
from sampan.client.failure import (
    ConnectionFailed,
    DaemonConflict,
    DaemonError,
    DaemonNotFound,
    DaemonNotModified,
    ProtocolError,
)
from sampan.client.http import Connection, Response
from sampan.errors import InvalidParameter, NotFound


@contextmanager
def answering(*pieces: bytes) -> Iterator[Connection]:
    """A connection to a peer that sends the pieces and closes."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for piece in pieces:
            theirs.sendall(piece)
        theirs.shutdown(socket.SHUT_WR)
        yield Connection(ours, "host")


def get(connection: Connection) -> Response:
    return connection.request("GET", "/", {})


HEAD = b"HTTP/1.1 200 OK\r\nX-A:  b \r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        ((HEAD + b"Content-Length: 5\r\n\r\nhello",), b"hello"),
        ((HEAD + b"Content-Length: 5\r\n\r\nhel", b"lo"), b"hello"),
        ((HEAD + CHUNKED + b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nT: x\r\n\r\n",), b"hello"),
        ((HEAD + b"\r\nuntil the end",), b"until the end"),
        ((b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Content-Length: 0\r\n\r\n",), b""),
        ((b"HTTP/1.1 204 No Content\r\n\r\n",), b""),
        ((b"HTTP/1.0 200 OK\n\nbare newlines",), b"bare newlines"),
    ],
)  # fmt: skip
def test_bodies(pieces: tuple[bytes, ...], body: bytes) -> None:
    with answering(*pieces) as connection:
        response = get(connection)
        assert response.read() == body
        assert response.done


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", ConnectionFailed),
        (b"SSH-2.0-x\r\n", ProtocolError),
        (HEAD + b"X: " + b"y" * 70_000 + b"\r\n\r\n", ProtocolError),
        (HEAD + b"".join(b"H%d: x\r\n" % n for n in range(9000)) + b"\r\n", ProtocolError),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", ProtocolError),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel", ConnectionFailed),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", ConnectionFailed),
        (HEAD + b"Content-Length: 9\r\n\r\nshort", ConnectionFailed),
    ],
)
def test_broken_answers(answer: bytes, error: type[Exception]) -> None:
    with answering(answer) as connection, pytest.raises(error):
        get(connection).read()


def test_lines_and_take_over() -> None:
    with answering(HEAD + b"Content-Length: 11\r\n\r\na\n\nbc\n\r\ndef") as connection:
        assert list(get(connection).lines()) == [b"a", b"bc", b"def"]
    with answering(b"HTTP/1.1 101 UPGRADED\r\n\r\nearly", b"late") as connection:
        stream = get(connection).take_over()
        assert stream.recv() + stream.recv() == b"earlylate"
        assert connection.closed


def test_an_exact_connection_reads_nothing_ahead() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 101 UPGRADED\r\nA: b\r\n\r\nearly")
        stream = get(Connection(ours, "host", exact=True)).take_over()
        assert stream.socket.recv(100) == b"early"


def test_requests() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = Connection(ours, "host")
        connection.send("POST", "/x", {"A": "b"}, [b"one", b"", b"two"])
        connection.send("POST", "/y", {}, b"{}")
        connection.send("POST", "/z", {})
        sent = theirs.recv(10_000)
    assert sent == (
        b"POST /x HTTP/1.1\r\nHost: host\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
        b"POST /y HTTP/1.1\r\nHost: host\r\nContent-Length: 2\r\n\r\n{}"
        b"POST /z HTTP/1.1\r\nHost: host\r\nContent-Length: 0\r\n\r\n"
    )


class FakeDaemon:
    """Answers requests with what a function makes of (method, target), one connection each."""

    def __init__(self, path: str, answer: Callable[[str, str], tuple[int, bytes]]) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._answer = answer
        self.requests: list[tuple[str, str]] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock, sock.makefile("rb") as reader:
                while line := reader.readline():
                    method, target, _ = line.decode().split()
                    while reader.readline().strip():
                        pass
                    self.requests.append((method, target))
                    status, body = self._answer(method, target)
                    head = f"HTTP/1.1 {status} X\r\nApi-Version: 1.44\r\n"
                    shown = b"" if method == "HEAD" else body
                    sock.sendall(f"{head}Content-Length: {len(shown)}\r\n\r\n".encode() + shown)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@pytest.fixture
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeDaemon, ApiClient]]:
    path = str(tmp_path_factory.mktemp("d") / "s")
    errors = {
        "404": (404, b'{"message": "No such x"}'),
        "409": (409, b'{"message": "taken"}'),
        "304": (304, b""),
        "500": (500, b"not json"),
    }

    def answer(method: str, target: str) -> tuple[int, bytes]:
        return errors.get(target.rpartition("/")[2], (200, json.dumps([target]).encode()))

    fake = FakeDaemon(path, answer)
    client = ApiClient(Endpoint.parse(f"unix://{path}"), {})
    yield fake, client
    client.close()
    fake.close()


def test_negotiation_and_reuse(daemon: tuple[FakeDaemon, ApiClient]) -> None:
    fake, client = daemon
    assert client.get("/a", {"all": True}) == ["/v1.44/a?all=1"]
    assert client.get("/b") == ["/v1.44/b"]
    assert fake.requests == [("HEAD", "/_ping"), ("GET", "/v1.44/a?all=1"), ("GET", "/v1.44/b")]
    assert client.at_least("1.44")
    assert not client.at_least("1.100")
    assert client.sibling().version == "1.44"


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        ("404", DaemonNotFound, "No such x"),
        ("409", DaemonConflict, "taken"),
        ("304", DaemonNotModified, "request returned status 304"),
        ("500", DaemonError, "not json"),
    ],
)
def test_errors(
    daemon: tuple[FakeDaemon, ApiClient], status: str, kind: type[DaemonError], message: str
) -> None:
    with pytest.raises(kind) as caught:
        daemon[1].get(f"/{status}")
    assert caught.value.message == message
    assert (status == "404") == isinstance(caught.value, NotFound)


def test_a_start_is_tried_once() -> None:
    tries: list[int] = []

    def start() -> bool:
        tries.append(1)
        return True

    client = ApiClient(Endpoint.parse("unix:///nonexistent"), {}, on_unreachable=start)
    with pytest.raises(ConnectionFailed, match="Cannot connect to the Docker daemon at unix:///n"):
        client.get("/x")
    assert tries == [1]


def test_concatenated_json() -> None:
    pieces = (b'{"a": "\xc3', b'\xa9"}{"b"', b': 2}\r\n {"c":3}', b"\n[1]{")
    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    with answering(head + chunks + b"0\r\n\r\n") as connection:
        assert list(json_objects(get(connection))) == [{"a": "é"}, {"b": 2}, {"c": 3}]


def test_encoding() -> None:
    assert encode_path("/images/a.b:5/c d@é/json") == "/images/a.b:5/c%20d@%C3%A9/json"
    query = {
        "a": None,
        "b": False,
        "c": 0,
        "d": "",
        "e": True,
        "f": ["x", "y z"],
        "g": {"k": ["v"]},
    }
    assert encode_query(query) == "?e=1&f=x&f=y%20z&g=%7B%22k%22%3A%7B%22v%22%3Atrue%7D%7D"
    assert encode_query({"g": {}}) == ""


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("unix:///x.sock", ("unix", "/x.sock", 0, "", "")),
        ("tcp://h", ("tcp", "h", 2375, "", "")),
        ("tcp://h:1/p", ("tcp", "h", 1, "/p", "")),
        ("tcp://[::1]:2", ("tcp", "::1", 2, "", "")),
        ("ssh://u@h:22/s", ("ssh", "h", 22, "/s", "u")),
    ],
)
def test_endpoints(url: str, parts: tuple[object, ...]) -> None:
    endpoint = Endpoint.parse(url)
    assert (endpoint.scheme, endpoint.address, endpoint.port, endpoint.path, endpoint.user) == parts


@pytest.mark.parametrize(
    "url",
    [
        "x",
        "ftp://x",
        "tcp://h:x",
        "tcp://h:99999",
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://a:b@h",
    ],
)
def test_bad_endpoints(url: str) -> None:
    with pytest.raises(InvalidParameter):
        Endpoint.parse(url)
