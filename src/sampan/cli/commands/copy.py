"""``container cp``: both ways, with the semantics of ``cp -a`` and Docker's errors.

A source that ends in ``/.`` means the directory's content. A destination that does not exist is
the new name; one that is a directory takes the source under its own name.
"""

from __future__ import annotations

import base64
import json
import os
import posixpath
import stat
import sys
from typing import NamedTuple

from sampan.cli.command import TWO, Command, Flag
from sampan.cli.fault import CliError
from sampan.cli.kinds import BOOL
from sampan.cli.units import human_size
from sampan.client.document import as_table, number, text
from sampan.client.failure import DaemonError
from sampan.client.tarstream import Packed, PieceReader, Unpacker, pack, walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.http import Response

#: Bits of Go's ``fs.FileMode``.
_GO_DIRECTORY = 1 << 31
_GO_SYMLINK = 1 << 27
_GO_DEVICE = 1 << 26
_STAT_HEADER = "x-docker-container-path-stat"


class PathStat(NamedTuple):
    """What the daemon says about a path in a container."""

    name: str
    mode: int
    link_target: str

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return bool(self.mode & _GO_DIRECTORY)


def _split(argument: str) -> tuple[str, str]:
    """Container and path; the container is empty for a local path."""
    if argument.startswith(("/", ".")):
        return "", argument
    container, colon, path = argument.partition(":")
    return (container, path) if colon else ("", argument)


def _is_content(path: str) -> bool:
    return path.endswith("/.") or path in (".", "")


def _has_slash(path: str) -> bool:
    return path.endswith("/") or _is_content(path)


def _stat_of(response: Response) -> PathStat:
    try:
        document = as_table(json.loads(base64.b64decode(response.headers[_STAT_HEADER])))
    except (KeyError, ValueError) as error:
        raise CliError("the daemon did not tell what the path is") from error
    return PathStat(text(document, "name"), number(document, "mode"), text(document, "linkTarget"))


def _stat(session: Session, container: str, path: str) -> PathStat | None:
    """What a path is; None where the daemon cannot tell, as what is asked for next will."""
    try:
        response = session.client.open("HEAD", f"/containers/{container}/archive", {"path": path})
    except DaemonError:
        return None
    response.read()
    return _stat_of(response)


def _copy(session: Session, arguments: Arguments) -> None:
    source, destination = arguments.positional
    if not source:
        raise CliError("source can not be empty")
    if not destination:
        raise CliError("destination can not be empty")
    from_container, source_path = _split(source)
    to_container, destination_path = _split(destination)
    if from_container and to_container:
        raise CliError("copying between containers is not supported")
    if from_container:
        _from(session, arguments, from_container, source_path, destination_path)
    elif to_container:
        _to(session, arguments, source_path, to_container, destination_path)
    else:
        raise CliError("must specify at least one container source")


def _absolute(path: str) -> str:
    """A container's path made absolute, a final ``/`` or ``/.`` kept."""
    clean = posixpath.normpath("/" + path)
    clean = "/" + clean.lstrip("/")
    if _is_content(path):
        return clean.rstrip("/") + "/."
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def _from(
    session: Session, arguments: Arguments, container: str, source: str, destination: str
) -> None:
    if destination != "-":
        _check_output(destination)
    if arguments.flag("follow-link"):
        source = _followed(session, container, source)
    response = session.client.open("GET", f"/containers/{container}/archive", {"path": source})
    if destination == "-":
        for piece in response:
            session.write_bytes(piece)
        return
    found = _stat_of(response)
    root, name = _local_target(source, found, destination)
    top = posixpath.basename(source) if not source.endswith(("/", "/.")) else found.name
    unpacker = Unpacker(
        root, _renamer(top, name), ownership=arguments.flag("archive") and os.geteuid() == 0
    )
    reader = PieceReader(response)
    unpacker.unpack(reader)
    _tell(session, arguments, reader.total, destination)


def _followed(session: Session, container: str, source: str) -> str:
    found = _stat(session, container, source)
    if found is None or not found.mode & _GO_SYMLINK or not found.link_target:
        return source
    return _absolute(posixpath.join(posixpath.dirname(source), found.link_target))


def _local_target(source: str, found: PathStat, destination: str) -> tuple[str, str]:
    """The directory to unpack into and the name the source gets there ("" for its content)."""
    path = destination or "."
    if os.path.isdir(path):
        return path, "" if _is_content(source) and found.is_directory else _base(source, found)
    if os.path.exists(path) and found.is_directory:
        raise CliError("cannot copy directory")
    if not os.path.exists(path) and _has_slash(destination) and not found.is_directory:
        raise CliError("no such directory")
    path = path.rstrip("/")
    return os.path.dirname(path) or ".", os.path.basename(path)


