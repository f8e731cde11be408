"""Sources of ADD and of builds that lie elsewhere: HTTP(S) and git (blocking).

Spec: spec/dockerfile/reference.md, "Adding files from a URL", "Adding files from a Git
repository", "ADD --checksum". Downloads are bounded; git runs without prompts, hooks or local
configuration, and is never given a URL as an option.
"""

from __future__ import annotations

import email.utils
import hashlib
import os
import posixpath
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from sampan.errors import DigestMismatch, InvalidParameter, NotFound, Unavailable, Unsupported

_LIMIT = 20 << 30
_CHUNK = 1 << 20
_TIMEOUT = 60.0
_GIT_TIMEOUT = 600.0
_GIT_SSH = re.compile(r"[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:(?!/).+")
_QUERY = ("ref", "tag", "branch", "subdir", "checksum", "commit", "keep-git-dir", "submodules")


@dataclass(frozen=True, slots=True, kw_only=True)
class GitSource:
    """A repository, what to check out of it, and which directory of it to take."""

    repository: str
    ref: str = ""
    subdirectory: str = ""
    checksum: str = ""
    keep_git_directory: bool = False
    submodules: bool = True


def is_remote(source: str) -> bool:
    """Whether a source of ADD is an address instead of a path in the context."""
    return source.startswith(("http://", "https://")) or parse_git(source) is not None


def parse_git(source: str) -> GitSource | None:
    """The git source that an address names, None when it is no git repository.

    ``git://``, ``ssh://``, ``user@host:path``, and http(s) whose path ends in ``.git``; a fragment
    ``#ref:subdir`` or query keys say what to take. Raises :class:`InvalidParameter` for an unknown
    query key.
    """
    url, _, fragment = source.partition("#")
    address, _, query = url.partition("?")
    over_http = source.startswith(("http://", "https://")) and address.endswith(".git")
    if not (over_http or source.startswith(("git://", "ssh://")) or _GIT_SSH.fullmatch(address)):
        return None
    values = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    for key in values:
        if key not in _QUERY:
            raise InvalidParameter(f"unexpected query {key!r} in git address {address}")
    ref, _, subdirectory = fragment.partition(":")
    return GitSource(
        repository=address,
        ref=ref or values.get("ref") or values.get("tag") or values.get("branch") or "",
        subdirectory=subdirectory or values.get("subdir", ""),
        checksum=values.get("checksum") or values.get("commit") or "",
        keep_git_directory=values.get("keep-git-dir", "false") in ("true", "1", ""),
        submodules=values.get("submodules", "true") not in ("false", "0"),
    )


def download(url: str, directory: Path, checksum: str = "") -> Path:
    """Fetch ``url`` into ``directory`` under its own name; mode 0600, time from Last-Modified.

    Raises :class:`NotFound`, :class:`Unavailable`, :class:`DigestMismatch` (``checksum`` is
    ``sha256:…``), :class:`InvalidParameter` when the address ends in no name.
    """
    if checksum and not checksum.startswith("sha256:"):
        raise InvalidParameter(f"unsupported checksum {checksum!r}: only sha256 is supported")
    name = posixpath.basename(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    if name in ("", ".", ".."):
        raise InvalidParameter(f"cannot determine filename for source {url}")
    path = directory / name
    hashed = hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response, path.open("xb") as file:
            size = 0
            while chunk := response.read(_CHUNK):
                size += len(chunk)
                if size > _LIMIT:
                    raise InvalidParameter(f"{url} is larger than {_LIMIT} bytes")
                hashed.update(chunk)
                file.write(chunk)
            modified = response.headers.get("Last-Modified")
    except urllib.error.HTTPError as error:
        error.close()
        kind = NotFound if error.code == 404 else Unavailable
        raise kind(f"invalid response status {error.code} of {url}") from None
    except (urllib.error.URLError, OSError) as error:
        raise Unavailable(f"failed to fetch {url}: {error}") from error
    if checksum and checksum != f"sha256:{hashed.hexdigest()}":
        raise DigestMismatch(f"{url} has digest sha256:{hashed.hexdigest()}, not {checksum}")
    path.chmod(0o600)
    moment = email.utils.parsedate_to_datetime(modified).timestamp() if modified else 0
    os.utime(path, (moment, moment))
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedOut:
    """What of a repository was taken: the directory, and the commit it is from."""

    directory: Path
    commit: str


def clone(source: GitSource, directory: Path) -> Path:
    """:func:`check_out`, the directory alone."""
    return check_out(source, directory).directory


def check_out(source: GitSource, directory: Path) -> CheckedOut:
    """Check ``source`` out below ``directory``.

    Raises :class:`Unavailable` in git's words, :class:`Unsupported` without git,
    :class:`DigestMismatch` when the commit is not the announced one.
    """
    if shutil.which("git") is None:
        raise Unsupported("git sources need the git program on this host")
    root = directory / "repository"
    _git(directory, "init", "--quiet", str(root))
    _git(root, "remote", "add", "origin", "--", source.repository)
    wanted = source.ref or source.checksum or "HEAD"
    if wanted.startswith("-"):
        raise InvalidParameter(f"invalid git reference {wanted!r}")
    try:
        _git(root, "fetch", "--quiet", "--depth=1", "origin", "--", wanted)
    except Unavailable:  # a server that cannot give a part: take all of it
        _git(root, "fetch", "--quiet", "origin", "--", wanted)
    _git(root, "checkout", "--quiet", "--detach", "FETCH_HEAD")
    commit = _git(root, "rev-parse", "HEAD").strip()
    if source.checksum and not commit.startswith(source.checksum):
        raise DigestMismatch(f"expected checksum to match {source.checksum}, got {commit}")
    if source.submodules and (root / ".gitmodules").exists():
        _git(root, "submodule", "--quiet", "update", "--init", "--recursive", "--depth=1")
    if not source.keep_git_directory:
        shutil.rmtree(root / ".git")
    taken = (root / source.subdirectory.strip("/")).resolve()
    if not taken.is_relative_to(root.resolve()) or not taken.is_dir():
        raise NotFound(f"no directory {source.subdirectory!r} in {source.repository}")
    return CheckedOut(directory=taken, commit=commit)


def _git(directory: Path, *words: str) -> str:
    environment = {
        "PATH": os.defpath,
        "HOME": str(directory),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ALLOW_PROTOCOL": "git:http:https:ssh",
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
    }
    try:
        done = subprocess.run(
            ["git", "-c", "core.hooksPath=/dev/null", *words],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"git {words[0]} did not end in {_GIT_TIMEOUT:g} seconds") from None
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise Unavailable(f"git {words[0]} failed: {message}")
    return done.stdout.decode(errors="replace")
