"""Checks, outline and targets of a Dockerfile, as BuildKit prints them."""

from __future__ import annotations

import base64
import json

import pytest

from sampan.build.checks import RULES
from sampan.buildkit import calls
from sampan.buildkit.attributes import Attributes
from sampan.buildkit.errors import source_detail
from sampan.buildkit.frontend import Source
from sampan.buildkit.protocol import ops_pb2 as ops
from sampan.dockerfile.parser import parse
from sampan.errors import Unsupported
from sampan.model.platform import Platform

HOST = Platform(os="linux", architecture="amd64")
TEXT = """\
# COLOUR what to paint in
ARG COLOUR=blue
# base what others build on
FROM busybox AS base
RUN --mount=type=secret,id=tok,required=true --mount=type=ssh true
FROM base
ARG SIZE
ENV password=1
"""


def asked(request: str, text: str = TEXT, **options: str) -> dict[str, str]:
    source = Source(file=parse(text), filename="Dockerfile", ignore=None)
    result = calls.answer(request, source, Attributes(**options), HOST)  # type: ignore[arg-type]
    return {key: value.decode() for key, value in result.metadata.items()}


def test_checks_show_the_lines() -> None:
    answer = asked("frontend.lint")
    assert answer["result.statuscode"] == "1"
    assert answer["result.txt"] == (
        "\nWARNING: SecretsUsedInArgOrEnv - "
        "https://docs.docker.com/go/dockerfile/rule/secrets-used-in-arg-or-env/\n"
        'Do not use ARG or ENV instructions for sensitive data (ENV "password")\n'
        "Dockerfile:8\n--------------------\n"
        "   6 |     FROM base\n   7 |     ARG SIZE\n   8 | >>> ENV password=1\n"
        "--------------------\n"
    )
    (warning,) = json.loads(answer["result.json"])["warnings"]
    assert warning["location"]["ranges"] == [{"start": {"line": 8}, "end": {"line": 8}}]
    clean = asked("frontend.lint", "FROM busybox\nCOPY a /\n")
    assert (clean["result.statuscode"], clean["result.txt"]) == ("0", "")


def test_outline_names_what_can_be_given() -> None:
    answer = asked("frontend.outline")
    assert answer["result.txt"] == (
        "BUILD ARG   VALUE   DESCRIPTION\nCOLOUR      blue    what to paint in\n"
        "SIZE                \n\nSECRET   REQUIRED\ntok      true\n\n"
        "SSH       REQUIRED\ndefault   \n\n"
    )
    assert json.loads(answer["result.json"])["secrets"][0]["required"] is True
    assert "SIZE" not in asked("frontend.outline", target="base")["result.txt"]


def test_targets_are_listed_with_their_descriptions() -> None:
    answer = asked("frontend.targets")
    assert answer["result.txt"].splitlines() == [
        "TARGET    DESCRIPTION",
        "base      what others build on",
        "(default) ",
    ]


def test_every_rule_is_described() -> None:
    assert set(calls.DESCRIPTIONS) == set(RULES)
    assert calls.slug("JSONArgsRecommended") == "json-args-recommended"


def test_other_requests_are_refused() -> None:
    with pytest.raises(Unsupported, match=r"unsupported request frontend\.x"):
        asked("frontend.x")
    names = [one["name"] for one in json.loads(calls.describe().metadata["result.json"])]
    assert names == [
        "frontend.lint",
        "frontend.outline",
        "frontend.targets",
        "frontend.subrequests.describe",
    ]


def test_what_is_wrong_comes_after_what_was_found() -> None:
    text = "FROM scratch AS Base\nMAINTAINER me\nBADCMD \\\n  x\n"
    answer = asked("frontend.lint", text)
    document = json.loads(answer["result.json"])
    rules = [one["ruleName"] for one in document["warnings"]]
    assert rules == ["StageNameCasing", "MaintainerDeprecated"]
    assert document["buildError"] == {
        "message": "dockerfile parse error on line 3: unknown instruction: BADCMD",
        "location": {
            "ranges": [{"start": {"line": line}, "end": {"line": line}} for line in (3, 4)]
        },
    }


def test_findings_that_are_errors_are_told_as_one() -> None:
    answer = asked("frontend.lint", "# check=error=true\nFROM scratch as base\n")
    assert json.loads(answer["result.json"])["buildError"] == {
        "message": "lint violation found for rules: FromAsCasing",
        "location": {},
    }


def test_an_error_names_every_line_and_where_the_file_came_from() -> None:
    detail = source_detail("Dockerfile", ("FROM a", "RUN x\\", "y"), 2, 3)
    found = json.loads(detail.value)
    assert [one["start"]["line"] for one in found["ranges"]] == [2, 3]
    first = base64.b64decode(found["info"]["definition"]["def"][0])
    assert ops.Op.FromString(first).source.identifier == "local://dockerfile"
