"""A sampand of its own for every test worker, and the real docker command line to drive it.

The daemon runs in a network namespace of its own with its own roots, so that nothing of the
machine is touched; an image ``busybox`` of static busybox is loaded. Fixtures:

``sampand``   the running daemon (session): ``.host``, ``.restart()``, ``.log()``
``docker``    the Docker CLI (28): ``docker("run", ...)`` returns a finished process
``docker20``  Debian's CLI (20.10)
``name``      a container name of this test's own; the container is removed afterwards

With ``SAMPAN_COMPAT_HOST`` set, the tests run against that daemon instead, to check their own
expectations (a dockerd); those that need a daemon of their own are skipped.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

BUSYBOX = Path("/bin/busybox")
CLI = next(
    (path for path in ("/usr/local/bin/docker", "/usr/bin/docker") if Path(path).exists()), ""
)
CLI_20 = "/usr/bin/docker"
TIMEOUT = 60

Result = subprocess.CompletedProcess[str]


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Skip, naming what is missing."""
    missing = [
        what
        for what, there in (
            ("root", os.geteuid() == 0),
            ("docker CLI", bool(CLI)),
            ("static busybox", BUSYBOX.exists()),
        )
        if not there
    ]
    if missing:
        mark = pytest.mark.skip(reason=f"needs {', '.join(missing)}")
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(mark)


