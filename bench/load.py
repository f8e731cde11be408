"""Many containers and many clients at once: listings, statistics, log followers, bursts, rest."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from bench.cost import left_over
from bench.peers import Engine, dockerd, sampand
from bench.start import Api, created
from bench.timing import Row, alternate, command, medians

BURST = 200
CLIENTS = 8
FOLLOWERS = 20
#: 100 lots of 2000 lines of 100 bytes, ten lots a second: 2 MB/s for ten seconds
LOTS, LINES = 100, 2000
PRINTER = (
    f"i=0; while [ $i -lt {LOTS} ]; do busybox awk -v s=$((i*{LINES})) -v m={LINES} "
    "'BEGIN{for(n=0;n<m;n++) printf \"%08d %090d\\n\", s+n, 0}'; i=$((i+1)); "
    "busybox usleep 100000; done"
)


def _together(clients: int, work: Sequence[Callable[[], object]]) -> None:
    """Do all of ``work``, ``clients`` of them at a time; the first failure is raised."""
    with ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(call) for call in work]:
            done.result()


def _populate(engine: Engine, running: int, stopped: int) -> None:
    """Containers that sleep, and such as were only created."""
    engine.load_busybox()
    api = Api(engine)
    for number in range(running + stopped):
        body: dict[str, object] = {"Cmd": ["sleep", "100000"], "Labels": {"n": str(number)}}
        identifier = created(api, body)
        if number < running:
            api.call("POST", f"/containers/{identifier}/start")


def _remove_all(engine: Engine) -> None:
    names = engine.run("ps", "-aq").split()
    if names:
        engine.run("rm", "-f", *names)


def listing(rounds: int = 10) -> Iterator[Row]:
    """``docker ps`` of 500 containers and ``docker stats`` of the 100 that run, side by side."""
    with sampand() as ours, dockerd() as theirs:
        for engine in (ours, theirs):
            _populate(engine, running=100, stopped=400)
        for title, words, times, target in (
            ("docker ps -a, 500 containers", ("ps", "-a"), rounds, 1.0),
            ("docker ps, 100 running of 500", ("ps",), rounds, 1.0),
            ("docker stats --no-stream of 100", ("stats", "--no-stream"), 3, 0.5),
        ):
            found = medians(
                alternate(
                    {engine.name: command(engine.docker(*words)) for engine in (ours, theirs)},
                    times,
                    warm=1,
                )
            )
            yield Row(title, found["sampand"], found["dockerd"], "dockerd", target=target)


class _Followers:
    """Clients that follow one container's log, each into a file."""

    def __init__(self, engine: Engine, name: str, directory: Path) -> None:
        self._files = [directory / str(number) for number in range(FOLLOWERS)]
        self._processes = []
        for path in self._files:
            with path.open("wb") as output:
                self._processes.append(
                    subprocess.Popen(engine.docker("logs", "-f", name), stdout=output)
                )

    def lost(self) -> int:
        """How many lines any follower missed or got torn, once all have ended."""
        for process in self._processes:
            process.wait(120)
        whole = [b"%08d %090d" % (number, 0) for number in range(LOTS * LINES)]
        lost = 0
        for path in self._files:
            got = path.read_bytes().split(b"\n")
            if got.pop() or got != whole:
                lost += len(set(whole) - set(got)) or 1
        return lost


def _ran_for(engine: Engine, name: str) -> float:
    """Seconds the container's program took."""
    text = engine.run("inspect", "-f", "{{.State.StartedAt}} {{.State.FinishedAt}}", name)
    started, finished = (
        datetime.fromisoformat(f"{at.rstrip('Z')[:26]}+00:00") for at in text.split()
    )
    return (finished - started).total_seconds()


def _print(engine: Engine, name: str, listen: Callable[[], object]) -> float:
    """Seconds the printer takes while ``listen``'s clients are there."""
    engine.run("create", "--name", name, "bench", "sh", "-c", PRINTER)
    engine.run("start", name)
    listen()
    engine.run("wait", name)
    return _ran_for(engine, name)


