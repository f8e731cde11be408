"""org.systemd.property.* annotations: GVariant's text format, and what systemd is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidParameter
from sampan.kernel import dbus
from sampan.kernel.cgroup import gvariant, systemd


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", ("b", True)),
        ("'inactive-or-failed'", ("s", "inactive-or-failed")),
        ('"a \\"b\\" \\\\"', ("s", 'a "b" \\')),
        ("-5", ("i", -5)),
        ("0x10", ("i", 16)),
        ("1.5", ("d", 1.5)),
        ("uint64 18446744073709551615", ("t", (1 << 64) - 1)),
        ("@t 7", ("t", 7)),
        ("objectpath '/a'", ("o", "/a")),
        ("['a', 'b']", ("as", ["a", "b"])),
        ("@as []", ("as", [])),
        ("[byte 1, 2]", ("ay", [1, 2])),
        ("[('char-*', 'rwm'), ('/dev/null', 'r')]", None),
        ("@a(ss) []", ("a(ss)", [])),
        ("('a', uint32 5, true)", ("(sub)", ("a", 5, True))),
        ("('a',)", ("(s)", ("a",))),
    ],
)
def test_values(text: str, value: object) -> None:
    kind, found = gvariant.parse(text)
    if value is not None:
        assert (kind, found) == value
    assert dbus.marshal("v", [(kind, found)])


@pytest.mark.parametrize(
    "text",
    [
        *("", "yes", "[]", "1 2", "[1, 'a']", "[1 2]", "[1", "'a", "()", "@z 1", "@ss 1", "@s 1"),
        *("uint32 -1", "3000000000", "1" * 50, "byte 'a'", "@as 'a'", "[" * 40),
        *("@(ss) ('a',)", "@(s) ('a', 'b')"),
    ],
)
def test_what_is_no_value(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        gvariant.parse(text)


@given(st.text(alphabet="@asbtiuxd()[]{},'\" 0123456789.-\\truefalse", max_size=40))
def test_whatever_it_is_told(text: str) -> None:
    try:
        kind, value = gvariant.parse(text)
    except ValueError:
        return
    assert dbus.marshal("v", [(kind, value)])


def test_annotations_become_properties() -> None:
    found = systemd.annotated(
        {
            "org.systemd.property.CollectMode": "'inactive'",
            "org.systemd.property.TimeoutStopSec": "2.5",
            "org.systemd.property.TimeoutStopUSec": "uint64 7",
            "org.example.other": "anything",
        }
    )
    assert list(found) == [
        ("CollectMode", "s", "inactive"),
        ("TimeoutStopUSec", "t", 2_500_000),
        ("TimeoutStopUSec", "t", 7),
    ]


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("Slice", "'x.slice'", "'Slice' is made by the runtime"),
        ("PIDs", "[uint32 1]", "'PIDs' is made by the runtime"),
        ("No-Name", "true", "is no name of a property"),
        ("OOMPolicy", "stop", "OOMPolicy: 'stop' is no value"),
        ("TimeoutStopSec", "'soon'", "is no time in seconds"),
        ("TimeoutStopSec", "uint64 18446744073709551615", "is no time in seconds"),
    ],
)
def test_refused_by_name(name: str, value: str, why: str) -> None:
    with pytest.raises(InvalidParameter, match=why):
        list(systemd.annotated({f"org.systemd.property.{name}": value}))
