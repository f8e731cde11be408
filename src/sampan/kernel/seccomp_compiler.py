"""Compiling OCI ``linux.seccomp`` to BPF, by libseccomp.

Compiling takes tens of milliseconds and needs the library; installing
(:mod:`sampan.kernel.seccomp`) takes one system call and needs nothing. What comes of it is kept in
memory and on disk under the digest of everything it depends on, so a profile is compiled once per
host.

Two things are put before libseccomp's program:

- System calls newer than every one the profile names answer ENOSYS instead of the profile's
  EPERM. C libraries probe for new calls and fall back on ENOSYS only; a profile's author cannot
  have meant to refuse what did not exist yet. runc does the same.
- System calls this libseccomp does not know yet, but the profile names (without arguments), from
  ``_RECENT``: their numbers are the same on every architecture.

The whole is then condensed (:mod:`sampan.kernel.filter_tree`).

See seccomp_rule_add(3), config-linux.md "Seccomp".
"""

from __future__ import annotations

import errno
import json
import os

# hashlib would bring OpenSSL, which takes longer to load than a filter to be installed.
from _blake2 import blake2b
from collections.abc import Mapping

from sampan.errors import InvalidParameter, Unsupported
from sampan.kernel import sock_filter
from sampan.kernel.filter_tree import condense
from sampan.kernel.libseccomp import Library, Rule
from sampan.kernel.seccomp import ARCHITECTURES, FLAGS, NATIVE, NEW_LISTENER, Filter
from sampan.kernel.sock_filter import Instruction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from sampan.model.oci import Seccomp, SeccompArg, SeccompRule

#: In force when a profile has no "flags": mitigating speculative store bypass in every
#: seccomp'ed process costs much and was dropped as the kernel's own default in 5.16.
_DEFAULT_FLAGS = ("SECCOMP_FILTER_FLAG_SPEC_ALLOW",)

ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_AUDIT_X86_64 = ARCHITECTURES["SCMP_ARCH_X86_64"]
_X32_BIT = 0x40000000
#: scripts/syscall.tbl of Linux 5.17 to 6.19: newer than the libseccomp of stable distributions.
_RECENT = {
    "set_mempolicy_home_node": 450,
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
    "listns": 470,
}
#: The notification descriptor is handed over with these, by a process that has the filter on:
#: they would wait for an answer from whoever does not have it yet.
_HANDING_OVER = ("write", "sendmsg")
_REMEMBERED = 64  # filters in memory, some 10 KiB each
_FORMAT = 2  # part of the cache key: raise it when the produced program changes


class Compiler:
    """Compiles profiles, remembering them in memory and below ``directory`` (None: memory only).

    One per process; not for several threads. ``directory`` is trusted: filters found in it are
    installed as they are, so it must be writable by root (or the rootless user) alone.
    """

    def __init__(self, directory: Path | None = None, *, machine: str | None = None) -> None:
        """``machine``: uname(2) machine to compile for, this one's by default."""
        self._directory = directory
        self._machine = machine or os.uname().machine
        self._memory: dict[bytes, Filter] = {}
        self._library: Library | None = None

    def compile(self, profile: Seccomp) -> Filter:
        """The filter for OCI ``linux.seccomp``.

        Raises InvalidParameter for an unknown action, operator, flag or architecture, and
        Unsupported when libseccomp is missing or refuses.
        """
        # json keeps insertion order: the same profile comes from the same producer.
        digest = _digest(json.dumps(profile, separators=(",", ":")).encode())
        found = self._memory.get(digest)
        if found is None:
            found = self._load(profile, digest)
            while len(self._memory) >= _REMEMBERED:
                del self._memory[next(iter(self._memory))]
            self._memory[digest] = found
        return found

    def _load(self, profile: Seccomp, digest: bytes) -> Filter:
        flags = _flags(profile)
        if self._library is None:
            self._library = Library.load()
        library = self._library
        stamp = f"{_FORMAT} {self._machine} {library.version}\n".encode()
        name = _digest(stamp + digest).hex()
        if self._directory is None:
            return Filter(program=_program(library, profile, self._machine), flags=flags)
        path = self._directory / f"{name}.bpf"
        try:
            program = path.read_bytes()
        except FileNotFoundError:
            program = b""
        if not program or len(program) % 8:
            program = _program(library, profile, self._machine)
            _write_atomically(path, program)
        return Filter(program=program, flags=flags)


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=32).digest()


