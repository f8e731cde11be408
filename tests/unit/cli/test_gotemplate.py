"""Go's text/template as ``--format`` uses it. Expected texts are Go's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sampan.cli.gotemplate import Struct, Template, TemplateError
from sampan.cli.gotemplate.printf import quote, sprintf
from sampan.cli.gotemplate.values import NIL, Duration, NilList, go_print, to_json

if TYPE_CHECKING:
    from sampan.cli.gotemplate.values import Value

DATA: dict[str, Value] = {
    "A": [1, 2, "x"],
    "E": [],
    "M": {"b": 1, "a": {"c": [True, None]}},
    "S": "hello world",
    "N": 3,
    "F": 2.5,
    "T": True,
    "Z": None,
    "R": Struct("T", {"X": 1, "Y": "y"}),
    "P": NIL,
    "L": NilList(),
    "D": Duration(90 * 60 * 10**9),
}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("plain", "plain"),
        ("{{.A}} {{.M}} {{.S}}", "[1 2 x] map[a:map[c:[true <nil>]] b:1] hello world"),
        ("{{.Z}} {{.Missing}} {{.P}} {{.L}} {{.D}}", "<no value> <no value> <nil> [] 1h30m0s"),
        ("{{.R}} {{.R.X}} {{json .R}}", '{1 y} 1 {"X":1,"Y":"y"}'),
        ("{{json .L}} {{json .P}} {{json .E}}", "null null []"),
        ("{{range $i,$e := .A}}{{$i}}={{$e}};{{end}}", "0=1;1=2;2=x;"),
        ("{{range .A}}{{.}}{{else}}none{{end}}{{range .E}}x{{else}}none{{end}}", "12xnone"),
        ("{{range $k, $v := .M}}{{$k}} {{end}}", "a b "),
        ("{{range 3}}{{if eq . 1}}{{continue}}{{end}}{{.}}{{end}}", "02"),
        ("{{range .A}}{{.}}{{break}}{{end}}", "1"),
        ("{{if .E}}a{{else if .N}}b{{else}}c{{end}}", "b"),
        ("{{if .P}}a{{else}}b{{end}}{{if .R}}c{{end}}", "bc"),
        ("{{with .M.a}}{{index .c 0}}{{else}}no{{end}}", "true"),
        ("{{with $x := .S}}{{$x}}{{end}}", "hello world"),
        ("{{$x := 1}}{{range .A}}{{$x = .}}{{end}}{{$x}}", "x"),
        ('{{.S | upper | printf "%q"}}', '"HELLO WORLD"'),
        ('{{printf "%-12s|%05d|%x|%t|%v" .S .N .S .T .A}}',
         "hello world |00003|68656c6c6f20776f726c64|true|[1 2 x]"),
        ('{{join (split .S " ") "/"}} {{title .S}} {{lower "AB"}}', "hello/world Hello World ab"),
        ('{{truncate .S 4}}|{{pad "x" 1 2}}|{{pad "" 1 2}}', "hell| x  |"),
        ("{{len .A}} {{len .S}} {{slice .S 1 3}} {{index .M \"b\"}}", "3 11 el 1"),
        ("{{not .N}} {{and .N .S}} {{or .E .N}} {{and .E .N}}", "false hello world 3 []"),
        ("{{eq .N 3}} {{ne .S \"a\"}} {{lt .N 4}} {{ge .N 4}} {{eq .N 1 2 3}}",
         "true true true false true"),
        ("a {{- \" b \" -}} c", "a b c"),
        ("x\n{{- /* note */ -}}\ny", "xy"),
        ("{{/* note */}}x", "x"),
        ('{{define "t"}}<{{.}}>{{end}}{{template "t" .N}}', "<3>"),
        ('{{block "t" .N}}({{.}}){{end}}', "(3)"),
        ("{{(index .A 0)}} {{(.M).a}}", "1 map[c:[true <nil>]]"),
        ('{{"a\\tb\\u00e9"}}{{`raw\\n`}}{{\'x\'}}', "a\tbé" + "raw\\n120"),
        ("{{println .N .S}}", "3 hello world\n"),
        ("{{print 1 2 \"x\" 3}}", "1 2x3"),
        ("{{html \"<a href='x'>&\"}}", "&lt;a href=&#39;x&#39;&gt;&amp;"),
        ("{{urlquery \"a b&c\"}}", "a+b%26c"),
        ("{{js \"it's <b>\"}}", "it\\'s \\u003Cb\\u003E"),
        ("{{0x10}} {{-3}} {{1.5}} {{true}}", "16 -3 1.5 true"),
        ("{{.N | }}", "3"),
        ("{{$.S}} {{range .A}}{{$.N}}{{end}}", "hello world 333"),
    ],
)  # fmt: skip
def test_output(source: str, text: str) -> None:
    assert Template.parse(source).execute(DATA) == text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{.A", "template: :1: unclosed action"),
        ("\n{{.A", "template: :2: unclosed action"),
        ("{{", "template: :1: unclosed action"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{else}}", "template: :1: unexpected {{else}}"),
        ("{{if .A}}", "template: :1: unexpected EOF"),
        ("{{foo .A}}", 'template: :1: function "foo" not defined'),
        ("{{}}", "template: :1: missing value for command"),
        ("{{if}}x{{end}}", "template: :1: missing value for if"),
        ('{{"abc}}', "template: :1: unterminated quoted string"),
        ("{{.A)}}", "template: :1: unexpected right paren"),
        ("{{(.A}}", "template: :1: unclosed left paren"),
        ("{{$y}}", 'template: :1: undefined variable "$y"'),
        ("{{.", 'template: :1: illegal number syntax: "."'),
        ("{{break}}", "template: :1: {{break}} outside {{range}}"),
        ("{{/* x", "template: :1: unclosed comment"),
        ("{{nil}}", "template: :1: nil is not a command"),
        ("{{.A | 3}}", "template: :1: non executable command in pipeline stage 2"),
        ("{{template 3}}", 'template: :1: unexpected "3" in template clause'),
    ],
)
def test_syntax_errors(source: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template.parse(source)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{.R.Z}}", '1:4: executing "" at <.R.Z>: can\'t evaluate field Z in type T'),
        ("{{.N.X}}", '1:4: executing "" at <.N.X>: can\'t evaluate field X in type int'),
        ("x\n {{.N.X}}", '2:5: executing "" at <.N.X>: can\'t evaluate field X in type int'),
        ("{{index .A 9}}",
         '1:2: executing "" at <index .A 9>: error calling index: index out of range: 9'),
        ("{{len .N}}", '1:2: executing "" at <len .N>: error calling len: len of type int'),
        ("{{range .N.X}}{{end}}",
         '1:10: executing "" at <.N.X>: can\'t evaluate field X in type int'),
        ("{{.A 1}}",
         '1:2: executing "" at <.A>: A has arguments but cannot be invoked as function'),
        ('{{template "no"}}', '1:2: executing "" at <no>: template "no" not defined'),
        ("{{lt .S 1}}", '1:2: executing "" at <lt .S 1>: error calling lt: incompatible types '
         "for comparison"),
    ],
)  # fmt: skip
def test_execution_errors(source: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template.parse(source).execute(DATA)
    assert caught.value.message == f"template: :{message}"


def test_missing_keys_can_be_errors() -> None:
    with pytest.raises(TemplateError, match='map has no entry for key "X"'):
        Template.parse("{{.X}}").execute({}, missing_key_error=True)


def test_templates_may_not_nest_without_end() -> None:
    with pytest.raises(TemplateError, match="exceeded maximum template depth"):
        Template.parse('{{define "t"}}{{template "t"}}{{end}}{{template "t"}}').execute({})


@pytest.mark.parametrize(
    ("pattern", "values", "text"),
    [
        ("%d%%", [5], "5%"),
        ("%d", ["x"], "%!d(string=x)"),
        ("%s", [], "%!s(MISSING)"),
        ("%s", ["a", 1], "a%!(EXTRA int=1)"),
        ("%", [], "%!(NOVERB)"),
        ("%6.2f|%-6d|%+d|%06d", [3.14159, 7, 7, -7], "  3.14|7     |+7|-00007"),
        ("%*d", [5, 7], "    7"),
        ("%q %x %X %o %b %c %U", ["a\n", 255, 255, 8, 5, 65, 65], '"a\\n" ff FF 10 101 A U+0041'),
        ("%v %T %t", [None, "x", True], "<nil> string true"),
        ("%5s|%.2s|%-5s|", ["ab", "abc", "ab"], "   ab|ab|ab   |"),
        ("%g %e %v", [1e21, 1.5, 1e21], "1e+21 1.500000e+00 1e+21"),
    ],
)
def test_printf(pattern: str, values: list[Value], text: str) -> None:
    assert sprintf(pattern, values) == text


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"), (1, "1ns"), (1500, "1.5µs"), (10**6, "1ms"), (10**9, "1s"),
        (90 * 10**9, "1m30s"), (3600 * 10**9, "1h0m0s"), (-(15 * 10**8), "-1.5s"),
    ],
)  # fmt: skip
def test_durations(nanoseconds: int, text: str) -> None:
    assert go_print(Duration(nanoseconds)) == text


def test_json_and_quoting() -> None:
    assert to_json({"b": "<&>", "a": 1.0}) == '{"a":1,"b":"<&>"}'
    assert to_json("<&>", escape=True) == '"\\u003c\\u0026\\u003e"'
    assert quote('a"b\\\x01é\u200b') == '"a\\"b\\\\\\x01é\\u200b"'
