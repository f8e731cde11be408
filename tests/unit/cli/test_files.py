"""What the command line reads and writes: archives, configuration, contexts, credentials."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from sampan.cli.autostart import DaemonFiles, start_daemon
from sampan.cli.build_context import open_context
from sampan.cli.config import Config
from sampan.cli.context_store import Context, ContextStore
from sampan.cli.credentials import HUB, Credentials, Store, encode_auth, server_key
from sampan.cli.fault import CliError
from sampan.cli.manifest_store import Entry, ManifestStore, annotate
from sampan.client.failure import ConnectionFailed
from sampan.client.tarstream import PieceReader, Unpacker, pack, walk
from sampan.errors import InvalidParameter


def archive(*entries: tuple[str, bytes, str]) -> bytes:
    """A tar of (name, kind, link target or content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, text in entries:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            entry.mode = 0o755 if kind == tarfile.DIRTYPE else 0o640
            if kind == tarfile.REGTYPE:
                entry.size = len(text)
            else:
                entry.linkname = text
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def unpack(data: bytes, root: Path) -> None:
    pieces = (data[at : at + 700] for at in range(0, len(data), 700))
    Unpacker(str(root), lambda name: name, ownership=False).unpack(PieceReader(pieces))


FILE, DIRECTORY, SYMLINK, HARDLINK = (
    tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE,
)  # fmt: skip


def test_unpacking(tmp_path: Path) -> None:
    data = archive(
        ("d", DIRECTORY, ""), ("d/f", FILE, "text"), ("d/l", SYMLINK, "f"),
        ("d/h", HARDLINK, "d/f"), ("deep/er/f", FILE, "x"), ("./dot", FILE, "."),
    )  # fmt: skip
    unpack(data, tmp_path)
    assert (tmp_path / "d/f").read_text() == "text"
    assert (tmp_path / "d/f").stat().st_mode & 0o777 == 0o640
    assert os.readlink(tmp_path / "d/l") == "f"
    assert (tmp_path / "d/h").samefile(tmp_path / "d/f")
    assert (tmp_path / "deep/er/f").read_text() == "x"
    unpack(data, tmp_path)  # over what is there


@pytest.mark.parametrize(
    "entries",
    [
        [("../escape", FILE, "x")],
        [("a/../../escape", FILE, "x")],
        [("/escape", FILE, "x")],
        [("link", SYMLINK, ".."), ("link/escape", FILE, "x")],
        [("link", SYMLINK, "/tmp"), ("link/escape", DIRECTORY, "")],
        [("d", DIRECTORY, ""), ("d/link", SYMLINK, "../.."), ("d/link/escape", SYMLINK, "x")],
        [("hard", HARDLINK, "../outside")],
        [("link", SYMLINK, "../outside"), ("hard", HARDLINK, "link")],
        [("d", DIRECTORY, ""), ("d", FILE, "x")],
    ],
)
def test_hostile_archives(tmp_path: Path, entries: list[tuple[str, bytes, str]]) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside").write_text("secret")
    with pytest.raises(InvalidParameter):
        unpack(archive(*entries), root)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "root"]
    assert (tmp_path / "outside").stat().st_nlink == 1


def test_a_link_in_the_way_is_replaced_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside").write_text("kept")
    unpack(archive(("f", SYMLINK, "../outside"), ("f", FILE, "new")), root)
    assert (tmp_path / "outside").read_text() == "kept"
    assert (root / "f").read_text() == "new"


def test_broken_archives(tmp_path: Path) -> None:
    for data in (b"x" * 2000, archive(("f", FILE, "x" * 5000))[:3000]):
        with pytest.raises(InvalidParameter):
            unpack(data, tmp_path)


