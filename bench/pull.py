"""Pull and push of a large image from and to Debian's docker-registry on localhost.

Every engine pulls the same image (:mod:`bench.debian`) from a registry in its own namespace, all
of which read one store, so that the page cache is equally warm; pushes go to a registry that is
empty each time. Engines take turns, and what is pulled is removed before the clock starts again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import debian
from bench.cost import _children
from bench.peers import Engine, dockerd, network_namespace, program, sampand
from bench.timing import Row, medians

SOURCE, TARGET = 5000, 5001
IMAGE = f"127.0.0.1:{SOURCE}/bench/debian:bench"
COPY = f"127.0.0.1:{TARGET}/bench/copy:bench"


@dataclass(frozen=True)
class Candidate:
    """An engine and how it is told to pull, push and forget; ``target`` is its empty registry."""

    name: str
    command: Callable[..., list[str]]
    target: Path

    def run(self, *words: str) -> float:
        """Seconds a command takes."""
        start = time.perf_counter()
        subprocess.run(self.command(*words), check=True, capture_output=True)
        return time.perf_counter() - start


@contextlib.contextmanager
def registry(namespace: str, root: Path, port: int) -> Iterator[None]:
    """Debian's docker-registry over ``root``, in a network namespace."""
    path = program("docker-registry")
    if path is None:
        raise FileNotFoundError("docker-registry")
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as config:
        config.write(
            "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {root}}}}}\n"
            f"http: {{addr: 127.0.0.1:{port}}}\n"
        )
        config.flush()
        inside = ["nsenter", f"--net={namespace}"]
        process = subprocess.Popen(
            [*inside, path, "serve", config.name],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            probe = [*inside, "curl", "-sf", f"http://127.0.0.1:{port}/v2/"]
            while subprocess.run(probe, capture_output=True, check=False).returncode:
                if process.poll() is not None:
                    raise RuntimeError("docker-registry ended")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(30)


class Peak:
    """The most memory (bytes, PSS) a process and its descendants have together meanwhile."""

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            self.bytes = max(self.bytes, sum(_resident(pid) for pid in _children(self._pid)))

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def _resident(pid: int) -> int:
    """Bytes of a process, what it shares divided among the sharers; 0 when it has ended."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


@contextlib.contextmanager
def _candidates() -> Iterator[tuple[list[Candidate], Engine]]:
    """The engines, each with a full registry and an empty one in its namespace."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-pull-")))
        source = scratch / "source"
        found: list[Candidate] = []
        engines = [stack.enter_context(start()) for start in (sampand, dockerd)]
        places = [(each.name, f"/proc/{each.process.pid}/ns/net", each.docker) for each in engines]
        if podman := program("podman"):
            lonely = stack.enter_context(network_namespace(f"bench-podman-{os.getpid()}"))
            places.append(("podman", str(lonely), _podman(podman, lonely, scratch)))
        for name, namespace, command in places:
            target = scratch / f"target-{name}"
            target.mkdir()
            stack.enter_context(registry(namespace, source, SOURCE))
            stack.enter_context(registry(namespace, target, TARGET))
            found.append(Candidate(name, command, target))
        _seed(places[0][1])
        yield found, engines[0]


def _podman(path: str, namespace: Path, scratch: Path) -> Callable[..., list[str]]:
    roots = ["--root", str(scratch / "podman"), "--runroot", str(scratch / "podman-run")]

    def command(*words: str) -> list[str]:
        inside = ["nsenter", f"--net={namespace}", path, *roots, words[0]]
        insecure = ["--tls-verify=false"] if words[0] in ("pull", "push") else []
        return [*inside, *insecure, *words[1:]]

    return command


def _seed(namespace: str) -> None:
    """Fill the full registry."""
    subprocess.run(
        [
            *("nsenter", f"--net={namespace}", "skopeo", "copy", "--dest-tls-verify=false"),
            *(f"oci:{debian.layout()}:bench", f"docker://{IMAGE}"),
        ],
        check=True,
        capture_output=True,
    )


def _turns(
    candidates: Sequence[Candidate], rounds: int, measure: Callable[[Candidate], float]
) -> dict[str, float]:
    times: dict[str, list[float]] = {each.name: [] for each in candidates}
    for _ in range(rounds):
        for each in candidates:
            times[each.name].append(measure(each))
    return medians(times)


def transfer(rounds: int = 3) -> Iterator[Row]:
    """Pull and unpack, pull again with nothing changed, push; peak memory of ours."""
    with _candidates() as (candidates, ours):
        most: list[int] = []

        def pull(each: Candidate) -> float:
            subprocess.run(each.command("rmi", IMAGE), capture_output=True, check=False)
            os.sync()  # nobody pays for what another one wrote
            if each.name != "sampand":
                return each.run("pull", IMAGE)
            with Peak(ours.process.pid) as peak:
                took = each.run("pull", IMAGE)
            most.append(peak.bytes)
            return took

        def again(each: Candidate) -> float:
            return each.run("pull", IMAGE)

        def push(each: Candidate) -> float:
            for path in each.target.iterdir():
                shutil.rmtree(path)
            os.sync()
            return each.run("push", COPY)

        yield from _rows("pull", _turns(candidates, rounds, pull), 0.6)
        megabytes = max(most) / 1e6
        yield Row("pull: peak memory", megabytes, None, "", "MB", 150, ratio_target=False)
        found = _turns(candidates, 2 * rounds, again)
        yield Row("pull, nothing changed", found["sampand"], found["dockerd"], "dockerd")
        yield Row("pull, nothing changed", found["sampand"], None, "", "ms", 100, False)
        for each in candidates:
            each.run("tag", IMAGE, COPY)
        yield from _rows("push", _turns(candidates, rounds, push), 0.7)


def _rows(what: str, found: dict[str, float], target: float) -> Iterator[Row]:
    ours = found.pop("sampand")
    for name, peer in found.items():
        yield Row(f"{what}, 540 MB of gzip", ours, peer, name, target=target)
