"""libseccomp by ctypes: exactly the calls that turn rules into a BPF program.

Loaded when a filter is compiled, never in a container's process. See seccomp_init(3),
seccomp_rule_add(3), seccomp_export_bpf(3).
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Any

from sampan.errors import Unsupported

_ATTR_CTL_OPTIMIZE = 8
_NR_ERROR = -1  # __NR_SCMP_ERROR; pseudo numbers of other architectures are below it


class _ArgCmp(ctypes.Structure):
    """struct scmp_arg_cmp"""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One seccomp_rule_add: all ``comparisons`` (index, operator, a, b) must hold."""

    action: int
    number: int
    comparisons: tuple[tuple[int, int, int, int], ...] = ()


class Library:
    """The loaded library; ``version`` as "2.5.4"."""

    version: str

    def __init__(self, handle: Any) -> None:
        """Declare the types of ``handle``'s functions; use ``load``."""
        self._init = _typed(handle, "seccomp_init", ctypes.c_void_p, ctypes.c_uint32)
        self._release = _typed(handle, "seccomp_release", None, ctypes.c_void_p)
        self._attr_set = _typed(
            handle, "seccomp_attr_set", ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32
        )
        self._arch_exist = _typed(
            handle, "seccomp_arch_exist", ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32
        )
        self._arch_add = _typed(
            handle, "seccomp_arch_add", ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32
        )
        self._resolve = _typed(
            handle, "seccomp_syscall_resolve_name", ctypes.c_int, ctypes.c_char_p
        )
        self._resolve_arch = _typed(
            handle,
            "seccomp_syscall_resolve_name_arch",
            ctypes.c_int,
            ctypes.c_uint32,
            ctypes.c_char_p,
        )
        self._name = _typed(
            handle,
            "seccomp_syscall_resolve_num_arch",
            ctypes.c_void_p,
            ctypes.c_uint32,
            ctypes.c_int,
        )
        self._free = _typed(ctypes.CDLL(None), "free", None, ctypes.c_void_p)
        self._rule_add = _typed(
            handle,
            "seccomp_rule_add_array",
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_uint32,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.POINTER(_ArgCmp),
        )
        self._export = _typed(
            handle, "seccomp_export_bpf", ctypes.c_int, ctypes.c_void_p, ctypes.c_int
        )
        version = _typed(handle, "seccomp_version", ctypes.POINTER(ctypes.c_uint * 3))
        self.version = ".".join(str(part) for part in version().contents)

    @classmethod
    def load(cls) -> Library:
        """dlopen libseccomp.so.2. Raises Unsupported when it is not installed."""
        try:
            return cls(ctypes.CDLL("libseccomp.so.2"))
        except OSError as error:
            raise Unsupported(f"seccomp profiles need libseccomp.so.2: {error}") from None

    def resolve(self, name: str) -> int | None:
        """The number libseccomp uses for a system call; None when it does not know the name.

        A call only other architectures have gets a negative pseudo number, which is fine.
        """
        number: int = self._resolve(name.encode())
        return None if number == _NR_ERROR else number

    def resolve_on(self, architecture: int, name: str) -> int:
        """The real number of a system call there; negative when that architecture has none."""
        number: int = self._resolve_arch(architecture, name.encode())
        return number

    def name_of(self, architecture: int, number: int) -> str:
        """The name of a system call there (AUDIT_ARCH_* or SCMP_ARCH_*), "" without one."""
        found = self._name(architecture, number)
        if not found:
            return ""
        try:
            return ctypes.string_at(found).decode()
        finally:
            self._free(found)

    def generate(
        self, default: int, architectures: tuple[int, ...], rules: tuple[Rule, ...]
    ) -> bytes:
        """The BPF program for ``rules``. Raises Unsupported naming the step that was refused."""
        context = self._init(default)
        if not context:
            raise Unsupported(f"libseccomp refuses the default action {default:#x}")
        try:
            for token in architectures:
                if self._arch_exist(context, token) != 0:
                    _check(self._arch_add(context, token), f"architecture {token:#x}")
            # A binary tree over the numbers instead of a list; before 2.5 there is none.
            self._attr_set(context, _ATTR_CTL_OPTIMIZE, 2)
            for rule in rules:
                array = (_ArgCmp * len(rule.comparisons))(
                    *(_ArgCmp(*comparison) for comparison in rule.comparisons)
                )
                result = self._rule_add(
                    context, rule.action, rule.number, len(rule.comparisons), array
                )
                _check(result, f"rule for system call {rule.number}")
            return self._exported(context)
        finally:
            self._release(context)

    def _exported(self, context: int) -> bytes:
        fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
        try:
            _check(self._export(context, fd), "export")
            return os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)


def _typed(handle: Any, name: str, restype: Any, *argtypes: Any) -> Any:
    function = handle[name]
    function.restype = restype
    function.argtypes = argtypes
    return function


def _check(result: int, what: str) -> None:
    if result < 0:
        raise Unsupported(f"libseccomp refuses {what}: {os.strerror(-result)}")
