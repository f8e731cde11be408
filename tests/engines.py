"""Engines with roots, network namespace and cgroup parent of their own, for tests of the kernel."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import tarfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from sampan.engine.config import EngineConfig
from sampan.engine.engine import Engine
from sampan.engine.options import AttachOptions, ImportOptions, LogsOptions
from sampan.kernel import cgroup, namespaces, rtnetlink
from sampan.kernel.mount import MNT_DETACH, umount2
from sampan.kernel.netlink import NetlinkSocket
from sampan.kernel.rtnetlink import LinkOptions
from sampan.runtime.client import Launcher
from sampan.wire.container import ContainerCreateRequest, HostConfig
from sampan.wire.exec import ExecCreateRequest, ExecStartRequest
from sampan.wire.hostconfig import RestartPolicy

BUSYBOX = Path("/bin/busybox")
_APPLETS = """cat echo env false grep head hostname id ip kill ls mkdir mount nc nslookup ping ps
    rm sh sleep stat sync test touch true tty wc wget yes"""
APPLETS = _APPLETS.split()
PASSWD = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"
GROUP = "root:x:0:\nwheel:x:10:root\nuser:x:1000:\n"


def busybox_tar() -> bytes:
    """The root file system of the image tests run: static busybox and its applets."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("bin", "etc", "tmp", "root", "data"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        archive.add(BUSYBOX, "bin/busybox")
        for name in APPLETS:
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
        for name, text in (("etc/passwd", PASSWD), ("etc/group", GROUP), ("data/seed", "seed\n")):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


@contextlib.contextmanager
def network_namespace() -> Iterator[None]:
    """This thread, and what it starts, in a new network namespace with loopback up."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.unshare(namespaces.CLONE_NEWNET)
        with NetlinkSocket() as sock:
            sock.request([rtnetlink.link_set("lo", LinkOptions(up=True))])
        yield
    finally:
        namespaces.setns(before, namespaces.CLONE_NEWNET)
        os.close(before)


@dataclass(slots=True)
class World:
    """Where engines of one test live; opening one after another is restarting the daemon."""

    root: Path

    @property
    def config(self) -> EngineConfig:
        return EngineConfig(
            data_root=self.root / "data",
            exec_root=self.root / "run",
            # One for all processes that open engines here, those too that are killed meanwhile.
            cgroup_parent=f"/sampan-test-{crc32(os.fsencode(self.root)):08x}",
            bridge="sptest0",
        )

    async def open(self) -> Engine:
        return await Engine.open(self.config)

    def clean(self) -> None:
        """End the launcher and every container, remove cgroups and files."""
        layout = cgroup.probe()
        with contextlib.suppress(OSError):
            cgroup.kill(layout, self.config.cgroup_parent)
        Launcher.spawn(self.config.exec_root).close(stop=True)
        with contextlib.suppress(OSError):
            cgroup.remove(layout, self.config.cgroup_parent)
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            point = line.split()[4]
            if point.startswith(f"{self.root}/"):
                umount2(point, MNT_DETACH)
        shutil.rmtree(self.root, ignore_errors=True)


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    """A request body."""
    yield data


async def import_busybox(engine: Engine) -> str:
    """The image ``busybox``; returns its id."""
    stream = await engine.images.import_(chunks(busybox_tar()), ImportOptions(repo="busybox"))
    progress = [item async for item in stream]
    assert "error" not in progress[-1], progress
    return str(progress[-1]["status"])


def request(
    command: Sequence[str], host: HostConfig | None = None, **config: object
) -> ContainerCreateRequest:
    """A create request for the image ``busybox``."""
    return ContainerCreateRequest(
        image="busybox", cmd=list(command), host_config=host or HostConfig(), **config
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    id: str
    code: int
    output: str


async def run(
    engine: Engine,
    *command: str,
    host: HostConfig | None = None,
    name: str | None = None,
    stdin: bytes | None = None,
    **config: object,
) -> Outcome:
    """Create, attach, wait, start: as ``docker run`` does."""
    if stdin is not None:
        config |= {"open_stdin": True, "stdin_once": True}
    made = await engine.containers.create(request(command, host, **config), name)
    assert made.id is not None
    attachment = await engine.containers.attach(made.id, AttachOptions(stdin=stdin is not None))
    waiting = await engine.containers.wait(made.id, "next-exit")
    try:
        await engine.containers.start(made.id)
        output = await converse(attachment, stdin)
        code = (await waiting).status_code
    finally:
        await attachment.aclose()
        waiting.close()
    return Outcome(made.id, code or 0, output)


async def start(
    engine: Engine, name: str, *, host: HostConfig | None = None, **config: object
) -> None:
    """A container that stays."""
    await engine.containers.create(request(["sleep", "1000"], host, **config), name)
    await engine.containers.start(name)


async def execute(engine: Engine, ref: str, *command: str) -> int:
    """Exit code of one more program in a container."""
    body = ExecCreateRequest(cmd=list(command), attach_stdout=True, attach_stderr=True)
    exec_id = await engine.execs.create(ref, body)
    await converse(await engine.execs.start(exec_id, ExecStartRequest()))
    found = await engine.execs.inspect(exec_id)
    assert found.exit_code is not None
    return found.exit_code


async def converse(attachment: object, stdin: bytes | None = None) -> str:
    """Send stdin, read everything; frames are taken off."""
    stream = await attachment.open()  # type: ignore[attr-defined]
    if stream is None:
        return ""
    reader, writer = await asyncio.open_connection(sock=stream)
    try:
        if stdin is not None:
            writer.write(stdin)
            writer.write_eof()
        data = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    return data.decode() if attachment.tty else unframe(data)  # type: ignore[attr-defined]


def unframe(data: bytes) -> str:
    """Both streams' text of Docker's multiplexed framing."""
    out = bytearray()
    while data:
        size = int.from_bytes(data[4:8], "big")
        out += data[8 : 8 + size]
        data = data[8 + size :]
    return out.decode()


async def logs(engine: Engine, ref: str, **options: object) -> str:
    """The whole log as text."""
    stream = await engine.containers.logs(ref, LogsOptions(**options))  # type: ignore[arg-type]
    data = b"".join([chunk async for chunk in stream])
    return data.decode() if stream.tty else unframe(data)


async def logged(engine: Engine, ref: str, text: str) -> None:
    """Wait until ``text`` is in the log."""
    stream = await engine.containers.logs(ref, LogsOptions(follow=True))
    seen = b""
    async for chunk in stream:
        seen += chunk
        if text.encode() in seen:
            await stream.aclose()
            return
    raise AssertionError(f"{text!r} was never logged")


def restart(name: str, count: int = 0) -> RestartPolicy:
    """A restart policy."""
    return RestartPolicy(name=name, maximum_retry_count=count)