@dataclass
class Sampand:
    """A daemon under test. ``prefix``: a command it is started by, such as unshare(1)."""

    root: Path
    namespace: str
    foreign: str = ""
    flags: list[str] = field(default_factory=list)
    prefix: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.root / "d.sock"

    @property
    def host(self) -> str:
        return self.foreign or f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        if self.foreign:
            pytest.skip("needs a daemon of its own")
        command = [
            *self.prefix,
            "nsenter",
            f"--net=/run/netns/{self.namespace}",
            sys.executable,
            "-X",
            "dev",
            "-W",
            "ignore::ResourceWarning",
            "-m",
            "sampan.api.sampand",
            f"--host={self.host}",
            f"--data-root={self.root / 'data'}",
            f"--exec-root={self.root / 'exec'}",
            f"--pidfile={self.root / 'pid'}",
            f"--plugin-dir={self.root / 'plugins'}",
            f"--config-file={self.root / 'daemon.json'}",
            f"--cgroup-parent=/{self.namespace}",
            "--debug",
            *self.flags,
        ]
        with open(self.root / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self._await_ready()

    def _await_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"sampand ended:\n{self.log()}"
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(TIMEOUT)
                probe.connect(str(self.socket))
                probe.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                if probe.recv(100).startswith(b"HTTP/1.1 200"):
                    return
            time.sleep(0.05)
        raise AssertionError(f"sampand does not answer:\n{self.log()}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; returns its exit status."""
        if self.foreign:
            pytest.skip("needs a daemon of its own")
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"sampand does not end:\n{self.log()}") from None

    def restart(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it (SIGKILL for a crash) and start it again over the same roots."""
        self.stop(number)
        self.start()

    def log(self) -> str:
        path = self.root / "log"
        return path.read_text(errors="replace") if path.exists() else ""


@dataclass(frozen=True)
class DockerCli:
    """A docker command line that talks to the daemon under test."""

    program: str
    host: str
    config: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TERM") if name in os.environ}
        return {
            **kept,
            "DOCKER_HOST": self.host,
            "DOCKER_CONFIG": str(self.config),
            "DOCKER_CLI_HINTS": "false",
        }

    def __call__(
        self, *arguments: str, input: str = "", status: int | None = 0, timeout: float = TIMEOUT
    ) -> Result:
        """Run a command to its end and check its exit status (``status=None``: do not)."""
        result = subprocess.run(
            [self.program, *arguments],
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environment,
            check=False,
        )
        if status is not None:
            assert result.returncode == status, (arguments, result)
        return result

    def out(self, *arguments: str, input: str = "") -> str:
        """What a command prints, without the last newline."""
        return self(*arguments, input=input).stdout.rstrip("\n")

    def popen(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command with pipes; the caller ends it."""
        return subprocess.Popen(
            [self.program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
        )


def busybox_archive(reference: str = "busybox:latest") -> bytes:
    """A docker-archive with one image: static busybox, its applets, users and a home."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for directory in ("bin", "etc", "tmp", "root", "proc", "sys", "dev", "home"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            tar.addfile(entry)
        tar.add(BUSYBOX, "bin/busybox")
        applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True)
        for applet in set(applets.stdout.split()) - {"busybox"}:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        for path, text in (
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n"),
            ("etc/group", "root:x:0:\nuser:x:1000:\nextra:x:1001:user\n"),
        ):
            entry = tarfile.TarInfo(path)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return _archive(layer.getvalue(), reference)


def _archive(layer: bytes, reference: str) -> bytes:
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {
            "Cmd": ["sh"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "tests"}],
    }
    config_text = json.dumps(config).encode()
    config_name = f"{hashlib.sha256(config_text).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [reference], "Layers": ["layer.tar"]}]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in (
            (config_name, config_text),
            ("layer.tar", layer),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()


@pytest.fixture(scope="session")
def namespace() -> Iterator[str]:
    """A network namespace of this worker's own."""
    name = f"sampan-test-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(
            ["nsenter", f"--net=/run/netns/{name}", "ip", "link", "set", "lo", "up"], check=True
        )
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)


@pytest.fixture(scope="session")
def sampand(namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sampand]:
    """The daemon, with ``busybox`` loaded."""
    root = tmp_path_factory.mktemp("sampand")
    (root / "daemon.json").write_text("{}")
    (root / "cli").mkdir()
    daemon = Sampand(root, namespace, foreign=os.environ.get("SAMPAN_COMPAT_HOST", ""))
    try:
        if not daemon.foreign:
            daemon.start()
        archive = root / "busybox.tar"
        archive.write_bytes(busybox_archive())
        DockerCli(CLI, daemon.host, root / "cli")("load", "-i", str(archive))
        yield daemon
    finally:
        _clean_up(daemon)


def _clean_up(daemon: Sampand) -> None:
    if daemon.process is not None and daemon.process.poll() is None:
        cli = DockerCli(CLI, daemon.host, daemon.root / "cli")
        with contextlib.suppress(subprocess.TimeoutExpired):
            left = cli("ps", "-aq", status=None).stdout.split()
            if left:
                cli("rm", "-f", *left, status=None)
        daemon.stop()
    for line in Path("/proc/self/mountinfo").read_text().splitlines()[::-1]:
        target = line.split()[4]
        if target.startswith(str(daemon.root)):
            subprocess.run(["umount", "-l", target], check=False)
    for group in Path("/sys/fs/cgroup").glob(f"*/{daemon.namespace}"):
        with contextlib.suppress(OSError):
            group.rmdir()
    shutil.rmtree(daemon.root, ignore_errors=True)


@pytest.fixture
def docker(sampand: Sampand) -> DockerCli:
    """The docker command line."""
    return DockerCli(CLI, sampand.host, sampand.root / "cli")


@pytest.fixture
def docker20(sampand: Sampand) -> DockerCli:
    """Debian's older docker command line (API 1.41)."""
    if not Path(CLI_20).exists() or CLI_20 == CLI:
        pytest.skip("needs Debian's docker CLI beside a newer one")
    return DockerCli(CLI_20, sampand.host, sampand.root / "cli")


@pytest.fixture
def name(docker: DockerCli, request: pytest.FixtureRequest) -> Iterator[str]:
    """A container name of this test's own."""
    text = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40]
    yield text
    docker("rm", "-f", "-v", text, status=None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the daemon logged when a test fails."""
    report = yield
    daemon = getattr(item, "funcargs", {}).get("sampand")
    if report.when == "call" and report.failed and isinstance(daemon, Sampand):
        report.sections.append(("sampand", daemon.log()[-6000:]))
    return report


Eventually = Callable[[Callable[[], bool]], None]


@pytest.fixture
def eventually() -> Eventually:
    """Wait until something is so, at most ``TIMEOUT`` seconds."""

    def wait(so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not so():
            assert time.monotonic() < deadline, "it never came to pass"
            time.sleep(0.02)

    return wait
