"""Hostile Dockerfiles, words, mounts and ignore files: an answer or a named refusal."""

from __future__ import annotations

import contextlib

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sampan.dockerfile.ignore import IgnoreMatcher, parse_ignore_file
from sampan.dockerfile.instructions import interpret
from sampan.dockerfile.lexer import expand
from sampan.dockerfile.parser import DockerfileError, parse
from sampan.dockerfile.run_mount import parse_run_mount
from sampan.errors import InvalidParameter

PIECES = st.one_of(
    st.sampled_from(
        [
            "FROM x",
            "RUN ",
            "COPY ",
            "ENV ",
            "ONBUILD ",
            "HEALTHCHECK ",
            "--",
            "=",
            "\n",
            "\\\n",
            "<<EOF",
            "EOF\n",
            "<<-'A'",
            '["a"',
            "]",
            "# escape=`\n",
            "`",
            '"',
            "'",
            " ",
            "\t",
            "$",
            "${",
            "}",
            ":-",
            ":?",
            "%%",
            "#",
            "//",
            "*",
            "[",
            "!",
            "a",
            "1",
            "\ufeff",
            "\0",
            "\x85",
        ]
    ),
    st.text(max_size=6),
)
TEXT = st.lists(PIECES, max_size=25).map("".join)
FIELDS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["type", "target", "mode", "uid", "size", "id", "ro", "sharing"]),
            st.one_of(
                st.sampled_from(["cache", "secret", "tmpfs", "bind", "inf", "nan", "-1", "/x"]),
                st.text(max_size=5),
            ),
        ).map("=".join),
        PIECES,
    ),
    max_size=6,
).map(",".join)


@settings(max_examples=400, deadline=None)
@given(TEXT)
@example("FROM x\nCMD " + "[" * 100_000)
@example("ONBUILD " * 3_000 + "RUN x")
def test_dockerfiles(text: str) -> None:
    with contextlib.suppress(DockerfileError):
        for node in parse(text).nodes:
            interpret(node)


@settings(max_examples=400, deadline=None)
@given(TEXT, st.sampled_from("\\`"))
@example("${a:-" * 3_000 + "}" * 3_000, "\\")
def test_words(text: str, escape: str) -> None:
    with contextlib.suppress(InvalidParameter):
        expand(text, {"a": "1", "b": "x.y/z", "PATH": "/bin"}, escape)


@settings(max_examples=400, deadline=None)
@given(FIELDS)
@example("type=tmpfs,target=/x,size=inf")
@example("target=/x,uid=" + "9" * 5_000)
@example("target=/x\ry")
@example("type=cache,target=/x,mode=-1")
def test_run_mounts(text: str) -> None:
    with contextlib.suppress(DockerfileError):
        mount = parse_run_mount(text, str)
        assert mount.mode is None or 0 <= mount.mode <= 0o7777
        assert mount.size >= 0


@settings(max_examples=400, deadline=None)
@given(TEXT, st.text(min_size=1, max_size=12))
def test_ignore_files(text: str, path: str) -> None:
    with contextlib.suppress(InvalidParameter):
        IgnoreMatcher(parse_ignore_file(text)).ignores(path)
