"""Bake files: expressions, functions, variables, matrices, inheritance, overrides, compose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.bake.evaluate import evaluate
from sampan.bake.files import read
from sampan.bake.functions import FUNCTIONS
from sampan.bake.syntax import parse
from sampan.bake.targets import Bake
from sampan.bake.tree import BakeError


def bake(
    text: str, name: str = "x.hcl", environment: Mapping[str, str] | None = None, **more: Any
) -> Bake:
    environment = environment or {}
    return Bake(read([(name, text)], environment), environment, **more)


def value(expression: str) -> object:
    made = bake(f'v = {expression}\nobject = {{a = 1, list = [{{n = 1}}, {{n = 2}}]}}\ns = "x"')
    return made.variable("v")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1 + 2 * 3 - 4 / 2", 5),
        ("-(1 + 2) % 2 == 1 || false && true", True),
        ('!true ? 1 : "b"', "b"),
        ('"${s}-${1 + 1}-$${s}-%%{s}\\n\\u0041"', "x-2-${s}-%{s}\nA"),
        ("[for n in [1, 2, 3] : n * 2 if n != 2]", [2, 6]),
        ("{for k, v in {a = 1} : upper(k) => v}", {"A": 1}),
        ('{for v in ["aa", "ab", "b"] : substr(v, 0, 1) => v...}', {"a": ["aa", "ab"], "b": ["b"]}),
        ("object.list[*].n", [1, 2]),
        ("object.list.*.n", [1, 2]),
        ('object["list"][1].n', 2),
        ("max([1, 5, 3]...)", 5),
        ('"%{ if s == "x" }yes%{ else }no%{ endif }"', "yes"),
        ('"%{ for n in [1, 2] }<${n}>%{ endfor }"', "<1><2>"),
        ('"  a ${~ s ~}  b"', "  axb"),
        ("<<-EOT\n    a\n      ${s}\n    EOT\n", "a\n  x\n"),
        ("[\n1, # one\n2, /* two */\n]", [1, 2]),
        ('{ a : 1, "b c" = null }', {"a": 1, "b c": None}),
        ('try(nope.x, "d")', "d"),
        ('can(1 + "a")', False),
        ("0.5 + 1e2", 100.5),
    ],
)
def test_expressions(expression: str, expected: object) -> None:
    assert value(expression) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('format("%05.1f|%-4s|%q|%x|%v", 3.14159, "a", "q", 255, [1])', '003.1|a   |"q"|ff|[1]'),
        ('regex_replace("a1b22", "([0-9]+)", "<$1>")', "a<1>b<22>"),
        ('regex("(?P<n>[0-9]+)", "a12")', {"n": "12"}),
        ('regexall("[0-9]", "1a2")', ["1", "2"]),
        (
            'formatdate("EEE, DD MMM YYYY hh:mm:ss ZZZ", "2020-02-03T04:05:06Z")',
            "Mon, 03 Feb 2020 04:05:06 UTC",
        ),
        ('timeadd("2020-02-03T04:05:06Z", "1h10m")', "2020-02-03T05:15:06Z"),
        ("unixtimestampparse(0).rfc3339", "1970-01-01T00:00:00Z"),
        ('cidrsubnet("10.0.0.0/16", 8, 2)', "10.0.2.0/24"),
        ('cidrhost("10.0.0.0/24", 5)', "10.0.0.5"),
        ('cidrsubnets("10.0.0.0/16", 8, 4)', ["10.0.0.0/24", "10.0.16.0/20"]),
        ('semvercmp("1.2.3", ">= 1.0, < 2.0")', True),
        ('semvercmp("1.2.3-rc1", "1.2.3")', False),
        ('sanitize("a/b:c")', "a_b_c"),
        ('uuidv5("dns", "example.org")', "aad03681-8b63-5304-89e0-8ca8f49461b5"),
        ('sha1("a")', "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"),
        ('jsondecode("{\\"a\\": [1]}").a[0]', 1),
        ('setproduct(["a"], [1, 2])', [["a", 1], ["a", 2]]),
        ("chunklist([1, 2, 3], 2)", [[1, 2], [3]]),
        ('formatlist("%s:%d", ["a", "b"], [1, 2])', ["a:1", "b:2"]),
        ("merge({a = 1}, {a = 2, b = 3})", {"a": 2, "b": 3}),
        ("range(1, 7, 2)", [1, 3, 5]),
        ('split(",", "a,b")', ["a", "b"]),
        ('substr("hello", -3, 2)', "ll"),
        ('coalesce("", null, "c")', "c"),
        ('trimprefix("v1.2", "v")', "1.2"),
        ('base64decode(base64encode("é"))', "é"),
        ("length(FUNCTIONS)", None),
    ],
)
def test_functions(expression: str, expected: object) -> None:
    if "FUNCTIONS" in expression:
        assert len(FUNCTIONS) >= 100
        return
    assert value(expression) == expected


def test_variables_come_from_default_environment_and_command_line() -> None:
    text = """
    variable "TAG" { default = "latest" }
    variable "N" { default = 1 }
    variable "FULL" { default = "app:${TAG}" }
    variable "LIST" {
      type = list(number)
      default = [1]
      validation {
        condition = length(LIST) < 3
        error_message = "too many"
      }
    }
    function "twice" {
      params = [x]
      variadic_params = rest
      result = "${x}${x}${length(rest)}"
    }
    target "default" { tags = [FULL, twice("a", 1, 2)]
      args = { N = N + 1, L = LIST[0] } }
    """
    assert bake(text).resolve("default")["tags"] == ["app:latest", "aa2"]
    made = bake(text, environment={"TAG": "env", "N": "5", "LIST": "7,8"})
    assert made.resolve("default")["args"] == {"N": "6", "L": "7"}
    made = bake(text, environment={"TAG": "env"}, variables={"TAG": "var"})
    assert made.resolve("default")["tags"][0] == "app:var"
    assert bake(text, environment={"LIST_JSON": "[9]"}).resolve("default")["args"]["L"] == "9"
    for environment, sentence in (
        ({"LIST": "1,2,3"}, "too many"),
        ({"N": "x"}, "failed to parse N as number"),
        ({"LIST": "a"}, "variable 'LIST'"),
    ):
        with pytest.raises(BakeError, match=sentence):
            bake(text, environment=environment)


def test_matrices_inheritance_groups_and_overrides() -> None:
    made = bake(
        """
        group "default" { targets = ["all", "other"] }
        group "all" { targets = ["app"] }
        target "base" {
          args = { A = "1", B = "1" }
          platforms = ["linux/amd64"]
          cache-from = ["user/cache"]
        }
        target "app" {
          name = "app-${v}"
          matrix = { v = ["1", "2"] }
          inherits = ["base"]
          args = { B = v }
          cache-from = ["type=registry,ref=x"]
        }
        target "other" { target = target.base.platforms[0]
          dockerfile-inline = "FROM x" }
        """
    )
    assert made.names([]) == ["app-1", "app-2", "other"]
    one = made.resolve("app-1", ["*.args.C=c", "app-*.tags=a", "app-*.tags=b", "nope.tags=z"])
    assert one == {
        "args": {"A": "1", "B": "1", "C": "c"},
        "platforms": ["linux/amd64"],
        "cache-from": ["user/cache", "type=registry,ref=x"],
        "tags": ["a", "b"],
        "context": ".",
        "dockerfile": "Dockerfile",
    }
    assert made.resolve("other")["target"] == "linux/amd64"
    for wrong in ("nope", "app-3"):
        with pytest.raises(BakeError, match=f"failed to find target {wrong}"):
            made.names([wrong])


def test_json_and_compose() -> None:
    made = bake(
        '{"variable": {"T": {"default": "x"}}, "target": {"default": {"tags": ["r:${T}"]}}}',
        "x.json",
    )
    assert made.resolve("default")["tags"] == ["r:x"]
    made = bake(
        "services:\n"
        "  web.app:\n"
        "    image: web:${TAG:-dev}\n"
        "    build:\n"
        "      context: ./web\n"
        "      args: [A=1, 'HOME=$$HOME']\n"
        "      additional_contexts: {extra: ../x}\n"
        "      secrets: [s]\n"
        "      x-bake: {platforms: linux/arm64}\n"
        "  db: {image: postgres}\n"
        "  other: {build: ./other}\n"
        "secrets: {s: {file: ./s.txt}}\n",
        "compose.yaml",
    )
    assert made.names([]) == ["other", "web_app"]
    assert made.resolve("web_app") == {
        "context": "web",
        "args": {"A": "1", "HOME": "$HOME"},
        "contexts": {"extra": "../x"},
        "secret": ["id=s,src=./s.txt"],
        "platforms": ["linux/arm64"],
        "tags": ["web:dev"],
        "dockerfile": "Dockerfile",
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('target "a" {\n  x = 1\n}', "unknown attribute 'x'"),
        ('target "a" {\n  tags = ["a"\n', "x.hcl:3: expected"),
        ("a = nope", "no variable named 'nope'"),
        ("a = nope(1)", "no function named 'nope'"),
        ('v = "a${b', "expected"),
        ('what "a" {}', "unknown block 'what'"),
        ('target "a" { inherits = ["a"] }', "inherits itself"),
        ('group "default" { targets = ["default"] }', "contains itself"),
        ("a = b\nb = a", "defined by itself"),
        ('target "a" { matrix = { v = [1] } }', "a matrix needs a name"),
    ],
)
def test_what_is_refused(text: str, sentence: str) -> None:
    def use() -> None:
        made = bake(text)
        for name in made.names([]) if "default" in made.groups else ["a"]:
            made.resolve(name) if "target" in text else made.variable("a")

    with pytest.raises(BakeError, match=sentence):
        use()


@given(st.text(alphabet='ab1"${}%~[]()=:,.\n #/*<>-EOT?!&|if', max_size=60))
def test_any_text_is_a_tree_or_an_error(text: str) -> None:
    try:
        body = parse(text, "x.hcl")
    except BakeError:
        return
    made = bake("")
    for expression in body.attributes.values():
        try:
            evaluate(expression, made)
        except BakeError:
            continue
