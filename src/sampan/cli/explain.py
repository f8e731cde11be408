"""Why a container ended or is slow: findings from its state, its limits and its last events (pure).

A finding is one sentence. What the kernel or the engine reported comes before what only the exit
status suggests.
"""

from __future__ import annotations

import signal

from sampan.cli.units import binary_size, human_duration
from sampan.client.document import flag, labels, number, table, tables, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.client.document import Document

#: Shares of a limit from which it is worth a word.
_NEARLY = 0.9
_THROTTLED = 0.05
_NANO_CPU = 10**9
#: exit statuses by which a program says that it failed
_SELF_FAILED = range(1, 126)
#: what a seccomp profile did about a system call
_DENIED = {
    "kill": "Its seccomp profile had the kernel kill {program} for the system call {call}",
    "trap": "Its seccomp profile sent {program} SIGSYS for the system call {call}",
    "log": "Its seccomp profile logged that {program} made the system call {call}",
}


def explain(
    details: Document, sample: Document, events: list[Document], denials: list[Document]
) -> list[str]:
    """The findings about a container.

    ``details`` is its inspect object, ``sample`` its statistics (empty when it does not run),
    ``events`` its events, ``denials`` what its seccomp profile acted on, oldest first.
    """
    state = table(details, "State")
    if flag(state, "Running"):
        findings = [*_running(details, state), *_denied(denials)]
        findings += [*_slow(details, sample), *_health(state)]
        return findings or ["It is running, and nothing holds it back."]
    return [*_ended(details, state, events, denials), *_health(state)]


def _ended(
    details: Document, state: Document, events: list[Document], denials: list[Document]
) -> list[str]:
    if text(state, "Status") == "created":
        error = text(state, "Error")
        return [f"It could not be started: {error}." if error else "It was never started."]
    findings = []
    if flag(state, "OOMKilled") or _actions(events, "oom"):
        limit = number(table(details, "HostConfig"), "Memory")
        bound = f" of {binary_size(limit)}" if limit else ""
        findings.append(f"The kernel killed it because it reached its memory limit{bound}.")
    if text(state, "Error"):
        findings.append(f"The engine reported: {text(state, 'Error')}.")
    findings += _denied(denials)
    findings += _by_request(events)
    findings.append(_exit_meaning(number(state, "ExitCode"), bool(findings)))
    if not denials and number(state, "ExitCode") in _SELF_FAILED and _confined(details):
        findings.append(
            "If its seccomp profile refused it a system call, that left no trace: only its own "
            "log can say."
        )
    restarts = number(details, "RestartCount")
    if restarts:
        times = "once" if restarts == 1 else f"{restarts} times"
        policy = text(table(table(details, "HostConfig"), "RestartPolicy"), "Name")
        findings.append(f"Its restart policy ({policy}) had started it again {times}.")
    return findings


def _confined(details: Document) -> bool:
    """Whether it ran with a seccomp profile."""
    host = table(details, "HostConfig")
    options = host.get("SecurityOpt")
    chosen = options if isinstance(options, list) else []
    return not flag(host, "Privileged") and not any(
        str(option).replace(":", "=") == "seccomp=unconfined" for option in chosen
    )


def _denied(denials: list[Document]) -> list[str]:
    """One sentence for each system call, process and what was done about it."""
    counted: dict[tuple[str, str, str], int] = {}
    for denial in denials:
        call = text(denial, "Name") or f"number {number(denial, 'Number')}"
        key = (call, text(denial, "Program"), text(denial, "Action"))
        counted[key] = counted.get(key, 0) + 1
    return [
        _DENIED[action].format(call=call, program=program) + (f" ({n} times)." if n > 1 else ".")
        for (call, program, action), n in counted.items()
        if action in _DENIED
    ]


def _actions(events: list[Document], action: str) -> list[Document]:
    return [event for event in events if text(event, "Action") == action]


