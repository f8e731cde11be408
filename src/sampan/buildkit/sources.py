"""Sources of graphs that lie elsewhere: git repositories and addresses; and looking into what
there is.

buildx reads a policy beside a remote Dockerfile, or the Dockerfile at an address, by solving a
graph of such a source and reading files of the result.
"""

from __future__ import annotations

import hashlib
import os
import stat as modes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sampan.build.remote import GitSource, check_out, download, parse_git
from sampan.build.sourcepolicy import SourcePolicy
from sampan.buildkit.directories import go_mode
from sampan.buildkit.protocol import ops_pb2 as ops
from sampan.buildkit.protocol.stat_pb2 import Stat
from sampan.dockerfile.ignore import match
from sampan.errors import InvalidParameter, NotFound, Unsupported
from sampan.kernel.openat import in_root
from sampan.layer.tree import names

#: Most that is read of one file.
READ_LIMIT = 16 << 20
_HARMLESS = frozenset(
    (
        *("git.authheadersecret", "git.authtokensecret", "git.knownsshhosts", "git.mountsshsock"),
        *("git.advice", "http.authheadersecret"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What was fetched, and the digest it has."""

    directory: Path
    algorithm: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSource:
    """A repository (``git``), or an address whose contents are kept as ``filename``."""

    git: GitSource | None = None
    address: str = ""
    filename: str = ""
    checksum: str = ""
    mode: int = 0o600
    uid: int = 0
    gid: int = 0

    def fetch(self, directory: Path) -> Fetched:
        """Get it below an empty directory; where it is. Blocking."""
        if self.git is not None:
            done = check_out(self.git, directory)
            return Fetched(directory=done.directory, algorithm="sha1", digest=done.commit)
        file = download(self.address, directory, self.checksum)
        if self.filename and file.name != self.filename:
            file = file.rename(directory / Path(self.filename).name)
        os.chown(file, self.uid, self.gid)
        file.chmod(self.mode)
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return Fetched(directory=directory, algorithm="sha256", digest=digest)


def remote(op: ops.SourceOp, policy: SourcePolicy) -> RemoteSource:
    """The source an operation names, as a policy has it. Raises Unsupported for any other."""
    kind, _, rest = op.identifier.partition("://")
    values = {key: value for key, value in op.attrs.items() if key not in _HARMLESS}
    if kind == "git":
        found = RemoteSource(git=policy.repository(_git(rest, values)))
    elif kind in ("http", "https"):
        address, checksum = policy.address(op.identifier, values.pop("http.checksum", ""))
        found = RemoteSource(
            address=address,
            filename=values.pop("http.filename", ""),
            checksum=checksum,
            mode=_number("http.perm", values.pop("http.perm", "0600")) & 0o7777,
            uid=_number("http.uid", values.pop("http.uid", "0")),
            gid=_number("http.gid", values.pop("http.gid", "0")),
        )
    else:
        raise Unsupported(f"source {kind!r} of a graph is not supported")
    for key in values:
        raise Unsupported(f"attribute {key!r} of a source is not supported")
    return found


def _git(rest: str, values: dict[str, str]) -> GitSource:
    address, _, fragment = rest.partition("#")
    full = values.pop("git.fullurl", "") or f"https://{address}"
    ref, _, subdirectory = fragment.partition(":")
    base = parse_git(full) or GitSource(repository=full)
    return replace(
        base,
        ref=ref,
        subdirectory=subdirectory,
        checksum=values.pop("git.checksum", ""),
        keep_git_directory=values.pop("git.keepgitdir", "") == "true",
        submodules=values.pop("git.skipsubmodules", "") != "true",
        commit_times=values.pop("git.mtime", "") == "commit",
        by_commit=values.pop("git.fetchbycommit", "") == "true",
    )


def _number(key: str, text: str) -> int:
    """A number as Go reads one: a leading zero makes it octal."""
    try:
        return int(text, 8) if text.startswith("0") else int(text)
    except ValueError:
        raise InvalidParameter(f"attribute {key!r} of a source is no number") from None


def read(root: int, path: str, offset: int = 0, length: int = 0) -> bytes:
    """Bytes of a file (all of them with ``length`` 0). Raises NotFound, InvalidParameter."""
    with _opened(root, path, os.O_RDONLY | os.O_NONBLOCK) as fd:
        if not modes.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidParameter(f"{path} is not a file")
        data = os.pread(fd, min(length or READ_LIMIT, READ_LIMIT) + 1, offset)
    if not length and len(data) > READ_LIMIT:
        raise InvalidParameter(f"{path} is larger than {READ_LIMIT} bytes")
    return data[: length or None]


def stat(root: int, path: str) -> Stat:
    """What a path is, links followed inside the root. Raises NotFound."""
    with _opened(root, path, os.O_PATH) as fd:
        return _described(os.path.basename(path.rstrip("/")), os.fstat(fd))


def entries(root: int, path: str, pattern: str = "") -> list[Stat]:
    """What is in a directory, those that match ``pattern`` (all of them with ""), by name.

    Raises NotFound, InvalidParameter.
    """
    found = []
    with _opened(root, path, os.O_RDONLY) as fd:
        if not modes.S_ISDIR(os.fstat(fd).st_mode):
            raise InvalidParameter(f"{path} is not a directory")
        for name in sorted(names(fd)):
            text = os.fsdecode(name)
            if pattern and not match(pattern, text):
                continue
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            one = _described(text, status)
            if modes.S_ISLNK(status.st_mode):
                one.linkname = os.fsdecode(os.readlink(name, dir_fd=fd))
            found.append(one)
    return found


def _described(name: str, status: os.stat_result) -> Stat:
    return Stat(
        path=name,
        mode=go_mode(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if modes.S_ISREG(status.st_mode) else 0,
        modTime=status.st_mtime_ns,
    )


@contextmanager
def _opened(root: int, path: str, flags: int) -> Iterator[int]:
    try:
        fd = in_root(root, path.strip("/") or ".", flags)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"open {path}: no such file or directory") from None
    try:
        yield fd
    finally:
        os.close(fd)
