"""Archives nobody should trust: refused in one sentence, nothing kept, nothing outside touched."""

from __future__ import annotations

import bz2
import ctypes
import gzip
import io
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
import zstandard

from sampan.content.store import FileStore
from sampan.errors import (
    ArchiveRefused,
    DigestMismatch,
    InvalidParameter,
    NoSpace,
    NotFound,
    SampanError,
)
from sampan.image import Unpacker, load
from sampan.kernel import mount
from sampan.layer import (
    Destination,
    Limits,
    Whiteouts,
    apply,
    archive_get,
    archive_put,
    archive_stat,
)
from sampan.layer.check import check
from sampan.model.digest import Digest
from sampan.snapshot.overlay import OverlaySnapshotter
from tests.archives import (
    CHARACTER,
    DIRECTORY,
    LINK,
    SYMLINK,
    docker_archive,
    files,
    member,
    oci_archive,
    tar,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and device nodes need root")

OUTSIDE = "outside"
#: name -> (layer, what the sentence must say)
LAYERS: dict[str, tuple[bytes, str]] = {
    "dotdot": (files({"../outside/pwned": b"x"}), r"'\.\.' component"),
    "dotdot-inside": (files({"a/../../outside/pwned": b"x"}), r"'\.\.' component"),
    "dotdot-harmless": (files({"a/../b": b"x"}), r"'\.\.' component"),
    "hard-link-absolute": (
        tar(member("x", type=LINK, link="/etc/passwd")),
        "absolute target",
    ),
    "hard-link-dotdot": (
        tar(member("x", type=LINK, link="../outside/secret")),
        r"'\.\.' component",
    ),
    "hard-link-missing": (tar(member("x", type=LINK, link="y")), "does not exist"),
    "hard-link-through-link": (
        tar(
            member("d", type=SYMLINK, link="../outside"),
            member("x", type=LINK, link="d/secret"),
        ),
        "leads out",
    ),
    "hard-link-of-directory": (
        tar(member("d", type=DIRECTORY, mode=0o755), member("x", type=LINK, link="d")),
        "of a directory",
    ),
    "through-link-dotdot": (
        tar(member("d", type=SYMLINK, link="../outside"), member("d/pwned", b"x")),
        "leads out",
    ),
    "through-link-absolute": (
        tar(member("d", type=SYMLINK, link="@OUTSIDE@"), member("d/pwned", b"x")),
        "leads out",
    ),
    "through-link-climbing-into-the-root": (
        tar(
            member("etc", type=DIRECTORY, mode=0o755),
            member("d", type=SYMLINK, link="../../../../etc"),
            member("d/pwned", b"x"),
        ),
        "leads out",
    ),
    "directory-through-link": (
        tar(
            member("d", type=SYMLINK, link="../outside"),
            member("d/pwned", type=DIRECTORY, mode=0o755),
        ),
        "leads out",
    ),
    "link-loop": (
        tar(
            member("a", type=SYMLINK, link="b"),
            member("b", type=SYMLINK, link="a"),
            member("a/x", b"x"),
        ),
        "leads out|link to nowhere",
    ),
    "whiteout-of-nothing": (files({".wh.": b""}), "names nothing"),
    "whiteout-of-parent": (files({"a/.wh...": b""}), "names nothing"),
    "whiteout-through-link": (
        tar(member("d", type=SYMLINK, link="../outside"), member("d/.wh.secret")),
        "leads out",
    ),
    "opaque-through-link": (
        tar(member("d", type=SYMLINK, link="../outside"), member("d/.wh..wh..opq")),
        "leads out",
    ),
    "unknown-type": (tar(member("x", type=b"Z")), "unhandled tar entry type"),
    "file-in-file": (files({"a": b"x", "a/b": b"x"}), "Not a directory"),
    "owner-out-of-range": (tar(member("x", uid="99999999999")), "owner"),
    "name-too-long": (files({"a" * 300: b""}), "File name too long"),
    "path-too-long": (files({"a/" * 3000 + "b": b""}), "too long"),
    "truncated-header": (files({"a": b"x" * 2000})[:700], "truncated|checksum"),
    "truncated-data": (files({"a": b"x" * 2000})[:1600], "truncated"),
    "bad-checksum": (b"\1" + files({"a": b"x"})[1:], "checksum"),
    "not-a-tar": (b"PK\3\4" + os.urandom(4096), "checksum|octal"),
    "truncated-gzip": (gzip.compress(files({"a": os.urandom(50_000)}))[:-9000], "truncated gzip"),
    "gzip-crc": (gzip.compress(files({"a": b"x"}))[:-8] + bytes(8), "malformed gzip"),
    "gzip-rubbish": (gzip.compress(files({"a": b"x"})) + b"rubbish", "rubbish"),
    "truncated-zstd": (
        zstandard.compress(files({"a": os.urandom(50_000)}))[:-9000],
        "truncated zstd",
    ),
    "zstd-rubbish": (zstandard.compress(files({"a": b"x"})) + b"rubbish", "malformed zstd"),
    "truncated-bzip2": (bz2.compress(files({"a": os.urandom(50_000)}))[:-9000], "truncated bzip2"),
}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / OUTSIDE
    path.mkdir()
    (path / "secret").write_text("secret")
    return path


def untouched(outside: Path) -> bool:
    return sorted(os.listdir(outside)) == ["secret"] and (outside / "secret").stat().st_nlink == 1


def hostile(name: str, outside: Path) -> bytes:
    """The layer of that name, with the real absolute path in it where it has one."""
    data, _ = LAYERS[name]
    if b"@OUTSIDE@" not in data:
        return data
    return tar(member("d", type=SYMLINK, link=str(outside)), member("d/pwned", b"x"))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("whiteouts", [Whiteouts.OVERLAY, Whiteouts.REMOVE])
def test_layer_is_refused(name: str, whiteouts: Whiteouts, tmp_path: Path, outside: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(ArchiveRefused, match=LAYERS[name][1]) as caught:
        apply(io.BytesIO(hostile(name, outside)), Destination(root=root, whiteouts=whiteouts))
    assert "\n" not in caught.value.message
    assert untouched(outside)


@pytest.mark.parametrize("name", LAYERS)
def test_image_is_refused_and_nothing_kept(name: str, tmp_path: Path, outside: Path) -> None:
    content = FileStore(tmp_path / "content")
    snapshots = OverlaySnapshotter(tmp_path / "snapshots")
    layer = hostile(name, outside)
    try:
        (loaded,) = load(io.BytesIO(docker_archive(layer)), content)
    except SampanError:
        pass  # most are refused before anything is stored
    else:
        assert loaded.image is not None
        with pytest.raises((ArchiveRefused, DigestMismatch)):
            Unpacker(content, snapshots).unpack(loaded.image)
        for blob in list(content.walk()):
            content.delete(blob.digest)
    assert list(content.walk()) == []
    assert list((tmp_path / "content" / "ingest").iterdir()) == []
    assert list(snapshots.walk()) == []
    assert snapshots.sweep() == 0
    assert untouched(outside)


def test_links_inside_are_followed(tmp_path: Path) -> None:
    """What a container sees inside its root is inside: absolute links start there."""
    layer = tar(
        member("usr/lib", type=DIRECTORY, mode=0o755),
        member("lib", type=SYMLINK, link="usr/lib"),
        member("abs", type=SYMLINK, link="/usr/lib"),
        member("usr/up", type=SYMLINK, link="../usr/lib"),
        member("lib/one", b"1"),
        member("abs/two", b"2"),
        member("usr/up/three", b"3"),
        member("/usr/lib/four", b"4"),
    )
    apply(io.BytesIO(layer), Destination(root=tmp_path, whiteouts=Whiteouts.OVERLAY))
    assert sorted(os.listdir(tmp_path / "usr/lib")) == ["four", "one", "three", "two"]


def test_replaced_directory_is_not_written_through(tmp_path: Path, outside: Path) -> None:
    """A directory made, used, then replaced by a link out: nothing of it may be remembered."""
    layer = tar(
        member("d", type=DIRECTORY, mode=0o755),
        member("d/one", b"1"),
        member("d", type=SYMLINK, link=f"../{OUTSIDE}"),
        member("d/pwned", b"x"),
    )
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(ArchiveRefused, match="leads out"):
        apply(io.BytesIO(layer), Destination(root=root, whiteouts=Whiteouts.OVERLAY))
    assert untouched(outside)


def test_link_in_place_of_a_file_is_replaced(tmp_path: Path, outside: Path) -> None:
    layer = tar(
        member("f", type=SYMLINK, link=f"../{OUTSIDE}/secret"), member("f", b"mine", mode=0o600)
    )
    root = tmp_path / "root"
    root.mkdir()
    apply(io.BytesIO(layer), Destination(root=root, whiteouts=Whiteouts.OVERLAY))
    assert (root / "f").read_bytes() == b"mine"
    assert (outside / "secret").read_text() == "secret"


def test_overlay_marks_cannot_be_smuggled_in(tmp_path: Path) -> None:
    entry, data = member("d", type=DIRECTORY, mode=0o755)
    entry.pax_headers = {
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.user.fine": "1",
    }
    apply(io.BytesIO(tar((entry, data))), Destination(root=tmp_path, whiteouts=Whiteouts.OVERLAY))
    assert os.listxattr(tmp_path / "d") == ["user.fine"]


def test_device_nodes_need_the_right(tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(tar(member("null", type=CHARACTER, device=(1, 3))))
    (tmp_path / "root").mkdir()
    program = """
import sys
from pathlib import Path
from sampan.errors import ArchiveRefused
from sampan.layer import Destination, Whiteouts, apply
try:
    with open(sys.argv[1] + "/layer", "rb") as stream:
        apply(stream, Destination(root=Path(sys.argv[1], "root"), whiteouts=Whiteouts.OVERLAY))
except ArchiveRefused as error:
    print(error)
"""
    result = subprocess.run(
        ["setpriv", "--bounding-set=-mknod", sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "cannot extract 'null': Operation not permitted\n"
    assert list((tmp_path / "root").iterdir()) == []


def sparse(size: int) -> bytes:
    """A few bytes that claim to be a file of ``size`` bytes."""
    entry, _ = member("GNUSparseFile.0/x")
    entry.pax_headers = {
        "GNU.sparse.map": "0,0",
        "GNU.sparse.size": str(size),
        "GNU.sparse.name": "x",
    }
    return tar((entry, b""))


RATIO = Limits(ratio=100, ratio_from=1 << 20)


@pytest.mark.parametrize(
    ("limits", "layer", "what"),
    [
        (Limits(entries=10), files({str(n): b"" for n in range(11)}), "more than 10 entries"),
        (Limits(size=100_000), files({"a": bytes(200_000)}), "larger than the limit"),
        (RATIO, gzip.compress(files({"a": bytes(4 << 20)})), "100 times"),
        (RATIO, zstandard.compress(files({"a": bytes(64 << 20)})), "100 times"),
        (Limits(expanded=1000), sparse(1001), "files are larger than the limit"),
    ],
    ids=["entries", "size", "gzip", "zstd", "sparse"],
)
def test_bombs(limits: Limits, layer: bytes, what: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveRefused, match=what):
        apply(
            io.BytesIO(layer),
            Destination(root=tmp_path, whiteouts=Whiteouts.OVERLAY),
            limits=limits,
        )


def gzipped_zeros(size: int) -> bytes:
    """A gzipped tar with a file of that many zero bytes (a multiple of 16 MiB)."""
    piece = 16 << 20
    entry, _ = member("zeros")
    entry.size = size
    head, end = entry.tobuf(tarfile.GNU_FORMAT), bytes(1024)
    zeros = gzip.compress(bytes(piece), mtime=0)
    return gzip.compress(head) + zeros * (size // piece) + gzip.compress(end)


def test_images_of_zeros_are_no_bombs(tmp_path: Path) -> None:
    """dockerd takes them; no compression of a real image tells them from a bomb."""
    layer = gzipped_zeros(2 << 30)
    assert len(layer) * 900 < 2 << 30
    assert check(io.BytesIO(layer)).size > 2 << 30
    small = gzipped_zeros(16 << 20)
    assert len(small) * 900 < 16 << 20
    apply(io.BytesIO(small), Destination(root=tmp_path, whiteouts=Whiteouts.OVERLAY))
    assert (tmp_path / "zeros").stat().st_size == 16 << 20


def test_a_bomb_does_not_fill_the_disk(tmp_path: Path) -> None:
    """On a file system of 64 MiB: refused while there is still room for others.

    The compressed bytes are read a mebibyte at a time, which is all there are of so small a bomb.
    """
    limits = Limits(ratio=20)
    fd = mount.new_filesystem("tmpfs", "tmpfs", [("size", "64m")])
    try:
        root = Path(f"/proc/self/fd/{fd}/root")
        root.mkdir()
        with pytest.raises(ArchiveRefused, match="20 times"):
            apply(
                io.BytesIO(gzipped_zeros(1 << 30)),
                Destination(root=root, whiteouts=Whiteouts.OVERLAY),
                limits=limits,
            )
        status = os.fstatvfs(fd)
        assert status.f_bavail * status.f_frsize > 4 << 20
        (root / "zeros").unlink()
        with pytest.raises(ArchiveRefused, match="20 times"):
            archive_put(fd, "/", io.BytesIO(gzipped_zeros(1 << 30)), limits=limits)
    finally:
        os.close(fd)


def test_sparse_bomb(tmp_path: Path) -> None:
    """Larger than any disk."""
    with pytest.raises(ArchiveRefused, match=r"larger than the limit|extract"):
        apply(
            io.BytesIO(sparse(1 << 60)),
            Destination(root=tmp_path, whiteouts=Whiteouts.OVERLAY),
        )


@pytest.mark.parametrize("spoil", ["manifest", "config", "layer0"])
def test_oci_digest_mismatch_keeps_nothing(spoil: str, tmp_path: Path) -> None:
    content = FileStore(tmp_path)
    data = oci_archive(files({"a": b"text"}), spoil=spoil)
    with pytest.raises(DigestMismatch):
        load(io.BytesIO(data), content)
    assert list(content.walk()) == []


def test_diff_id_mismatch_keeps_nothing(tmp_path: Path) -> None:
    content = FileStore(tmp_path)
    other = files({"b": b"other"})
    for layer in (files({"a": b"text"}), gzip.compress(files({"a": b"text"}))):
        with pytest.raises(DigestMismatch):
            load(io.BytesIO(docker_archive(layer, plain=[other])), content)
    assert list(content.walk()) == []
    assert list((tmp_path / "ingest").iterdir()) == []


def test_layer_digest_is_verified_on_the_way(tmp_path: Path) -> None:
    layer = files({"a": b"x"})
    wrong = Digest.of(b"something else")
    for keywords in ({"digest": wrong}, {"diff_id": wrong}):
        with pytest.raises(DigestMismatch):
            apply(
                io.BytesIO(layer),
                Destination(root=tmp_path, whiteouts=Whiteouts.OVERLAY),
                **keywords,
            )


@pytest.mark.parametrize(
    "archive",
    [
        b"",
        b"not an archive at all",
        files({"hello": b"world"}),
        files({"manifest.json": b"["}),
        files({"manifest.json": b"[]"}),
        files({"manifest.json": b'[{"Config": "../../etc/passwd", "Layers": []}]'}),
        files({"manifest.json": b'[{"Config": "c", "Layers": ["x"]}]', "c": b"{}"}),
        files({"repositories": b'{"a": {"b": "../../c"}}'}),
        files({"oci-layout": b'{"imageLayoutVersion": "9"}', "index.json": b"{}"}),
        tar(
            member("manifest.json", b'[{"Config": "c", "Layers": []}]'),
            member("c", type=SYMLINK, link="c"),
        ),
        tar(member("manifest.json", type=SYMLINK, link="/etc/passwd")),
        docker_archive(files({"a": b"x"}))[:3000],
        gzip.compress(docker_archive(files({"a": os.urandom(9999)})))[:5000],
    ],
)
def test_malformed_image_archives(archive: bytes, tmp_path: Path) -> None:
    content = FileStore(tmp_path)
    with pytest.raises(InvalidParameter):
        load(io.BytesIO(archive), content)
    assert list(content.walk()) == []
    assert list((tmp_path / "ingest").iterdir()) == []


def test_full_disk_keeps_nothing(tmp_path: Path) -> None:
    """On a file system of one mebibyte of its own."""
    fd = mount.new_filesystem("tmpfs", "tmpfs", [("size", "1m")])
    try:
        content = FileStore(Path(f"/proc/self/fd/{fd}/content"))
        with pytest.raises(NoSpace):
            load(io.BytesIO(docker_archive(files({"a": os.urandom(8 << 20)}))), content)
        assert list(content.walk()) == []
        assert list(Path(f"/proc/self/fd/{fd}/content/ingest").iterdir()) == []
    finally:
        os.close(fd)


class TestCopying:
    """``docker cp`` against a container that lies about its links (CVE-2018-15664)."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "root"
        (root / "etc").mkdir(parents=True)
        (root / "etc" / "passwd").write_text("inside")
        return root

    def test_links_out_are_read_inside(self, root: Path, outside: Path) -> None:
        os.symlink("../../../../../../etc", root / "up")
        os.symlink(outside, root / "abs")
        fd = os.open(root, os.O_RDONLY)
        try:
            _, chunks = archive_get(fd, "/up/passwd")
            with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
                taken = archive.extractfile("passwd")
                assert taken is not None
                assert taken.read() == b"inside"
            for path in ("/abs/secret", "/abs/", "/abs/."):
                with pytest.raises(NotFound):
                    archive_stat(fd, path)
            assert archive_stat(fd, "/up").link_target == "/etc"
        finally:
            os.close(fd)

    def test_links_out_are_written_inside(self, root: Path, outside: Path) -> None:
        os.symlink(outside, root / "abs")
        os.symlink("/etc", root / "in")
        os.symlink(f"../{OUTSIDE}", root / "etc" / "up")
        fd = os.open(root, os.O_RDONLY)
        try:
            with pytest.raises(NotFound):
                archive_put(fd, "/abs", io.BytesIO(files({"x": b"x"})))
            archive_put(fd, "/in", io.BytesIO(files({"new": b"x"})))
            assert (root / "etc" / "new").read_bytes() == b"x"
            with pytest.raises(SampanError):
                archive_put(fd, "/etc", io.BytesIO(files({"up/x": b"x"})))
            with pytest.raises(ArchiveRefused):
                archive_put(fd, "/etc", io.BytesIO(files({"../../outside/x": b"x"})))
        finally:
            os.close(fd)
        assert untouched(outside)

    def test_link_swapped_meanwhile(self, root: Path, outside: Path) -> None:
        """A thread swaps a directory for a link out as fast as it can, while we write into it."""
        (root / "d").mkdir()
        os.symlink(outside, root / "evil")
        stop = threading.Event()
        exchange = ctypes.CDLL(None, use_errno=True).renameat2

        def swap() -> None:
            while not stop.is_set():  # RENAME_EXCHANGE: there is always something of the name
                exchange(-100, bytes(root / "d"), -100, bytes(root / "evil"), 2)

        thread = threading.Thread(target=swap)
        thread.start()
        fd = os.open(root, os.O_RDONLY)
        try:
            for number in range(300):
                try:
                    archive_put(fd, "/d", io.BytesIO(files({f"f{number}": b"x"})))
                    archive_put(fd, "/", io.BytesIO(files({f"d/g{number}": b"x"})))
                    for chunk in archive_get(fd, "/d/secret")[1]:
                        assert b"secret" not in chunk
                except SampanError:
                    continue
        finally:
            stop.set()
            thread.join()
            os.close(fd)
        assert untouched(outside)
