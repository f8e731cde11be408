"""Containers whose logs go elsewhere: real receivers inside the daemon's network namespace."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.compat.conftest import DockerCli, Eventually, Sampand

_CLONE_NEWNET = 0x40000000


class Receiver:
    """A TCP or UDP listener in another network namespace; ``data`` is all that came."""

    def __init__(self, namespace: str, kind: socket.SocketKind, port: int = 0) -> None:
        self._made = threading.Event()
        self._socket = self._peer = socket.socket()
        self._arguments = (namespace, kind, port)
        self.parts: list[bytes] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._made.wait(10)
        self.port: int = self._socket.getsockname()[1]

    def _run(self) -> None:
        namespace, kind, port = self._arguments
        descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        ctypes.CDLL(None).setns(descriptor, _CLONE_NEWNET)  # of this thread alone
        os.close(descriptor)
        self._socket.close()
        self._socket = socket.socket(socket.AF_INET, kind)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        if kind == socket.SOCK_STREAM:
            self._socket.listen()
        self._made.set()
        try:
            while True:
                if kind == socket.SOCK_DGRAM:
                    self.parts.append(self._socket.recv(65536))
                    continue
                self._peer, _ = self._socket.accept()
                with self._peer:
                    while part := self._peer.recv(65536):
                        self.parts.append(part)
        except OSError:
            pass  # closed: the test is over

    @property
    def data(self) -> bytes:
        return b"".join(self.parts)

    def close(self) -> None:
        for found in (self._socket, self._peer):
            with contextlib.suppress(OSError):
                found.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)


@pytest.fixture
def tcp(sampand: Sampand) -> Iterator[Receiver]:
    if sampand.foreign:
        pytest.skip("needs a daemon of its own")
    found = Receiver(sampand.namespace, socket.SOCK_STREAM)
    yield found
    found.close()


def flags(driver: str, **options: object) -> list[str]:
    found = [f"--log-driver={driver}"]
    for key, value in options.items():
        found.append(f"--log-opt={key.replace('_', '-')}={value}")
    return found


def test_every_line_arrives_before_the_container_is_gone(docker: DockerCli, tcp: Receiver) -> None:
    chosen = flags(
        "syslog", syslog_address=f"tcp://127.0.0.1:{tcp.port}", syslog_format="rfc5424",
        tag="{{.ImageName}}/{{.Name}}",
    )  # fmt: skip
    result = docker("run", "--rm", "--name", "logging", *chosen, "busybox", "seq", "20000")
    assert result.stdout.count("\n") == 20_000
    lines = tcp.data.decode().splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == [str(n) for n in range(1, 20_001)]
    assert " busybox/logging " in lines[0]


def test_logs_are_read_back_from_the_cache(
    docker: DockerCli, tcp: Receiver, name: str, eventually: Eventually
) -> None:
    chosen = flags("gelf", gelf_address=f"tcp://127.0.0.1:{tcp.port}", labels="team", env="A")
    script = "echo out; echo err >&2; head -c 20000 /dev/zero | tr '\\0' x; echo"
    docker(
        "run", "--name", name, "-l", "team=x", "-e", "A=b", *chosen, "busybox", "sh", "-c", script
    )
    shown = docker("logs", name)
    assert (shown.stdout[:6], len(shown.stdout), shown.stderr) == ("out\nxx", 20_005, "err\n")
    eventually(lambda: tcp.data.count(b"\0") == 4)
    found = [json.loads(text) for text in tcp.data.split(b"\0")[:-1]]
    assert {entry["short_message"][:3]: entry["level"] for entry in found} == {
        "out": 6, "err": 3, "xxx": 6,
    }  # fmt: skip
    assert (found[0]["_team"], found[0]["_A"]) == ("x", "b")
    assert [e["_partial_last"] for e in found if "_partial_id" in e] == [False, True]
    assert docker.out("inspect", "-f", "{{.HostConfig.LogConfig.Type}}{{.LogPath}}", name) == "gelf"
    docker("rm", name)
    docker("run", "--name", name, *chosen, "--log-opt=cache-disabled=true", "busybox", "true")
    refused = docker("logs", name, status=1)
    assert "configured logging driver does not support reading" in refused.stderr


def test_forwarding_survives_sampand_and_its_destination(
    docker: DockerCli, sampand: Sampand, name: str, eventually: Eventually
) -> None:
    first = Receiver(sampand.namespace, socket.SOCK_STREAM)
    chosen = flags("fluentd", fluentd_address=f"127.0.0.1:{first.port}", fluentd_retry_wait="50ms")
    script = "while read x; do echo $x; done"
    docker("run", "-di", "--name", name, *chosen, "busybox", "sh", "-c", script)

    def say(text: str) -> None:
        docker("exec", "-i", name, "sh", "-c", f"echo {text} >/proc/1/fd/1")

    say("one")
    eventually(lambda: b"one" in first.data)
    sampand.stop(signal.SIGKILL)
    sampand.start()
    say("two")
    eventually(lambda: b"two" in first.data)
    port = first.port
    first.close()
    # The connection's end is seen when the next batch is sent; what was sent is not lost.
    say("three")
    second = Receiver(sampand.namespace, socket.SOCK_STREAM, port)
    say("four")
    eventually(lambda: b"four" in second.data)
    assert f"/{name}".encode() in second.data
    second.close()


def test_a_start_fails_when_nobody_listens(docker: DockerCli, name: str) -> None:
    chosen = flags("fluentd", fluentd_address="127.0.0.1:1")
    result = docker("run", "--name", name, *chosen, "busybox", "true", status=125)
    assert (
        "failed to initialize logging driver: dial tcp://127.0.0.1:1: Connection refused"
        in result.stderr
    )
    docker("rm", name)
    docker("run", "--name", name, *chosen, "--log-opt=fluentd-async=true", "busybox", "true")


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        (flags("nope"), "logger: no log driver named 'nope' is registered"),
        (flags("gelf"), "gelf-address is a required parameter"),
        (flags("syslog", gelf_address="x"), "unknown log opt 'gelf-address' for syslog log driver"),
        (flags("syslog", tag="{{.Nope}}"), "invalid log tag template"),
        (flags("syslog", tag="{{.Name"), "invalid log tag template"),
        (flags("syslog", tag="{{if .Name}}x{{end}}"), "invalid log tag template"),
        (flags("syslog", env_regex="("), "invalid value for option env-regex"),
        (flags("journald"), "failed to initialize logging driver: dial unixgram:///run/systemd"),
    ],
)
def test_what_is_wrong_is_named(docker: DockerCli, name: str, chosen: list[str], text: str) -> None:
    if "journald" in chosen[0] and os.path.exists("/run/systemd/journal/socket"):
        pytest.skip("a journal runs here")
    assert text in docker("run", "--name", name, *chosen, "busybox", "true", status=125).stderr


def test_details_are_told_apart(docker: DockerCli, name: str) -> None:
    """What is in them cannot be taken for what is between them."""
    chosen = flags("json-file", labels="a,b", tag="{{.Name}}/{{.ImageID}}")
    docker("run", "--name", name, *chosen, "-l", "a=1,b=2", "-l", "b=x y", "busybox", "echo", "hi")
    image = docker.out("image", "inspect", "-f", "{{.Id}}", "busybox")[:12].replace(":", "%3A")
    shown = docker("logs", "--details", name).stdout
    assert shown == f"a=1%2Cb%3D2,b=x+y,tag={name}%2F{image} hi\n"


def test_drivers_are_listed(docker: DockerCli) -> None:
    listed = docker.out("info", "-f", "{{json .Plugins.Log}}")
    wanted = {"fluentd", "gelf", "journald", "json-file", "local", "none", "syslog"}
    assert wanted <= set(json.loads(listed))
