"""``container update``."""

from __future__ import annotations

from sampan.cli.command import SOME, Command, Flag
from sampan.cli.commands.lifecycle import for_each
from sampan.cli.fault import CliError
from sampan.cli.kinds import BYTES, DECIMAL, INT, MEMORY_SWAP, STRING, UINT16
from sampan.cli.opts.hosts import parse_restart
from sampan.client.document import as_table, texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.document import Document

_MEMBERS = {
    "blkio-weight": "BlkioWeight",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "cpus": "NanoCpus",
    "cpuset-cpus": "CpusetCpus",
    "cpuset-mems": "CpusetMems",
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
    "pids-limit": "PidsLimit",
}


def _update(session: Session, arguments: Arguments) -> int:
    if not arguments.changed:
        raise CliError("you must provide one or more flags when using this command")
    body: Document = {}
    for flag, member in _MEMBERS.items():
        value = arguments.value(flag)
        if flag in arguments.changed and isinstance(value, int | str):
            body[member] = value
    if "restart" in arguments.changed:
        body["RestartPolicy"] = parse_restart(arguments.text("restart"))
    warnings: list[str] = []

    def act(name: str) -> None:
        answer = as_table(session.client.post(f"/containers/{name}/update", None, body))
        warnings.extend(texts(answer, "Warnings"))

    status = for_each(session, arguments.positional, act)
    if warnings:
        session.warn("\n".join(warnings))
    return status


UPDATE = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    (
        Flag(
            "blkio-weight",
            "",
            UINT16,
            "Block IO (relative weight), between 10 and 1000, or 0 to disable",
        ),
        Flag("cpu-period", "", INT, "Limit CPU CFS (Completely Fair Scheduler) period"),
        Flag("cpu-quota", "", INT, "Limit CPU CFS (Completely Fair Scheduler) quota"),
        Flag("cpu-rt-period", "", INT, "Limit the CPU real-time period in microseconds"),
        Flag("cpu-rt-runtime", "", INT, "Limit the CPU real-time runtime in microseconds"),
        Flag("cpu-shares", "c", INT, "CPU shares (relative weight)"),
        Flag("cpus", "", DECIMAL, "Number of CPUs"),
        Flag("cpuset-cpus", "", STRING, "CPUs in which to allow execution (0-3, 0,1)"),
        Flag("cpuset-mems", "", STRING, "MEMs in which to allow execution (0-3, 0,1)"),
        Flag("memory", "m", BYTES, "Memory limit"),
        Flag("memory-reservation", "", BYTES, "Memory soft limit"),
        Flag(
            "memory-swap",
            "",
            MEMORY_SWAP,
            "Swap limit equal to memory plus swap: -1 to enable unlimited swap",
        ),
        Flag("pids-limit", "", INT, "Tune container pids limit (set -1 for unlimited)"),
        Flag("restart", "", STRING, "Restart policy to apply when a container exits"),
    ),
    SOME,
    _update,
    complete="container",
)