def _by_request(events: list[Document]) -> list[str]:
    """Signals somebody sent through the engine before the last exit."""
    deaths = [place for place, event in enumerate(events) if text(event, "Action") == "die"]
    last = events[: deaths[-1]] if deaths else events
    starts = [place for place, event in enumerate(last) if text(event, "Action") == "start"]
    since_start = last[starts[-1] :] if starts else last
    signals = [
        labels(table(event, "Actor"), "Attributes").get("signal", "")
        for event in _actions(since_start, "kill")
    ]
    named = [_signal_name(int(value)) for value in signals if value.isdecimal()]
    if not named:
        return []
    return [f"It was asked to end through the engine: {', then '.join(named)}."]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _exit_meaning(code: int, explained: bool) -> str:
    if code == 0:
        return "It ended by itself with status 0 (success)."
    if code == 126:
        return "Status 126: the program exists but could not be executed."
    if code == 127:
        return "Status 127: the program, or one it runs, was not found."
    if 128 < code <= 128 + 64:
        name = _signal_name(code - 128)
        hint = ""
        if name == "SIGKILL" and not explained:
            hint = "; nobody asked the engine for it, so the kernel or another process did"
        elif name in ("SIGSEGV", "SIGBUS", "SIGILL", "SIGABRT", "SIGFPE"):
            hint = ": it crashed"
        elif name == "SIGSYS":
            hint = ": a system call was denied by its seccomp profile"
        return f"Status {code}: {name} ended it{hint}."
    return f"It ended by itself with status {code}; its log may say why."


def _running(details: Document, state: Document) -> list[str]:
    if flag(state, "Paused"):
        return ["It is paused: none of its processes runs until it is unpaused."]
    if flag(state, "Restarting"):
        code = number(state, "ExitCode")
        return [f"It is between two starts; the last one ended with status {code}."]
    restarts = number(details, "RestartCount")
    return [f"It was started again {restarts} times by its restart policy."] if restarts else []


def _slow(details: Document, sample: Document) -> list[str]:
    findings = []
    throttling = table(table(sample, "cpu_stats"), "throttling_data")
    periods, throttled = number(throttling, "periods"), number(throttling, "throttled_periods")
    if periods and throttled / periods >= _THROTTLED:
        waited = human_duration(number(throttling, "throttled_time") / 10**9).lower()
        findings.append(
            f"Its CPU limit{_cpu_limit(details)} held it back in {throttled * 100 // periods} % "
            f"of the time slices, {waited} altogether."
        )
    memory = table(sample, "memory_stats")
    usage, limit = number(memory, "usage"), number(memory, "limit")
    own_limit = number(table(details, "HostConfig"), "Memory")
    if own_limit and limit and usage / limit >= _NEARLY:
        findings.append(
            f"It uses {binary_size(usage)} of the {binary_size(limit)} of memory it may have."
        )
    failures = number(memory, "failcnt")
    if failures:
        findings.append(f"It ran into its memory limit {failures} times.")
    pids = table(sample, "pids_stats")
    current, most = number(pids, "current"), number(pids, "limit")
    if most and current / most >= _NEARLY:
        findings.append(f"It has {current} of the {most} processes it may have.")
    return findings


def _cpu_limit(details: Document) -> str:
    host = table(details, "HostConfig")
    nano, quota, period = (number(host, key) for key in ("NanoCpus", "CpuQuota", "CpuPeriod"))
    if nano:
        return f" of {nano / _NANO_CPU:g} CPUs"
    return f" of {quota / (period or 100_000):g} CPUs" if quota > 0 else ""


def _health(state: Document) -> list[str]:
    health = table(state, "Health")
    if text(health, "Status") != "unhealthy":
        return []
    log = tables(health, "Log")
    output = " ".join(text(log[-1], "Output").split())[:200] if log else ""
    streak = number(health, "FailingStreak")
    said = f': "{output}"' if output else ""
    return [f"Its health check failed the last {streak} times{said}."]
