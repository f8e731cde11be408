"""Classic BPF as seccomp(2) uses it: what a filter answers to a system call (pure).

The instructions are those filters are made of (include/uapi/linux/filter.h, bpf_common.h); the data
they look at is struct seccomp_data.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from sampan.errors import Unsupported

ALLOW = 0x7FFF0000
ERRNO = 0x00050000

_INSTRUCTION = struct.Struct("=HBBI")
_LOAD, _AND, _RETURN, _ALWAYS = 0x20, 0x54, 0x06, 0x05
_EQUAL, _GREATER, _AT_LEAST, _ANY = 0x15, 0x25, 0x35, 0x45


def answer(program: bytes, architecture: int, number: int, arguments: Sequence[int] = ()) -> int:
    """The action (SECCOMP_RET_*, with its data) of ``program`` for one system call.

    ``architecture``: AUDIT_ARCH_*. Raises :class:`Unsupported` for an instruction that filters are
    not made of.
    """
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    at = value = 0
    while True:
        code, if_true, if_false, operand = _INSTRUCTION.unpack_from(program, at * 8)
        at += 1
        if code == _LOAD:
            (value,) = struct.unpack_from("=I", data, operand)
        elif code == _AND:
            value &= operand
        elif code == _ALWAYS:
            at += operand
        elif code == _RETURN:
            return int(operand)
        elif code == _EQUAL:
            at += if_true if value == operand else if_false
        elif code == _GREATER:
            at += if_true if value > operand else if_false
        elif code == _AT_LEAST:
            at += if_true if value >= operand else if_false
        elif code == _ANY:
            at += if_true if value & operand else if_false
        else:
            raise Unsupported(f"seccomp: instruction {code:#x}")
