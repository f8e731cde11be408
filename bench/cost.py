"""What a container costs while it runs and what is left when it is gone; cold starts of the CLI."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench.peers import BIN, Engine, dockerd, sampand
from bench.timing import Row, alternate, command, interpreter, medians

CONTAINERS = 50
_SETTLE_SECONDS = 5.0  # a worker gives way to its sleeping monitor after a quiet second


def _children(root: int) -> Iterator[int]:
    """All descendants of a process, itself first."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended while we looked
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    todo = [root]
    while todo:
        pid = todo.pop()
        yield pid
        todo += parents.get(pid, [])


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def _engine_memory(engine: Engine) -> int:
    """KiB of all processes that belong to the engine, the containers' own left out."""
    total = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            comm = (entry / "comm").read_text().strip()
            environment = (entry / "cmdline").read_bytes()
            if comm == "sleep":
                continue
            mine = (
                int(entry.name) in _family(engine)
                or str(engine.root).encode() in environment
                or (comm in ("sampan-monitor", "sampan-launcher") and engine.name == "sampand")
            )
            total += _pss(int(entry.name)) if mine else 0
        except OSError:
            continue
    return total


def _family(engine: Engine) -> set[int]:
    return set(_children(engine.process.pid))


def idle_memory() -> Iterator[Row]:
    """Engine-side memory of each idle container: everything that grows, as PSS."""
    each: dict[str, float] = {}
    for start in (sampand, dockerd):
        with start() as engine:
            engine.load_busybox()
            engine.run("run", "--rm", "bench", "true")
            time.sleep(_SETTLE_SECONDS)
            before = _engine_memory(engine)
            for _ in range(CONTAINERS):
                engine.run("run", "-d", "--network", "none", "bench", "sleep", "1000")
            time.sleep(_SETTLE_SECONDS)
            each[engine.name] = (_engine_memory(engine) - before) / CONTAINERS / 1024
    yield Row(
        f"idle container at {CONTAINERS}",
        each["sampand"],
        each["dockerd"],
        "dockerd",
        unit="MiB",
        target=1.0,
        ratio_target=False,
    )


def left_over(engine: Engine) -> dict[str, int]:
    """Numbers of whatever a container could leave behind."""
    namespace = f"--net=/proc/{engine.process.pid}/ns/net"

    def lines(*words: str) -> int:
        result = subprocess.run(
            ["nsenter", namespace, *words], capture_output=True, text=True, check=True
        )
        return len(result.stdout.splitlines())

    pids = [pid for pid in _children(1) if _comm(pid).startswith("sampan")]
    return {
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "cgroups": sum(1 for _ in Path("/sys/fs/cgroup").glob("**/sampan/**/")),
        "interfaces": lines("ip", "-o", "link"),
        "nftables lines": lines("nft", "list", "ruleset"),
        "processes": len(pids),
        "descriptors": len(os.listdir(f"/proc/{engine.process.pid}/fd")),
        "files": sum(len(files) for _, _, files in os.walk(engine.root)),
    }


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def leftovers(runs: int = 200) -> Iterator[Row]:
    """What ``runs`` sequential ``run --rm`` leave behind."""
    with sampand() as engine:
        engine.load_busybox()
        for _ in range(3):
            engine.run("run", "--rm", "bench", "true")
        before = left_over(engine)
        for _ in range(runs):
            engine.run("run", "--rm", "bench", "true")
        after = left_over(engine)
        for what, number in after.items():
            left = max(0, number - before[what])
            yield Row(
                f"left by {runs} run --rm: {what}",
                left,
                None,
                "",
                unit="",
                target=0,
                ratio_target=False,
            )


def cold_start(rounds: int = 20) -> Iterator[Row]:
    """The command line from a cold start, against the bare interpreter."""
    with sampand() as engine:
        host = ["-H", f"unix://{engine.socket}"]
        times = alternate(
            {
                "python": interpreter(),
                "version": command([str(BIN / "sampan"), *host, "version"]),
                "ps": command([str(BIN / "sampan"), *host, "ps"]),
            },
            rounds,
        )
        found = medians(times)
        for name, target in (("version", 6.0), ("ps", 8.0)):
            yield Row(
                f"sampan {name}", found[name], found["python"], "python -I -c pass", target=target
            )
        assert statistics.median(times["python"]) > 0
