"""Published ports beside a host that closes them (``--firewall=respect-host``).

A table beside our own holds which ports are published and, in chains that packets from neighbours
pass before these are translated, copies of the host's input rules
(:mod:`sampan.network.hostinput`). What these drop or reject never reaches a container, as it
would not reach a program of the host; the host's own connections are not asked about. Rules that
cannot be copied close every port.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import TypeAlias

from sampan.errors import Unavailable
from sampan.kernel.nftables import NftError
from sampan.network import hostinput, xtmatch
from sampan.network.hostforward import Runner
from sampan.network.hostinput import Base, Object, add
from sampan.network.nft import Published

log = logging.getLogger(__name__)

#: A published port: the set it is in, and its element.
_Key: TypeAlias = tuple[str, tuple[str | int, ...]]

#: Before any translation of addresses, after what marks packets (priority mangle).
_PRIORITY = -110
_SETS = {
    "ports4": ["inet_proto", "inet_service"],
    "ports6": ["inet_proto", "inet_service"],
    "ports4_at": ["ipv4_addr", "inet_proto", "inet_service"],
    "ports6_at": ["ipv6_addr", "inet_proto", "inet_service"],
}


def table_name(table: str) -> str:
    """The guard's table, for an engine with this one."""
    return f"{table}-input"


def removal(table: str) -> str:
    """The script that takes a guard away, if there is one (pure)."""
    name = table_name(table)
    return f"add table inet {name}\ndelete table inet {name}\n"


class InputGuard:
    """The table, and what it was made of. For one thread at a time."""

    def __init__(self, table: str) -> None:
        """``table``: our own."""
        self._table = table_name(table)
        self._host: tuple[tuple[Base, ...], tuple[str, ...]] | None = None
        self._keys: frozenset[_Key] = frozenset()

    def closes(self, runner: Runner) -> bool:
        """Whether the host drops by default what comes to its own ports, so that its input rules
        say which are open. Raises :class:`Unavailable`."""
        if self._host is None:
            self.refresh(runner)
        return self._host is not None and any(base.drops for base in self._host[0])

    def update(self, runner: Runner, rows: Iterable[Published]) -> None:
        """Guard exactly these ports, by the rules the host had at :meth:`refresh`. Raises
        :class:`Unavailable`."""
        keys = frozenset(_key(row) for row in rows if row.host_port)
        if self._host is None:
            self._keys = keys
            self.refresh(runner)
            return
        changes = _elements("add", self._table, keys - self._keys)
        changes += _elements("delete", self._table, self._keys - keys)
        self._keys = keys
        try:
            if changes:
                runner.run(changes)
        except NftError:  # somebody flushed it
            self._load(runner)

    def refresh(self, runner: Runner) -> None:
        """Read the host's rules again, and guard by what they are now. Raises
        :class:`Unavailable`."""
        try:
            everything = runner.query("list chains")
            found = hostinput.bases(everything)
            listings = [_listing(runner, base) for base in found]
        except OSError as error:
            raise Unavailable(f"cannot read the host's input rules: {error.strerror}") from error
        known = self._host
        self._host = found, tuple(listings)
        if (
            known is None
            or known[0] != found
            or [_stable(text) for text in known[1]] != [_stable(text) for text in listings]
            or f'"{self._table}"' not in everything
        ):
            self._load(runner)

    def _load(self, runner: Runner) -> None:
        found, listings = self._host or ((), ())
        try:
            try:
                runner.query(_document(self._table, found, listings, self._keys))
            except NftError as error:
                log.warning("published ports are closed: cannot copy input rules: %s", error)
                runner.query(_document(self._table, None, (), self._keys))
        except OSError as error:
            raise Unavailable(f"cannot set nftables rules: {error.strerror}") from error


def _listing(runner: Runner, base: Base) -> str:
    listing = runner.query(f"list table {base.family} {base.table}")
    return xtmatch.told(listing, base.family, base.table)