def _silent(engine: Engine, request: str) -> socket.socket:
    """A client that asks for a stream and never reads it."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(engine.socket))
    client.sendall(f"{request} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client


def followers() -> Iterator[Row]:
    """A container that prints 2 MB/s: 20 followers get every line; none that sleeps slows it."""
    with (
        sampand() as engine,
        tempfile.TemporaryDirectory() as directory,
        contextlib.ExitStack() as stack,
    ):
        engine.load_busybox()
        alone = _print(engine, "alone", lambda: None)

        def sleepers() -> None:
            for request in (
                "POST /containers/slept/attach?",
                "GET /containers/slept/logs?follow=1&",
            ):
                client = _silent(engine, f"{request}stream=1&stdout=1&stderr=1")
                stack.enter_context(client)

        slept = _print(engine, "slept", sleepers)
        yield Row(
            "printing 20 MB to two clients that do not read", slept, alone, "nobody there",
            unit="s", target=1.1,
        )  # fmt: skip
        found: list[_Followers] = []
        followed = _print(
            engine,
            "followed",
            lambda: found.append(_Followers(engine, "followed", Path(directory))),
        )
        start = time.perf_counter()
        lost = found[0].lost()
        behind = time.perf_counter() - start
        yield Row(
            f"lines lost or torn, {FOLLOWERS} followers of 2 MB/s", lost, None, "",
            unit="", target=0, ratio_target=False,
        )  # fmt: skip
        yield Row(f"printing 20 MB to {FOLLOWERS}", followed, alone, "nobody there", unit="s")
        yield Row("followers' lag at its end", behind, None, "", unit="s")


def _rate(engine: Engine, title: str, work: Callable[[int], object], target: float | None) -> Row:
    start = time.perf_counter()
    _together(CLIENTS, [lambda number=number: work(number) for number in range(BURST)])
    taken = time.perf_counter() - start
    running = len(engine.run("ps", "-q").split())
    if running != BURST:
        raise RuntimeError(f"{running} of {BURST} containers run")
    return Row(
        f"{title} ({BURST / taken:.0f}/s)", taken, None, "", unit="s",
        target=target, ratio_target=False,
    )  # fmt: skip


def burst() -> Iterator[Row]:
    """200 ``run -d`` by 8 clients at once, then ``rm -f`` of all; nothing stays behind."""
    with sampand() as engine:
        engine.load_busybox()
        engine.run("run", "--rm", "bench", "true")
        local = threading.local()

        def by_api(number: int) -> None:
            api = getattr(local, "api", None) or Api(engine)
            local.api = api
            identifier = created(api, {"Cmd": ["sleep", "100000"]})
            api.call("POST", f"/containers/{identifier}/start")

        def by_cli(number: int) -> None:
            command(engine.docker("run", "-d", "bench", "sleep", "100000"))()

        before = left_over(engine)
        # The command line takes as much of the processors as the engine: no target with it.
        for title, work, target in (
            ("by the API", by_api, BURST / 40),
            ("by the docker CLI", by_cli, None),
        ):
            yield _rate(engine, f"{BURST} run -d by {CLIENTS} clients {title}", work, target)
            start = time.perf_counter()
            _remove_all(engine)
            yield Row(f"rm -f of {BURST}", time.perf_counter() - start, None, "", unit="s")
        after = left_over(engine)
        for what, number in after.items():
            left = max(0, number - before[what])
            yield Row(
                f"left by {2 * BURST} containers: {what}", left, None, "",
                unit="", target=0, ratio_target=False,
            )  # fmt: skip


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle(seconds: float = 30) -> Iterator[Row]:
    """sampand at rest with 100 running containers: its memory and what it takes of a core."""
    with sampand() as engine:
        _populate(engine, running=100, stopped=0)
        pid = engine.process.pid
        before = _processor_seconds(pid)
        time.sleep(seconds)
        used = _processor_seconds(pid) - before
        status = Path(f"/proc/{pid}/status").read_text()
        resident = int(status.partition("VmRSS:")[2].split()[0]) / 1024
        yield Row(
            "sampand idle with 100 running: RSS", resident, None, "", unit="MiB", target=120,
            ratio_target=False,
        )  # fmt: skip
        yield Row(
            "sampand idle with 100 running: of a core", used / seconds * 100, None, "", unit="%",
            target=1.0, ratio_target=False,
        )  # fmt: skip
        _remove_all(engine)
