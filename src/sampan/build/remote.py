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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sampan.errors import DigestMismatch, InvalidParameter, NotFound, Unreachable, Unsupported

_LIMIT = 20 << 30
_CHUNK = 1 << 20
_TIMEOUT = 60.0
_GIT_TIMEOUT = 600.0
_SHA1 = 40
_GIT_SSH = re.compile(r"[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:(?!/).+")
_QUERY = (
    *("ref", "tag", "branch", "subdir", "checksum", "commit", "keep-git-dir", "submodules"),
    *("mtime", "fetch-by-commit"),
)
_FLAGS = ("keep-git-dir", "submodules", "fetch-by-commit")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_TRUE, _FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")


@dataclass(frozen=True, slots=True, kw_only=True)
class GitSource:
    """A repository, what to check out of it, and which directory of it to take.

    ``commit_times`` gives every file the time of the commit; ``by_commit`` fetches the commit that
    ``checksum`` is, whatever refers to it.
    """

    repository: str
    ref: str = ""
    subdirectory: str = ""
    checksum: str = ""
    keep_git_directory: bool = False
    submodules: bool = True
    commit_times: bool = False
    by_commit: bool = False


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
    values = _query(query, address)
    ref, _, subdirectory = fragment.partition(":")
    return GitSource(
        repository=address,
        ref=_ref(ref, values),
        subdirectory=_same("subdir", subdirectory, values.get("subdir", "")),
        checksum=values.get("checksum") or values.get("commit") or "",
        keep_git_directory=values.get("keep-git-dir", "false") in _TRUE,
        submodules=values.get("submodules", "true") in _TRUE,
        commit_times=values.get("mtime") == "commit",
        by_commit=values.get("fetch-by-commit", "false") in _TRUE,
    )


def _query(query: str, address: str) -> dict[str, str]:
    """The query keys of a git address; a flag without a value is true."""
    values: dict[str, str] = {}
    for key, value in urllib.parse.parse_qsl(query, keep_blank_values=True):
        if key not in _QUERY:
            raise InvalidParameter(f"unexpected query {key!r} in git address {address}")
        if key in values:
            raise InvalidParameter(f"query {key!r} has multiple values")
        if not value and key not in _FLAGS:
            raise InvalidParameter(f"query {key!r} has no value")
        values[key] = value or "true"
        if key in _FLAGS and values[key] not in (*_TRUE, *_FALSE):
            raise InvalidParameter(f"invalid {key} value: {value!r}")
    if values.get("mtime", "commit") not in ("commit", "checkout"):
        raise InvalidParameter(
            f'invalid mtime value: "{values["mtime"]}" (must be "checkout" or "commit")'
        )
    return values


def _same(what: str, one: str, other: str) -> str:
    """Either of two values for one thing. Raises InvalidParameter when they differ."""
    if one and other and one != other:
        raise InvalidParameter(f'{what} conflicts: "{one}" vs "{other}"')
    return one or other


def _ref(ref: str, values: Mapping[str, str]) -> str:
    ref = _same("ref", ref, values.get("ref", ""))
    if values.get("tag") and values.get("branch"):
        raise InvalidParameter("branch conflicts with tag")
    for key, prefix in (("tag", "refs/tags/"), ("branch", "refs/heads/")):
        if name := values.get(key, ""):
            ref = _same("ref", ref, prefix + name.removeprefix(prefix))
    return ref


