"""Device rules played through, and the eBPF program that means the same."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidParameter
from sampan.kernel.cgroup.device_filter import compile_policy
from sampan.kernel.cgroup.devices import DEFAULT_DEVICES, DevicePolicy, policy
from sampan.model.oci import DeviceRule

DENY_ALL: DeviceRule = {"allow": False, "access": "rwm"}
ALLOW_ALL: DeviceRule = {"allow": True, "access": "rwm"}
ACCESS = {"m": 1, "r": 2, "w": 4}


def lines(*rules: DeviceRule) -> tuple[bool, list[str]]:
    result = policy(rules)
    return result.allow_by_default, [exception.line() for exception in result.exceptions]


def test_defaults_are_what_every_container_has() -> None:
    allow, held = lines(DENY_ALL, *DEFAULT_DEVICES)
    assert not allow
    assert held[:3] == ["b *:* m", "c *:* m", "c 1:3 rwm"]
    assert "c 136:* rwm" in held


def test_later_rules_win() -> None:
    null: DeviceRule = {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"}
    assert lines(ALLOW_ALL, DENY_ALL, null) == (False, ["c 1:3 rw"])
    assert lines(null, ALLOW_ALL) == (True, [])
    assert lines(null, {**null, "access": "m"}) == (False, ["c 1:3 rwm"])
    assert lines(null, {**null, "allow": False, "access": "w"}) == (False, ["c 1:3 r"])
    assert lines(ALLOW_ALL, {**null, "allow": False}) == (True, ["c 1:3 rw"])
    wide: DeviceRule = {"allow": False, "type": "c", "major": 1, "access": "rwm"}
    assert lines(null, wide) == (False, [])


def test_a_hole_in_a_wildcard_is_refused() -> None:
    wide: DeviceRule = {"allow": True, "type": "c", "major": 1, "access": "rw"}
    hole: DeviceRule = {"allow": False, "type": "c", "major": 1, "minor": 3, "access": "w"}
    with pytest.raises(InvalidParameter, match="wildcard"):
        policy([wide, hole])


def run(program: bytes, kind: str, major: int, minor: int, access: int) -> bool:
    """Interpret the few eBPF instructions the filter consists of."""
    context = struct.pack("=III", access << 16 | {"b": 1, "c": 2}[kind], major, minor)
    registers = [0] * 11
    at = 0
    while True:
        code, registers_, offset, immediate = struct.unpack_from("=BBhi", program, at * 8)
        dst, src, value = registers_ & 15, registers_ >> 4, immediate & 0xFFFFFFFF
        at += 1
        match code:
            case 0x61:
                registers[dst] = struct.unpack_from("=I", context, offset)[0]
            case 0xBF:
                registers[dst] = registers[src]
            case 0xB7:
                registers[dst] = value
            case 0x54:
                registers[dst] &= value
            case 0x74:
                registers[dst] = (registers[dst] & 0xFFFFFFFF) >> value
            case 0x16:
                at += offset if registers[dst] & 0xFFFFFFFF == value else 0
            case 0x56:
                at += offset if registers[dst] & 0xFFFFFFFF != value else 0
            case 0x95:
                return bool(registers[0])
            case _:
                raise AssertionError(f"unexpected instruction {code:#x}")


def expected(wanted: DevicePolicy, kind: str, major: int, minor: int, access: int) -> bool:
    """What devices.rst says, written down a second time."""
    for exception in wanted.exceptions:
        bits = sum(ACCESS[letter] for letter in exception.access)
        if (
            exception.kind == kind
            and exception.major in (-1, major)
            and exception.minor in (-1, minor)
            and (access & bits if wanted.allow_by_default else not access & ~bits)
        ):
            return not wanted.allow_by_default
    return wanted.allow_by_default


numbers = st.sampled_from([0, 1, 5, 0x80000001])
rules = st.lists(
    st.fixed_dictionaries(
        {
            "allow": st.booleans(),
            "type": st.sampled_from(["a", "b", "c"]),
            "access": st.sampled_from(["r", "w", "m", "rw", "rwm"]),
        },
        optional={"major": numbers, "minor": numbers},
    ),
    max_size=6,
)


@given(
    rules,
    st.lists(
        st.tuples(st.sampled_from("bc"), numbers, numbers, st.integers(1, 7)),
        min_size=1,
        max_size=8,
    ),
)
def test_program_means_the_policy(
    given_rules: list[DeviceRule], questions: list[tuple[str, int, int, int]]
) -> None:
    try:
        wanted = policy(given_rules)
    except InvalidParameter:
        return
    program = compile_policy(wanted)
    for question in questions:
        assert run(program, *question) == expected(wanted, *question)
