"""The host's own input rules, and published ports (``--firewall=respect-host``).

A published port is translated before the host's input hook, so a host that drops what it does not
let in would still have its containers' ports open. Where an input chain of the host ends in
``policy drop``, a port is therefore published to neighbours only when a rule there accepts it, as
it would have to for a program of the host; else to the host itself alone.

The rules are read, not run: a rule with a condition that is not about the port (an address, an
interface, an iptables match nft cannot show) accepts nothing and drops nothing here, but what it
jumps to is looked at. Where such a rule returns, what its chain drops further down is not certain.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from sampan.errors import Unavailable
from sampan.network.hostforward import Runner

#: A JSON object of libnftables-json(5).
Object: TypeAlias = Mapping[str, object]

#: Chains may jump this deep (NFT_JUMP_STACK_SIZE).
_DEPTH = 16
_VERSIONS: Mapping[str, tuple[int, ...]] = {"ip": (4,), "ip6": (6,), "inet": (4, 6)}
_PROTOCOLS = {"6": "tcp", "17": "udp", "132": "sctp"}
#: Statements that decide nothing.
_NEUTRAL = ("counter", "log", "comment", "mangle")


@dataclass(frozen=True, slots=True)
class InputRules:
    """Base chains at the input hook that drop by default, and the chains of their tables."""

    bases: tuple[tuple[str, str, str], ...] = ()
    chains: Mapping[tuple[str, str, str], Sequence[Sequence[Object]]] = field(default_factory=dict)

    def admits(self, protocol: str, port: int, version: int) -> bool:
        """Whether a new connection to a port is let in by every chain that would drop it."""
        return all(
            self._verdict(base, protocol, port, version, 0) == "accept"
            for base in self.bases
            if version in _VERSIONS.get(base[0], ())
        )

    def _verdict(
        self, chain: tuple[str, str, str], protocol: str, port: int, version: int, depth: int
    ) -> str:
        """``accept``, ``drop`` or "" (the end was reached)."""
        if depth > _DEPTH:
            return ""
        left = False  # whether a packet may have returned before
        for rule in self.chains.get(chain, ()):
            sure, action, target = _read(rule, protocol, port, version)
            if sure is False:
                continue
            if action in ("jump", "goto"):
                inner = (chain[0], chain[1], target)
                found = self._verdict(inner, protocol, port, version, depth + 1)
                if found == "accept" or (found and sure):
                    return found
                if action == "goto" and sure:
                    return ""
            elif action == "return" and sure is None:
                left = True
            elif sure and action in ("accept", "drop", "reject", "return"):
                found = {"reject": "drop", "return": ""}.get(action, action)
                return "" if found == "drop" and left else found
        return ""


def _read(
    rule: Sequence[Object], protocol: str, port: int, version: int
) -> tuple[bool | None, str, str]:
    """Whether a rule is about such a packet (``None``: perhaps), what it does, and where to."""
    sure: bool | None = True
    for statement in rule:
        for kind, value in statement.items():
            if kind in ("accept", "drop", "reject", "return"):
                return sure, kind, ""
            if kind in ("jump", "goto"):
                target = value.get("target") if isinstance(value, dict) else ""
                return sure, kind, str(target)
            if kind in _NEUTRAL:
                continue
            matched = (
                _matches(value, protocol, port, version)
                if kind == "match" and isinstance(value, dict)
                else None
            )
            if matched is False:
                return False, "", ""
            if matched is None:
                sure = None
    return sure, "", ""


def _matches(match: Object, protocol: str, port: int, version: int) -> bool | None:
    left, right, operator = match.get("left"), match.get("right"), match.get("op")
    if not isinstance(left, dict) or operator not in ("==", "in", "!="):
        return None
    known: bool | None = None
    payload, meta, state = left.get("payload"), left.get("meta"), left.get("ct")
    if isinstance(payload, dict) and payload.get("field") == "dport":
        if payload.get("protocol") not in (protocol, "th"):
            return False
        known = _contains(right, port)
    elif (isinstance(payload, dict) and payload.get("field") in ("protocol", "nexthdr")) or (
        isinstance(meta, dict) and meta.get("key") == "l4proto"
    ):
        known = _names(right, protocol)
    elif isinstance(meta, dict) and meta.get("key") == "nfproto":
        known = _names(right, f"ipv{version}")
    elif isinstance(meta, dict) and meta.get("key") == "iifname" and right == "lo":
        known = False
    elif isinstance(state, dict) and state.get("key") == "state":
        known = _names(right, "new")
    if known is None:
        return None
    return known != (operator == "!=")


def _contains(right: object, port: int) -> bool | None:
    """Whether a number, range or set has ``port``; ``None`` for a named set."""
    if isinstance(right, int):
        return right == port
    if isinstance(right, dict) and isinstance(span := right.get("range"), list):
        return len(span) == 2 and int(span[0]) <= port <= int(span[1])
    if isinstance(right, dict) and isinstance(members := right.get("set"), list):
        return any(_contains(member, port) for member in members)
    return None


def _names(right: object, word: str) -> bool | None:
    """Whether a word, number or list of them is or has ``word``."""
    if isinstance(right, dict):
        right = right.get("set")
    items = right if isinstance(right, list) else [right]
    if not all(isinstance(item, str | int) for item in items):
        return None
    return word in [_PROTOCOLS.get(str(item), str(item)) for item in items]


def parse(chains: str, tables: Sequence[str]) -> InputRules:
    """``nft -j list chains``, and ``list table`` of what :func:`dropping` found in it (pure)."""
    found: dict[tuple[str, str, str], list[list[Object]]] = {}
    for listing in tables:
        for entry in json.loads(listing)["nftables"]:
            if rule := entry.get("rule"):
                key = (rule["family"], rule["table"], rule["chain"])
                found.setdefault(key, []).append(rule["expr"])
    return InputRules(dropping(chains), found)


def dropping(listing: str) -> tuple[tuple[str, str, str], ...]:
    """Base chains at the input hook with policy drop in ``nft -j list chains`` (pure)."""
    return tuple(
        (chain["family"], chain["table"], chain["name"])
        for entry in json.loads(listing)["nftables"]
        if (chain := entry.get("chain"))
        and chain.get("hook") == "input"
        and chain.get("policy") == "drop"
        and chain.get("family") in _VERSIONS
    )


def read(runner: Runner) -> InputRules:
    """The host's rules as they are now. Raises :class:`Unavailable`."""
    try:
        chains = runner.query("list chains")
        tables = sorted({(family, table) for family, table, _ in dropping(chains)})
        return parse(chains, [runner.query(f"list table {f} {t}") for f, t in tables])
    except OSError as error:
        raise Unavailable(f"cannot read the host's input rules: {error.strerror}") from error