def _write_atomically(path: Path, data: bytes) -> None:
    """Temp file, fsync, rename: a filter under its name is whole (see Corrupt caches)."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.rename(path)


def _flags(profile: Seccomp) -> int:
    names = profile.get("flags")
    bits = 0
    for name in _DEFAULT_FLAGS if names is None else names:
        if name not in FLAGS:
            raise InvalidParameter(f"linux.seccomp.flags: unknown flag {name!r}")
        bits |= FLAGS[name]
    notifying = any(rule.get("action") == "SCMP_ACT_NOTIFY" for rule in profile.get("syscalls", ()))
    return bits | (NEW_LISTENER if notifying else 0)


def _action(name: str, errno_return: int | None, where: str) -> int:
    if name not in ACTIONS:
        raise InvalidParameter(f"{where}: unknown action {name!r}")
    if name in _WITH_ERRNO:
        number = errno.EPERM if errno_return is None else errno_return
        if not 0 <= number <= 0xFFFF:
            raise InvalidParameter(f"{where}: invalid errnoRet {number}")
        return ACTIONS[name] | number
    if errno_return is not None:
        raise InvalidParameter(f"{where}: {name} takes no errnoRet")
    return ACTIONS[name]


def _architectures(profile: Seccomp, machine: str) -> dict[str, int]:
    """Name -> token of all architectures the filter covers, the native one first."""
    if machine not in NATIVE:
        raise Unsupported(f"seccomp: no support for the machine type {machine!r}")
    names = [NATIVE[machine], *profile.get("architectures", ())]
    for name in names:
        if name not in ARCHITECTURES:
            raise InvalidParameter(f"linux.seccomp.architectures: unknown {name!r}")
    return {name: ARCHITECTURES[name] for name in names}


def _program(library: Library, profile: Seccomp, machine: str) -> bytes:
    """Everything: our prefix, then what libseccomp generates."""
    default_name = profile.get("defaultAction", "")
    default = _action(default_name, profile.get("defaultErrnoRet"), "linux.seccomp.defaultAction")
    if default_name == "SCMP_ACT_NOTIFY":
        raise InvalidParameter("linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default")
    architectures = _architectures(profile, machine)
    rules: list[Rule] = []
    recent: dict[int, int] = {}
    for index, rule in enumerate(profile.get("syscalls", ())):
        where = f"linux.seccomp.syscalls[{index}]"
        action = _action(rule.get("action", ""), rule.get("errnoRet"), where)
        if action == default:
            # libseccomp refuses rules that say what the default says.
            continue
        for name in rule.get("names", ()):
            if rule.get("action") == "SCMP_ACT_NOTIFY" and name in _HANDING_OVER:
                raise InvalidParameter(f"{where}: SCMP_ACT_NOTIFY cannot be used for {name}")
            number = library.resolve(name)
            if number is not None:
                rules += _rules(number, action, rule, where)
            elif name in _RECENT and not rule.get("args"):
                recent[_RECENT[name]] = action
    tokens = tuple(architectures.values())
    body = library.generate(default, tokens, tuple(rules))
    highest = _highest_numbers(library, profile, architectures)
    refuse_newer = (
        default_name == "SCMP_ACT_ERRNO" and default != ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS
    )
    return condense(_prefix(highest, recent, refuse_newer) + body)


def _rules(number: int, action: int, rule: SeccompRule, where: str) -> list[Rule]:
    args = [_comparison(arg, where) for arg in rule.get("args") or ()]
    indexes = [arg[0] for arg in args]
    if len(set(indexes)) < len(indexes):
        # libseccomp cannot combine two comparisons of one argument; as in every runtime they
        # then count separately ("or" instead of "and").
        return [Rule(action=action, number=number, comparisons=(arg,)) for arg in args]
    return [Rule(action=action, number=number, comparisons=tuple(args))]


def _comparison(arg: SeccompArg, where: str) -> tuple[int, int, int, int]:
    """(argument index, operator, first operand, second operand) as struct scmp_arg_cmp."""
    operator = arg.get("op", "")
    if operator not in OPERATORS:
        raise InvalidParameter(f"{where}.args: unknown operator {operator!r}")
    index = arg.get("index", 0)
    if not 0 <= index <= 5:
        raise InvalidParameter(f"{where}.args: no argument {index}")
    return index, OPERATORS[operator], arg.get("value", 0), arg.get("valueTwo", 0)


def _highest_numbers(
    library: Library, profile: Seccomp, architectures: Mapping[str, int]
) -> dict[int, int]:
    """For each architecture token the highest system call number the profile names."""
    names = {name for rule in profile.get("syscalls", ()) for name in rule.get("names", ())}
    recent = max((_RECENT[name] for name in names if name in _RECENT), default=-1)
    highest: dict[int, int] = {}
    for token in architectures.values():
        known = [number for name in names if (number := library.resolve_on(token, name)) >= 0]
        if token == ARCHITECTURES["SCMP_ARCH_X32"]:
            known = [number & ~_X32_BIT for number in known]
        highest[token] = max([*known, recent])
    return highest


def _prefix(highest: Mapping[int, int], recent: Mapping[int, int], refuse_newer: bool) -> bytes:
    """Classic BPF before libseccomp's; falls through to it when nothing matches."""
    if not recent and not refuse_newer:
        return b""
    x32 = ARCHITECTURES["SCMP_ARCH_X32"]
    code: list[Instruction] = []
    for token, newest in highest.items():
        if token == x32 or newest < 0:
            continue  # where the profile names nothing, nothing is newer than what it names
        inner = _numbers(newest, recent, refuse_newer)
        if token == _AUDIT_X86_64:
            # One AUDIT_ARCH for both ABIs; x32 numbers carry a bit. They go to libseccomp's part.
            inner = [Instruction(sock_filter.AT_LEAST, len(inner), 0, _X32_BIT), *inner]
        block = [Instruction(sock_filter.LOAD, 0, 0, sock_filter.NUMBER), *inner]
        # The jumps' 8 bits reach: the block stays far below that.
        code += [
            Instruction(sock_filter.LOAD, 0, 0, sock_filter.ARCHITECTURE),
            Instruction(sock_filter.EQUAL, 0, len(block), token),
            *block,
        ]
    return sock_filter.encode(code)


def _numbers(newest: int, recent: Mapping[int, int], refuse_newer: bool) -> list[Instruction]:
    inner: list[Instruction] = []
    for number, action in sorted(recent.items()):
        inner += _answer_if(sock_filter.EQUAL, number, action)
    if inner:
        inner = [Instruction(sock_filter.AT_LEAST, 0, len(inner), min(recent)), *inner]
    if refuse_newer:
        inner += _answer_if(sock_filter.GREATER, newest, sock_filter.ERRNO | errno.ENOSYS)
    return inner


def _answer_if(comparison: int, operand: int, action: int) -> list[Instruction]:
    return [Instruction(comparison, 0, 1, operand), Instruction(sock_filter.RETURN, 0, 0, action)]