def test_packing(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub/big").write_bytes(b"x" * 700_000)
    (root / "a").write_text("a")
    os.link(root / "a", root / "b")
    (root / "l").symlink_to("a")
    os.mkfifo(root / "p")
    (root / ("long" * 40)).write_text("")
    data = b"".join(pack(walk(str(root), "top")))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {entry.name: entry for entry in tar}
        assert set(found) == {
            "top", "top/a", "top/b", "top/l", "top/p", "top/sub", "top/sub/big",
            "top/" + "long" * 40,
        }  # fmt: skip
        assert (found["top/b"].islnk(), found["top/b"].linkname) == (True, "top/a")
        assert (found["top/l"].issym(), found["top/p"].isfifo()) == (True, True)
        member = tar.extractfile("top/sub/big")
        assert member is not None
        assert member.read() == b"x" * 700_000


def test_build_context(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("secret\nlogs/*\n!logs/keep\nDockerfile\n")
    for name in ("Dockerfile", "file", "secret"):
        (tmp_path / name).write_text(name)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/keep").write_text("")
    (tmp_path / "logs/drop").write_text("")
    outside = tmp_path.parent / "Other.Dockerfile"
    outside.write_text("FROM x")
    context = open_context(str(tmp_path), "")
    assert context.body is not None
    with tarfile.open(fileobj=io.BytesIO(b"".join(context.body))) as tar:
        names = set(tar.getnames())
        assert {entry.uid for entry in tar} == {0}
    assert names == {".dockerignore", "Dockerfile", "file", "logs", "logs/keep"}
    context = open_context(str(tmp_path), str(outside))
    assert context.body is not None
    with tarfile.open(fileobj=io.BytesIO(b"".join(context.body))) as tar:
        assert context.dockerfile in tar.getnames()
        assert context.dockerfile.startswith(".dockerfile.")
    assert open_context("https://x.test/a.tar", "").remote == "https://x.test/a.tar"
    for source, dockerfile in (("/nonexistent", ""), (str(tmp_path), "/nonexistent"), ("-", "-")):
        with pytest.raises(CliError):
            open_context(source, dockerfile)


def test_configuration(tmp_path: Path) -> None:
    warnings: list[str] = []
    config = Config.load(str(tmp_path / "new"), warnings.append)
    assert config.document == {}
    config.document |= {"auths": {}, "unknown": [1, 2]}
    config.save()
    path = tmp_path / "new/config.json"
    assert json.loads(path.read_text()) == {"auths": {}, "unknown": [1, 2]}
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("{broken")
    assert Config.load(str(tmp_path / "new"), warnings.append).document == {}
    assert "Error parsing config file" in warnings[0]


def test_contexts(tmp_path: Path) -> None:
    store = ContextStore(str(tmp_path))
    store.save(Context("one", "first", "tcp://h:1"), {"ca.pem": b"CA", "key.pem": b"KEY"})
    found = store.get("one")
    assert (found.host, found.description, found.tls_files) == (
        "tcp://h:1", "first", ("ca.pem", "key.pem"),
    )  # fmt: skip
    assert store.tls_material(found) == {"ca.pem": b"CA", "key.pem": b"KEY"}
    key = Path(found.tls_path) / "docker/key.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    store.save(found._replace(host="tcp://h:2"), None)
    assert store.tls_material(store.get("one"))["key.pem"] == b"KEY"
    store.remove("one")
    assert store.names() == []
    assert not key.exists()
    for name in ("", "default", "x", "a b", "-a", "../up"):
        with pytest.raises(CliError):
            store.save(Context(name), None)


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credential helper that keeps everything in files beside it."""
    program = tmp_path / "docker-credential-test"
    program.write_text(
        f"#!{sys.executable} -I\n"
        "import json, pathlib, sys\n"
        f"kept = pathlib.Path({str(tmp_path / 'kept.json')!r})\n"
        "known = json.loads(kept.read_text()) if kept.exists() else {}\n"
        "data = sys.stdin.read()\n"
        "if sys.argv[1] == 'store':\n"
        "    entry = json.loads(data); known[entry['ServerURL']] = entry\n"
        "elif sys.argv[1] == 'erase': known.pop(data, None)\n"
        "elif data in known: print(json.dumps(known[data]))\n"
        "else: print('credentials not found in native keychain'); sys.exit(1)\n"
        "kept.write_text(json.dumps(known))\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "kept.json"


def test_credentials_in_the_file(tmp_path: Path) -> None:
    store = Store(Config(str(tmp_path / "config.json"), {}))
    assert store.get("r.test") is None
    store.put(Credentials("r.test", "me", "p:w"))
    assert store.get("r.test") == Credentials("r.test", "me", "p:w")
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "auths": {"r.test": {"auth": "bWU6cDp3"}}
    }
    assert set(store.all()) == {"r.test"}
    assert store.erase("r.test")
    assert not store.erase("r.test")
    old = Store(Config("", {"auths": {"https://old.test/v1/": {"auth": "YTpi"}}}))
    assert old.get("old.test") == Credentials("old.test", "a", "b")
    with pytest.raises(CliError, match="malformed"):
        Store(Config("", {"auths": {"x": {"auth": "?"}}})).get("x")
    assert server_key("docker.io") == HUB


def test_credentials_with_a_helper(tmp_path: Path, helper: Path) -> None:
    store = Store(Config(str(tmp_path / "config.json"), {"credHelpers": {"h.test": "test"}}))
    assert store.get("h.test") is None
    assert store.put(Credentials("h.test", "me", "secret")) == "test"
    assert "secret" not in (tmp_path / "config.json").read_text()
    assert store.get("h.test") == Credentials("h.test", "me", "secret")
    store.put(Credentials("h.test", identity_token="token"))
    assert store.get("h.test") == Credentials("h.test", identity_token="token")
    assert store.erase("h.test")
    assert store.get("h.test") is None
    missing = Store(Config("", {"credsStore": "nope"}))
    with pytest.raises(CliError, match="executable file not found"):
        missing.get("x")
    assert encode_auth({}) == "e30="


def test_manifest_lists(tmp_path: Path) -> None:
    store = ManifestStore(str(tmp_path))
    entry = Entry("docker.io/a/b:1", "type", "sha256:1", 2, {"os": "linux"}, b"{}")
    store.put("docker.io/a/list:1", entry)
    assert store.entries("docker.io/a/list:1") == [entry]
    platform = annotate(entry.platform, {"architecture": "arm64", "os": ""}, ["f", "f"])
    assert platform == {"os": "linux", "architecture": "arm64", "os.features": ["f", "f"]}
    with pytest.raises(CliError):
        annotate(entry.platform, {}, [])
    store.remove("docker.io/a/list:1")
    with pytest.raises(CliError):
        store.entries("docker.io/a/list:1")


_FAKE_DAEMON = """
import os, pathlib, socket, sys, time
root = pathlib.Path(sys.argv[1])
with open(root / "starts", "a") as file:
    file.write("x")
if len(sys.argv) > 2:
    print("cannot go on"); sys.exit(3)
assert os.getsid(0) == os.getpid()
listener = socket.socket(socket.AF_UNIX)
listener.bind(str(root / "s")); listener.listen(64)
while not (root / "stop").exists():
    sock, _ = listener.accept()
    sock.recv(1000); sock.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n"); sock.close()
"""


def test_one_daemon_is_started_even_in_a_race(tmp_path: Path) -> None:
    code = (
        "import sys; from sampan.cli.autostart import *\n"
        f"start_daemon(DaemonFiles({str(tmp_path / 's')!r}, {str(tmp_path / 'run')!r}, "
        f"(sys.executable, '-I', '-c', {_FAKE_DAEMON!r}, {str(tmp_path)!r})), {{}})"
    )
    racers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(5)]
    try:
        assert [racer.wait(60) for racer in racers] == [0] * 5
        assert (tmp_path / "starts").read_text() == "x"
    finally:
        (tmp_path / "stop").touch()
        subprocess.run([sys.executable, "-c", code], check=False, timeout=60)


def test_a_daemon_that_ends_is_told_about(tmp_path: Path) -> None:
    command = (sys.executable, "-I", "-c", _FAKE_DAEMON, str(tmp_path), "fail")
    files = DaemonFiles(str(tmp_path / "s"), str(tmp_path / "run"), command)
    with pytest.raises(ConnectionFailed, match="ended with status 3: cannot go on"):
        start_daemon(files, {})
