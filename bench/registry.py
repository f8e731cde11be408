"""Our registry's server beside Debian's docker-registry: manifests and blobs by wrk.

Each serves one image from a store of its own, in a network namespace; wrk asks them in turns with
32 connections. Rows are times, so that less is better: of a manifest, of a gigabyte, and the 99th
percentile of both.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.peers import network_namespace, program
from bench.pull import registry
from bench.timing import Row, medians

_PORTS = {"sampan": 5000, "docker-registry": 5001}
_CONNECTIONS = 32
_SECONDS = 5
_LAYER = 16 << 20
_NAME = "bench/app"
_KIND = "application/vnd.oci.image"
#: wrk's units in seconds and in bytes
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_SIZES = {"B": 1.0, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}


def serving(rounds: int = 5) -> Iterator[Row]:
    """Time per manifest and per gigabyte of blobs, and their 99th percentiles."""
    wrk = program("wrk")
    if wrk is None:
        raise FileNotFoundError("wrk")
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-registry-")))
        namespace = stack.enter_context(network_namespace(f"bench-registry-{os.getpid()}"))
        stack.enter_context(_ours(namespace, scratch / "ours"))
        stack.enter_context(registry(str(namespace), scratch / "theirs", _PORTS["docker-registry"]))
        layer = _seed(namespace, scratch / "layout")
        paths = {"manifest": f"/v2/{_NAME}/manifests/1", "blob": f"/v2/{_NAME}/blobs/{layer}"}
        for what, path in paths.items():
            times: dict[str, list[float]] = {name: [] for name in _PORTS}
            slowest: dict[str, list[float]] = {name: [] for name in _PORTS}
            for _ in range(rounds):
                for name, port in _PORTS.items():
                    took, p99 = _ask(wrk, namespace, f"http://127.0.0.1:{port}{path}", what)
                    times[name].append(took)
                    slowest[name].append(p99)
            yield _row(f"registry: {what} GET", times, 0.5 if what == "manifest" else 1.0)
            yield _row(f"registry: {what} GET, p99", slowest, None)


def _row(what: str, found: dict[str, list[float]], target: float | None) -> Row:
    middle = medians(found)
    return Row(what, middle["sampan"], middle["docker-registry"], "docker-registry", target=target)


@contextlib.contextmanager
def _ours(namespace: Path, root: Path) -> Iterator[None]:
    """Our server, a worker a processor."""
    command = [
        *("nsenter", f"--net={namespace}", sys.executable, "-m", "sampan.registry.server"),
        *("--listen", f"127.0.0.1:{_PORTS['sampan']}", "--root", str(root)),
        *("--workers", str(os.cpu_count())),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        if process.stdout is None or not process.stdout.readline():
            raise RuntimeError("the registry ended")
        yield
    finally:
        process.terminate()
        process.wait(30)


def _seed(namespace: Path, layout: Path) -> str:
    """Push one image to both; the digest of its layer."""
    (layout / "blobs/sha256").mkdir(parents=True)

    def store(data: bytes, kind: str) -> dict[str, object]:
        name = hashlib.sha256(data).hexdigest()
        (layout / "blobs/sha256" / name).write_bytes(data)
        return {"mediaType": f"{_KIND}.{kind}", "digest": f"sha256:{name}", "size": len(data)}

    plain = os.urandom(_LAYER)
    layer = store(gzip.compress(plain, 1), "layer.v1.tar+gzip")  # skopeo packs what is plain
    config = {"architecture": "amd64", "os": "linux"}
    roots = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(plain).hexdigest()}"]}
    described = store(json.dumps({**config, "rootfs": roots}).encode(), "config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": f"{_KIND}.manifest.v1+json"}
    raw = json.dumps({**manifest, "config": described, "layers": [layer]}).encode()
    root = store(raw, "manifest.v1+json")
    root["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [root]}))
    for port in _PORTS.values():
        subprocess.run(
            [
                *("nsenter", f"--net={namespace}", "skopeo", "copy", "--dest-tls-verify=false"),
                *(f"oci:{layout}:1", f"docker://127.0.0.1:{port}/{_NAME}:1"),
            ],
            check=True,
            capture_output=True,
        )
    return str(layer["digest"])


def _ask(wrk: str, namespace: Path, url: str, what: str) -> tuple[float, float]:
    """Seconds a manifest or a gigabyte takes, and the 99th percentile of an answer."""
    command = [
        *("nsenter", f"--net={namespace}", wrk, "-t2", f"-c{_CONNECTIONS}", f"-d{_SECONDS}"),
        *("--latency", "-H", f"Accept: {_KIND}.manifest.v1+json", url),
    ]
    time.sleep(0.2)
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in said:
        raise RuntimeError(f"wrk: {said}")
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s|m)\b", said)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    flow = re.search(r"Transfer/sec:\s+([\d.]+)(B|KB|MB|GB)", said)
    if p99 is None or rate is None or flow is None:
        raise RuntimeError(f"wrk said nothing that is understood: {said}")
    took = 1 / float(rate[1])
    if what == "blob":
        took = 1e9 / (float(flow[1]) * _SIZES[flow[2]])
    return took, float(p99[1]) * _UNITS[p99[2]]
