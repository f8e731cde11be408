"""Filters compiled by libseccomp, installed in a child and felt there."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from sampan.errors import InvalidParameter, Unsupported
from sampan.kernel import seccomp
from sampan.kernel.libseccomp import Library
from sampan.kernel.seccomp_compiler import Compiler
from sampan.model.oci import Seccomp
from sampan.runtime.seccomp_profile import load_default, resolve

try:
    Library.load()
except Unsupported as missing:
    pytest.skip(str(missing), allow_module_level=True)

MACHINE = os.uname().machine
libc = ctypes.CDLL(None, use_errno=True)


def felt(profile: Seccomp, body: Callable[[], int]) -> int:
    """Exit status of ``body`` below ``profile``: its value (an errno), or -signal."""
    compiled = Compiler().compile(profile)
    pid = os.fork()
    if pid == 0:
        code = 250
        try:
            libc.prctl(38, 1, 0, 0, 0)
            seccomp.install(compiled)
            code = body()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def call(number: int, *args: int) -> int:
    """errno of a raw system call, 0 when it succeeds."""
    arguments = [ctypes.c_long(argument) for argument in args]
    return ctypes.get_errno() if libc.syscall(number, *arguments) < 0 else 0


def attempt(action: Callable[[], object]) -> int:
    try:
        action()
    except OSError as error:
        return error.errno or 0
    return 0


def default(*capabilities: str) -> Seccomp:
    return resolve(load_default(), capabilities=capabilities, kernel=(6, 18), machine=MACHINE)


def allow_but(*names: str, action: str = "SCMP_ACT_ERRNO", **more: object) -> Seccomp:
    rule = {"names": list(names), "action": action, **more}
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("number", "args", "expected"),
    [
        (452, (-1, 0, 0, 0), {errno.EFAULT, errno.ENOSYS}),  # fchmodat2: newer than libseccomp
        (600, (), {errno.ENOSYS}),  # does not exist: ENOSYS and not EPERM
        (435, (0, 0), {errno.ENOSYS}),  # clone3, by its rule
        (428, (-1, 0, 0), {errno.EPERM}),  # open_tree: refused without CAP_SYS_ADMIN
        (467, (-1, 0, 0, 0, 0), {errno.EPERM, errno.ENOSYS}),  # open_tree_attr
    ],
)
def test_default_profile(number: int, args: tuple[int, ...], expected: set[int]) -> None:
    assert felt(default(), lambda: call(number, *args)) in expected


def test_default_profile_arguments() -> None:
    assert felt(default(), lambda: attempt(lambda: socket.socket(socket.AF_VSOCK))) == errno.EPERM
    assert felt(default(), lambda: attempt(lambda: socket.socket(socket.AF_UNIX))) == 0
    newuser = 0x10000000 | 17
    assert felt(default(), lambda: call(56, newuser, 0)) == errno.EPERM or MACHINE != "x86_64"


def test_errno_trap_kill_and_log() -> None:
    cwd = lambda: attempt(os.getcwd)  # noqa: E731
    assert felt(allow_but("getcwd"), cwd) == errno.EPERM
    assert felt(allow_but("getcwd", errnoRet=errno.EXDEV), cwd) == errno.EXDEV
    assert felt(allow_but("getcwd", action="SCMP_ACT_TRAP"), cwd) == -signal.SIGSYS
    assert felt(allow_but("getcwd", action="SCMP_ACT_KILL_PROCESS"), cwd) == -signal.SIGSYS
    assert felt(allow_but("getcwd", action="SCMP_ACT_KILL"), cwd) == -signal.SIGSYS
    assert felt(allow_but("getcwd", action="SCMP_ACT_LOG"), cwd) == 0


@pytest.mark.parametrize(
    ("op", "value", "two", "refused"),
    [
        ("SCMP_CMP_EQ", 1 << 32 | 5, 0, [1 << 32 | 5]),
        ("SCMP_CMP_NE", 1 << 32 | 5, 0, [4, 5, 6, 7 << 32]),
        ("SCMP_CMP_LT", 5, 0, [4]),
        ("SCMP_CMP_LE", 5, 0, [4, 5]),
        ("SCMP_CMP_GT", 5, 0, [6, 1 << 32 | 5, 7 << 32]),
        ("SCMP_CMP_GE", 5, 0, [5, 6, 1 << 32 | 5, 7 << 32]),
        ("SCMP_CMP_MASKED_EQ", 6, 4, [4, 5, 1 << 32 | 5]),
    ],
)
def test_argument_comparisons(op: str, value: int, two: int, refused: list[int]) -> None:
    args = [{"index": 2, "value": value, "valueTwo": two, "op": op}]
    profile = allow_but("lseek", errnoRet=77, args=args)
    for argument in (4, 5, 6, 1 << 32 | 5, 7 << 32):
        result = felt(profile, lambda argument=argument: call(8, -1, 0, argument))  # type: ignore[misc]
        if MACHINE == "x86_64":
            assert (result == 77) == (argument in refused), hex(argument)


def test_two_comparisons_of_one_argument_are_alternatives() -> None:
    args = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in (98, 99)]
    profile = allow_but("close", errnoRet=77, args=args)
    assert [felt(profile, lambda n=n: attempt(lambda: os.close(n))) for n in (97, 98, 99)] == [  # type: ignore[misc]
        errno.EBADF,
        77,
        77,
    ]


def test_notification_descriptor() -> None:
    compiled = Compiler().compile(allow_but("getcwd", action="SCMP_ACT_NOTIFY"))
    assert compiled.listener
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            libc.prctl(38, 1, 0, 0, 0)
            listener = seccomp.install(compiled)
            code = (
                0
                if listener is not None
                and "seccomp" in os.readlink(f"/proc/self/fd/{listener}")
                and not os.get_inheritable(listener)
                else 1
            )
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"defaultAction": "x"}, "defaultAction: unknown action 'x'"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "cannot be the default"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}, "takes no errnoRet"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["f"]}, "unknown flag 'f'"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["a"]}, "architectures: unknown"),
        (allow_but("write", action="SCMP_ACT_NOTIFY"), r"syscalls\[0\].*write"),
        (allow_but("read", args=[{"index": 6, "op": "SCMP_CMP_EQ"}]), "no argument 6"),
        (allow_but("read", args=[{"index": 0, "op": "=="}]), "unknown operator"),
        (allow_but("read", errnoRet=-1), "invalid errnoRet"),
    ],
)
def test_refused(profile: Seccomp, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        Compiler().compile(profile)


def test_cache_on_disk(tmp_path: Path) -> None:
    cache = tmp_path / "seccomp"
    first = Compiler(cache).compile(default())
    (file,) = cache.iterdir()
    assert file.read_bytes() == first.program
    file.write_bytes(first.program[:8])
    assert Compiler(cache).compile(default()).program == first.program[:8], "was read"
    file.write_bytes(first.program[:5])
    assert Compiler(cache).compile(default()).program == first.program, "torn: redone"
    assert Compiler(cache).compile(default("CAP_SYS_ADMIN")).program != first.program
    assert len(list(cache.iterdir())) == 2


def test_unknown_machine() -> None:
    with pytest.raises(Unsupported, match="vax"):
        Compiler(machine="vax").compile(default())
