"""Engines under measurement, each in a network namespace and roots of its own."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

BIN = Path(sys.executable).parent
BUSYBOX = Path("/bin/busybox")


def program(name: str) -> str | None:
    """The path of a peer's program; the docker CLI under /usr/local is preferred, being newer."""
    return shutil.which(name, path=f"/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin:{BIN}")


def busybox_root() -> bytes:
    """A root file system with static busybox and its usual links, as a tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for directory in ("bin", "etc", "tmp", "dev", "proc", "sys", "root"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        tar.add(BUSYBOX.resolve(), "bin/busybox")
        for applet in ("sh", "true", "false", "sleep", "cat", "echo", "yes", "head", "env", "ls"):
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        for name, text in (("passwd", "root:x:0:0::/root:/bin/sh\n"), ("group", "root:x:0:\n")):
            entry = tarfile.TarInfo(f"etc/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


@contextlib.contextmanager
def network_namespace(name: str) -> Iterator[Path]:
    """A named network namespace with loopback up; gone afterwards."""
    subprocess.run(["ip", "netns", "add", name], check=True)
    path = Path("/run/netns") / name
    try:
        subprocess.run(["nsenter", f"--net={path}", "ip", "link", "set", "lo", "up"], check=True)
        yield path
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)


@dataclass
class Engine:
    """A daemon that speaks the Docker API, reachable by any Docker client."""

    name: str
    socket: Path
    process: subprocess.Popen[bytes]
    root: Path
    cli: tuple[str, ...] = field(default=())

    def docker(self, *words: str) -> list[str]:
        """A docker command line for this engine."""
        return [program("docker") or "docker", "-H", f"unix://{self.socket}", *words]

    def run(self, *words: str, data: bytes | None = None) -> str:
        """What a docker command line prints; raises when it fails."""
        command = self.docker(*words)
        result = subprocess.run(command, input=data, capture_output=True, check=False)
        if result.returncode:
            raise RuntimeError(f"{' '.join(command)}: {result.stderr.decode()}")
        return result.stdout.decode().strip()

    def load_busybox(self) -> None:
        """Make the image ``bench`` from static busybox."""
        self.run("import", "-", "bench", data=busybox_root())


def _wait_for(engine: Engine) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if engine.process.poll() is not None:
            break
        if engine.socket.exists():
            probe = subprocess.run(engine.docker("version"), capture_output=True, check=False)
            if probe.returncode == 0:
                return
        time.sleep(0.05)
    log = (engine.root / "log").read_text(errors="replace")[-4000:]
    raise RuntimeError(f"{engine.name} did not come up:\n{log}")


@contextlib.contextmanager
def engine(name: str, command: Sequence[str], root: Path | None = None) -> Iterator[Engine]:
    """Run a daemon with dockerd's flags in namespaces and roots of its own until the block ends."""
    with contextlib.ExitStack() as stack:
        if root is None:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"bench-{name}-")))
        namespace = stack.enter_context(network_namespace(f"bench-{name}-{os.getpid()}"))
        log = stack.enter_context((root / "log").open("wb"))
        socket = root / "socket"
        full = [
            *("nsenter", f"--net={namespace}", *command),
            *("-H", f"unix://{socket}", "--data-root", str(root / "data")),
            *("--exec-root", str(root / "exec"), "--pidfile", str(root / "pid")),
        ]
        process = subprocess.Popen(full, stdout=log, stderr=log)
        found = Engine(name=name, socket=socket, process=process, root=root)
        try:
            _wait_for(found)
            yield found
        finally:
            leftovers = subprocess.run(
                found.docker("ps", "-aq"), capture_output=True, text=True, check=False
            ).stdout.split()
            if leftovers:
                subprocess.run(
                    found.docker("rm", "-f", *leftovers), capture_output=True, check=False
                )
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@contextlib.contextmanager
def sampand() -> Iterator[Engine]:
    """Our own daemon."""
    with engine("sampand", [str(BIN / "sampand")]) as found:
        yield found


@contextlib.contextmanager
def dockerd() -> Iterator[Engine]:
    """Debian's dockerd."""
    path = program("dockerd")
    if path is None:
        raise FileNotFoundError("dockerd")
    with engine("dockerd", [path]) as found:
        yield found
