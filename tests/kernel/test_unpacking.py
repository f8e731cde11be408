"""Layers unpack beside each other in processes: what comes of it, and what a failure leaves."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sampan.content.store import FileStore
from sampan.errors import ArchiveRefused, DigestMismatch, SampanError
from sampan.image import Image, LayerProgress, Unpacker, open_image, unpack
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.snapshot import Kind
from sampan.snapshot.overlay import OverlaySnapshotter
from sampan.snapshot.rootfs import detached_mount, export
from tests.archives import DIRECTORY, config, member, tar

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="whiteouts and overlays need root")


def owned(name: str, mode: int, owner: int) -> tuple[tarfile.TarInfo, bytes]:
    """A directory with an owner and a time of its own."""
    entry, data = member(name, type=DIRECTORY, mode=mode)
    entry.uid, entry.gid, entry.mtime = owner, owner + 1, owner * 1000
    return entry, data


#: Attributes that a layer above must take over where it only mentions what is inside.
LAYERS = (
    tar(
        owned("./", 0o711, 7),
        owned("deep/", 0o750, 5),
        owned("deep/er/", 0o1777, 6),
        member("deep/er/a", b"1"),
        member("gone", b"2"),
    ),
    tar(member("deep/er/b", b"3"), member(".wh.gone")),
    tar(owned("deep/er/", 0o700, 8), member("deep/er/.wh.a"), member("new/c", b"4")),
)


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small layers are worth processes here."""
    monkeypatch.setattr(unpack, "_WORTH_PROCESSES", 0)
    monkeypatch.setattr(unpack, "_WORTH_PROCESS", 0)


@pytest.fixture
def content(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "content")


def image(content: FileStore, *layers: bytes, plain: Sequence[bytes] = ()) -> Image:
    """An image nobody checked; ``plain`` are the archives its configuration tells of."""
    document = content.add(config(plain or [_plain(layer) for layer in layers]))
    digests = [content.add(layer) for layer in layers]
    kind = "application/vnd.oci.image."
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}manifest.v1+json",
        "config": _described(f"{kind}config.v1+json", document, content),
        "layers": [_described(f"{kind}layer.v1.tar", digest, content) for digest in digests],
    }
    target = content.add(json.dumps(manifest).encode())
    descriptor = Descriptor(
        media_type=f"{kind}manifest.v1+json", digest=target, size=content.size(target)
    )
    return open_image(content, descriptor)


def _plain(layer: bytes) -> bytes:
    return gzip.decompress(layer) if layer[:2] == b"\x1f\x8b" else layer


def _described(media_type: str, digest: Digest, content: FileStore) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(digest), "size": content.size(digest)}


def tree(snapshots: OverlaySnapshotter, image: Image) -> bytes:
    """The image's whole tree as a deterministic archive."""
    root = detached_mount(snapshots.view("look", str(image.chain_id)))
    try:
        return b"".join(export(root))
    finally:
        os.close(root)
        snapshots.remove("look")


def children(parent: int | str = "self") -> list[int]:
    """The processes of a process that unpack."""
    found = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has ended meanwhile
            for pid in (task / "children").read_text().split():
                if "sampan.layer.process" in _command(pid):
                    found.append(int(pid))
    return found


