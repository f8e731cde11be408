"""Build contexts: fetched from elsewhere, unpacked, and the files in them that tell what to do."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

from sampan.build.actions import is_archive
from sampan.build.remote import check_out, download, is_remote, parse_git
from sampan.build.request import Material
from sampan.build.sourcepolicy import SourcePolicy
from sampan.dockerfile.ignore import IgnoreMatcher, parse_ignore_file
from sampan.engine.threads import Threads
from sampan.errors import InvalidParameter, NotFound
from sampan.kernel.mount import descriptor
from sampan.kernel.openat import in_root
from sampan.layer import archive_put

_FILE_LIMIT = 4 << 20
_DOCKERFILE = "Dockerfile"
_SHA1 = 40
_ACCOUNT = re.compile(r"(?<=://)[^/@\s]*@")


def fetch(address: str, directory: Path, policy: SourcePolicy | None = None) -> Path:
    """:func:`fetched`, the directory alone."""
    return fetched(address, directory, policy)[0]


def fetched(
    address: str, directory: Path, policy: SourcePolicy | None = None
) -> tuple[Path, Material]:
    """A context from elsewhere, below ``directory``; where it is, and what it is made from.

    Credentials in the address are left out of what is told.
    """
    policy = policy or SourcePolicy()
    told = _ACCOUNT.sub("xxxxx:xxxxx@", address)
    if (git := parse_git(address)) is not None:
        done = check_out(policy.repository(git), directory)
        algorithm = "sha1" if len(done.commit) == _SHA1 else "sha256"
        return done.directory, Material(uri=told, algorithm=algorithm, digest=done.commit)
    if not is_remote(address):
        raise InvalidParameter(f"invalid remote context {address!r}: expected http(s) or git")
    downloads = directory / "fetched"
    context = directory / "context"
    downloads.mkdir()
    context.mkdir()
    address, checksum = policy.address(address)
    file = download(address, downloads, checksum)
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    _unpack(file, context)
    return context, Material(uri=told, algorithm="sha256", digest=digest)


def _unpack(file: Path, context: Path) -> None:
    """An archive's contents, or else a Dockerfile, into an empty context."""
    with file.open("rb") as stream:
        archive = is_archive(stream)
        stream.seek(0)
        if archive:
            with descriptor(os.open(context, os.O_RDONLY | os.O_DIRECTORY)) as root:
                archive_put(root, "/", stream, owner=(0, 0))
            return
    file.rename(context / _DOCKERFILE)


async def unpack_context(threads: Threads, body: AsyncIterator[bytes], directory: Path) -> Path:
    """A context that a client streams as an archive, below ``directory``; returns where it is."""
    fetched, context = directory / "fetched", directory / "context"
    context.mkdir()
    with fetched.open("wb") as file:
        async for chunk in body:
            await threads.run_long(file.write, chunk)
    await threads.run_long(_unpack, fetched, context)
    return context


def read_text(root: int, path: str) -> str:
    fd = in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        data = file.read(_FILE_LIMIT + 1)
    if len(data) > _FILE_LIMIT:
        raise InvalidParameter(f"{path} is larger than {_FILE_LIMIT} bytes")
    return data.decode(errors="surrogateescape")


def dockerfile_in(root: int, path: str) -> str:
    """The text of the Dockerfile at ``path`` in a context; NotFound, InvalidParameter."""
    try:
        return read_text(root, path)
    except FileNotFoundError:
        if path == _DOCKERFILE:
            with contextlib.suppress(FileNotFoundError):
                return read_text(root, path.lower())
        raise NotFound(f"Cannot locate specified Dockerfile: {path}") from None
    except IsADirectoryError:
        raise InvalidParameter(f"the Dockerfile {path} is a directory") from None


def ignore_in(root: int, dockerfile: str) -> IgnoreMatcher | None:
    """What a context's ignore file hides; the Dockerfile's own goes before ``.dockerignore``."""
    for path in (f"{dockerfile}.dockerignore", ".dockerignore"):
        with contextlib.suppress(FileNotFoundError):
            return IgnoreMatcher(parse_ignore_file(read_text(root, path)))
    return None
