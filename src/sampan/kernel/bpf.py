"""bpf(2): a minimal assembler and the calls that load and attach cgroup programs.

Layouts are those of include/uapi/linux/bpf.h. Only what the device filter needs is here.
"""

from __future__ import annotations

import ctypes
import struct

from sampan.kernel.libc import SYS_BPF, check, syscall

PROG_TYPE_CGROUP_DEVICE = 15
CGROUP_DEVICE = 6

_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 9, 13, 16
_ALLOW_MULTI = 2
_MAX_PROGRAMS = 64


def instruction(code: int, dst: int, src: int, offset: int, immediate: int) -> bytes:
    """One struct bpf_insn."""
    return struct.pack("=BBhi", code, (src << 4) | dst, offset, immediate)


def load_word(dst: int, src: int, offset: int) -> bytes:
    """dst = *(u32 *)(src + offset)"""
    return instruction(0x61, dst, src, offset, 0)


def move_register(dst: int, src: int) -> bytes:
    """dst = src (64 bits)"""
    return instruction(0xBF, dst, src, 0, 0)


def move_immediate(dst: int, value: int) -> bytes:
    """dst = value (64 bits, sign-extended)"""
    return instruction(0xB7, dst, 0, 0, value)


def and_immediate(dst: int, value: int) -> bytes:
    """dst = (u32) dst & value"""
    return instruction(0x54, dst, 0, 0, value)


def shift_right(dst: int, bits: int) -> bytes:
    """dst = (u32) dst >> bits"""
    return instruction(0x74, dst, 0, 0, bits)


def jump_if_equal(register: int, value: int, skip: int) -> bytes:
    """if (u32) register == value: skip ``skip`` instructions"""
    return instruction(0x16, register, 0, skip, _signed(value))


def jump_if_not_equal(register: int, value: int, skip: int) -> bytes:
    """if (u32) register != value: skip ``skip`` instructions"""
    return instruction(0x56, register, 0, skip, _signed(value))


def leave() -> bytes:
    """return r0"""
    return instruction(0x95, 0, 0, 0, 0)


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value


def load(kind: int, program: bytes, name: str) -> int:
    """BPF_PROG_LOAD: return a close-on-exec descriptor of the verified program.

    Raises OSError; for EINVAL and EACCES the verifier's complaint is part of the message.
    """
    instructions = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    log = ctypes.create_string_buffer(1 << 16)
    # prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags,
    # prog_name
    head = (kind, len(program) // 8, ctypes.addressof(instructions), ctypes.addressof(licence))
    tail = (0, 0, name.encode()[:15])
    quiet = struct.pack("=IIQQIIQII16s", *head, 0, 0, 0, *tail)
    try:
        return _bpf(_PROG_LOAD, quiet, "BPF_PROG_LOAD")
    except PermissionError as error:
        if error.errno == 1:
            raise
    except OSError:
        pass
    # Once more with the verifier's log, which costs time and is wanted on failure only.
    loud = struct.pack("=IIQQIIQII16s", *head, 1, len(log), ctypes.addressof(log), *tail)
    try:
        return _bpf(_PROG_LOAD, loud, "BPF_PROG_LOAD")
    except OSError as error:
        text = log.value.decode(errors="replace").strip() or error.strerror
        raise OSError(error.errno, f"BPF_PROG_LOAD: {text}") from None


def attach(target: int, program: int, kind: int) -> None:
    """BPF_PROG_ATTACH of ``program`` to the cgroup directory ``target`` with BPF_F_ALLOW_MULTI."""
    _bpf(_PROG_ATTACH, struct.pack("=IIIII", target, program, kind, _ALLOW_MULTI, 0), "attach")


def detach(target: int, program: int, kind: int) -> None:
    """BPF_PROG_DETACH of ``program`` from the cgroup directory ``target``."""
    _bpf(_PROG_DETACH, struct.pack("=IIIII", target, program, kind, 0, 0), "detach")


def query(target: int, kind: int) -> list[int]:
    """BPF_PROG_QUERY: ids of the programs attached directly to the cgroup ``target``."""
    ids = (ctypes.c_uint32 * _MAX_PROGRAMS)()
    attr = ctypes.create_string_buffer(
        struct.pack("=IIIIQII", target, kind, 0, 0, ctypes.addressof(ids), _MAX_PROGRAMS, 0)
    )
    _call(_PROG_QUERY, attr, "BPF_PROG_QUERY")
    count = struct.unpack_from("=I", attr.raw, 24)[0]
    return list(ids[:count])


def program_by_id(identifier: int) -> int:
    """BPF_PROG_GET_FD_BY_ID: a close-on-exec descriptor of a loaded program."""
    return _bpf(_PROG_GET_FD_BY_ID, struct.pack("=III", identifier, 0, 0), "BPF_PROG_GET_FD_BY_ID")


def _bpf(command: int, attr: bytes, what: str) -> int:
    return _call(command, ctypes.create_string_buffer(attr, len(attr)), what)


def _call(command: int, attr: ctypes.Array[ctypes.c_char], what: str) -> int:
    return check(syscall(SYS_BPF, command, ctypes.addressof(attr), len(attr)), what)
