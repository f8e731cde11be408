"""The Dockerfile parser against BuildKit's own cases, and what they leave out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.spec import SPEC

from sampan.dockerfile.parser import DockerfileError, Node, excerpt, parse, parse_instruction

PARSER = SPEC / "dockerfile" / "testfiles" / "parser"


def lisp(node: Node) -> str:
    """The node as BuildKit's result files write it."""

    def quoted(text: str) -> str:
        return json.dumps(text, ensure_ascii=False).replace("\\u0000", "\\x00")

    parts = [node.keyword]
    if node.flags:
        parts.append("[" + " ".join(map(quoted, node.flags)) + "]")
    if node.child:
        parts.append(lisp(node.child))
    parts += [quoted(text) for pair in node.pairs for text in pair]
    parts += map(quoted, node.arguments)
    return "(" + " ".join(parts) + ")"


@pytest.mark.parametrize(
    "case", sorted((PARSER / "testfiles").iterdir()), ids=lambda case: case.name
)
def test_upstream_case(case: Path) -> None:
    nodes = parse((case / "Dockerfile").read_text()).nodes
    expected = (case / "result").read_text().strip()
    if case.name == "json":  # Go escapes what JSON need not
        expected = expected.replace("\\x00", "\\x00")
    assert "\n".join(map(lisp, nodes)) == expected


@pytest.mark.parametrize(
    "case", sorted((PARSER / "testfiles-negative").iterdir()), ids=lambda case: case.name
)
def test_upstream_negative_case(case: Path) -> None:
    with pytest.raises(DockerfileError):
        parse((case / "Dockerfile").read_text())


def test_line_numbers() -> None:
    nodes = parse((PARSER / "testfile-line" / "Dockerfile").read_text()).nodes
    assert [(node.keyword, node.start, node.end) for node in nodes] == [
        ("from", 5, 5),
        ("env", 11, 12),
        ("run", 17, 31),
    ]


def test_heredocs() -> None:
    source = (
        "FROM x\n"
        "RUN <<EOF bash\necho $a\nEOF\n"
        "COPY <<-'one' <<two /dir/\n\tliteral $x\n\tone\nsecond\ntwo\n"
        'RUN echo "<<no"\n'
    )
    nodes = parse(source).nodes
    assert [node.keyword for node in nodes] == ["from", "run", "copy", "run"]
    (run,) = nodes[1].heredocs
    assert (run.name, run.expand, run.content) == ("EOF", True, "echo $a\n")
    one, two = nodes[2].heredocs
    assert (one.expand, one.strip_tabs, one.content) == (False, True, "literal $x\n")
    assert (two.expand, two.content) == (True, "second\n")
    assert nodes[2].arguments == ("<<-'one'", "<<two", "/dir/")
    assert nodes[3].heredocs == ()


def test_unterminated_heredoc_names_its_line() -> None:
    with pytest.raises(DockerfileError, match="line 2: unterminated heredoc EOF"):
        parse("FROM x\nRUN <<EOF\necho\n")


def test_directives() -> None:
    file = parse("#!/usr/bin/env sampan\n# Syntax = docker/dockerfile:1\n# escape=`\nFROM a `\n b")
    assert file.directives == {"syntax": "docker/dockerfile:1", "escape": "`"}
    assert file.nodes[0].arguments == ("a", "b")
    with pytest.raises(DockerfileError, match="only one escape"):
        parse("# escape=`\n# escape=`\nFROM x")
    with pytest.raises(DockerfileError, match="invalid escape token"):
        parse("# escape=x\nFROM x")
    assert parse("FROM x\n# escape=`\n").escape == "\\"
    assert parse("# unknown=1\n# escape=`\nFROM x\n").escape == "\\"


def test_bom_and_windows_line_ends() -> None:
    assert [node.arguments for node in parse("\ufeffFROM x\r\nRUN a \\\r\n b\r\n").nodes] == [
        ("x",),
        ("a  b",),
    ]


def test_empty_continuation_lines_are_noted() -> None:
    assert parse("FROM x\nRUN a \\\n\n b\n").empty_continuations == (3,)


def test_comments_belong_to_the_next_instruction() -> None:
    file = parse("# lost\n\n# base the base\nFROM x AS base\n")
    assert file.nodes[0].comments == ("base the base",)


def test_an_instruction_alone() -> None:
    node = parse_instruction('CMD ["a"]')
    assert (node.keyword, node.arguments, node.json) == ("cmd", ("a",), True)


def test_excerpt_marks_the_lines() -> None:
    text = excerpt(("FROM x", "RUN a", "RUN b"), 2, 2, context=1)
    assert "   2 | >>> RUN a" in text
    assert "   1 |     FROM x" in text
