"""Log drivers against real receivers: datagrams and streams over loopback and Unix sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import pytest

from sampan.engine import logconfig
from sampan.engine.logdrivers import LogDriver, LogInfo, LogMessage, Piece, registry
from sampan.engine.logdrivers.gelf import datagrams
from sampan.engine.logdrivers.journald import Journald
from sampan.errors import InvalidParameter, Unavailable

OUT = LogMessage(line="out", stream="stdout", time=1_700_000_000_123_456_789)
ERR = LogMessage(line="err", stream="stderr", time=1_700_000_001_000_000_000)
PIECE = LogMessage(
    line="x", stream="stdout", time=1_700_000_002_000_000_000,
    piece=Piece(of="p", ordinal=2, last=True),
)  # fmt: skip


def info(options: Mapping[str, str], tag: str = "tagged") -> LogInfo:
    return LogInfo(
        container_id="c" * 64, container_name="name", image_id="sha256:1", image_name="image",
        command="run it", created=1_600_000_000_000_000_000, hostname="host", tag=tag,
        extra={"com.x/a": "b"}, options=options,
    )  # fmt: skip


def driver(name: str) -> LogDriver:
    found = registry.find(name)
    assert found is not None
    return found


async def deliver(name: str, options: Mapping[str, str], *messages: LogMessage) -> None:
    found = driver(name)
    found.check(options)
    sink = await found.open(info(options))
    try:
        await sink.send(messages)
    finally:
        await sink.aclose()


@contextmanager
def datagram(path: Path | None = None) -> Iterator[socket.socket]:
    family = socket.AF_INET if path is None else socket.AF_UNIX
    with socket.socket(family, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(10)
        receiver.bind(("127.0.0.1", 0) if path is None else str(path))
        yield receiver


class Server:
    """A stream receiver: what came, connection by connection; batches are acknowledged."""

    def __init__(self) -> None:
        self.hang_up = False
        self.done: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b""
        while part := await reader.read(65536):
            data += part
            if b"chunk" in part:
                batch = msgspec.msgpack.decode(part)
                writer.write(msgspec.msgpack.encode({"ack": batch[2]["chunk"]}))
                if self.hang_up:
                    break
        self.done.put_nowait(data)
        writer.close()


@asynccontextmanager
async def stream(path: Path | None = None) -> AsyncIterator[tuple[Server, str]]:
    server = Server()
    if path is None:
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    else:
        listener = await asyncio.start_unix_server(server.serve, path)
        address = str(path)
    async with listener:
        yield server, address


async def test_syslog_over_udp() -> None:
    with datagram() as receiver:
        address = f"udp://127.0.0.1:{receiver.getsockname()[1]}"
        await deliver("syslog", {"syslog-address": address}, OUT, ERR)
        one, two = receiver.recv(9999).decode(), receiver.recv(9999).decode()
    pattern = r"<(\d+)>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d tagged\[(\d+)\]: (.*)\n"
    found = [re.fullmatch(pattern, text) for text in (one, two)]
    assert [match and match.groups() for match in found] == [
        ("30", str(os.getpid()), "out"),
        ("27", str(os.getpid()), "err"),
    ]


async def test_syslog_formats_over_tcp() -> None:
    patterns = {
        "rfc3164": r"<134>\w{3} [ \d]\d [\d:]{8} host tagged\[\d+\]: out\n",
        "rfc5424": r"<134>1 [-\d]{10}T[\d:]{8}(Z|[+-][\d:]{5}) host tagged \d+ tagged - out\n",
        "rfc5424micro": r"<134>1 [-\d]{10}T[\d:]{8}\.123456(Z|[+-][\d:]{5}) host .* - out\n",
    }
    async with stream() as (server, address):
        for form, pattern in patterns.items():
            options = {
                "syslog-address": f"tcp://{address}",
                "syslog-format": form,
                "syslog-facility": "local0",
            }
            await deliver("syslog", options, OUT)
            assert re.fullmatch(pattern, (await server.done.get()).decode()), form


async def test_syslog_over_unix_sockets_of_either_kind(tmp_path: Path) -> None:
    with datagram(tmp_path / "d") as receiver:
        await deliver("syslog", {"syslog-address": f"unix://{tmp_path}/d"}, OUT)
        assert receiver.recv(999).endswith(b": out\n")
    async with stream(tmp_path / "s") as (server, _):
        await deliver("syslog", {"syslog-address": f"unix://{tmp_path}/s"}, OUT, ERR)
        assert (await server.done.get()).count(b"\n") == 2


async def test_journald(tmp_path: Path) -> None:
    found = Journald(str(tmp_path / "j"))
    many = LogMessage(line="two\nlines", stream="stdout", time=1)
    with datagram(tmp_path / "j") as receiver:
        sink = await found.open(info({}))
        await sink.send([OUT, ERR, PIECE, many])
        await sink.aclose()
        entries = [receiver.recv(9999) for _ in range(4)]
    fields = dict(line.split(b"=", 1) for line in entries[0].splitlines())
    assert fields[b"MESSAGE"] == b"out"
    assert fields[b"PRIORITY"] == b"6"
    assert fields[b"SYSLOG_TIMESTAMP"] == b"2023-11-14T22:13:20.123456789Z"
    assert fields[b"CONTAINER_ID_FULL"] == b"c" * 64
    assert fields[b"CONTAINER_TAG"] == fields[b"SYSLOG_IDENTIFIER"] == b"tagged"
    assert fields[b"COM_X_A"] == b"b"
    assert b"PRIORITY=3\n" in entries[1]
    assert b"CONTAINER_PARTIAL_LAST=true\n" in entries[2]
    assert b"MESSAGE\n" + struct.pack("<Q", 9) + b"two\nlines\n" in entries[3]


@pytest.mark.parametrize(
    ("kind", "unpack"),
    [
        ("gzip", gzip.decompress),
        ("zlib", zlib.decompress),
        ("none", bytes),
        (None, gzip.decompress),
    ],
)
async def test_gelf_over_udp(kind: str | None, unpack: type[bytes]) -> None:
    with datagram() as receiver:
        options = {"gelf-address": f"udp://127.0.0.1:{receiver.getsockname()[1]}"}
        if kind:
            options["gelf-compression-type"] = kind
        await deliver("gelf", options, OUT, LogMessage(line="", stream="stdout", time=1), ERR)
        one, two = (json.loads(unpack(receiver.recv(9999))) for _ in range(2))
    assert one["short_message"] == "out"
    assert (one["version"], one["host"], one["level"], two["level"]) == ("1.1", "host", 6, 3)
    assert one["timestamp"] == 1_700_000_000.123
    assert (one["_container_name"], one["_tag"], one["_com.x/a"]) == ("name", "tagged", "b")


def test_gelf_chunks() -> None:
    data = os.urandom(5000)
    parts = datagrams(data, b"identity")
    assert {part[:10] for part in parts} == {b"\x1e\x0fidentity"}
    assert [tuple(part[10:12]) for part in parts] == [(n, 4) for n in range(4)]
    assert b"".join(part[12:] for part in parts) == data
    assert max(map(len, parts)) == 1420
    assert datagrams(bytes(200_000), b"identity") == []


async def test_gelf_over_tcp() -> None:
    async with stream() as (server, address):
        await deliver("gelf", {"gelf-address": f"tcp://{address}"}, OUT, PIECE)
        one, two, rest = (await server.done.get()).split(b"\0")
    assert rest == b""
    assert json.loads(one)["short_message"] == "out"
    assert json.loads(two)["_partial_last"] is True


async def test_fluentd() -> None:
    async with stream() as (server, address):
        await deliver("fluentd", {"fluentd-address": address}, OUT, ERR, PIECE)
        tag, entries, option = msgspec.msgpack.decode(await server.done.get())
    assert (tag, option) == ("tagged", {"size": 3})
    moment, record = entries[0]
    assert moment == 1_700_000_000
    assert record == {
        "container_id": "c" * 64, "container_name": "/name", "source": "stdout", "log": "out",
        "com.x/a": "b",
    }  # fmt: skip
    assert entries[1][1]["source"] == "stderr"
    assert entries[2][1]["partial_ordinal"] == "2"


async def test_fluentd_acknowledged_with_exact_times(tmp_path: Path) -> None:
    options = {
        "fluentd-address": f"unix://{tmp_path}/f",
        "fluentd-request-ack": "true",
        "fluentd-sub-second-precision": "true",
    }
    async with stream(tmp_path / "f") as (server, _):
        await deliver("fluentd", options, OUT)
        _, entries, option = msgspec.msgpack.decode(await server.done.get())
    assert set(option) == {"size", "chunk"}
    assert entries[0][0] == msgspec.msgpack.Ext(0, struct.pack(">II", 1_700_000_000, 123_456_789))


async def test_a_peer_that_has_gone_is_an_error() -> None:
    async with stream() as (server, address):
        server.hang_up = True
        options = {"fluentd-address": address, "fluentd-request-ack": "true"}
        sink = await driver("fluentd").open(info(options))
        await sink.send([OUT])
        await server.done.get()
        with pytest.raises(OSError, match="closed"):
            await sink.send([OUT])
        await sink.aclose()
    with pytest.raises(OSError, match=f"dial tcp://{address}"):
        await driver("fluentd").open(info(options))


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("syslog", {"syslog-address": "http://x"}, "unsupported scheme 'http'"),
        ("syslog", {"syslog-address": "x:514"}, "scheme is missing"),
        ("syslog", {"syslog-address": "tcp://x:y"}, "Port could not be cast"),
        ("syslog", {"syslog-address": "unix://rel"}, "no absolute path"),
        ("syslog", {"syslog-facility": "nope"}, "invalid syslog facility: nope"),
        ("syslog", {"syslog-format": "nope"}, "invalid format: nope"),
        ("gelf", {}, "gelf-address is a required parameter"),
        ("gelf", {"gelf-address": "udp://x"}, "names no port"),
        ("gelf", {"gelf-address": "tcp://x:1", "gelf-compression-type": "gzip"}, "only .* on UDP"),
        ("gelf", {"gelf-address": "udp://x:1", "gelf-compression-level": "11"}, "level '11'"),
        ("gelf", {"gelf-address": "udp://x:1", "gelf-tcp-max-reconnect": "1"}, "only valid for"),
        ("fluentd", {"fluentd-address": "ftp://x"}, "unsupported scheme"),
        ("fluentd", {"fluentd-async": "maybe"}, "invalid value for fluentd-async: maybe"),
        ("fluentd", {"fluentd-retry-wait": "soon"}, "fluentd-retry-wait"),
        ("fluentd", {"fluentd-max-retries": "-1"}, "fluentd-max-retries: -1"),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidParameter, match=text):
        driver(name).check(options)


PLUGIN = """
class Sink:
    async def send(self, messages): ...
    async def aclose(self): ...

class Driver:
    options = frozenset({"plug-color"})
    def check(self, options): ...
    def lazy(self, options): return True
    def retry(self, options): ...
    async def open(self, info): return Sink()
"""


def test_drivers_of_other_distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sampan_test_plug.py").write_text(PLUGIN)
    metadata = tmp_path / "sampan_test_plug-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: sampan-test-plug\nVersion: 1\n"
    )
    (metadata / "entry_points.txt").write_text(
        "[sampan.log_drivers]\nplug = sampan_test_plug:Driver\nbroken = sampan_test_plug:Nothing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert {"plug", "broken", "syslog"} <= registry.names()
    assert driver("plug").options == {"plug-color"}
    assert "plug-color" in logconfig.known_options("plug")
    with pytest.raises(Unavailable, match="log driver broken cannot be loaded"):
        registry.find("broken")
    with pytest.raises(InvalidParameter, match="no log driver named 'missing' is registered"):
        logconfig.known_options("missing")
