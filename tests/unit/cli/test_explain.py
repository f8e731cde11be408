"""What ``why`` says, from the state of a container alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sampan.cli.explain import explain

if TYPE_CHECKING:
    from sampan.client.document import Document


def event(action: str, **attributes: str) -> Document:
    return {"Action": action, "Actor": {"Attributes": {**attributes}}}


ENDED: Document = {"Status": "exited", "Running": False}
UNSEEN = (
    "If its seccomp profile refused it a system call, that left no trace: only its own log can say."
)


@pytest.mark.parametrize(
    ("details", "events", "findings"),
    [
        ({"State": {**ENDED, "ExitCode": 0}}, [],
         ["It ended by itself with status 0 (success)."]),
        ({"State": {**ENDED, "ExitCode": 3}}, [],
         ["It ended by itself with status 3; its log may say why.", UNSEEN]),
        ({"State": {**ENDED, "ExitCode": 3},
          "HostConfig": {"SecurityOpt": ["seccomp=unconfined"]}}, [],
         ["It ended by itself with status 3; its log may say why."]),
        ({"State": {**ENDED, "ExitCode": 137, "OOMKilled": True},
          "HostConfig": {"Memory": 64 << 20}}, [],
         ["The kernel killed it because it reached its memory limit of 64MiB.",
          "Status 137: SIGKILL ended it."]),
        ({"State": {**ENDED, "ExitCode": 137}}, [],
         ["Status 137: SIGKILL ended it; nobody asked the engine for it, so the kernel or another "
          "process did."]),
        ({"State": {**ENDED, "ExitCode": 143}},
         [event("start"), event("kill", signal="9"), event("die"), event("start"),
          event("kill", signal="15"), event("die")],
         ["It was asked to end through the engine: SIGTERM.", "Status 143: SIGTERM ended it."]),
        ({"State": {**ENDED, "ExitCode": 139}}, [], ["Status 139: SIGSEGV ended it: it crashed."]),
        ({"State": {**ENDED, "ExitCode": 159}}, [],
         ["Status 159: SIGSYS ended it: a system call was denied by its seccomp profile."]),
        ({"State": {**ENDED, "ExitCode": 127, "Error": "exec: x: not found"}}, [],
         ["The engine reported: exec: x: not found.",
          "Status 127: the program, or one it runs, was not found."]),
        ({"State": {"Status": "created"}}, [], ["It was never started."]),
        ({"State": {**ENDED, "ExitCode": 1}, "RestartCount": 4,
          "HostConfig": {"RestartPolicy": {"Name": "on-failure"}}}, [],
         ["It ended by itself with status 1; its log may say why.", UNSEEN,
          "Its restart policy (on-failure) had started it again 4 times."]),
        ({"State": {"Running": True}}, [], ["It is running, and nothing holds it back."]),
        ({"State": {"Running": True, "Paused": True}}, [],
         ["It is paused: none of its processes runs until it is unpaused."]),
    ],
)  # fmt: skip
def test_findings(details: Document, events: list[Document], findings: list[str]) -> None:
    assert explain(details, {}, events, []) == findings


def test_what_slows_a_container() -> None:
    details: Document = {
        "State": {
            "Running": True,
            "Health": {"Status": "unhealthy", "FailingStreak": 3, "Log": [{"Output": "no\n"}]},
        },
        "HostConfig": {"NanoCpus": 5 * 10**8, "Memory": 1000},
    }
    sample: Document = {
        "cpu_stats": {
            "throttling_data": {
                "periods": 100, "throttled_periods": 50, "throttled_time": 90 * 10**9,
            }
        },
        "memory_stats": {"usage": 950, "limit": 1000, "failcnt": 7},
        "pids_stats": {"current": 10, "limit": 10},
    }  # fmt: skip
    assert explain(details, sample, [], []) == [
        "Its CPU limit of 0.5 CPUs held it back in 50 % of the time slices, about a minute "
        "altogether.",
        "It uses 950B of the 1000B of memory it may have.",
        "It ran into its memory limit 7 times.",
        "It has 10 of the 10 processes it may have.",
        'Its health check failed the last 3 times: "no".',
    ]


def test_denials_are_counted() -> None:
    denials: list[Document] = [
        {"Name": "symlink", "Number": 88, "Program": "ln", "Action": "log"},
        {"Name": "symlink", "Number": 88, "Program": "ln", "Action": "log"},
        {"Name": "", "Number": 999, "Program": "x", "Action": "kill"},
    ]
    assert explain({"State": {"Running": True}}, {}, [], denials) == [
        "Its seccomp profile logged that ln made the system call symlink (2 times).",
        "Its seccomp profile had the kernel kill x for the system call number 999.",
    ]
