"""The host's own input rules, as commands that copy them to where published ports are met (pure).

A published port is translated before the host's input hook, so no packet to it meets the rules
there. :mod:`sampan.network.inputguard` has these rules looked at before: every base chain of
type filter at the input hook, whatever it does by default, with the chains and sets it leads to,
becomes a chain of a table of ours. The kernel then decides about each packet as it would at the
hook, by interface, by source, by zone.

What only counts, marks or helps is left out of the copy. So is a rule with a condition that
libnftables-json(5) does not show (a match of iptables that :mod:`sampan.network.xtmatch` does not
know, a limit kept in a set) or that is not known before routing (the user of a socket): it lets
nothing in and keeps nothing out. Where such a rule returns, what its chain drops further down is
not certain, and left out too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

#: A JSON object of libnftables-json(5).
Object: TypeAlias = Mapping[str, object]

VERSIONS: Mapping[str, tuple[int, ...]] = {"ip": (4,), "ip6": (6,), "inet": (4, 6)}
_DROPS = ("drop", "reject")
_KEPT = (
    "match", "vmap", "limit", "log", "ct count", "queue",
    "accept", "drop", "reject", "return", "continue", "jump", "goto",
)  # fmt: skip
#: Statements that decide nothing.
_NEUTRAL = (
    "counter", "comment", "mangle", "notrack", "secmark", "flow",
    "ct helper", "ct timeout", "ct expectation",
)  # fmt: skip
#: Targets of iptables that decide nothing.
_NEUTRAL_TARGETS = (
    "LOG",
    "NFLOG",
    "ULOG",
    "MARK",
    "CONNMARK",
    "CT",
    "SECMARK",
    "CONNSECMARK",
    "SET",
)
#: What belongs to the socket a packet is for, which is not known before routing.
_SOCKETS = ("skuid", "skgid", "cgroup")


@dataclass(frozen=True, slots=True)
class Base:
    """A base chain at the input hook; ``drops`` is what it does in the end."""

    family: str
    table: str
    name: str
    drops: bool


def bases(listing: str) -> tuple[Base, ...]:
    """Those in ``nft -j list chains``."""
    return tuple(
        Base(chain["family"], chain["table"], chain["name"], chain.get("policy") == "drop")
        for entry in json.loads(listing)["nftables"]
        if (chain := entry.get("chain"))
        and (chain.get("hook"), chain.get("type")) == ("input", "filter")
        and chain.get("family") in VERSIONS
    )


def copied(base: Base, listing: str, table: str, prefix: str) -> tuple[str, list[Object]]:
    """The copy of a base chain as a chain of ``inet table``: its name, and what makes it.

    ``listing`` is ``nft -j list table`` of its table; ``prefix`` keeps the copy's names apart from
    those of others.
    """
    copy = _Copy(listing, table, prefix)
    name = copy.chain(base.name)
    return name, list(copy.commands())


def add(kind: str, table: str, **values: object) -> Object:
    """The command that adds an object to ``inet table``."""
    return {"add": {kind: {"family": "inet", "table": table, **values}}}


class _Copy:
    """What is copied of one table."""

    def __init__(self, listing: str, table: str, prefix: str) -> None:
        self._table = table
        self._prefix = prefix
        self._rules: dict[str, list[list[Object]]] = {}
        self._known: dict[str, tuple[str, Object]] = {}
        for entry in json.loads(listing)["nftables"]:
            if rule := entry.get("rule"):
                self._rules.setdefault(rule["chain"], []).append(rule["expr"])
            for kind in ("set", "map"):
                if found := entry.get(kind):
                    self._known[found["name"]] = kind, found
        self._chains: list[str] = []
        self._sets: list[str] = []

    def chain(self, name: str) -> str:
        """The copy's name of a chain, which is then part of it."""
        if name not in self._chains:
            self._chains.append(name)
        return f"{self._prefix}{name}"

    def _set(self, name: str) -> str:
        if name not in self._sets:
            self._sets.append(name)
        return f"{self._prefix}{name}"

    def commands(self) -> Iterator[Object]:
        """Everything, in an order in which whatever is named is there."""
        rules: list[Object] = []
        sets: list[Object] = []
        done = 0
        while done < len(self._chains):  # each may lead to more
            name = self._chains[done]
            done += 1
            for expression in self._rules_of(name):
                rules.append(
                    add("rule", self._table, chain=f"{self._prefix}{name}", expr=expression)
                )
            for known in self._sets[len(sets) :]:
                kind, found = self._known[known]
                values = {
                    key: self._renamed(value)
                    for key, value in found.items()
                    if key not in ("family", "table", "name", "handle")
                }
                sets.append(add(kind, self._table, name=f"{self._prefix}{known}", **values))
        for name in self._chains:
            yield add("chain", self._table, name=f"{self._prefix}{name}")
        yield from sets
        yield from rules

    def _rules_of(self, chain: str) -> Iterator[list[Object]]:
        left = False  # whether a packet may have returned before
        for rule in self._rules.get(chain, ()):
            statements = _read(rule, self._known)
            if statements is None:
                left = left or any("return" in statement for statement in rule)
            elif statements and not (left and any(d in statements[-1] for d in _DROPS)):
                yield [
                    statement if "log" in statement else self._renamed_statement(statement)
                    for statement in statements
                ]

    def _renamed_statement(self, statement: Object) -> Object:
        return {key: self._renamed_under(key, value) for key, value in statement.items()}

    def _renamed(self, value: object) -> object:
        """With the copy's names of chains and sets."""
        if isinstance(value, dict):
            return {key: self._renamed_under(key, inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._renamed(inner) for inner in value]
        if isinstance(value, str) and value.startswith("@"):
            return f"@{self._set(value[1:])}"
        return value

    def _renamed_under(self, key: str, value: object) -> object:
        if key in ("jump", "goto") and isinstance(value, dict):
            return {"target": self.chain(str(value["target"]))}
        return self._renamed(value)


def _read(rule: list[Object], sets: Mapping[str, object]) -> list[Object] | None:
    """The statements of a rule that decide; ``None`` if some of them cannot be told."""
    found: list[Object] = []
    for statement in rule:
        ((kind, value),) = statement.items()
        if kind == "xt" and isinstance(value, dict) and value.get("type") == "target":
            if value.get("name") == "REJECT":
                found.append({"reject": None})
            elif value.get("name") not in _NEUTRAL_TARGETS:
                return None
        elif kind == "set" and isinstance(value, dict) and not value.get("stmt"):
            continue  # remembers an address, and decides nothing
        elif kind == "log" or (
            kind in _KEPT and _is_told(value, sets) and not isinstance(value, str)
        ):
            found.append(statement)
        elif kind not in _NEUTRAL:
            return None
    return found


def _is_told(value: object, sets: Mapping[str, object]) -> bool:
    """Whether all that a statement names is known, there and then."""
    if isinstance(value, dict):
        if "socket" in value or "osf" in value or value.get("key") in _SOCKETS:
            return False
        return all(_is_told(inner, sets) for inner in value.values())
    if isinstance(value, list):
        return all(_is_told(inner, sets) for inner in value)
    return not (isinstance(value, str) and value.startswith("@")) or value[1:] in sets
