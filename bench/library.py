"""Starting a bundle by the library: no image, no engine, no client; beside ``runc run``."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.peers import program
from bench.start import bundle
from bench.timing import Row, beside_interpreter, command
from sampan.model import oci
from sampan.model.mount import Mount
from sampan.runtime.client import CreateRequest, Launcher, events


def _started(launcher: Launcher, request: CreateRequest) -> float:
    """Seconds from the request until the program was executed; waits for its end after that."""
    begin = time.perf_counter()
    monitor = launcher.create(request)
    monitor.start()
    taken = time.perf_counter() - begin
    with monitor.watch() as stream:
        for _ in events(stream):
            pass
    monitor.close()
    shutil.rmtree(request.directory)
    return taken


def library(rounds: int = 30) -> Iterator[Row]:
    """Create and start with all namespaces and cgroups, against ``runc run``."""
    runc = program("runc")
    if runc is None:
        return
    with bundle() as path, tempfile.TemporaryDirectory(prefix="bench-library-") as root:
        spec: oci.Spec = json.loads((path / "config.json").read_text())
        spec["process"]["args"] = ["/bin/sleep", "0.05"]
        rootfs = (Mount(type="bind", source=str(path / "rootfs"), options=("rbind",)),)
        launcher = Launcher.spawn(Path(root) / "exec")
        peer = command([runc, "--root", f"{root}/runc", "run", "--bundle", str(path), "bench"])
        ours, theirs = list[float](), list[float]()
        try:
            for number in range(rounds + 2):
                name = f"bench-library-{number}"
                directory = Path(root) / "exec" / "containers" / name
                directory.parent.mkdir(exist_ok=True)
                request = CreateRequest(
                    container_id=name, spec=spec, rootfs=rootfs, directory=directory
                )
                ours.append(_started(launcher, request))
                begin = time.perf_counter()
                peer()
                theirs.append(time.perf_counter() - begin)
        finally:
            launcher.close(stop=True)
        our, their = (statistics.median(times[2:]) * 1000 for times in (ours, theirs))
        yield Row("library start of a bundle", our, their, "runc run", target=0.35)
        yield Row(
            "library start of a bundle, absolute", our, None, "", target=6.0, ratio_target=False
        )
        yield beside_interpreter("library start of a bundle", our, 6.0)
