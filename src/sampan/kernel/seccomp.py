"""seccomp(2): a filter as a value, and how a process puts it on.

Filters are compiled elsewhere (:mod:`sampan.kernel.seccomp_compiler`): a process that is to become
a container's needs nothing but the program.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from dataclasses import dataclass

from sampan.kernel.libc import SYS_SECCOMP, check, syscall

_SET_MODE_FILTER = 1
NEW_LISTENER = 1 << 3
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1 << 0,
    "SECCOMP_FILTER_FLAG_LOG": 1 << 1,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 1 << 2,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 1 << 5,
}
#: OCI name -> (libseccomp token = AUDIT_ARCH_*, but x32 which has one of its own).
ARCHITECTURES = {
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X32": 0x4000003E,
    "SCMP_ARCH_ARM": 0x40000028,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_LOONGARCH64": 0xC0000102,
    "SCMP_ARCH_M68K": 0x00000004,
    "SCMP_ARCH_MIPS": 0x00000008,
    "SCMP_ARCH_MIPS64": 0x80000008,
    "SCMP_ARCH_MIPS64N32": 0xA0000008,
    "SCMP_ARCH_MIPSEL": 0x40000008,
    "SCMP_ARCH_MIPSEL64": 0xC0000008,
    "SCMP_ARCH_MIPSEL64N32": 0xE0000008,
    "SCMP_ARCH_PARISC": 0x0000000F,
    "SCMP_ARCH_PARISC64": 0x8000000F,
    "SCMP_ARCH_PPC": 0x00000014,
    "SCMP_ARCH_PPC64": 0x80000015,
    "SCMP_ARCH_PPC64LE": 0xC0000015,
    "SCMP_ARCH_RISCV64": 0xC00000F3,
    "SCMP_ARCH_S390": 0x00000016,
    "SCMP_ARCH_S390X": 0x80000016,
    "SCMP_ARCH_SH": 0x4000002A,
    "SCMP_ARCH_SHEB": 0x0000002A,
}
NATIVE = {
    "x86_64": "SCMP_ARCH_X86_64",
    "aarch64": "SCMP_ARCH_AARCH64",
    "riscv64": "SCMP_ARCH_RISCV64",
    "ppc64le": "SCMP_ARCH_PPC64LE",
    "s390x": "SCMP_ARCH_S390X",
    "loongarch64": "SCMP_ARCH_LOONGARCH64",
}
#: uname(2) machine -> AUDIT_ARCH_* of its own programs
AUDIT_ARCHITECTURES = {machine: ARCHITECTURES[name] for machine, name in NATIVE.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A compiled profile: ``program`` (array of struct sock_filter) and seccomp(2) ``flags``."""

    program: bytes
    flags: int = 0

    @property
    def listener(self) -> bool:
        """Whether ``install`` yields a user notification descriptor."""
        return bool(self.flags & NEW_LISTENER)


def install(filter_: Filter) -> int | None:
    """Put ``filter_`` on the calling thread (and, with TSYNC, its siblings), for good.

    Returns the notification descriptor (close-on-exec) when the filter has a listener. Needs
    no_new_privs or CAP_SYS_ADMIN. Raises OSError.
    """
    program = ctypes.create_string_buffer(filter_.program, len(filter_.program))
    # struct sock_fprog { unsigned short len; struct sock_filter *filter; }
    fprog = ctypes.create_string_buffer(
        struct.pack("@HP", len(filter_.program) // 8, ctypes.addressof(program))
    )
    result = check(
        syscall(SYS_SECCOMP, _SET_MODE_FILTER, filter_.flags, ctypes.addressof(fprog)), "seccomp"
    )
    return result if filter_.listener else None


def supported_flags() -> list[str]:
    """Those of :data:`FLAGS` that this kernel has; it is asked (seccomp(2)), nothing is installed.

    A flag that is known leads on to the program, which is at no address.
    """
    found = []
    for name, flag in FLAGS.items():
        # WAIT_KILLABLE_RECV is about notifications, and means nothing without them.
        beside = NEW_LISTENER if name == "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" else 0
        syscall(SYS_SECCOMP, _SET_MODE_FILTER, flag | beside, 0)
        if ctypes.get_errno() == errno.EFAULT:
            found.append(name)
    return found
