"""The build solver on real snapshots: layers, cache, parallel stages, mounts, failures.

The executor here is a chroot, enough to run static busybox; the engine's own is tested with the
docker CLI in tests/compat.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import http.server
import io
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest

from sampan.build.cache import BuildCache
from sampan.build.copying import ContentHashes
from sampan.build.executor import Output, RunRequest, Secrets
from sampan.build.mounts import CacheDirectories
from sampan.build.progress import Vertex
from sampan.build.request import BuildRequest, Built
from sampan.build.selection import Tree
from sampan.build.solver import solve
from sampan.build.steps import DEFAULT_PATH
from sampan.build.tools import StepFailed, Tools
from sampan.build.workspace import Workspace
from sampan.content.store import FileStore
from sampan.dockerfile.parser import DockerfileError, parse
from sampan.errors import DigestMismatch, NotFound
from sampan.image import Image
from sampan.kernel.mount import descriptor
from sampan.model.platform import Platform
from sampan.snapshot import Kind
from sampan.snapshot.overlay import OverlaySnapshotter
from sampan.snapshot.rootfs import detached_mount, export

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

P = ParamSpec("P")
T = TypeVar("T")
BUSYBOX = Path("/bin/busybox")
HOST = Platform.host()


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return await asyncio.to_thread(function, *args, **kwargs)


@dataclass
class ChrootExecutor:
    """Runs steps in a chroot; bind mounts are copied in and out of nothing."""

    ran: list[str] = field(default_factory=list)
    requests: list[RunRequest] = field(default_factory=list)

    async def base(self, reference: str, platform: Platform, *, pull: bool) -> Image:
        raise NotFound(f"No such image: {reference}")

    async def run(self, request: RunRequest, output: Output) -> int:
        self.ran.append(" ".join(request.words))
        self.requests.append(request)
        return await asyncio.to_thread(self._run, request, output)

    def _run(self, request: RunRequest, output: Output) -> int:
        with descriptor(detached_mount(request.rootfs, writable=True)) as root:

            def enter() -> None:
                os.fchdir(root)
                os.chroot(".")

            done = subprocess.run(
                request.words,
                env=dict(entry.split("=", 1) for entry in (*request.environment, *request.hidden)),
                capture_output=True,
                preexec_fn=enter,
                check=False,
            )
        output(1, done.stdout)
        output(2, done.stderr)
        return done.returncode


@dataclass
class Recorder:
    cached: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    text: bytes = b""

    def started(self, vertex: Vertex) -> None:
        pass

    def log(self, vertex: Vertex, stream: int, data: bytes) -> None:
        self.text += data

    def completed(self, vertex: Vertex, *, cached: bool = False, error: str = "") -> None:
        (self.failed if error else self.cached if cached else self.done).append(vertex.instruction)

    def warning(self, vertex: Vertex | None, message: str) -> None:
        self.text += message.encode()


@dataclass
class Bench:
    tools: Tools
    executor: ChrootExecutor
    context: Path
    tree: Tree

    async def build(self, text: str, recorder: Recorder | None = None, **options: object) -> Built:
        request = BuildRequest(
            file=parse(text),
            context=self.tree,
            context_path=str(self.context),
            platform=HOST,
            now=1_700_000_000,
        )
        request = replace(request, **options)  # type: ignore[arg-type]
        return await solve(request, self.tools, recorder or Recorder())

    def files(self, built: Built) -> dict[str, tarfile.TarInfo]:
        workspace = self.tools.workspace
        with workspace.look(built.image.chain_id) as root:
            data = b"".join(export(root))
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            return {member.name.strip("/"): member for member in tar}

    def read(self, built: Built, name: str) -> str:
        with self.tools.workspace.look(built.image.chain_id) as root:
            fd = os.open(name, os.O_RDONLY, dir_fd=root)
            with os.fdopen(fd) as file:
                return file.read()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    content = FileStore(tmp_path / "content")
    snapshotter = OverlaySnapshotter(tmp_path / "snapshots")
    cache = BuildCache(tmp_path / "cache.db")
    executor = ChrootExecutor()
    context = tmp_path / "context"
    (context / "bin").mkdir(parents=True)
    (context / "bin" / "busybox").write_bytes(BUSYBOX.read_bytes())
    (context / "bin" / "busybox").chmod(0o755)
    (context / "bin" / "sh").symlink_to("busybox")
    (context / "a").write_text("one\n")
    for name in ("scratch", "mounts"):
        (tmp_path / name).mkdir()
    tools = Tools(
        workspace=Workspace(content=content, snapshotter=snapshotter),
        cache=cache,
        executor=executor,
        hashes=ContentHashes(),
        directories=CacheDirectories(tmp_path / "caches"),
        scratch=tmp_path / "scratch",
        mount_directory=tmp_path / "mounts",
        in_thread=in_thread,
    )
    root = os.open(context, os.O_RDONLY | os.O_DIRECTORY)
    yield Bench(tools=tools, executor=executor, context=context, tree=Tree(root=root))
    os.close(root)
    cache.close()
    assert list((tmp_path / "scratch").iterdir()) == []
    assert list((tmp_path / "mounts").iterdir()) == []
    assert [info for info in snapshotter.walk() if info.kind is not Kind.COMMITTED] == []


def holding(directory: Path, secret: bytes) -> list[Path]:
    """The files below ``directory`` that contain ``secret``."""
    files = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if secret in path.read_bytes()]


BASE = "FROM scratch\nCOPY bin /bin\n"


async def test_steps_become_layers_and_the_cache_answers(bench: Bench) -> None:
    text = BASE + 'RUN echo hello >/f\nENV a=b\nCOPY a /d/\nWORKDIR /w\nCMD ["x"]\n'
    first = Recorder()
    built = await bench.build(text, first)
    assert bench.read(built, "f") == "hello\n"
    assert bench.read(built, "d/a") == "one\n"
    assert bench.files(built)["w"].isdir()
    assert len(built.image.manifest.layers) == 4
    history = built.image.config.history
    assert [entry.empty_layer for entry in history] == [None, None, True, None, None, True]
    defaults = built.image.config.defaults
    assert (defaults.cmd, defaults.env) == (["x"], [f"PATH={DEFAULT_PATH}", "a=b"])
    again = Recorder()
    rebuilt = await bench.build(text, again)
    assert rebuilt.image.id == built.image.id
    assert rebuilt.cached
    assert len(bench.executor.ran) == 1
    assert len(again.cached) == 6


async def test_only_what_a_change_touches_is_done_again(bench: Bench) -> None:
    text = BASE + "RUN echo 1 >/one\nCOPY a /a\nRUN echo 2 >/two\n"
    await bench.build(text)
    (bench.context / "a").write_text("two\n")
    recorder = Recorder()
    built = await bench.build(text, recorder)
    assert bench.executor.ran == ["/bin/sh -c echo 1 >/one"] + ["/bin/sh -c echo 2 >/two"] * 2
    assert recorder.cached == ["COPY bin /bin", "RUN echo 1 >/one"]
    assert bench.read(built, "a") == "two\n"


async def test_stages_and_what_nobody_needs(bench: Bench) -> None:
    text = (
        BASE.replace("scratch", "scratch AS base")
        + "FROM base AS never\nRUN exit 1\n"
        + "FROM base AS tool\nARG v=1\nRUN echo made $v >/made\n"
        + "FROM scratch\nCOPY --from=tool /made /result\nCOPY --from=base /bin/sh /sh\n"
    )
    built = await bench.build(text, arguments={"v": "2"})
    assert bench.read(built, "result") == "made 2\n"
    assert set(bench.files(built)) - {""} == {"result", "sh"}


async def test_sources_above_the_context_are_as_inside_it(bench: Bench) -> None:
    """Unless the request confines them, as the classic builder does."""
    built = await bench.build(BASE + "COPY ../../a /x\n")
    assert bench.read(built, "x") == "one\n"


async def test_a_failing_step_tells_its_output_and_leaves_nothing(bench: Bench) -> None:
    recorder = Recorder()
    with pytest.raises(StepFailed, match="exit code: 3") as failure:
        await bench.build(BASE + "RUN echo why; exit 3\n", recorder)
    assert failure.value.tail == "why"
    assert failure.value.line == 3
    assert recorder.failed == ["RUN echo why; exit 3"]
    with pytest.raises(NotFound, match='"/nope": not found'):
        await bench.build(BASE + "COPY nope /\n")
    with pytest.raises(NotFound, match="No such image: missing"):
        await bench.build("FROM missing\n")
    with pytest.raises(DockerfileError, match="line 2"):
        await bench.build("FROM scratch\nNOPE\n")


async def test_links_stand_on_any_base(bench: Bench) -> None:
    text = "FROM scratch AS one\nCOPY bin /bin\nRUN echo {} >/x\nCOPY --link a /linked\n"
    first = await bench.build(text.format(1))
    second = await bench.build(text.format(2))
    assert first.layers[-1].descriptor.digest == second.layers[-1].descriptor.digest
    assert bench.read(second, "linked") == "one\n"
    assert bench.read(second, "x") == "2\n"


async def test_owners_modes_and_archives(bench: Bench) -> None:
    with tarfile.open(bench.context / "t.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("inside")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"hi"))
    (bench.context / "etc").mkdir()
    (bench.context / "etc" / "passwd").write_text("me:x:42:43::/:/\n")
    text = (
        "FROM scratch\nCOPY etc /etc/\nCOPY --chown=me --chmod=600 a /a\nADD t.tar.gz /u/\n"
        "ADD --unpack=false t.tar.gz /v/\nCOPY --chown=7:8 a /b\n"
    )
    files = bench.files(await bench.build(text))
    assert (files["a"].uid, files["a"].mode) == (42, 0o600)
    assert (files["b"].uid, files["b"].gid) == (7, 8)
    assert files["u/inside"].size == 2
    assert "v/t.tar.gz" in files


async def test_secrets_stay_out_of_everything(bench: Bench, tmp_path: Path) -> None:
    secret = b"correct-horse-battery-staple"
    text = BASE + 'RUN --mount=type=secret,id=k,env=K test -n "$K"\n'
    recorder = Recorder()
    built = await bench.build(text, recorder, secrets=Secrets(values={"k": secret}))
    assert secret not in built.image.config.raw
    assert secret not in recorder.text
    assert holding(tmp_path, secret) == []
    with pytest.raises(NotFound, match="secret missing"):
        await bench.build(BASE + "RUN --mount=type=secret,id=missing,required true\n")


async def test_one_digest_wherever_and_whenever(bench: Bench) -> None:
    text = BASE + "RUN echo x >/x\nCOPY a /a\nWORKDIR /made\n"
    first = await bench.build(text, epoch=1_600_000_000, no_cache=True)
    os.utime(bench.context / "a")
    second = await bench.build(text, epoch=1_600_000_000, no_cache=True, now=1_800_000_000)
    assert first.image.manifest.digest == second.image.manifest.digest


async def test_bind_mounts_and_the_cancelled(bench: Bench) -> None:
    text = (
        BASE.replace("scratch", "scratch AS base")
        + "FROM base\nRUN --mount=from=base,source=/bin,target=/other "
        + "--mount=target=/ctx,source=a true\n"
    )
    await bench.build(text)
    other, context = bench.executor.requests[-1].mounts
    assert other.source.endswith("/bin")
    assert (context.source, context.read_only) == (str(bench.context / "a"), True)
    task = asyncio.create_task(bench.build(BASE + "RUN sleep 0.2\n"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on loopback, its address and directory."""
    directory = tmp_path / "web"
    directory.mkdir()
    handler = functools.partial(Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", directory
        server.shutdown()
        thread.join()


async def test_remote_sources(bench: Bench, web: tuple[str, Path]) -> None:
    address, directory = web
    (directory / "file").write_text("remote\n")
    os.utime(directory / "file", (1_500_000_000, 1_500_000_000))
    digest = hashlib.sha256(b"remote\n").hexdigest()
    text = f"FROM scratch\nADD --checksum=sha256:{digest} {address}/file /d/\nADD a /d/\n"
    built = await bench.build(text)
    member = bench.files(built)["d/file"]
    assert (member.mode, member.mtime, bench.read(built, "d/a")) == (0o600, 1_500_000_000, "one\n")
    with pytest.raises(DigestMismatch, match="has digest"):
        await bench.build(f"FROM scratch\nADD --checksum=sha256:{'0' * 64} {address}/file /\n")
    with pytest.raises(NotFound, match="404"):
        await bench.build(f"FROM scratch\nADD {address}/none /\n")


def publish_repository(directory: Path) -> None:
    """A repository ``r.git`` with ``sub/f``, as a plain web server can serve it."""
    work, bare = directory / "work", directory / "r.git"
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    (work / "sub").mkdir(parents=True)
    (work / "sub" / "f").write_text("in git\n")
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run(["git", *identity, *words], cwd=work, check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(bare)], check=True)
    subprocess.run(["git", "update-server-info"], cwd=bare, check=True)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