def download(url: str, directory: Path, checksum: str = "") -> Path:
    """Fetch ``url`` into ``directory`` under its own name; mode 0600, time from Last-Modified.

    Raises :class:`NotFound`, :class:`Unreachable`, :class:`DigestMismatch` (``checksum`` is
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
        kind = NotFound if error.code == 404 else Unreachable
        raise kind(f"invalid response status {error.code} of {url}") from None
    except (urllib.error.URLError, OSError) as error:
        raise Unreachable(f"failed to fetch {url}: {error}") from error
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


def check_out(source: GitSource, directory: Path) -> CheckedOut:
    """Check ``source`` out below ``directory``.

    Raises :class:`Unreachable` in git's words, :class:`Unsupported` without git,
    :class:`DigestMismatch` when the commit is not the announced one.
    """
    if shutil.which("git") is None:
        raise Unsupported("git sources need the git program on this host")
    root = directory / "repository"
    wanted, named = _wanted(source, _git(directory, "ls-remote", "--", source.repository))
    kind = "sha256" if len(named) > _SHA1 else "sha1"
    _git(directory, "init", "--quiet", f"--object-format={kind}", str(root))
    _git(root, "remote", "add", "origin", "--", source.repository)
    _fetch(root, wanted)
    commit = _git(root, "rev-parse", "HEAD").strip()
    if not any(one.startswith(source.checksum) for one in (commit, named)):
        raise DigestMismatch(f"expected checksum to match {source.checksum}, got {commit}")
    if source.submodules and (root / ".gitmodules").exists():
        update = ("submodule", "--quiet", "update", "--init", "--recursive")
        try:
            _git(root, *update, "--depth=1")
        except Unreachable:  # as below
            _git(root, *update)
    if source.commit_times:
        _set_times(root, int(_git(root, "log", "-1", "--format=%ct")))
    if not source.keep_git_directory:
        shutil.rmtree(root / ".git")
    taken = (root / source.subdirectory.strip("/")).resolve()
    if not taken.is_relative_to(root.resolve()) or not taken.is_dir():
        raise NotFound(f"no directory {source.subdirectory!r} in {source.repository}")
    return CheckedOut(directory=taken, commit=commit)


def _wanted(source: GitSource, listing: str) -> tuple[str, str]:
    """What to fetch, and the digest that it has by what the repository lists.

    Raises NotFound for a reference that is not there.
    """
    rows = (row.partition("\t") for row in listing.splitlines())
    listed = {name: digest for digest, _, name in rows}
    whole = _COMMIT.fullmatch(source.checksum) is not None
    wanted = source.ref
    if (not wanted or source.by_commit) and whole:
        wanted = source.checksum
    if _COMMIT.fullmatch(wanted):
        return wanted, wanted
    for prefix in ("", "refs/", "refs/tags/", "refs/heads/", "refs/remotes/"):
        name = f"{prefix}{wanted or 'HEAD'}"
        if name in listed:
            return name, listed[name]
    raise NotFound(f"repository does not contain ref {wanted or 'HEAD'}")


def _fetch(root: Path, wanted: str) -> None:
    """Fetch what is wanted and check it out, as little of it as the server can give."""
    everything = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
    is_commit = _COMMIT.fullmatch(wanted) is not None
    try:
        _git(root, "fetch", "--quiet", "--depth=1", "origin", "--", wanted)
    except Unreachable:  # a server that cannot give a part: take all of it
        _git(root, "fetch", "--quiet", "origin", "--", *(everything if is_commit else (wanted,)))
        if is_commit:
            _git(root, "checkout", "--quiet", "--detach", wanted)
            return
    _git(root, "checkout", "--quiet", "--detach", "FETCH_HEAD")


def _set_times(root: Path, seconds: int) -> None:
    """Give everything that was checked out one time, git's own files left out."""
    for directory, names, files in os.walk(root, topdown=False):
        if ".git" in Path(directory).relative_to(root).parts:
            continue
        for name in (*files, *(one for one in names if one != ".git")):
            os.utime(os.path.join(directory, name), (seconds, seconds), follow_symlinks=False)
    os.utime(root, (seconds, seconds))


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
        raise Unreachable(f"git {words[0]} did not end in {_GIT_TIMEOUT:g} seconds") from None
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise Unreachable(f"git {words[0]} failed: {message}")
    return done.stdout.decode(errors="replace")
