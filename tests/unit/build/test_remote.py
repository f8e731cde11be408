"""Git sources by their address, and what of a repository is taken."""

from __future__ import annotations

import http.server
import os
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from sampan.build.remote import GitSource, check_out, parse_git
from sampan.engine.buildcontext import fetched
from sampan.errors import DigestMismatch, InvalidParameter, NotFound

URL = "https://example.org/r.git"


def parsed(suffix: str) -> GitSource:
    found = parse_git(URL + suffix)
    assert found is not None
    return found


def test_addresses_of_repositories() -> None:
    assert parsed("?branch=x").ref == "refs/heads/x"
    assert parsed("?tag=v1#refs/tags/v1").ref == "refs/tags/v1"
    assert parsed("?ref=x&subdir=d") == parsed("#x:d")
    assert parsed("?keep-git-dir&submodules=0&mtime=commit&fetch-by-commit") == GitSource(
        repository=URL,
        keep_git_directory=True,
        submodules=False,
        commit_times=True,
        by_commit=True,
    )
    for suffix, words in (
        ("?tag=v1#main", 'ref conflicts: "main" vs "refs/tags/v1"'),
        ("?tag=v1&branch=x", "branch conflicts with tag"),
        ("?subdir=a#:b", "subdir conflicts"),
        ("?ref=", "query 'ref' has no value"),
        ("?ref=a&ref=b", "multiple values"),
        ("?mtime=never", "invalid mtime value"),
        ("?submodules=perhaps", "invalid submodules value"),
        ("?depth=3", "unexpected query 'depth'"),
    ):
        with pytest.raises(InvalidParameter, match=words.replace("?", "\\?")):
            parse_git(URL + suffix)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=["sha1", "sha256"])
def repository(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, list[str]]]:
    """The address of a repository on a plain web server, and its commits."""
    work = tmp_path / "work"
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    commits = []

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *identity, *words],
            cwd=work,
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "GIT_COMMITTER_DATE": "1500000000 +0000"},
        )
        return done.stdout.strip()

    work.mkdir()
    git("init", "-q", "-b", "main", f"--object-format={request.param}")
    for text in ("one", "two"):
        (work / "f").write_text(text)
        git("add", ".")
        git("commit", "-qm", text)
        git("tag", "-am", text, text)
        commits.append(git("rev-parse", "HEAD"))
    git("update-server-info")
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(_Quiet, directory=str(work))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/.git", commits
        server.shutdown()
        thread.join()


def test_what_is_checked_out(repository: tuple[str, list[str]], tmp_path: Path) -> None:
    address, (first, second) = repository
    number = 0

    def out(suffix: str) -> tuple[str, str, int]:
        nonlocal number
        number += 1
        place = tmp_path / str(number)
        place.mkdir()
        source = parse_git(address + suffix)
        assert source is not None
        done = check_out(source, place)
        file = done.directory / "f"
        return file.read_text(), done.commit, int(file.stat().st_mtime)

    assert out("")[:2] == ("two", second)
    assert out("?tag=one")[:2] == ("one", first)
    assert out(f"?ref={first}")[:2] == ("one", first), "a server that gives no part of it"
    assert out(f"?commit={second[:8]}")[:2] == ("two", second)
    assert out(f"?tag=two&commit={first}&fetch-by-commit")[:2] == ("one", first)
    assert out("?mtime=commit") == ("two", second, 1_500_000_000)
    for suffix in ("?branch=one", f"?ref={first[:8]}", "#--upload-pack=x"):
        with pytest.raises(NotFound, match="repository does not contain ref"):
            out(suffix)
    with pytest.raises(DigestMismatch, match="expected checksum to match"):
        out(f"?commit={first[:8]}")
    place = tmp_path / "context"
    place.mkdir()
    directory, material = fetched(address.replace("//", "//me:hush@") + "#one", place)
    assert (directory / "f").read_text() == "one"
    assert material.uri == address.replace("//", "//xxxxx:xxxxx@") + "#one"
    assert (material.algorithm, material.digest) == (
        "sha1" if len(first) == 40 else "sha256",
        first,
    )
