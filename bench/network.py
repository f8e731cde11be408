"""Networks: throughput, what they cost a start, published ports, names answered."""

from __future__ import annotations

import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.peers import Engine, dockerd, program, sampand
from bench.start import Api, created
from bench.timing import Row

#: an address of the "host" (a network namespace) that published ports are reached at
ADDRESS = "192.0.2.1"
SECONDS = 1
ROUNDS = 10
QUERIES = 20_000

_ASK = """
import socket, struct, sys, time
name, count, window = sys.argv[1], int(sys.argv[2]), 64
parts = [bytes([len(p)]) + p.encode() for p in name.split(".")]
question = b"".join(parts) + b"\\0" + b"\\0\\1\\0\\1"
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect(("127.0.0.11", 53))
sock.settimeout(5)
def query(n):
    return struct.pack(">HHHHHH", n & 0xFFFF, 0x0100, 1, 0, 0, 0) + question
for n in range(window):
    sock.send(query(n))
start, answered = time.perf_counter(), 0
while answered < count:
    answer = sock.recv(2048)
    assert answer[3] & 15 == 0 and answer[7] == 1, answer
    answered += 1
    sock.send(query(answered + window))
print(time.perf_counter() - start)
"""


def _with_libraries(path: str) -> bytes:
    """A root file system with a program of this host, what it is linked with, and busybox."""
    listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
    files = [word for word in listed.split() if word.startswith("/")]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("tmp", "etc", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        for file in (path, "/bin/busybox", *dict.fromkeys(files)):
            tar.add(os.path.realpath(file), file.lstrip("/"))
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class Pair:
    """An engine with an iperf3 server, published, and a client beside it."""

    engine: Engine

    @property
    def namespace(self) -> str:
        return f"/run/netns/bench-{self.engine.name}-{os.getpid()}"

    def prepare(self, root: bytes) -> None:
        inside = ["nsenter", f"--net={self.namespace}"]
        subprocess.run([*inside, "ip", "addr", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
        self.engine.run("import", "-", "iperf", data=root)
        self.engine.run("network", "create", "bench")
        for name, command in (
            ("server", ("iperf3", "-s")),
            ("client", ("busybox", "sleep", "100000")),
        ):
            published = ("-p", "5201:5201") if name == "server" else ()
            words = ("run", "-d", "--name", name, "--network", "bench", *published, "iperf")
            self.engine.run(*words, *command)

    def between(self) -> float:
        return _rate(self.engine.docker("exec", "client", "iperf3", "-c", "server"))

    def published(self) -> float:
        return _rate(["nsenter", f"--net={self.namespace}", "iperf3", "-c", ADDRESS])

    def names(self) -> float:
        """Milliseconds for a thousand answers."""
        queries = str(QUERIES)
        pid = self.engine.run("inspect", "-f", "{{.State.Pid}}", "client")
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", _ASK, "server", queries],
            capture_output=True,
            text=True,
            check=True,
        )
        return float(done.stdout) * 1000 / QUERIES * 1000


def _rate(command: list[str]) -> float:
    """Milliseconds a gigabyte takes."""
    words = [*command, "-t", str(SECONDS), "-J"]
    for _ in range(20):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        answer = json.loads(done.stdout or "{}")
        if "end" in answer and "sum_received" in answer["end"]:
            return 8e12 / float(answer["end"]["sum_received"]["bits_per_second"])
        time.sleep(0.1)  # the server is not up yet, or busy with who asked before
    raise RuntimeError(f"{' '.join(words)}: {done.stdout} {done.stderr}")


def throughput() -> Iterator[Row]:
    """iperf3 between two containers and to a published port, names by the embedded resolver."""
    iperf = program("iperf3")
    if iperf is None:
        raise FileNotFoundError("iperf3")
    root = _with_libraries(iperf)
    with sampand() as ours, dockerd() as theirs:
        pairs = [Pair(ours), Pair(theirs)]
        for pair in pairs:
            pair.prepare(root)
        what: tuple[tuple[str, str, float, Callable[[Pair], float]], ...] = (
            ("iperf3 between two containers", "ms/GB", 1 / 0.95, Pair.between),
            ("iperf3 from the host to a published port", "ms/GB", 1 / 0.95, Pair.published),
            ("1,000 DNS answers", "ms", 1.0, Pair.names),
        )
        for title, unit, target, measure in what:
            found: dict[str, list[float]] = {pair.engine.name: [] for pair in pairs}
            for turn in range(ROUNDS):
                for pair in pairs if turn % 2 else reversed(pairs):
                    found[pair.engine.name].append(measure(pair))
            our, their = (statistics.median(found[name]) for name in ("sampand", "dockerd"))
            yield Row(title, our, their, "dockerd", unit, target=target)


class Starts:
    """Starts of one engine, from the request to the program's first output."""

    def __init__(self, engine: Engine, directory: str) -> None:
        self._api = Api(engine)
        self._directory = directory
        fifo = Path(directory) / "fifo"
        os.mkfifo(fifo)
        self._reader = os.open(fifo, os.O_RDWR)

    def once(self, network: str, ports: range | None = None) -> float:
        """Milliseconds of one start; the container is removed."""
        identifier = self.make(network, ports)
        began = time.perf_counter()
        self._api.connection.request("POST", f"/v1.41/containers/{identifier}/start")
        os.read(self._reader, 2)
        took = time.perf_counter() - began
        self._api.connection.getresponse().read()
        self._api.call("DELETE", f"/containers/{identifier}?force=1")
        return took * 1000

    def make(self, network: str, ports: range | None = None, *, stay: bool = False) -> str:
        """Create a container (``stay``: and start it)."""
        bindings = {f"{p}/tcp": [{"HostPort": str(p)}] for p in ports or ()}
        identifier = created(
            self._api,
            {
                "Cmd": ["/bin/busybox", "sh", "-c", "echo x >/bench/fifo; sleep 1000"],
                "HostConfig": {
                    "Binds": [f"{self._directory}:/bench"],
                    "NetworkMode": network,
                    "PortBindings": bindings,
                },
            },
        )
        if stay:
            self._api.call("POST", f"/containers/{identifier}/start")
            os.read(self._reader, 2)
        return identifier


def starts(rounds: int = 25) -> Iterator[Row]:
    """What a network and published ports add to a start; differences of medians."""
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(sampand())
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-ports-"))
        ours.load_busybox()
        measured = Starts(ours, directory)
        many, one = range(20_000, 21_000), range(19_000, 19_001)

        def medians(*variants: tuple[str, range | None], turns: int = rounds) -> list[float]:
            times: list[list[float]] = [[] for _ in variants]
            for turn in range(turns + 2):
                for number, (network, ports) in enumerate(variants):
                    took = measured.once(network, ports)
                    if turn >= 2:
                        times[number].append(took)
            return [statistics.median(found) for found in times]

        none, bridge = medians(("none", None), ("bridge", None), turns=2 * rounds)
        yield _difference("network share of a start, bridge", bridge - none, 3.0)
        # Apart: giving a thousand ports back takes its time beside the next start.
        bridge, thousand = medians(("bridge", None), ("bridge", many))
        yield _difference("publishing 1,000 ports", thousand - bridge, 100.0)
        for first in range(22_000, 32_000, 1000):
            measured.make("bridge", range(first, first + 1000), stay=True)
        without, beside = medians(("bridge", None), ("bridge", one))
        yield _difference("publishing a port beside 10,000", beside - without, 5.0)


def _difference(title: str, milliseconds: float, target: float) -> Row:
    return Row(title, milliseconds, None, "", target=target, ratio_target=False)