def _command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_the_same_tree_as_one_after_another(
    content: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = image(content, *LAYERS)
    beside = OverlaySnapshotter(tmp_path / "beside")
    told: list[LayerProgress] = []
    Unpacker(content, beside).unpack(subject, progress=told.append)
    assert [each.digest for each in told if each.done] == [
        layer.digest for layer in subject.manifest.layers
    ]
    monkeypatch.setattr(unpack, "_WORTH_PROCESSES", 1 << 40)
    after = OverlaySnapshotter(tmp_path / "after")
    Unpacker(content, after).unpack(subject)
    assert [info.parent for info in beside.walk()] == [info.parent for info in after.walk()]
    # The root's and the new directory's times are told by no layer on top: those of their making.
    roots = []
    for snapshots in (beside, after):
        top = snapshots.view("top", str(subject.chain_id))
        upper = Path(top[0].options[0].removeprefix("lowerdir=").split(":")[0])
        for path in (upper / "new", upper):
            os.utime(path, (0, 0))
        snapshots.remove("top")
        roots.append(tree(snapshots, subject))
    assert roots[0] == roots[1]


def test_processes_do_the_work(content: FileStore, tmp_path: Path) -> None:
    subject = image(content, *LAYERS)
    seen: set[int] = set()

    def look(_: LayerProgress) -> None:
        seen.update(children())

    Unpacker(content, OverlaySnapshotter(tmp_path / "s")).unpack(subject, progress=look)
    assert seen


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize(
    ("spoiled", "error"),
    [
        (tar(member("../out", b"x")), ArchiveRefused),
        (tar(member("a", b"x"))[:-10_000], ArchiveRefused),
        (tar(member("other", b"x")), DigestMismatch),
    ],
)
def test_a_failed_layer_leaves_nothing_of_itself(
    content: FileStore, tmp_path: Path, position: int, spoiled: bytes, error: type[SampanError]
) -> None:
    layers = [*LAYERS]
    layers[position] = spoiled
    subject = image(content, *layers, plain=LAYERS if error is DigestMismatch else ())
    snapshots = OverlaySnapshotter(tmp_path / "s")
    with pytest.raises(error):
        Unpacker(content, snapshots).unpack(subject)
    kept = list(snapshots.walk())
    assert all(info.kind is Kind.COMMITTED for info in kept)
    assert len(kept) <= position
    assert snapshots.sweep() == 0


def test_a_process_killed_is_an_error_and_leaves_nothing(
    content: FileStore, tmp_path: Path
) -> None:
    large = tar(member("large", os.urandom(8 << 20)), member("more", os.urandom(8 << 20)))
    subject = image(content, LAYERS[0], large)

    def kill(progress: LayerProgress) -> None:
        if progress.digest == subject.manifest.layers[1].digest and not progress.done:
            for pid in children():
                os.kill(pid, signal.SIGKILL)

    snapshots = OverlaySnapshotter(tmp_path / "s")
    with pytest.raises(SampanError, match="ended with -9"):
        Unpacker(content, snapshots).unpack(subject, progress=kill)
    assert all(info.kind is Kind.COMMITTED for info in snapshots.walk())
    assert snapshots.sweep() == 0


VICTIM = """
import sys
from pathlib import Path
from sampan.content.store import FileStore
from sampan.image import Unpacker, open_image, unpack
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.snapshot.overlay import OverlaySnapshotter
import time
unpack._WORTH_PROCESSES = unpack._WORTH_PROCESS = 0
root = Path(sys.argv[1])
content = FileStore(root / "content")
target = Descriptor(media_type=sys.argv[2], digest=Digest.parse(sys.argv[3]), size=int(sys.argv[4]))
image = open_image(content, target, None)
def slowly(progress):
    print(progress.current, flush=True)
    time.sleep(0.2)
Unpacker(content, OverlaySnapshotter(root / "s")).unpack(image, progress=slowly)
"""


def test_processes_end_with_a_killed_engine(content: FileStore, tmp_path: Path) -> None:
    large = tar(*(member(str(number), os.urandom(1 << 20)) for number in range(32)))
    subject = image(content, *LAYERS, gzip.compress(large, 1))
    target = subject.manifest.descriptor
    words = (str(tmp_path), target.media_type, str(target.digest), str(target.size))
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM, *words], stdout=subprocess.PIPE, text=True
    ) as engine:
        assert engine.stdout is not None
        for line in engine.stdout:
            if int(line) > 4 << 20:
                break
        workers = children(engine.pid)
        assert workers
        engine.kill()
    for pid in workers:
        _ended(pid)
    snapshots = OverlaySnapshotter(tmp_path / "s")
    for info in list(snapshots.walk())[::-1]:
        if info.kind is not Kind.COMMITTED:
            snapshots.remove(info.key)
    assert snapshots.sweep() == 0
    Unpacker(content, snapshots).unpack(subject)
    assert len(list(snapshots.walk())) == 4


def _ended(pid: int) -> None:
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists():
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":
            return
        assert time.monotonic() < deadline, f"{pid} goes on"
        time.sleep(0.02)


def test_two_that_want_an_image_unpack_it_once(content: FileStore, tmp_path: Path) -> None:
    subject = image(content, *LAYERS)
    snapshots = OverlaySnapshotter(tmp_path / "s")
    unpacker = Unpacker(content, snapshots)
    prepared: list[str] = []
    prepare = snapshots.prepare

    def counted(key: str, parent: str | None = None) -> object:
        prepared.append(key)
        return prepare(key, parent)

    snapshots.prepare = counted  # type: ignore[method-assign, assignment]
    threads = [threading.Thread(target=unpacker.unpack, args=(subject,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(prepared) == len(LAYERS)
    assert len(list(snapshots.walk())) == len(LAYERS)


@pytest.fixture(autouse=True)
def no_child_left() -> Iterator[None]:
    yield
    assert not children()
