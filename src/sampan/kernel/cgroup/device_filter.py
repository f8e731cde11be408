"""Device access on cgroup v2: a policy compiled to eBPF (pure) and attached to a cgroup.

The program gets ``struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }`` where
access_type is (access << 16) | type, and returns 1 to allow, 0 to deny with EPERM
(include/uapi/linux/bpf.h). Semantics are those of the v1 devices controller: an exception from
"deny" must cover the whole access asked for, an exception from "allow" applies when it covers
any part of it.
"""

from __future__ import annotations

import os

from sampan.kernel import bpf
from sampan.kernel.cgroup.devices import WILDCARD, DevicePolicy

_TYPE = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_DEV_CHAR
_ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_MKNOD, _READ, _WRITE


def compile_policy(policy: DevicePolicy) -> bytes:
    """The eBPF program (array of struct bpf_insn) that decides as ``policy`` says."""
    # r2 = type, r3 = access, r4 = major, r5 = minor
    code = [
        bpf.load_word(2, 1, 0),
        bpf.and_immediate(2, 0xFFFF),
        bpf.load_word(3, 1, 0),
        bpf.shift_right(3, 16),
        bpf.load_word(4, 1, 4),
        bpf.load_word(5, 1, 8),
    ]
    for exception in policy.exceptions:
        code += _exception(
            _TYPE[exception.kind],
            exception.major,
            exception.minor,
            sum(_ACCESS[letter] for letter in exception.access),
            policy.allow_by_default,
        )
    code += [bpf.move_immediate(0, int(policy.allow_by_default)), bpf.leave()]
    return b"".join(code)


def _exception(
    kind: int, major: int, minor: int, access: int, allow_by_default: bool
) -> list[bytes]:
    """Leave with the opposite of the default when the exception matches, else fall through."""
    tests: list[tuple[int, int]] = [(2, kind)]
    if major != WILDCARD:
        tests.append((4, major))
    if minor != WILDCARD:
        tests.append((5, minor))
    matched = [bpf.move_immediate(0, int(not allow_by_default)), bpf.leave()]
    if access == 7:
        access_test = []
    elif allow_by_default:
        # any overlap: r1 = r3 & access; if r1 == 0 skip
        access_test = [
            bpf.move_register(1, 3),
            bpf.and_immediate(1, access),
            bpf.jump_if_equal(1, 0, len(matched)),
        ]
    else:
        # nothing outside: r1 = r3 & ~access; if r1 != 0 skip
        access_test = [
            bpf.move_register(1, 3),
            bpf.and_immediate(1, 7 & ~access),
            bpf.jump_if_not_equal(1, 0, len(matched)),
        ]
    body = access_test + matched
    for register, value in reversed(tests):
        body = [bpf.jump_if_not_equal(register, value, len(body)), *body]
    return body


def attach(directory: str, program: bytes) -> None:
    """Load ``program`` and make it the only device filter we have on cgroup ``directory``.

    Programs already attached there directly (by an earlier call) are replaced; those of
    ancestors keep applying. Raises OSError (EPERM without CAP_BPF/CAP_SYS_ADMIN).
    """
    cgroup = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        filter_fd = bpf.load(bpf.PROG_TYPE_CGROUP_DEVICE, program, "sampan_device")
        try:
            old = bpf.query(cgroup, bpf.CGROUP_DEVICE)
            # The new one first, then the old ones away: at no moment is there no filter.
            bpf.attach(cgroup, filter_fd, bpf.CGROUP_DEVICE)
            for identifier in old:
                program_fd = bpf.program_by_id(identifier)
                try:
                    bpf.detach(cgroup, program_fd, bpf.CGROUP_DEVICE)
                finally:
                    os.close(program_fd)
        finally:
            os.close(filter_fd)
    finally:
        os.close(cgroup)
