"""``container stats``: a table that follows the containers, or one look at them."""

from __future__ import annotations

import json
import time

from sampan.cli.command import ANY, Command, Flag
from sampan.cli.kinds import BOOL, STRING
from sampan.cli.listing import FORMAT_HELP, Column, Listing
from sampan.cli.show import short_id
from sampan.cli.units import binary_size, human_size
from sampan.client.document import as_table, as_tables, items, number, table, tables, text
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.api import ApiClient, Query
    from sampan.client.document import Document

_CLEAR = "\x1b[H"
_CLEAR_LINE = "\x1b[K\n"
_CLEAR_REST = "\x1b[J"
_INTERVAL = 1.0


def cpu_percent(sample: Document) -> float:
    """CPU use between the two readings of a sample, 100 being one whole processor."""
    now, before = table(sample, "cpu_stats"), table(sample, "precpu_stats")
    used = number(table(now, "cpu_usage"), "total_usage") - number(
        table(before, "cpu_usage"), "total_usage"
    )
    passed = number(now, "system_cpu_usage") - number(before, "system_cpu_usage")
    processors = number(now, "online_cpus") or len(items(table(now, "cpu_usage"), "percpu_usage"))
    return used / passed * processors * 100.0 if used > 0 and passed > 0 else 0.0


def memory_used(sample: Document) -> int:
    """Bytes of memory in use, page cache that can go at once left out."""
    memory = table(sample, "memory_stats")
    usage, details = number(memory, "usage"), table(memory, "stats")
    for key in ("total_inactive_file", "inactive_file"):
        if key in details:
            inactive = number(details, key)
            return usage - inactive if inactive < usage else usage
    return usage


def _network(sample: Document, key: str) -> int:
    networks = table(sample, "networks").values()
    return sum(number(as_table(network), key) for network in networks)


def _block(sample: Document, letter: str) -> int:
    entries = tables(table(sample, "blkio_stats"), "io_service_bytes_recursive")
    return sum(number(e, "value") for e in entries if text(e, "op")[:1].lower() == letter)


def _memory_percent(row: Document) -> float:
    limit = number(table(row, "memory_stats"), "limit")
    return memory_used(row) / limit * 100.0 if limit else 0.0


def _memory(row: Document) -> str:
    limit = number(table(row, "memory_stats"), "limit")
    return f"{binary_size(memory_used(row))} / {binary_size(limit)}"


def _or_dashes(row: Document, shown: str, dashes: str = "--") -> str:
    return shown if row.get("cpu_stats") else dashes


def _name(row: Document) -> str:
    return text(row, "name").removeprefix("/") or "--"


def listing(*, truncate: bool) -> Listing:
    """How samples are listed."""

    def identity(row: Document) -> str:
        return short_id(text(row, "id")) if truncate else text(row, "id")

    return Listing(
        type_name="*container.statsContext",
        columns={
            "Container": Column("CONTAINER", lambda row: text(row, "Container")),
            "ID": Column("CONTAINER ID", identity),
            "Name": Column("NAME", _name),
            "CPUPerc": Column("CPU %", lambda row: _or_dashes(row, f"{cpu_percent(row):.2f}%")),
            "MemUsage": Column(
                "MEM USAGE / LIMIT", lambda row: _or_dashes(row, _memory(row), "-- / --")
            ),
            "MemPerc": Column("MEM %", lambda row: _or_dashes(row, f"{_memory_percent(row):.2f}%")),
            "NetIO": Column(
                "NET I/O",
                lambda row: _or_dashes(
                    row,
                    f"{human_size(_network(row, 'rx_bytes'), 3)} / "
                    f"{human_size(_network(row, 'tx_bytes'), 3)}",
                ),
            ),
            "BlockIO": Column(
                "BLOCK I/O",
                lambda row: _or_dashes(
                    row, f"{human_size(_block(row, 'r'), 3)} / {human_size(_block(row, 'w'), 3)}"
                ),
            ),
            "PIDs": Column(
                "PIDS",
                lambda row: _or_dashes(row, str(number(table(row, "pids_stats"), "current"))),
            ),
        },
        table=("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"),
    )


class Sampler:
    """Reads the samples of several containers, the requests of one round sent together."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._clients: dict[str, ApiClient] = {}
        self._former: dict[str, Document] = {}

    def round(self, names: list[str], *, one_shot: bool) -> list[Document]:
        """One sample of each container that still exists.

        ``one_shot``: take the daemon's reading of this moment and compare it with the last
        round's; else the daemon takes two readings itself, a second apart.
        """
        query: Query = {"stream": "0", "one-shot": one_shot}
        pending = []
        for name in names:
            client = self._clients.get(name) or self._session.another_client()
            self._clients[name] = client
            pending.append((name, client.begin("GET", f"/containers/{name}/stats", query)))
        samples = []
        for name, response in pending:
            try:
                sample = as_table(json.loads(response.finish()))
            except (SampanError, ValueError):
                self._forget(name)
                continue
            if one_shot and name in self._former:
                former = self._former[name]
                sample = {**sample, "precpu_stats": table(former, "cpu_stats")}
            self._former[name] = sample
            samples.append({**sample, "Container": name})
        for name in set(self._clients) - set(names):
            self._forget(name)
        return samples

    def _forget(self, name: str) -> None:
        client = self._clients.pop(name, None)
        if client is not None:
            client.close()
        self._former.pop(name, None)


def _names(session: Session, arguments: Arguments) -> list[str]:
    if arguments.positional:
        return arguments.positional
    query = {"all": arguments.flag("all")}
    rows = as_tables(session.client.get("/containers/json", query))
    return [short_id(text(row, "Id")) for row in rows]


def _stats(session: Session, arguments: Arguments) -> int:
    form = arguments.text("format") or session.config.text("statsFormat")
    shape = listing(truncate=not arguments.flag("no-trunc"))
    for name in arguments.positional:
        session.client.get(f"/containers/{name}/json")
    if arguments.flag("no-stream"):
        samples = Sampler(session).round(_names(session, arguments), one_shot=False)
        session.out(shape.render(samples, form))
        return 0
    return _follow(session, arguments, shape, form)


def _follow(session: Session, arguments: Arguments, shape: Listing, form: str) -> int:
    sampler = Sampler(session)
    one_shot = session.client.at_least("1.41")
    if session.is_terminal(1):
        session.out("\x1b[2J")
    while True:
        started = time.monotonic()
        names = _names(session, arguments)
        samples = sampler.round(names, one_shot=one_shot)
        if arguments.positional and not samples:
            return 0
        text_of_round = shape.render(samples, form)
        if session.is_terminal(1):
            text_of_round = _CLEAR + text_of_round.replace("\n", _CLEAR_LINE) + _CLEAR_REST
        session.out(text_of_round)
        session.flush()
        time.sleep(max(0.0, _INTERVAL - (time.monotonic() - started)))


STATS = Command(
    "[OPTIONS] [CONTAINER...]",
    (
        Flag("all", "a", BOOL, "Show all containers (default shows just running)"),
        Flag("format", "", STRING, FORMAT_HELP),
        Flag("no-stream", "", BOOL, "Disable streaming stats and only pull the first result"),
        Flag("no-trunc", "", BOOL, "Do not truncate output"),
    ),
    ANY,
    _stats,
    complete="running",
)
