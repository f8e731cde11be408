"""The context of a classic build: a directory, an archive or Dockerfile on stdin, or a URL."""

from __future__ import annotations

import os
import sys
import tarfile
from typing import NamedTuple

from sampan.cli.fault import CliError
from sampan.client.tarstream import Packed, pack, walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sampan.dockerfile.ignore import IgnoreMatcher

_BLOCK = 512
_IGNORE_FILE = ".dockerignore"
_MAGIC = (b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")


class BuildContext(NamedTuple):
    """What the daemon is sent: a body or a remote address, and the Dockerfile's name in it."""

    body: Iterable[bytes] | None
    remote: str
    dockerfile: str


def open_context(source: str, dockerfile: str) -> BuildContext:
    """The context of ``build SOURCE -f DOCKERFILE``. Raises :class:`CliError`."""
    if source == "-":
        if dockerfile == "-":
            message = "invalid argument: can't use stdin for both build context and dockerfile"
            raise CliError(message)
        return _from_stdin(dockerfile)
    if is_url(source):
        if dockerfile == "-":
            raise CliError("the Dockerfile cannot come from stdin when the context is a URL")
        return BuildContext(None, source, dockerfile)
    if not os.path.isdir(source):
        raise CliError(f'unable to prepare context: path "{source}" not found')
    return _from_directory(source, dockerfile)


def is_url(source: str) -> bool:
    """Whether a context is fetched by the daemon: HTTP or a git repository."""
    if source.startswith(("http://", "https://", "git://", "github.com/")):
        return True
    return source.startswith("git@")


def _from_stdin(dockerfile: str) -> BuildContext:
    stream = sys.stdin.buffer
    head = stream.read(2 * _BLOCK)
    if not head:
        raise CliError("unable to prepare context: unexpected EOF")
    if _is_archive(head):
        return BuildContext(_rest(head), "", dockerfile)
    content = head + stream.read()
    return BuildContext(_single("Dockerfile", content), "", "Dockerfile")


def _is_archive(head: bytes) -> bool:
    if head.startswith(_MAGIC):
        return True
    try:
        tarfile.TarInfo.frombuf(head[:_BLOCK], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _rest(head: bytes) -> Iterator[bytes]:
    yield head
    while piece := sys.stdin.buffer.read(64 * 1024):
        yield piece


def _member(name: str, content: bytes) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o600
    header = entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return header + content + b"\0" * (-len(content) % _BLOCK)


def _single(name: str, content: bytes) -> Iterator[bytes]:
    yield _member(name, content) + b"\0" * (2 * _BLOCK)


def _from_directory(directory: str, dockerfile: str) -> BuildContext:
    extra: tuple[str, bytes] | None = None
    if dockerfile == "-":
        name = f".dockerfile.{os.urandom(8).hex()}"
        extra = (name, sys.stdin.buffer.read())
    else:
        name, extra = _dockerfile_in(directory, dockerfile)
    keep = _ignore_filter(directory, name, dockerfile)
    return BuildContext(_pack(walk(directory, "", keep), extra), "", name)


def _dockerfile_in(directory: str, dockerfile: str) -> tuple[str, tuple[str, bytes] | None]:
    """The Dockerfile's name in the context; with its content if it is outside of it."""
    path = dockerfile or os.path.join(directory, "Dockerfile")
    if not dockerfile and not os.path.exists(path):
        lower = os.path.join(directory, "dockerfile")
        path = lower if os.path.exists(lower) else path
    try:
        real = os.path.realpath(path, strict=True)
    except OSError as error:
        raise CliError(
            "unable to prepare context: unable to evaluate symlinks in Dockerfile path: "
            f"lstat {os.path.abspath(path)}: {(error.strerror or '').lower()}"
        ) from error
    root = os.path.realpath(directory)
    if os.path.commonpath([root, real]) == root:
        return os.path.relpath(real, root), None
    with open(real, "rb") as file:
        content = file.read()
    name = f".dockerfile.{os.urandom(8).hex()}"
    return name, (name, content)


def matcher_of(
    directory: str, dockerfile: str
) -> tuple[tuple[str, ...] | None, IgnoreMatcher | None]:
    """The patterns of a context's ignore file and what matches them; None where there is none."""
    path = os.path.join(directory, _IGNORE_FILE)
    beside = f"{dockerfile}{_IGNORE_FILE}"
    if dockerfile and dockerfile != "-" and os.path.exists(beside):
        path = beside
    try:
        with open(path, encoding="utf-8") as file:
            content = file.read()
    except FileNotFoundError:
        return None, None
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"failed to read {path}: {error}") from error
    from sampan.dockerfile.ignore import IgnoreMatcher, parse_ignore_file
    from sampan.errors import InvalidParameter

    try:
        patterns = tuple(parse_ignore_file(content))
        return patterns, IgnoreMatcher(patterns)
    except InvalidParameter as error:
        raise CliError(f"error checking context: {error.message}") from error


def _ignore_filter(
    directory: str, name: str, dockerfile: str
) -> Callable[[str, bool], bool] | None:
    """What ``.dockerignore`` lets through; the Dockerfile and the file itself always are."""
    _, matcher = matcher_of(directory, dockerfile)
    if matcher is None:
        return None
    needed = {name, _IGNORE_FILE}

    def keep(relative: str, _is_directory: bool) -> bool:
        return relative in needed or not matcher.ignores(relative)

    return keep


def _owned_by_root(header: tarfile.TarInfo) -> None:
    # Which user made the context must not change the cache key or the image.
    header.uid = header.gid = 0


def _pack(files: Iterator[Packed], extra: tuple[str, bytes] | None) -> Iterator[bytes]:
    if extra is not None:
        yield _member(*extra)
    yield from pack(files, change=_owned_by_root)