def _check_output(destination: str) -> None:
    """Refuse a local path nothing can be written to, before anything is asked for."""
    path = os.path.abspath(destination)
    parent = os.path.dirname(path)
    if not os.path.exists(parent):
        raise CliError(f'invalid output path: directory "{parent}" does not exist')
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise CliError(
            f'invalid output path: "{path}" must be a directory or a regular file: got a device'
        )


def _base(source: str, found: PathStat) -> str:
    return posixpath.basename(source.rstrip("/")) or found.name.strip("/")


def _renamer(top: str, name: str) -> Callable[[str], str | None]:
    """Entries below ``top`` (or ``.``) moved below ``name``."""

    def rename(entry: str) -> str | None:
        first, _slash, rest = entry.removeprefix("./").rstrip("/").partition("/")
        inside = rest if first in (top, ".", "") else entry.removeprefix("./")
        return f"{name}/{inside}".strip("/") or None

    return rename


def _to(
    session: Session, arguments: Arguments, source: str, container: str, destination: str
) -> None:
    found, resolved = _resolve(session, container, destination)
    if found is not None and found.mode & _GO_DEVICE:
        raise CliError(
            f'destination "{container}:{destination}" must be a directory or a regular file: '
            "got a device"
        )
    query = {"noOverwriteDirNonDir": True, "copyUIDGID": arguments.flag("archive")}
    if source == "-":
        if found is None or not found.is_directory:
            raise CliError(f'destination "{container}:{destination}" must be a directory')
        pieces: Iterable[bytes] = iter(lambda: sys.stdin.buffer.read(64 * 1024), b"")
        directory = resolved
    else:
        directory, files = _local_source(arguments, source, found, resolved)
        pieces = pack(files)
    counted = _Counter(pieces)
    response = session.client.open(
        "PUT",
        f"/containers/{container}/archive",
        {"path": directory, **query},
        counted,
        {"Content-Type": "application/x-tar"},
    )
    response.read()
    _tell(session, arguments, counted.total, f"{container}:{destination}")


class _Counter:
    """Counts the bytes that go through."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self.total = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.total += len(piece)
            yield piece


def _resolve(session: Session, container: str, path: str) -> tuple[PathStat | None, str]:
    """The destination and its path, a symbolic link followed once."""
    found = _stat(session, container, path)
    if found is not None and found.mode & _GO_SYMLINK and found.link_target:
        path = _absolute(posixpath.join(posixpath.dirname(path), found.link_target))
        found = _stat(session, container, path)
    return found, path


def _local_source(
    arguments: Arguments, source: str, found: PathStat | None, destination: str
) -> tuple[str, Iterator[Packed]]:
    """The container directory to unpack in, and the files with their names there."""
    follow = arguments.flag("follow-link")
    path = os.path.realpath(source) if follow else source
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        missing = _missing(os.path.abspath(source), follow=follow)
        raise CliError(f"lstat {missing}: no such file or directory") from None
    if path.endswith("/") and stat.S_ISLNK(mode):
        mode = os.stat(path).st_mode
    is_directory = stat.S_ISDIR(mode)
    content = _is_content(source) and is_directory
    root = path.rstrip("/") or "/"
    if found is not None and found.is_directory:
        name = "" if content else os.path.basename(os.path.abspath(root))
        return destination, walk(root, name)
    if found is not None and is_directory:
        raise CliError("cannot copy directory")
    if found is None and _has_slash(destination) and not is_directory:
        raise CliError("no such directory")
    target = destination.removesuffix("/.").rstrip("/")
    return posixpath.dirname(target) or "/", walk(root, posixpath.basename(target))


def _missing(path: str, *, follow: bool) -> str:
    """The part of an absolute path that is not there, as docker names it."""
    parent, name = os.path.split(path)
    while not os.path.isdir(parent):
        parent, name = os.path.split(parent)
        follow = True
    real = os.path.realpath(parent)
    return os.path.join(real, name) if follow else f"{real}/{name}"


def _tell(session: Session, arguments: Arguments, size: int, destination: str) -> None:
    if not arguments.flag("quiet") and session.is_terminal(2):
        session.warn(f"Successfully copied {human_size(size, 3)} to {destination}")


CP = Command(
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n"
    "        sampan cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    (
        Flag("archive", "a", BOOL, "Archive mode (copy all uid/gid information)"),
        Flag("follow-link", "L", BOOL, "Always follow symlinks in SRC_PATH"),
        Flag(
            "quiet",
            "q",
            BOOL,
            "Suppress progress output during copy. Progress output is automatically "
            "suppressed if no terminal is attached",
        ),
    ),
    TWO,
    _copy,
    complete="container",
)
