"""The closed set of operations that give a container its cgroups, and the code performing them.

A planner (``plan.py``) emits these values without touching the system; ``create`` and ``apply``
perform them. Every operation is safe to repeat. Failures are ``OSError`` with the file and the
text that was refused, or ``Unsupported`` naming the OCI field when the kernel has no such file.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Container, Iterable
from dataclasses import dataclass

from sampan.errors import Unsupported
from sampan.kernel.cgroup import device_filter


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeDirectory:
    """mkdir -p of a cgroup; one that exists already is taken as it is."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFile:
    """Write ``value`` to a control file in one write(2).

    ``field`` is the OCI field it carries out, for messages. ``alternatives`` are other
    (path, value) pairs tried when ``path`` does not exist in this kernel. With ``optional`` the
    absence of all of them is no error.
    """

    path: str
    value: str
    field: str
    alternatives: tuple[tuple[str, str], ...] = ()
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WritePair:
    """Two files that constrain each other (limit and memsw, period and quota).

    Which order the kernel accepts depends on the present values, so when ``first`` is refused
    with EINVAL or EBUSY they are written the other way round.
    """

    first: WriteFile
    second: WriteFile


@dataclass(frozen=True, slots=True, kw_only=True)
class InheritCpuset:
    """Fill empty v1 cpuset.cpus and cpuset.mems from the parent, up to the first that has them.

    A v1 cpuset without both admits no task (ENOSPC), see cpuset(7).
    """

    mountpoint: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnableControllers:
    """Delegate the v2 ``controllers`` to the children of every cgroup from the root to ``path``."""

    mountpoint: str
    path: str
    controllers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckMemoryUsage:
    """Refuse a new limit (bytes) below present v2 usage (OCI checkBeforeUpdate)."""

    path: str
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachDeviceFilter:
    """Attach a BPF_PROG_TYPE_CGROUP_DEVICE program (struct bpf_insn array) to a v2 cgroup."""

    path: str
    program: bytes


CgroupOp = (
    MakeDirectory
    | WriteFile
    | WritePair
    | InheritCpuset
    | EnableControllers
    | CheckMemoryUsage
    | AttachDeviceFilter
)


def describe(op: CgroupOp) -> str:
    """One line for ``--dry-run`` and golden files."""
    match op:
        case MakeDirectory():
            return f"mkdir {op.path}"
        case WriteFile():
            files = ((op.path, op.value), *op.alternatives)
            choice = " | ".join(f"{path} {value!r}" for path, value in files)
            return f"write {choice}{' (optional)' if op.optional else ''}"
        case WritePair():
            return f"{describe(op.first)} <-> {describe(op.second)}"
        case InheritCpuset():
            return f"inherit-cpuset {op.path}"
        case EnableControllers():
            return f"enable {' '.join(op.controllers)} down to {op.path}"
        case CheckMemoryUsage():
            return f"check-usage {op.path}/memory.current <= {op.limit}"
        case AttachDeviceFilter():
            return f"attach-device-filter {op.path} {len(op.program) // 8} instructions"


def create(ops: Iterable[CgroupOp]) -> tuple[str, ...]:
    """Perform ``ops``; return the directories that did not exist before, in order of creation.

    On failure the directories made so far are removed again and the error is raised.
    """
    made: list[str] = []
    try:
        for op in ops:
            if isinstance(op, MakeDirectory):
                _make_directory(op.path, made)
            elif isinstance(op, InheritCpuset):
                _inherit_cpuset(op.mountpoint, op.path, made)
            else:
                _perform(op)
    except BaseException:
        for path in reversed(made):
            # The first error is what the caller has to see; a cgroup somebody entered
            # meanwhile cannot be removed and is not ours alone any more.
            with contextlib.suppress(OSError):
                os.rmdir(path)
        raise
    return tuple(made)


def apply(ops: Iterable[CgroupOp]) -> None:
    """Perform ``ops`` on existing cgroups (``update``); stops at the first failure."""
    for op in ops:
        _perform(op)


def _perform(op: CgroupOp) -> None:
    match op:
        case WriteFile():
            _write_file(op)
        case WritePair():
            _write_pair(op)
        case InheritCpuset():
            _inherit_cpuset(op.mountpoint, op.path, ())
        case EnableControllers():
            _enable_controllers(op)
        case CheckMemoryUsage():
            _check_memory_usage(op)
        case AttachDeviceFilter():
            device_filter.attach(op.path, op.program)
        case MakeDirectory():
            _make_directory(op.path, [])


def _make_directory(path: str, made: list[str]) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return
    except FileNotFoundError:
        parent = os.path.dirname(path)
        if parent == path:
            raise
        _make_directory(parent, made)
        _make_directory(path, made)  # once more from the start: an empty parent may go again
        return
    made.append(path)


def write(path: str, value: str) -> None:
    """Write ``value`` to the control file ``path`` in one write(2).

    Raises OSError with ``path`` and, as the second file name, the refused value.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path, None, value) from None
    finally:
        os.close(fd)


def read(path: str) -> str:
    """The whole text of a control file, stripped."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks).decode(errors="replace").strip()


def parse_flat(text: str) -> dict[str, int]:
    """Lines "key number" (memory.stat, cpu.stat, memory.events); anything else is left out."""
    values: dict[str, int] = {}
    for line in text.splitlines():
        key, _, number = line.partition(" ")
        if number.isdigit():
            values[key] = int(number)
    return values


def _write_file(op: WriteFile) -> None:
    for path, value in ((op.path, op.value), *op.alternatives):
        try:
            write(path, value)
        except FileNotFoundError:
            continue
        return
    if not op.optional:
        name = os.path.basename(op.path)
        raise Unsupported(f"{op.field}: this kernel has no cgroup file {name}")


def _write_pair(op: WritePair) -> None:
    try:
        _write_file(op.first)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBUSY):
            raise
        _write_file(op.second)
        _write_file(op.first)
    else:
        _write_file(op.second)


def _inherit_cpuset(mountpoint: str, path: str, made: Container[str]) -> None:
    """Fill an empty cpuset from its parent. A parent of our making fills its children from then on
    (``cgroup.clone_children`` in cgroups(7)), and the next one has nothing to be written."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = f"{path}/{name}"
        if read(file):
            continue
        parent = os.path.dirname(path)
        if len(parent) > len(mountpoint):
            _inherit_cpuset(mountpoint, parent, made)
            if parent in made:
                write(f"{parent}/cgroup.clone_children", "1")
        write(file, read(f"{parent}/{name}"))


def _enable_controllers(op: EnableControllers) -> None:
    inner = op.path[len(op.mountpoint) :].strip("/").split("/")[:-1]
    directory = op.mountpoint
    for part in ("", *inner):
        directory = f"{directory}/{part}" if part else directory
        file = f"{directory}/cgroup.subtree_control"
        enabled = read(file).split()
        missing = [name for name in op.controllers if name not in enabled]
        if not missing:
            continue
        try:
            write(file, " ".join("+" + name for name in missing))
        except OSError:
            # All or nothing in one write; one at a time enables what this subtree was
            # delegated. What stays missing is reported by the write of the limit itself.
            for name in missing:
                with contextlib.suppress(OSError):
                    write(file, "+" + name)


def _check_memory_usage(op: CheckMemoryUsage) -> None:
    file = f"{op.path}/memory.current"
    if int(read(file)) > op.limit:
        raise OSError(errno.EBUSY, "memory usage is above the new limit", file)
