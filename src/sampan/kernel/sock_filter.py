"""Classic BPF as seccomp(2) uses it: what a filter answers to a system call (pure).

The instructions are those filters are made of (include/uapi/linux/filter.h, bpf_common.h); the data
they look at is struct seccomp_data.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from sampan.errors import Unsupported

ALLOW = 0x7FFF0000
ERRNO = 0x00050000

LOAD, AND, RETURN, ALWAYS = 0x20, 0x54, 0x06, 0x05
EQUAL, GREATER, AT_LEAST, ANY = 0x15, 0x25, 0x35, 0x45
NUMBER, ARCHITECTURE = 0, 4  # offsets into struct seccomp_data
COMPARISONS = frozenset({EQUAL, GREATER, AT_LEAST, ANY})

_INSTRUCTION = struct.Struct("=HBBI")
_CODES = COMPARISONS | {LOAD, AND, RETURN, ALWAYS}


class Instruction(NamedTuple):
    """struct sock_filter: ``if_true`` and ``if_false`` are how many are skipped."""

    code: int
    if_true: int
    if_false: int
    operand: int

    def targets(self, at: int) -> tuple[int, ...]:
        """Which instructions may follow this one, the one at ``at``."""
        if self.code == RETURN:
            return ()
        if self.code == ALWAYS:
            return (at + 1 + self.operand,)
        if self.code in COMPARISONS:
            return at + 1 + self.if_true, at + 1 + self.if_false
        return (at + 1,)


def decode(program: bytes) -> list[Instruction]:
    """Raises :class:`Unsupported` for an instruction that filters are not made of."""
    return [_instruction(program, at) for at in range(len(program) // _INSTRUCTION.size)]


def _instruction(program: bytes, at: int) -> Instruction:
    instruction = Instruction(*_INSTRUCTION.unpack_from(program, at * _INSTRUCTION.size))
    if instruction.code not in _CODES:
        raise Unsupported(f"seccomp: instruction {instruction.code:#x}")
    return instruction


def encode(code: Sequence[Instruction]) -> bytes:
    """An array of struct sock_filter."""
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)


def holds(comparison: int, value: int, operand: int) -> bool:
    """Whether a conditional jump is taken."""
    if comparison == EQUAL:
        return value == operand
    if comparison == GREATER:
        return value > operand
    if comparison == AT_LEAST:
        return value >= operand
    return bool(value & operand)


def answer(program: bytes, architecture: int, number: int, arguments: Sequence[int] = ()) -> int:
    """The action (SECCOMP_RET_*, with its data) of ``program`` for one system call.

    ``architecture``: AUDIT_ARCH_*. Raises :class:`Unsupported` for an instruction that filters are
    not made of.
    """
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    at = value = 0
    while True:
        instruction = _instruction(program, at)
        at += 1
        if instruction.code == LOAD:
            (value,) = struct.unpack_from("=I", data, instruction.operand)
        elif instruction.code == AND:
            value &= instruction.operand
        elif instruction.code == ALWAYS:
            at += instruction.operand
        elif instruction.code == RETURN:
            return instruction.operand
        else:
            taken = holds(instruction.code, value, instruction.operand)
            at += instruction.if_true if taken else instruction.if_false
