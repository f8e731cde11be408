"""The flag parser, the kinds of values, and the declarations of all commands."""

from __future__ import annotations

import pytest

from sampan.cli import kinds
from sampan.cli.arguments import Arguments
from sampan.cli.command import Command, Flag, Kind
from sampan.cli.fault import UsageError
from sampan.cli.flags import FlagParser, HelpRequested
from sampan.cli.index import ENTRIES, GROUPS, Entry, lookup
from sampan.cli.main import load

FLAGS = (
    Flag("all", "a", kinds.BOOL, ""),
    Flag("quiet", "q", kinds.BOOL, "", "true"),
    Flag("last", "n", kinds.INT, "", "-1"),
    Flag("name", "", kinds.STRING, ""),
    Flag("env", "e", kinds.LIST, ""),
    Flag("alias", "", kinds.STRINGS, ""),
    Flag("old-env", "", kinds.LIST, "", target="env", deprecated="use --env instead"),
)


def parse(*words: str, interspersed: bool = True) -> Arguments:
    warnings: list[str] = []
    return FlagParser(FLAGS, interspersed=interspersed, warn=warnings.append).parse(list(words))


def test_defaults() -> None:
    arguments = parse()
    assert (arguments.flag("all"), arguments.flag("quiet")) == (False, True)
    assert (arguments.number("last"), arguments.optional_number("last")) == (-1, None)
    assert (arguments.text("name"), arguments.texts("env")) == ("", [])
    assert arguments.changed == frozenset()


@pytest.mark.parametrize(
    "words",
    [
        ("-a", "-n", "5", "-e", "x", "-e", "y"),
        ("-an5", "-ex", "-ey"),
        ("-an=5", "-e=x", "-e=y"),
        ("--all", "--last", "5", "--env", "x", "--env=y"),
        ("--all=true", "--last=5", "--env=x", "--old-env", "y"),
    ],
)
def test_ways_to_write_flags(words: tuple[str, ...]) -> None:
    arguments = parse(*words)
    assert arguments.flag("all")
    assert arguments.number("last") == 5
    assert arguments.texts("env") == ["x", "y"]


def test_positional_arguments() -> None:
    assert parse("x", "-a", "y").positional == ["x", "y"]
    assert parse("x", "-a", interspersed=False).positional == ["x", "-a"]
    assert parse("-a", "--", "-n", "x").positional == ["-n", "x"]
    assert parse("-").positional == ["-"]
    assert parse("--alias", "a,b", "--alias", '"c,d"').texts("alias") == ["a", "b", "c,d"]
    assert not parse("--quiet=false").flag("quiet")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--nope",), "unknown flag: --nope"),
        (("-ax",), "unknown shorthand flag: 'x' in -x"),
        (("-n",), "flag needs an argument: 'n' in -n"),
        (("--name",), "flag needs an argument: --name"),
        (("--=x",), "bad flag syntax: --=x"),
        (("---x",), "bad flag syntax: ---x"),
        (
            ("-n", "x"),
            'invalid argument "x" for "-n, --last" flag: strconv.ParseInt: parsing "x": '
            "invalid syntax",
        ),
        (
            ("--all=x",),
            'invalid argument "x" for "-a, --all" flag: strconv.ParseBool: parsing "x": '
            "invalid syntax",
        ),
    ],
)
def test_mistakes(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(*words)
    assert (caught.value.message, caught.value.code) == (message, 125)


def test_help_is_asked_for() -> None:
    with pytest.raises(HelpRequested):
        parse("--help")
    with pytest.raises(HelpRequested):
        parse("-h")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (kinds.BYTES, "0", 0),
        (kinds.BYTES, "5", 5),
        (kinds.BYTES, "1k", 1024),
        (kinds.BYTES, "1.5MiB", 3 << 19),
        (kinds.BYTES, "2 gb", 2 << 30),
        (kinds.MEMORY_SWAP, "-1", -1),
        (kinds.DURATION, "1h30m", 5400 * 10**9),
        (kinds.DURATION, "-1.5s", -15 * 10**8),
        (kinds.DURATION, "250ms", 250 * 10**6),
        (kinds.DURATION, "0", 0),
        (kinds.DECIMAL, "1.5", 15 * 10**8),
        (kinds.DECIMAL, "1/4", 25 * 10**7),
        (kinds.INT, "0x10", 16),
        (kinds.INT, "010", 8),
        (kinds.INT, "-7", -7),
        (kinds.FILTER, "Label=a=b", ("label", "a=b")),
        (kinds.IP, "::0001", "::1"),
        (kinds.IPS, "10.0.0.1,::1", ["10.0.0.1", "::1"]),
        (kinds.IP_NETS, "10.0.0.9/24", ["10.0.0.0/24"]),
        (kinds.PAIRS, "a=b,c=d", [("a", "b"), ("c", "d")]),
    ],
)
def test_values(kind: Kind, text: str, value: object) -> None:
    assert kind.parse(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (kinds.BYTES, ""),
        (kinds.BYTES, "-1"),
        (kinds.BYTES, "1x"),
        (kinds.BYTES, "1.2.3"),
        (kinds.DURATION, ""),
        (kinds.DURATION, "5"),
        (kinds.DURATION, "1y"),
        (kinds.DURATION, "."),
        (kinds.DECIMAL, "0.0000000001"),
        (kinds.UINT16, "65536"),
        (kinds.UINT16, "-1"),
        (kinds.INT, str(2**63)),
        (kinds.FILTER, "x"),
        (kinds.IP, "1.2.3"),
        (kinds.STRINGS, '"open'),
    ],
)
def test_bad_values(kind: Kind, text: str) -> None:
    with pytest.raises(ValueError):
        kind.parse(text)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.path)
def test_every_command_is_declared_soundly(entry: Entry) -> None:
    command = load(entry)
    assert isinstance(command, Command)
    names = [flag.name for flag in command.flags]
    assert len(names) == len(set(names))
    shorts = [flag.short for flag in command.flags if flag.short]
    assert len(shorts) == len(set(shorts))
    for flag in command.flags:
        assert flag.hidden or flag.help
        assert not flag.target or flag.target in names
        if flag.default and not flag.kind.many:
            flag.kind.parse(flag.default)
    group = entry.path.rpartition(" ")[0]
    assert not group or group in GROUPS


def test_names_are_unique() -> None:
    names = [name for entry in ENTRIES for name in (entry.path, *entry.aliases)]
    assert len(names) == len(set(names)) == len(lookup())
