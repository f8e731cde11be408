"""``why``: what ended a container, or what holds it back."""

from __future__ import annotations

from sampan.cli.clock import now, parse_rfc3339
from sampan.cli.command import ONE, Command, Flag
from sampan.cli.explain import explain
from sampan.cli.kinds import BOOL
from sampan.client.document import as_table, flag, table, tables, text
from sampan.client.failure import DaemonError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.api import Query
    from sampan.client.document import Document


def _events(session: Session, details: Document) -> list[Document]:
    created = parse_rfc3339(text(details, "Created")) or 0
    query: Query = {
        "since": str(created // 10**9),
        "until": f"{now() // 10**9}.{now() % 10**9:09d}",
        "filters": {"container": [text(details, "Id")]},
    }
    return list(session.client.stream("GET", "/events", query))


def _denials(session: Session, name: str) -> list[Document]:
    """What the daemon finds in the kernel's log; other daemons cannot tell."""
    try:
        found = session.client.get(f"/sampan/containers/{name}/denials")
    except DaemonError:
        return []
    return tables({"": found}, "")


def _why(session: Session, arguments: Arguments) -> None:
    name = arguments.positional[0]
    details = as_table(session.client.get(f"/containers/{name}/json"))
    sample: Document = {}
    if flag(table(details, "State"), "Running"):
        query = {"stream": "0", "one-shot": "1"}
        sample = as_table(session.client.get(f"/containers/{name}/stats", query))
    findings = explain(details, sample, _events(session, details), _denials(session, name))
    if arguments.flag("json"):
        import json

        session.line(json.dumps(findings, ensure_ascii=False))
    else:
        session.out("".join(f"{finding}\n" for finding in findings))


WHY = Command(
    "[OPTIONS] CONTAINER",
    (Flag("json", "", BOOL, "Print the findings as a JSON array of sentences"),),
    ONE,
    _why,
    complete="container",
    detail=(
        "Reads the container's state, its limits, its statistics and its events, and says in "
        "plain sentences what ended it (memory limit, signal, exit status, failed start, a system "
        "call its seccomp profile kills for) or what slows it (CPU throttling, memory or process "
        "limit, failing health check). What a seccomp profile refuses with an error number leaves "
        "no trace in the kernel, so nothing can tell of it."
    ),
)