def _stable(listing: str) -> str:
    """A listing without what counts and passes by itself."""
    entries = json.loads(listing)["nftables"]
    for entry in entries:
        for statement in entry.get("rule", {}).get("expr", ()):
            if isinstance(statement.get("counter"), dict):
                statement["counter"] = None
        for kind in ("set", "map"):
            for element in entry.get(kind, {}).get("elem", ()):
                if isinstance(element, dict) and isinstance(inner := element.get("elem"), dict):
                    for key in ("expires", "counter", "limit"):
                        inner.pop(key, None)
    return json.dumps({"nftables": entries})


def _document(
    table: str, bases: tuple[Base, ...] | None, listings: tuple[str, ...], keys: frozenset[_Key]
) -> str:
    """The whole table, in place of the one there is; without rules (``None``) all is closed."""
    commands: list[Object] = [
        {"add": {"table": {"family": "inet", "name": table}}},
        {"delete": {"table": {"family": "inet", "name": table}}},
        {"add": {"table": {"family": "inet", "name": table}}},
    ]
    for name, kinds in _SETS.items():
        elements = [{"concat": list(element)} for held, element in sorted(keys) if held == name]
        content = {"elem": elements} if elements else {}
        commands.append(add("set", table, name=name, type=kinds, **content))
    if bases is None:
        commands += _guard(table, "closed", (4, 6), [[{"drop": None}]])
    for number, (base, listing) in enumerate(zip(bases or (), listings, strict=True)):
        entry, copied = hostinput.copied(base, listing, table, f"{number}.")
        commands += copied
        decisions: list[list[Object]] = [[{"jump": {"target": entry}}]]
        if base.drops:
            decisions.append([{"drop": None}])
        commands += _guard(table, str(number), hostinput.VERSIONS[base.family], decisions)
    return json.dumps({"nftables": commands})


def _guard(
    table: str, name: str, versions: tuple[int, ...], decisions: list[list[Object]]
) -> list[Object]:
    """A chain that new connections to published ports pass, and the one that decides of them."""
    guard, verdict = f"guard-{name}", f"verdict-{name}"
    base = {"type": "filter", "hook": "prerouting", "prio": _PRIORITY, "policy": "accept"}
    commands = [
        add("chain", table, name=verdict),
        *(add("rule", table, chain=verdict, expr=expression) for expression in decisions),
        add("chain", table, name=guard, **base),
    ]
    local = _match({"fib": {"result": "type", "flags": ["daddr"]}}, "local", "!=")
    new = _match({"ct": {"key": "state"}}, "new", "!=")
    rules: list[list[Object]] = [[local, {"accept": None}], [new, {"accept": None}]]
    port: list[Object] = [
        {"meta": {"key": "l4proto"}},
        {"payload": {"protocol": "th", "field": "dport"}},
    ]
    for version in versions:
        family = _match({"meta": {"key": "nfproto"}}, f"ipv{version}")
        protocol = "ip" if version == 4 else "ip6"
        at: Object = {"payload": {"protocol": protocol, "field": "daddr"}}
        for left, name in ((port, f"ports{version}"), ([at, *port], f"ports{version}_at")):
            rules.append(
                [family, _match({"concat": left}, f"@{name}"), {"goto": {"target": verdict}}]
            )
    return commands + [add("rule", table, chain=guard, expr=rule) for rule in rules]


def _match(left: Object, right: str, operator: str = "==") -> Object:
    return {"match": {"op": operator, "left": left, "right": right}}


def _key(row: Published) -> _Key:
    version = row.address.version
    if row.host_address is None:
        return f"ports{version}", (row.protocol, row.host_port)
    return f"ports{version}_at", (str(row.host_address), row.protocol, row.host_port)


def _elements(verb: str, table: str, keys: Iterable[_Key]) -> str:
    groups: dict[str, list[str]] = {}
    for name, element in sorted(keys):
        groups.setdefault(name, []).append(" . ".join(str(part) for part in element))
    return "".join(
        f"{verb} element inet {table} {name} {{ {', '.join(elements)} }}\n"
        for name, elements in groups.items()
    )