async def test_git_sources(bench: Bench, web: tuple[str, Path]) -> None:
    address, directory = web
    publish_repository(directory)
    built = await bench.build(f"FROM scratch\nADD {address}/r.git#main:sub /src\n")
    assert bench.read(built, "src/f") == "in git\n"
    assert not any(".git" in name for name in bench.files(built))
    with pytest.raises(DigestMismatch):
        await bench.build(f"FROM scratch\nADD --checksum=0000 {address}/r.git#main /src\n")


LAZY = (
    BASE.replace("scratch", "scratch AS base")
    + "FROM base AS made\nCOPY a /a\nARG v=1\nRUN busybox cat a >/made; echo $v >>/made\n"
    + "FROM base\nCOPY --from=made /made /made\nRUN echo last >/last\n"
)


def forget(bench: Bench, what: str) -> None:
    """Drop the cache's records of steps that say ``what``."""
    records = [one for one in bench.tools.cache.records() if what in one.description]
    assert records
    bench.tools.cache.forget([one.key for one in records])


async def test_a_stage_whose_copies_are_known_is_not_made(bench: Bench) -> None:
    first = await bench.build(LAZY)
    forget(bench, "cat a")
    recorder = Recorder()
    again = await bench.build(LAZY, recorder)
    assert again.image.id == first.image.id
    assert again.cached
    assert "COPY --from=made /made /made" in recorder.cached
    assert not any("cat a" in text for text in recorder.cached + recorder.done)
    assert len(bench.executor.ran) == 2
    assert again.hermetic == first.hermetic


@pytest.mark.parametrize("change", ["file", "argument", "instruction", "fresh", "whole", "pruned"])
async def test_a_stage_is_made_when_it_may_differ(bench: Bench, change: str) -> None:
    await bench.build(LAZY)
    forget(bench, "cat a")
    text, options, tools = LAZY, {}, bench.tools
    match change:
        case "file":
            (bench.context / "a").write_text("two\n")
        case "argument":
            options = {"arguments": {"v": "2"}}
        case "instruction":
            text = LAZY.replace("cat a >", "cat a a >")
        case "fresh":
            options = {"no_cache_stages": frozenset(("made",))}
        case "whole":
            tools = replace(tools, whole=True)
        case "pruned":
            forget(bench, "COPY /made")
    built = await replace(bench, tools=tools).build(text, **options)
    assert len(bench.executor.ran) == (3 if change in ("fresh", "whole") else 4)
    expected = {"file": "two\n1\n", "argument": "one\n2\n", "instruction": "one\none\n1\n"}
    assert bench.read(built, "made") == expected.get(change, "one\n1\n")
