"""What classic BPF programs answer, against the programs libseccomp makes of profiles."""

from __future__ import annotations

import errno
import struct

import pytest

from sampan.errors import Unsupported
from sampan.kernel.seccomp import AUDIT_ARCHITECTURES
from sampan.kernel.seccomp_compiler import Compiler
from sampan.kernel.sock_filter import ALLOW, ERRNO, answer

X86_64 = AUDIT_ARCHITECTURES["x86_64"]
CLONE, EXECVE, MMAP = 56, 59, 9
KILL = 0x80000000


def test_actions_by_number_and_argument() -> None:
    compiler = Compiler(machine="x86_64")
    program = compiler.compile(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": errno.ENOSYS,
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {"names": ["execve"], "action": "SCMP_ACT_ALLOW"},
                {
                    "names": ["clone"],
                    "action": "SCMP_ACT_ALLOW",
                    "args": [
                        {"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
                    ],
                },
            ],
        }
    ).program
    assert answer(program, X86_64, EXECVE) == ALLOW
    assert answer(program, X86_64, MMAP) == ERRNO | errno.ENOSYS
    assert answer(program, X86_64, CLONE, [0x4100]) == ALLOW
    assert answer(program, X86_64, CLONE, [0x10000000]) == ERRNO | errno.ENOSYS
    assert answer(program, AUDIT_ARCHITECTURES["aarch64"], EXECVE) != ALLOW


@pytest.mark.parametrize(
    ("code", "operand", "taken"),
    [
        *((0x15, 7, True), (0x15, 8, False), (0x25, 6, True), (0x25, 7, False)),
        *((0x35, 7, True), (0x35, 8, False), (0x45, 4, True), (0x45, 8, False)),
    ],
)
def test_each_jump(code: int, operand: int, taken: bool) -> None:
    steps = [(0x20, 0, 0, 0), (0x54, 0, 0, 0xF), (code, 1, 0, operand), (0x05, 0, 0, 1)]
    steps += [(0x06, 0, 0, 1), (0x06, 0, 0, 2)]
    program = b"".join(struct.pack("=HBBI", *step) for step in steps)
    assert answer(program, X86_64, 0x17) == (1 if taken else 2)


def test_what_filters_are_not_made_of() -> None:
    with pytest.raises(Unsupported, match="instruction 0x7"):
        answer(struct.pack("=HBBI", 0x07, 0, 0, 0), X86_64, 0)
