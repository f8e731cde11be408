"""Filters made shorter answer as they did, against the programs libseccomp makes of profiles."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import Unsupported
from sampan.kernel import sock_filter
from sampan.kernel.filter_tree import condense
from sampan.kernel.libseccomp import Library, Rule
from sampan.kernel.seccomp import ARCHITECTURES
from sampan.kernel.seccomp_compiler import ACTIONS, OPERATORS

try:
    LIBRARY = Library.load()
except Unsupported as missing:
    pytest.skip(str(missing), allow_module_level=True)

X86_64, X86, X32 = (ARCHITECTURES[f"SCMP_ARCH_{name}"] for name in ("X86_64", "X86", "X32"))
X32_BIT = 0x40000000
CALLS: tuple[str, ...] = (
    "read",
    "clone",
    "personality",
    "socket",
    "ioctl",
    "kill",
    "mmap",
    "ptrace",
    "getdents64",
)
CALLS += ("epoll_wait", "statx", "clone3")
ANSWERS = (ACTIONS["SCMP_ACT_ALLOW"], ACTIONS["SCMP_ACT_KILL"], ACTIONS["SCMP_ACT_ERRNO"] | 38)
WORDS = st.sampled_from([0, 1, 8, 0x20008, 0xFFFFFFFF, 0x100000001, 2**64 - 1])


def instructions(*steps: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def calls(program: bytes, chance: random.Random) -> Iterator[tuple[int, int, list[int]]]:
    """Architectures, numbers and arguments of which some are on either side of each comparison."""
    operands = [instruction.operand for instruction in sock_filter.decode(program)]
    near = sorted({(word + by) & 0xFFFFFFFF for word in operands for by in (-1, 0, 1)})
    for architecture in (X86_64, X86, 0, 0xC00000B7):
        for number in [*near, *range(0, 480, 7), X32_BIT + 1, 0xFFFFFFFF]:
            for _ in range(2):
                halves = chance.choices(near, k=12)
                words = [high << 32 | low for high, low in zip(halves[:6], halves[6:], strict=True)]
                yield architecture, number, words
            yield architecture, number, [chance.choice(near)] * 6


@given(
    default=st.sampled_from(ANSWERS),
    architectures=st.sampled_from([(X86_64,), (X86_64, X86), (X86_64, X86, X32)]),
    rules=st.lists(
        st.tuples(
            st.sampled_from(ANSWERS),
            st.sampled_from(CALLS),
            st.dictionaries(
                st.integers(0, 5),
                st.tuples(st.sampled_from(sorted(OPERATORS.values())), WORDS, WORDS),
                max_size=2,
            ),
        ),
        max_size=20,
    ),
    seed=st.integers(0, 2**16),
)
def test_answers_stay_as_they_were(
    default: int,
    architectures: tuple[int, ...],
    rules: list[tuple[int, str, dict[int, tuple[int, int, int]]]],
    seed: int,
) -> None:
    made = [
        Rule(
            action=action,
            number=LIBRARY.resolve(name) or 0,
            comparisons=tuple((index, *test) for index, test in arguments.items()),
        )
        for action, name, arguments in rules
        if action != default
    ]
    try:
        program = LIBRARY.generate(default, architectures, tuple(made))
    except Unsupported:  # rules that contradict each other
        return
    shorter = condense(program)
    assert len(shorter) <= len(program)
    for architecture, number, arguments in calls(program, random.Random(seed)):
        expected = sock_filter.answer(program, architecture, number, arguments)
        assert sock_filter.answer(shorter, architecture, number, arguments) == expected


def test_more_ranges_than_a_jump_is_far() -> None:
    allow, refuse = ANSWERS[0], ANSWERS[2]
    steps = [(sock_filter.LOAD, 0, 0, 0)]
    for number in range(0, 3000, 2):
        steps += [(sock_filter.EQUAL, 0, 1, number), (sock_filter.RETURN, 0, 0, refuse + number)]
    program = instructions(*steps, (sock_filter.RETURN, 0, 0, allow))
    # What is longer by it stays, so the way there has to be a long one.
    around = [(sock_filter.ALWAYS, 0, 0, 0)] * 4000
    shorter = condense(instructions(*around) + program)
    assert len(shorter) < len(program) + 8 * 4000
    for number in range(3010):
        expected = allow if number % 2 or number >= 3000 else refuse + number
        assert sock_filter.answer(shorter, X86_64, number) == expected


def test_one_answer_for_everything_is_one_instruction() -> None:
    program = LIBRARY.generate(ANSWERS[1], (X86_64,), ())
    assert len(condense(program)) == 8


def test_an_architecture_with_one_answer_among_others() -> None:
    steps = [
        (sock_filter.LOAD, 0, 0, 4),
        (sock_filter.EQUAL, 0, 1, X86),
        (sock_filter.RETURN, 0, 0, 1),
        (sock_filter.EQUAL, 0, 4, X86_64),
        (sock_filter.LOAD, 0, 0, 0),
        (sock_filter.AT_LEAST, 1, 0, 9),
        (sock_filter.RETURN, 0, 0, 1),
        (sock_filter.RETURN, 0, 0, 2),
        (sock_filter.RETURN, 0, 0, 3),
    ]
    program = instructions(*steps[:4], *[(sock_filter.ALWAYS, 0, 0, 0)] * 20, *steps[4:])
    program = program[:24] + instructions((sock_filter.EQUAL, 0, 24, X86_64)) + program[32:]
    shorter = condense(program)
    assert len(shorter) < len(program)
    for architecture in (X86, X86_64, 0):
        for number in (0, 8, 9, 10):
            expected = sock_filter.answer(program, architecture, number)
            assert sock_filter.answer(shorter, architecture, number) == expected


def test_bits_of_a_number_are_refused() -> None:
    steps = [(sock_filter.LOAD, 0, 0, 0), (sock_filter.AND, 0, 0, 1)]
    steps += [(sock_filter.EQUAL, 0, 1, 1), (sock_filter.RETURN, 0, 0, 1)]
    with pytest.raises(Unsupported, match="bits of a system call's number"):
        condense(instructions(*steps, (sock_filter.RETURN, 0, 0, 2)))
