"""System calls the kernel logged that it denied a container's processes.

The kernel writes one audit record for what a seccomp profile kills, traps or logs (seccomp(2),
"actions_logged"); without an audit daemon it goes to the kernel's log. A record tells a process by
its number alone, so it is a container's when that is one of its processes now, or was its first
process at the time. A call refused with an error number leaves no record: nothing can tell of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sampan.engine import clock
from sampan.engine.core import Core
from sampan.engine.table import Container
from sampan.errors import Unsupported
from sampan.kernel import cgroup, kmsg
from sampan.kernel.libseccomp import Library
from sampan.wire.denial import SystemCallDenial

_RECORD: Final = re.compile(
    r"audit: type=1326 audit\((?P<seconds>\d+)\.(?P<milliseconds>\d+):\d+\):.*"
    r" pid=(?P<pid>\d+) comm=(?P<program>\S+|\".*?\") .*"
    r" arch=(?P<arch>[0-9a-f]+) syscall=(?P<number>\d+) .* code=0x(?P<code>[0-9a-f]+)"
)
#: SECCOMP_RET_* (linux/seccomp.h), without their data
_ACTIONS: Final = {
    0x80000000: "kill",
    0x00000000: "kill",
    0x00030000: "trap",
    0x7FFC0000: "log",
}
#: nanoseconds an audit record's clock may differ from ours: it counts milliseconds
_SLACK: Final = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """When which process was the container's first at most (nanoseconds since the epoch)."""

    pid: int
    began: int
    ended: int


def parse(
    lines: Iterable[str], span: Span, alive: frozenset[int], name: Callable[[int, int], str]
) -> list[SystemCallDenial]:
    """The denials of one container among the kernel's records (pure), oldest first.

    ``alive``: its processes now. ``name``: what a system call is called, by architecture
    (AUDIT_ARCH_*) and number.
    """
    found = []
    for line in lines:
        match = _RECORD.search(line)
        if match is None:
            continue
        time = int(match["seconds"]) * 10**9 + int(match["milliseconds"]) * 10**6
        pid = int(match["pid"])
        if not span.began - _SLACK <= time <= span.ended + _SLACK:
            continue
        action = _ACTIONS.get(int(match["code"], 16) & 0xFFFF0000)
        if action is None or (pid != span.pid and pid not in alive):
            continue
        number = int(match["number"])
        found.append(
            SystemCallDenial(
                time=time,
                pid=pid,
                program=_program(match["program"]),
                number=number,
                name=name(int(match["arch"], 16), number),
                action=action,
            )
        )
    return found


def _program(text: str) -> str:
    """A name as audit writes it: quoted, or hexadecimal when it holds odd characters."""
    if text.startswith('"'):
        return text.strip('"')
    try:
        return bytes.fromhex(text).decode("utf-8", "replace")
    except ValueError:
        return text


async def of(core: Core, container: Container) -> Sequence[SystemCallDenial]:
    """See :meth:`sampan.engine.containers.Containers.denials`."""
    state, run = container.state, container.run

    def look() -> list[SystemCallDenial]:
        alive = frozenset[int]()
        if run is not None:
            alive = frozenset(cgroup.procs(core.facts.layout, run.cgroup))
        span = Span(
            pid=state.pid or state.last_pid,
            # A short program has ended before its start is told of.
            began=container.record.created,
            ended=clock.now() if run is not None else state.finished_at,
        )
        try:
            return parse(kmsg.records(), span, alive, _namer())
        except OSError as error:
            raise Unsupported(f"the kernel's log cannot be read: {error.strerror}") from error

    return await core.threads.run(look)


def _namer() -> Callable[[int, int], str]:
    try:
        library = Library.load()
    except Unsupported:
        return lambda _architecture, _number: ""
    return library.name_of
