"""Graphs of LLB that are one source: what clients look into before they build from it.

buildx reads a policy beside a remote Dockerfile, or the Dockerfile at an address, by solving a
graph of a git or HTTP source (or of an archive copied and unpacked from one) and reading files of
the result. Those graphs are understood here; any other is refused.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from sampan.build.remote import GitSource, clone, download, parse_git
from sampan.buildkit.directories import go_mode
from sampan.buildkit.protocol import ops_pb2 as ops
from sampan.buildkit.protocol.stat_pb2 import Stat
from sampan.engine.buildcontext import fetch
from sampan.errors import InvalidParameter, NotFound, Unsupported
from sampan.kernel.openat import in_root

#: Most that is read of one file.
READ_LIMIT = 16 << 20
_HARMLESS = frozenset(
    (
        *("git.authheadersecret", "git.authtokensecret", "git.knownsshhosts", "git.mountsshsock"),
        *("git.advice", "http.authheadersecret", "http.perm", "http.uid", "http.gid"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSource:
    """A repository (``git``), or an address whose contents are unpacked or kept as ``filename``."""

    git: GitSource | None = None
    address: str = ""
    unpack: bool = False
    filename: str = ""
    checksum: str = ""

    def fetch(self, directory: Path) -> Path:
        """Get it below an empty directory; where it is. Blocking."""
        if self.git is not None:
            return clone(self.git, directory)
        if self.unpack:
            return fetch(self.address, directory)
        file = download(self.address, directory, self.checksum)
        if self.filename and file.name != self.filename:
            file.rename(directory / Path(self.filename).name)
        return directory


def source_of(definition: ops.Definition) -> RemoteSource:
    """The one source a graph stands for. Raises Unsupported for any other graph."""
    found = {_digest(data): ops.Op.FromString(data) for data in getattr(definition, "def")}
    if not found:
        raise InvalidParameter("the graph is empty")
    op = list(found.values())[-1]
    unpack = False
    for _ in found:
        kind = op.WhichOneof("op")
        if kind == "source":
            return _source(op.source, unpack=unpack)
        if kind == "file":
            unpack = _unpacks(op.file)
        elif kind is not None:
            break
        if len(op.inputs) != 1 or op.inputs[0].digest not in found:
            break
        op = found[op.inputs[0].digest]
    raise Unsupported("graphs of LLB are not supported, only Dockerfiles")


def _digest(data: bytes) -> str:
    return f"sha256:{sha256(data).hexdigest()}"


def _unpacks(op: ops.FileOp) -> bool:
    actions = [action.WhichOneof("action") for action in op.actions]
    if actions != ["copy"] or not op.actions[0].copy.attemptUnpackDockerCompatibility:
        raise Unsupported("graphs of LLB are not supported, only Dockerfiles")
    return True


def _source(op: ops.SourceOp, *, unpack: bool) -> RemoteSource:
    kind, _, rest = op.identifier.partition("://")
    values = {key: value for key, value in op.attrs.items() if key not in _HARMLESS}
    if kind == "git":
        address, _, fragment = rest.partition("#")
        full = values.pop("git.fullurl", "") or f"https://{address}"
        ref, _, subdirectory = fragment.partition(":")
        base = parse_git(full) or GitSource(repository=full)
        git = GitSource(
            repository=base.repository,
            ref=ref,
            subdirectory=subdirectory,
            checksum=values.pop("git.checksum", ""),
            keep_git_directory=values.pop("git.keepgitdir", "") == "true",
            submodules=values.pop("git.skipsubmodules", "") != "true",
        )
        found = RemoteSource(git=git)
    elif kind in ("http", "https"):
        found = RemoteSource(
            address=op.identifier,
            unpack=unpack,
            filename=values.pop("http.filename", ""),
            checksum=values.pop("http.checksum", ""),
        )
    else:
        raise Unsupported(f"source {kind!r} of a graph is not supported")
    for key in values:
        raise Unsupported(f"attribute {key!r} of a source is not supported")
    return found


def read(directory: Path, path: str, offset: int = 0, length: int = 0) -> bytes:
    """Bytes of a file (all of them with ``length`` 0). Raises NotFound, InvalidParameter."""
    with _opened(directory, path, os.O_RDONLY | os.O_NONBLOCK) as fd:
        if not modes.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidParameter(f"{path} is not a file")
        data = os.pread(fd, min(length or READ_LIMIT, READ_LIMIT) + 1, offset)
    if not length and len(data) > READ_LIMIT:
        raise InvalidParameter(f"{path} is larger than {READ_LIMIT} bytes")
    return data[: length or None]


def stat(directory: Path, path: str) -> Stat:
    """What a path is, links followed inside the directory. Raises NotFound."""
    with _opened(directory, path, os.O_PATH) as fd:
        status = os.fstat(fd)
    return Stat(
        path=os.path.basename(path.rstrip("/")),
        mode=go_mode(status.st_mode),
        size=status.st_size if modes.S_ISREG(status.st_mode) else 0,
        modTime=status.st_mtime_ns,
    )


@contextmanager
def _opened(directory: Path, path: str, flags: int) -> Iterator[int]:
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = in_root(root, path.lstrip("/") or ".", flags)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"open {path}: no such file or directory") from None
    finally:
        os.close(root)
    try:
        yield fd
    finally:
        os.close(fd)
