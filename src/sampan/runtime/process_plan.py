"""From an OCI process to the operations that turn init into it (pure).

The order is the security argument: what needs privileges comes first, then identity and
capabilities go, then no_new_privs and the filter, and the last operation is execve(2).
"""

from __future__ import annotations

import posixpath
import resource
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sampan.errors import InvalidParameter, Unsupported
from sampan.kernel import capabilities, process
from sampan.kernel.facts import Facts
from sampan.model import oci
from sampan.runtime.operation import Operation, Value, operation

_SCHEDULERS = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
_SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_MEMORY_MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
_MEMORY_FLAGS = {
    "MPOL_F_STATIC_NODES": 1 << 15,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_NUMA_BALANCING": 1 << 13,
}
_PERSONALITIES = {"LINUX": process.PER_LINUX, "LINUX32": process.PER_LINUX32}
_CAPABILITY_SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPlan:
    """``operations`` end with "execute"; ``limits`` are (RLIMIT_* number, soft, hard)."""

    operations: tuple[Operation, ...]
    limits: tuple[tuple[int, int, int], ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessOptions:
    """What the caller adds to an OCI process.

    ``user`` and ``groups``: names to resolve inside (:class:`sampan.runtime.client.CreateRequest`).
    ``keyring``: name of a new session keyring, "" for none. ``seccomp``: a filter comes with the
    plan. ``die_with_parent``: SIGKILL when the runtime's process ends. ``reaper``: stay as PID 1
    above the program. ``prelude``: operations just before the program (hooks).
    """

    terminal: bool = False
    user: str | None = None
    groups: Sequence[str] = ()
    keyring: str = ""
    seccomp: bool = False
    die_with_parent: bool = True
    reaper: bool = False
    prelude: Sequence[Operation] = ()


def plan_process(spec: oci.Process, facts: Facts, options: ProcessOptions) -> ProcessPlan:
    """Operations for one process. Raises :class:`InvalidParameter`, :class:`Unsupported`."""
    args = spec.get("args") or []
    if not args or not all(isinstance(argument, str) for argument in args):
        raise InvalidParameter("process.args: at least one string is needed")
    cwd = spec.get("cwd") or "/"
    if not cwd.startswith("/"):
        raise InvalidParameter(f"process.cwd: {cwd!r} is not an absolute path")
    _check_environment(spec.get("env") or ())
    user = spec.get("user") or {}
    sets, warnings = _capabilities(spec.get("capabilities") or {}, facts)
    no_new_privileges = spec.get("noNewPrivileges", False)
    early_seccomp = options.seccomp and not no_new_privileges
    steps = [operation("session")]
    if options.terminal:
        steps.append(operation("controlling_terminal"))
    if options.keyring:
        steps.append(operation("keyring", name=options.keyring))
    steps += _scheduling(spec)
    steps += [
        operation(
            "identify",
            user=options.user,
            groups=list[Value](options.groups),
            uid=user.get("uid", 0),
            gid=user.get("gid", 0),
            additional=list[Value](user.get("additionalGids") or ()),
        ),
        operation("own_streams"),
        operation("enter_directory", path=posixpath.normpath(cwd)),
    ]
    # Without no_new_privs a filter needs CAP_SYS_ADMIN, so it comes before capabilities go.
    tail = [operation("label", module="apparmor", value=spec.get("apparmorProfile") or "")]
    tail += [operation("label", module="selinux", value=spec.get("selinuxLabel") or "")]
    _check_labels(tail, facts)
    steps += [step for step in tail if step.arguments["value"]]
    if early_seccomp:
        steps.append(operation("seccomp"))
    steps += [
        operation("bounding", keep=sets["bounding"], last=facts.last_capability),
        operation("become"),
        operation(
            "capabilities",
            effective=sets["effective"],
            permitted=sets["permitted"],
            inheritable=sets["inheritable"],
            ambient=sets["ambient"],
        ),
        operation("umask", mask=user.get("umask", 0o022)),
    ]
    if no_new_privileges:
        steps.append(operation("no_new_privileges"))
    if options.die_with_parent:
        steps.append(operation("die_with_parent"))
    steps.append(operation("program", name=args[0], env=list[Value](spec.get("env") or ())))
    if options.seccomp and not early_seccomp:
        steps.append(operation("seccomp"))
    # A hook's program is the image's own: it may no more than the container's.
    steps += options.prelude
    steps.append(
        operation(
            "execute",
            args=list[Value](args),
            reaper=options.reaper,
            terminal=options.terminal,
        )
    )
    return ProcessPlan(
        operations=tuple(steps),
        limits=_limits(spec.get("rlimits") or ()),
        warnings=tuple(warnings),
    )


def _check_environment(entries: Sequence[str]) -> None:
    """environ(7): each is ``NAME=value``."""
    for entry in entries:
        if entry.find("=") < 1 or "\0" in entry:
            raise InvalidParameter(f"process.env: {entry!r} is not NAME=value")


def _scheduling(spec: oci.Process) -> list[Operation]:
    steps: list[Operation] = []
    scheduler = spec.get("scheduler")
    if scheduler:
        policy = scheduler.get("policy", "")
        if policy not in _SCHEDULERS:
            raise InvalidParameter(f"process.scheduler.policy: unknown {policy!r}")
        flags = 0
        for flag in scheduler.get("flags") or ():
            if flag not in _SCHEDULER_FLAGS:
                raise InvalidParameter(f"process.scheduler.flags: unknown {flag!r}")
            flags |= _SCHEDULER_FLAGS[flag]
        steps.append(
            operation(
                "scheduler",
                policy=_SCHEDULERS[policy],
                flags=flags,
                nice=scheduler.get("nice", 0),
                priority=scheduler.get("priority", 0),
                runtime=scheduler.get("runtime", 0),
                deadline=scheduler.get("deadline", 0),
                period=scheduler.get("period", 0),
            )
        )
    priority = spec.get("ioPriority")
    if priority:
        name, level = priority.get("class", ""), priority.get("priority", 0)
        if name not in _IO_CLASSES or not 0 <= level <= 7:
            raise InvalidParameter(f"process.ioPriority: unknown class or priority {priority!r}")
        steps.append(operation("io_priority", kind=_IO_CLASSES[name], priority=level))
    return steps


def oom_score(process: oci.Process) -> list[Operation]:
    """``process.oomScoreAdj``, where there is one. Raises :class:`InvalidParameter`."""
    value = process.get("oomScoreAdj")
    if value is None:
        return []
    if not -1000 <= value <= 1000:  # OOM_SCORE_ADJ_MIN and _MAX in include/uapi/linux/oom.h
        raise InvalidParameter(f"process.oomScoreAdj: {value} is not within -1000 and 1000")
    return [operation("oom_score_adj", value=value)]


def memory_policy(policy: oci.MemoryPolicy) -> Operation:
    """``linux.memoryPolicy`` as an operation. Raises :class:`InvalidParameter`."""
    mode = policy.get("mode", "")
    if mode not in _MEMORY_MODES:
        raise InvalidParameter(f"linux.memoryPolicy.mode: unknown {mode!r}")
    bits = _MEMORY_MODES[mode]
    for flag in policy.get("flags") or ():
        if flag not in _MEMORY_FLAGS:
            raise InvalidParameter(f"linux.memoryPolicy.flags: unknown {flag!r}")
        bits |= _MEMORY_FLAGS[flag]
    nodes = sum(1 << node for node in number_list(policy.get("nodes") or ""))
    return operation("memory_policy", mode=bits, nodes=str(nodes))


def personality(value: oci.Personality) -> Operation:
    """``linux.personality`` as an operation. Raises :class:`InvalidParameter`."""
    domain = value.get("domain", "")
    if domain not in _PERSONALITIES:
        raise InvalidParameter(f"linux.personality.domain: unknown {domain!r}")
    if flags := value.get("flags"):
        raise Unsupported(f"linux.personality.flags: the specification knows none: {flags[0]!r}")
    return operation("personality", persona=_PERSONALITIES[domain])


def number_list(text: str) -> list[int]:
    """``0-3,7`` as numbers. Raises :class:`InvalidParameter`."""
    numbers: set[int] = set()
    for part in text.replace(" ", "").split(","):
        if not part:
            continue
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise InvalidParameter(f"invalid list of numbers {text!r}")
        low, high = int(first), int(last or first)
        if low > high or high >= 1024:
            raise InvalidParameter(f"invalid list of numbers {text!r}")
        numbers.update(range(low, high + 1))
    return sorted(numbers)


def _capabilities(spec: oci.Capabilities, facts: Facts) -> tuple[dict[str, int], list[str]]:
    """The five sets as masks; what cannot be granted is left out with a warning (config.md)."""
    grantable = capabilities.mask(facts.capabilities) & facts.capability_mask()
    masks: dict[str, int] = {}
    refused: set[str] = set()
    for name in _CAPABILITY_SETS:
        mask = 0
        for capability in _strings(spec.get(name) or (), f"process.capabilities.{name}"):
            number = capabilities.NUMBERS.get(capability.upper())
            if number is None or not grantable >> number & 1:
                refused.add(capability)
            else:
                mask |= 1 << number
        masks[name] = mask
    # capset(2): effective within permitted; ambient within permitted and inheritable.
    masks["effective"] &= masks["permitted"]
    masks["ambient"] &= masks["permitted"] & masks["inheritable"]
    warnings = []
    if refused:
        warnings.append(f"capabilities that cannot be granted here: {', '.join(sorted(refused))}")
    return masks, warnings


def _strings(value: object, where: str) -> list[str]:
    if not isinstance(value, list | tuple):
        raise InvalidParameter(f"{where}: not a list")
    if not all(isinstance(item, str) for item in value):
        raise InvalidParameter(f"{where}: not a list of strings")
    return list(value)


def _limits(rlimits: Iterable[oci.Rlimit]) -> tuple[tuple[int, int, int], ...]:
    limits: dict[int, tuple[int, int, int]] = {}
    for entry in rlimits:
        name = entry.get("type", "")
        number = getattr(resource, name, None) if name.startswith("RLIMIT_") else None
        if not isinstance(number, int):
            raise InvalidParameter(f"process.rlimits: unknown type {name!r}")
        if number in limits:
            raise InvalidParameter(f"process.rlimits: {name} appears twice")
        soft, hard = _limit(entry.get("soft", 0)), _limit(entry.get("hard", 0))
        if hard != resource.RLIM_INFINITY and not 0 <= soft <= hard:
            raise InvalidParameter(f"process.rlimits: {name}: the soft limit is above the hard one")
        limits[number] = (number, soft, hard)
    return tuple(limits.values())


def _limit(value: int) -> int:
    """RLIM_INFINITY is written as 2^64-1 (uint64) or -1; Python's resource module wants -1."""
    return -1 if value < 0 or value >= (1 << 64) - 1 else value


def _check_labels(steps: Iterable[Operation], facts: Facts) -> None:
    for step in steps:
        module, value = step.arguments["module"], step.arguments["value"]
        if value and module not in facts.lsm and value != "unconfined":
            raise Unsupported(f"process: {module} is not active here, {value!r} cannot be applied")
