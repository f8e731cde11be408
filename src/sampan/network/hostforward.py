"""The host's own default of forwarding nothing, and our containers.

nftables asks every chain at the forward hook; one that ends in ``policy drop`` (what Docker, ufw
and many hosts set) stops our packets whatever our own table says. So rules that accept what goes
in and out of our bridges are *appended* to such chains: whatever the host drops or rejects by a
rule still is, only its last word is no longer "drop". Our own table decides the rest. The rules
carry a comment, by which they are found again; no other rule is ever touched.

With ``--firewall=respect-host`` none of this is done, and what was done before is undone; but on
a host that closes its own ports by default, what its input rules let in to a published port
(:mod:`sampan.network.inputguard`) is let through, for its forwarding is about others' packets.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sampan.errors import Unavailable


class Runner(Protocol):
    """:class:`sampan.kernel.nftables.Nftables`, or a fake."""

    def run(self, script: str) -> str: ...
    def query(self, command: str) -> str: ...


@dataclass(frozen=True, slots=True, order=True)
class Chain:
    """A chain of somebody else that drops what no rule of it accepts."""

    family: str
    table: str
    name: str


@dataclass(frozen=True, slots=True, order=True)
class OwnRule:
    """A rule of ours in such a chain: ``comment`` says what it is for."""

    chain: Chain
    handle: int
    comment: str


def forward_chains(
    listing: str, own_tables: Iterable[str], policies: Sequence[str] = ("accept", "drop")
) -> tuple[Chain, ...]:
    """Base chains at the forward hook with such policies in ``nft -j list chains`` (pure)."""
    own = set(own_tables)
    found = []
    for entry in json.loads(listing)["nftables"]:
        chain = entry.get("chain", {})
        if (
            chain.get("hook") == "forward"
            and chain.get("policy") in policies
            and chain.get("family") in ("ip", "ip6", "inet")
            and chain.get("table") not in own
        ):
            found.append(Chain(chain["family"], chain["table"], chain["name"]))
    return tuple(sorted(found))


def own_rules(listing: str, tag: str) -> tuple[OwnRule, ...]:
    """Our rules in ``nft -j list chain`` output (pure)."""
    found = []
    for entry in json.loads(listing)["nftables"]:
        rule = entry.get("rule", {})
        if str(rule.get("comment", "")).startswith(f"{tag} "):
            chain = Chain(rule["family"], rule["table"], rule["chain"])
            found.append(OwnRule(chain, int(rule["handle"]), rule["comment"]))
    return tuple(found)


def changes(
    chains: Sequence[Chain],
    present: Sequence[OwnRule],
    bridges: Iterable[str],
    tag: str,
    *,
    published: bool = False,
) -> str:
    """The script that leaves in each chain one pair of rules for each bridge (pure); with
    ``published``, rules for connections to published ports alone."""
    what, which = (" published", " ct status dnat") if published else ("", "")
    wanted = {
        (chain, f"{tag}{what} {way} {bridge}"): f'{way}ifname "{bridge}"{which}'
        for chain in chains
        for bridge in sorted(bridges)
        for way in ("i", "o")
    }
    lines = []
    for rule in present:
        if wanted.pop((rule.chain, rule.comment), None) is None:
            place = f"{rule.chain.family} {rule.chain.table} {rule.chain.name}"
            lines.append(f"delete rule {place} handle {rule.handle}")
    for (chain, comment), match in wanted.items():
        place = f"{chain.family} {chain.table} {chain.name}"
        lines.append(f'add rule {place} {match} counter accept comment "{comment}"')
    return "".join(f"{line}\n" for line in lines)


class HostForwarding:
    """Keeps the host's dropping chains open for our bridges."""

    def __init__(self, tag: str, *, respect: bool = False) -> None:
        """``tag`` starts our rules' comments: the name of our own table. With ``respect`` the
        host's chains are left closed."""
        self._tag = tag
        self._open = not respect

    def update(self, runner: Runner, bridges: Iterable[str], *, published: bool = False) -> None:
        """Make it right for exactly these bridges; ``published``: where the host's chains are
        left closed, open them for connections to published ports. Raises
        :class:`Unavailable`."""
        try:
            everything = runner.query("list chains")
            present: list[OwnRule] = []
            # A chain that dropped by default when we opened it may do so no longer.
            for chain in forward_chains(everything, (self._tag,)):
                listing = runner.query(f"list chain {chain.family} {chain.table} {chain.name}")
                present.extend(own_rules(listing, self._tag))
            chains = forward_chains(everything, (self._tag,), ("drop",))
            script = changes(
                chains if self._open or published else (),
                present,
                bridges,
                self._tag,
                published=not self._open,
            )
            if script:
                runner.run(script)
        except OSError as error:
            raise Unavailable(
                f"cannot open the host's forwarding for containers: {error.strerror}"
            ) from error
