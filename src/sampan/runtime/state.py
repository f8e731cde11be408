"""What a worker knows of its container, so that the next one can go on; marshalled meanwhile."""

from __future__ import annotations

import marshal
import os
from dataclasses import dataclass, field, fields
from typing import Any

from sampan.kernel import namespaces
from sampan.runtime import records
from sampan.runtime.foreign import Runtime
from sampan.runtime.planned import Plan

_SINGLE = ("listener", "pidfd", "creator", "manager", "oom_event")
_LISTS = ("pipes", "connections", "watchers")


@dataclass(slots=True, kw_only=True)
class State:
    """Descriptors are -1 when there is none.

    ``pipes``: our ends of stdin, stdout, stderr; ``channel``: to init, until the program runs;
    ``creator``: the connection the container was made by. ``joinable``: CLONE_NEW* flags an exec
    joins. ``limits``: as in a plan. ``scope``: the systemd unit the cgroup is, "" for none.
    ``seccomp_flags``: -1 without a filter. ``oom_event``, ``oom_kills``: the last worker's watch
    and what it had seen. ``runtime``: the command of who makes its processes, empty for us;
    ``helper``: :attr:`sampan.runtime.spawn.Child.helper`, of the first worker alone.
    """

    directory: str
    container_id: str
    cgroup: str
    terminal: bool
    stdin: bool
    stdin_once: bool
    patience: float
    log: dict[str, Any]
    listener: int
    creator: int
    pipes: tuple[int, int, int]
    pid: int = 0
    start_time: int = 0
    pidfd: int = -1
    channel: int = -1
    scope: str = ""
    own_pids: bool = False
    joinable: int = 0
    limits: list[tuple[int, int, int]] = field(default_factory=list)
    seccomp_flags: int = -1
    seccomp_program: bytes = b""
    manager: int = -1
    input_ended: bool = False
    output_ended: bool = False
    log_pending: dict[str, bytes] = field(default_factory=dict)
    exec_codes: dict[str, int] = field(default_factory=dict)
    connections: list[int] = field(default_factory=list)
    watchers: list[int] = field(default_factory=list)
    oom_event: int = -1
    oom_kills: int = 0
    oom_killed: bool = False
    warnings: list[str] = field(default_factory=list)
    error: str = ""
    runtime: list[str] = field(default_factory=list)
    helper: int = 0

    @property
    def foreign(self) -> Runtime | None:
        """Who makes its processes, None for us."""
        if not self.runtime:
            return None
        return Runtime(
            command=self.runtime, directory=self.directory, container_id=self.container_id
        )

    def plan(self, plan: Plan) -> None:
        """Keep what matters of a plan once its process is made."""
        self.cgroup = plan.cgroup
        self.scope = plan.scope.unit if plan.scope else ""
        self.own_pids = bool(plan.new & namespaces.CLONE_NEWPID)
        self.joinable = plan.new | sum(flag for flag, _ in plan.join)
        self.limits = list(plan.limits)
        if plan.seccomp is not None:
            self.seccomp_flags = plan.seccomp.flags
            self.seccomp_program = plan.seccomp.program


def freeze(state: State) -> tuple[bytes, list[int]]:
    """(blob, descriptors to keep): descriptors in the blob are places in that list.

    The pipe to stdin, if there is one, is the last.
    """
    fds: list[int] = []

    def place(fd: int) -> int:
        if fd < 0:
            return -1
        fds.append(fd)
        return len(fds) - 1

    values = {item.name: getattr(state, item.name) for item in fields(state)}
    for name in _SINGLE:
        values[name] = place(values[name])
    values["pipes"] = (-1, *state.pipes[1:])
    for name in _LISTS:
        values[name] = [place(fd) for fd in values[name]]
    values["input"] = place(state.pipes[0])
    return marshal.dumps(values), fds


def thaw(frozen: bytes, fds: list[int]) -> State:
    """The state :func:`freeze` was given, with ``fds`` in the places of its descriptors."""
    values = marshal.loads(frozen)
    for name in _SINGLE:
        values[name] = fds[values[name]] if values[name] >= 0 else -1
    for name in _LISTS:
        values[name] = [fds[index] if index >= 0 else -1 for index in values[name]]
    stdin = values.pop("input")
    values["pipes"] = (fds[stdin] if stdin >= 0 else -1, *values["pipes"][1:])
    return State(**values)


def publish(state: State, status: str) -> None:
    """Tell what is there, for whoever finds the directory without a monitor."""
    records.write(state.directory, records.INIT, live_record(state, status), durable=False)


def live_record(state: State, status: str) -> dict[str, Any]:
    """The contents of init.json, written by a worker: :class:`sampan.runtime.requests.Live`."""
    return {
        "container_id": state.container_id,
        "pid": state.pid,
        "start_time": state.start_time,
        "monitor_pid": os.getppid(),
        "cgroup": state.cgroup,
        "scope": state.scope,
        "status": status,
        "runtime": state.runtime,
    }
