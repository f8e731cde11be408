"""A seccomp filter as a decision tree: the same answers from fewer instructions (pure).

What a filter costs a start is its length: the kernel translates it to machine code, and runs it for
every system call number there is to know those it always allows (seccomp_cache_prepare() in
kernel/seccomp.c). Here it is run as well, once for each architecture and range of numbers that it
tells apart, and both ways where an argument decides. Ranges with one outcome become one, which is
found by halving.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from sampan.errors import Unsupported
from sampan.kernel import sock_filter
from sampan.kernel.sock_filter import ARCHITECTURE, NUMBER, Instruction

_ALL = 0xFFFFFFFF
_FARTHEST = 250  # of 255 instructions: those of a jump may be put between

Outcome: TypeAlias = "int | Test"


class Test(NamedTuple):
    """What comes of a system call where the word of it at ``offset``, under ``mask``, decides."""

    offset: int
    mask: int
    code: int
    operand: int
    yes: Outcome
    no: Outcome


def condense(program: bytes) -> bytes:
    """A program that answers as ``program`` does, which itself where none is shorter.

    Raises :class:`Unsupported` for instructions that seccomp filters are not made of.
    """
    code = sock_filter.decode(program)
    numbers, architectures = _told_apart(code)
    starts = sorted({0, *numbers, *(number + 1 for number in numbers if number < _ALL)})
    other = next(value for value in range(len(architectures) + 1) if value not in architectures)
    otherwise = _ranges(code, other, starts)
    trees = {
        architecture: ranges
        for architecture in architectures
        if (ranges := _ranges(code, architecture, starts)) != otherwise
    }
    shorter = _Writer().write(trees, otherwise)
    return shorter if len(shorter) < len(program) else program


def _told_apart(code: Sequence[Instruction]) -> tuple[set[int], list[int]]:
    """What system call numbers, and what architectures, are compared with; these in order."""
    numbers: set[int] = set()
    architectures: dict[int, None] = {}
    loaded: list[set[int]] = [set() for _ in code]  # jumps lead forward: one pass sees all ways
    for at, instruction in enumerate(code):
        words = {instruction.operand} if instruction.code == sock_filter.LOAD else loaded[at]
        if instruction.code in sock_filter.COMPARISONS:
            if NUMBER in words:
                numbers.add(instruction.operand)
            if ARCHITECTURE in words:
                architectures[instruction.operand] = None
        for target in instruction.targets(at):
            loaded[target] |= words
    return numbers, list(architectures)


def _ranges(
    code: Sequence[Instruction], architecture: int, starts: Sequence[int]
) -> list[tuple[int, Outcome]]:
    """The first number of each range with another outcome than that before, and the outcome."""
    ranges: list[tuple[int, Outcome]] = []
    for start in starts:
        outcome = _Run(code, start, architecture).outcome(0, 0, _ALL)
        if not ranges or ranges[-1][1] != outcome:
            ranges.append((start, outcome))
    return ranges


class _Run:
    """Runs of a program in which number and architecture are known, and nothing else is."""

    def __init__(self, code: Sequence[Instruction], number: int, architecture: int) -> None:
        self._code = code
        self._known = {NUMBER: number, ARCHITECTURE: architecture}
        self._outcomes: dict[tuple[int, int, int], Outcome] = {}

    def outcome(self, at: int, offset: int, mask: int) -> Outcome:
        """From instruction ``at`` on, with the word at ``offset`` under ``mask`` loaded."""
        while True:
            code, if_true, if_false, operand = self._code[at]
            at += 1
            if code == sock_filter.LOAD:
                offset, mask = operand, _ALL
            elif code == sock_filter.AND:
                if offset == NUMBER:
                    raise Unsupported("seccomp: bits of a system call's number")
                mask &= operand
            elif code == sock_filter.ALWAYS:
                at += operand
            elif code == sock_filter.RETURN:
                return operand
            elif offset in self._known:
                holds = sock_filter.holds(code, self._known[offset] & mask, operand)
                at += if_true if holds else if_false
            else:
                key = (at, offset, mask)
                if key not in self._outcomes:
                    yes = self.outcome(at + if_true, offset, mask)
                    no = self.outcome(at + if_false, offset, mask)
                    test = Test(offset, mask, code, operand, yes, no)
                    self._outcomes[key] = yes if yes == no else test
                return self._outcomes[key]


class _Writer:
    """Writes a program from its end: what is jumped to is there before the jump."""

    def __init__(self) -> None:
        self._backwards: list[Instruction] = []
        self._written: dict[Outcome, int] = {}

    def write(
        self, trees: dict[int, list[tuple[int, Outcome]]], otherwise: list[tuple[int, Outcome]]
    ) -> bytes:
        """``trees`` by architecture, and what holds for every other one."""
        at = self._tree(otherwise)
        for architecture, ranges in reversed(trees.items()):
            here = self._tree(ranges)
            at = self._branch(sock_filter.EQUAL, architecture, here, at)
            at = self._add(sock_filter.LOAD, ARCHITECTURE)
        return sock_filter.encode(self._backwards[::-1])

    def _tree(self, ranges: Sequence[tuple[int, Outcome]]) -> int:
        at = self._halves(ranges)
        return at if len(ranges) == 1 else self._add(sock_filter.LOAD, NUMBER)

    def _halves(self, ranges: Sequence[tuple[int, Outcome]]) -> int:
        """Where the tree starts that needs the number loaded."""
        if len(ranges) == 1:
            return self._outcome(ranges[0][1])
        half = len(ranges) // 2
        above = self._halves(ranges[half:])
        below = self._halves(ranges[:half])
        return self._branch(sock_filter.AT_LEAST, ranges[half][0], above, below)

    def _outcome(self, outcome: Outcome) -> int:
        at = self._written.get(outcome)
        if at is not None and self._distance(at) <= _FARTHEST:
            return at
        if isinstance(outcome, int):
            at = self._add(sock_filter.RETURN, outcome)
        else:
            no, yes = self._outcome(outcome.no), self._outcome(outcome.yes)
            at = self._branch(outcome.code, outcome.operand, yes, no)
            if outcome.mask != _ALL:
                self._add(sock_filter.AND, outcome.mask)
            at = self._add(sock_filter.LOAD, outcome.offset)
        self._written[outcome] = at
        return at

    def _branch(self, code: int, operand: int, yes: int, no: int) -> int:
        if self._distance(yes) > _FARTHEST:
            yes = self._add(sock_filter.ALWAYS, self._distance(yes))
        if self._distance(no) > _FARTHEST:
            no = self._add(sock_filter.ALWAYS, self._distance(no))
        return self._add(code, operand, self._distance(yes), self._distance(no))

    def _distance(self, at: int) -> int:
        """Instructions between one that is written now and that at ``at``."""
        return len(self._backwards) - at - 1

    def _add(self, code: int, operand: int, if_true: int = 0, if_false: int = 0) -> int:
        self._backwards.append(Instruction(code, if_true, if_false, operand))
        return len(self._backwards) - 1
