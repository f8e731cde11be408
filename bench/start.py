"""Starting containers: the whole command, the engine's own share, exec, and the bare runtime."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from bench.peers import BIN, Engine, busybox_root, dockerd, program, sampand
from bench.timing import Row, alternate, beside_interpreter, command, medians, works


def docker_run(rounds: int = 15) -> Iterator[Row]:
    """``docker run --rm IMG true`` by the same docker CLI on both daemons."""
    with sampand() as ours, dockerd() as theirs:
        for found in (ours, theirs):
            found.load_busybox()
        for title, flags in (("bridge", ()), ("--network none", ("--network", "none"))):
            candidates = {
                found.name: command(found.docker("run", "--rm", *flags, "bench", "true"))
                for found in (ours, theirs)
            }
            found_medians = medians(alternate(candidates, rounds))
            yield Row(
                f"docker run --rm, {title}",
                found_medians["sampand"],
                found_medians["dockerd"],
                "dockerd",
                target=0.30,
            )
        cli = medians(
            alternate(
                {
                    "ours": command(
                        [str(BIN / "sampan"), *ours.docker("run", "--rm", "bench", "true")[1:]]
                    ),
                    "docker": command(ours.docker("run", "--rm", "bench", "true")),
                },
                rounds,
            )
        )
        yield Row("sampan run --rm, bridge", cli["ours"], cli["docker"], "docker CLI on sampand")
        yield from engine_share(ours, theirs, 4 * rounds)


class Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


class Api:
    """A kept connection to an engine, so that only its own time is measured."""

    def __init__(self, engine: Engine) -> None:
        self.connection = Connection(engine.socket)

    def call(self, method: str, path: str, body: object = None) -> object:
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"} if data else {}
        self.connection.request(method, f"/v1.41{path}", data, headers)
        response = self.connection.getresponse()
        text = response.read()
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {text.decode()}")
        return json.loads(text) if text.strip().startswith((b"{", b"[")) else text


def created(api: Api, body: dict[str, object]) -> str:
    answer = api.call("POST", "/containers/create", {"Image": "bench", **body})
    assert isinstance(answer, dict)
    return str(answer["Id"])


def first_instruction(engine: Engine, rounds: int) -> list[float]:
    """Seconds from sending the start request until the program's first output, on the bridge."""
    api = Api(engine)
    times = []
    with tempfile.TemporaryDirectory() as directory:
        fifo = Path(directory) / "fifo"
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDWR)
        try:
            for _ in range(rounds):
                identifier = created(
                    api,
                    {
                        "Cmd": ["/bin/busybox", "sh", "-c", "echo x >/bench/fifo"],
                        "HostConfig": {"Binds": [f"{directory}:/bench"]},
                    },
                )
                start = time.perf_counter()
                api.connection.request("POST", f"/v1.41/containers/{identifier}/start")
                os.read(reader, 2)
                times.append(time.perf_counter() - start)
                api.connection.getresponse().read()
                api.call("POST", f"/containers/{identifier}/wait")
                api.call("DELETE", f"/containers/{identifier}?force=1")
        finally:
            os.close(reader)
    return times[2:]


def exec_true(engine: Engine, rounds: int) -> list[float]:
    """Seconds of one exec of ``true`` in a running container: start until its output ends."""
    api = Api(engine)
    identifier = created(api, {"Cmd": ["sleep", "1000"]})
    api.call("POST", f"/containers/{identifier}/start")
    times = []
    for _ in range(rounds):
        answer = api.call(
            "POST",
            f"/containers/{identifier}/exec",
            {"Cmd": ["true"], "AttachStdout": True, "AttachStderr": True},
        )
        assert isinstance(answer, dict)
        stream = Connection(engine.socket)
        start = time.perf_counter()
        stream.request(
            "POST",
            f"/v1.41/exec/{answer['Id']}/start",
            json.dumps({"Detach": False}),
            {"Content-Type": "application/json"},
        )
        stream.getresponse().read()
        times.append(time.perf_counter() - start)
        stream.close()
    api.call("DELETE", f"/containers/{identifier}?force=1")
    return times[2:]


def engine_share(ours: Engine, theirs: Engine, rounds: int) -> Iterator[Row]:
    """What the engines take, without any client's start-up."""
    for title, measure, target in (
        ("start request to first instruction, bridge", first_instruction, 10.0),
        ("exec true", exec_true, 5.0),
    ):
        our, their = (
            statistics.median(measure(found, rounds + 2)) * 1000 for found in (ours, theirs)
        )
        yield Row(title, our, their, "dockerd", target=target, ratio_target=False)
        yield beside_interpreter(title, our, target)


@contextlib.contextmanager
def bundle() -> Iterator[Path]:
    """An OCI bundle of busybox that runs ``true``, as ``runc spec`` writes it."""
    with tempfile.TemporaryDirectory(prefix="bench-bundle-") as directory:
        path = Path(directory)
        with tarfile.open(fileobj=BytesIO(busybox_root())) as tar:
            tar.extractall(path / "rootfs")
        command([program("runc") or "runc", "spec", "--bundle", directory])()
        spec = json.loads((path / "config.json").read_text())
        spec["process"].update(terminal=False, args=["/bin/true"])
        (path / "config.json").write_text(json.dumps(spec))
        yield path


def runtime(rounds: int = 15) -> Iterator[Row]:
    """``run`` of one bundle by the bare runtimes; ours pays for an interpreter each time."""
    with bundle() as directory, tempfile.TemporaryDirectory() as root:
        candidates = {}
        for name in ("sampan-runtime", "runc", "crun"):
            path = program(name)
            if path is None:
                continue
            words = [path, "--root", f"{root}/{name}", "run"]
            words += ["--bundle", str(directory), "bench"]
            if works(words):
                candidates[name] = command(words)
        found = medians(alternate(candidates, rounds))
        for peer in ("runc", "crun"):
            if peer in found:
                yield Row("runtime run of a bundle", found["sampan-runtime"], found[peer], peer)


def podman(rounds: int = 10) -> Iterator[Row]:
    """``podman run --rm`` against ``sampan run --rm``, both by their own command line."""
    path = program("podman")
    if path is None:
        return
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(sampand())
        root = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-podman-"))
        ours.load_busybox()
        base = [path, "--root", f"{root}/root", "--runroot", f"{root}/run"]
        base += ["--cgroup-manager=cgroupfs", "--runtime=runc"]
        # podman insists on its default limits, which this kind of machine cannot give
        limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]
        stack.callback(subprocess.run, ["umount", "-l", f"{root}/root/overlay"], check=False)
        archive = Path(root) / "busybox.tar"
        archive.write_bytes(busybox_root())
        command([*base, "import", "-q", str(archive), "bench"])()
        found = medians(
            alternate(
                {
                    "podman": command(
                        [*base, "run", "--rm", *limits, "--network", "none", "bench", "true"]
                    ),
                    "sampan": command(
                        [
                            *(str(BIN / "sampan"), "-H", f"unix://{ours.socket}"),
                            *("run", "--rm", "--network", "none", "bench", "true"),
                        ]
                    ),
                },
                rounds,
            )
        )
        yield Row("own CLI: run --rm, --network none", found["sampan"], found["podman"], "podman")
