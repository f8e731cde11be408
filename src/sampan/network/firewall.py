"""The firewall of all bridge networks: holds what should be in the kernel, and puts it there.

Changes are small transactions. When one fails because somebody flushed the ruleset behind our
back, the whole table is made anew from what this object knows, in one transaction.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping

from sampan.errors import SampanError, Unavailable, Unsupported
from sampan.kernel.nftables import Nftables, NftError
from sampan.network import inputguard, nft
from sampan.network.hostforward import HostForwarding, Runner
from sampan.network.hostsysctl import bridge_netfilter
from sampan.network.inputguard import InputGuard
from sampan.network.model import NetworkSpec
from sampan.network.nft import Published
from sampan.network.rulewatch import RuleWatch


class Firewall:
    """One nftables table and what belongs in it. Safe to use from several threads."""

    def __init__(
        self,
        table: str = "sampan",
        open_runner: Callable[[], Runner] = Nftables,
        host: HostForwarding | None = None,
        *,
        respect: bool = False,
    ) -> None:
        """``open_runner`` is called on first need, in the thread that needs it; call
        :meth:`open` early where descriptor numbers may grow. ``host`` is told of every network;
        ``None`` leaves the host's own forwarding rules as they are. With ``respect`` the
        host's input rules hold for published ports."""
        self._host = host
        self._guard = InputGuard(table) if respect else None
        self._table = table
        self._open = open_runner
        self._runner: Runner | None = None
        self._lock = threading.Lock()
        self._networks: dict[str, NetworkSpec] = {}
        self._rows: dict[str, tuple[Published, ...]] = {}
        self._built = False
        self._watch: RuleWatch | None = None

    def open(self) -> None:
        """Open the library's context now. Raises :class:`Unavailable` when it cannot be."""
        with self._lock:
            try:
                self._runner = self._runner or self._open()
                if self._watch is None and isinstance(self._runner, Nftables):
                    self._watch = RuleWatch(self.refresh, self._of_another_engine)
            except OSError as error:
                raise Unavailable(f"cannot use nftables: {error.strerror or error}") from error

    def add_network(self, spec: NetworkSpec) -> None:
        """Let a network in; replaces what was said of it before. Idempotent."""
        with self._lock:
            before = self._networks.get(spec.id)
            self._networks[spec.id] = spec
            try:
                if before != spec or not self._built:
                    if before is not None or not self._built:
                        self._rebuild()
                    else:
                        self._change(nft.network_up(self._table, spec))
                self._tell_host()
            except SampanError:
                if before is None:
                    del self._networks[spec.id]
                else:
                    self._networks[spec.id] = before
                raise

    def remove_network(self, network_id: str) -> None:
        """Forget a network. Idempotent."""
        with self._lock:
            spec = self._networks.pop(network_id, None)
            if spec is not None and self._built:
                self._change(nft.network_down(self._table, spec))
                self._tell_host()

    def publish(self, endpoint_id: str, rows: tuple[Published, ...]) -> None:
        """Publish an endpoint's ports, in place of what it had published."""
        with self._lock:
            self._check(rows)
            before = self._rows.pop(endpoint_id, ())
            script = nft.unpublish(self._table, before) + nft.publish(self._table, rows)
            if rows:
                self._rows[endpoint_id] = rows
            try:
                if script:
                    self._change(script)
            except SampanError:
                self._rows.pop(endpoint_id, None)
                if before:
                    self._rows[endpoint_id] = before
                raise
            if before:
                self._check()

    def unpublish(self, endpoint_id: str) -> tuple[Published, ...]:
        """Take an endpoint's ports back; returns what they were. Idempotent."""
        with self._lock:
            rows = self._rows.pop(endpoint_id, ())
            if rows:
                self._change(nft.unpublish(self._table, rows))
                self._check()
            return rows

    def replace(
        self, networks: Iterable[NetworkSpec], rows: Mapping[str, tuple[Published, ...]]
    ) -> None:
        """Make the table hold exactly this, in one transaction."""
        with self._lock:
            before = [row for held in self._rows.values() for row in held]
            self._networks = {spec.id: spec for spec in networks}
            self._rows = {name: held for name, held in rows.items() if held}
            self._check(before)
            self._rebuild()
            if self._guard is None:  # an engine that respected the host may have left its own
                self._run(inputguard.removal(self._table))
            self._check()
            self._tell_host()

    def rows(self) -> frozenset[Published]:
        """Everything published."""
        with self._lock:
            return frozenset(row for rows in self._rows.values() for row in rows)

    def bridges(self) -> frozenset[str]:
        """The bridges of all networks."""
        with self._lock:
            return frozenset(spec.bridge for spec in self._networks.values())

    def close(self) -> None:
        """Release the library's context. The table stays: containers outlive the daemon."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()
        with self._lock:
            if isinstance(self._runner, Nftables):
                self._runner.close()
            self._runner, self._built = None, False

    def refresh(self) -> None:
        """Somebody else changed rules: act on what the host's own say now."""
        with self._lock:
            if self._networks and self._runner is not None:
                if self._built and not self._is_there():
                    self._rebuild()
                if self._guard is not None:
                    self._guard.refresh(self._runner)
                self._tell_host()

    def _of_another_engine(self, table: str) -> bool:
        """Whether a table is that of another engine in this namespace, which minds its own."""
        return table.startswith("sampan-") and not table.startswith(self._table)

    def _is_there(self) -> bool:
        """Whether our table still is: ``nft flush ruleset`` is how many hosts load their rules."""
        if self._runner is None:
            return False
        listed = json.loads(self._runner.query("list tables"))["nftables"]
        return any(entry.get("table", {}).get("name") == self._table for entry in listed)

    def _check(self, more: Iterable[Published] = ()) -> None:
        """Have the host's input rules hold for whatever is published, and for ``more``."""
        if self._guard is not None and self._runner is not None:
            rows = [row for held in self._rows.values() for row in held]
            self._guard.update(self._runner, [*rows, *more])

    def _change(self, script: str) -> None:
        if not self._built:
            self._rebuild()
            return
        try:
            self._run(script)
        except NftError:
            # Our memory decides: bring the kernel to it, whatever was there.
            self._rebuild()

    def _rebuild(self) -> None:
        rows = [row for held in self._rows.values() for row in held]
        try:
            self._run(
                nft.everything(
                    self._table,
                    self._networks.values(),
                    rows,
                    loopback6=not bridge_netfilter(6),
                )
            )
        except OSError as error:
            raise Unavailable(f"cannot set nftables rules: {error.strerror}") from error
        self._built = True

    def _tell_host(self) -> None:
        if self._host is not None and self._runner is not None:
            closed = self._guard is not None and self._guard.closes(self._runner)
            bridges = [spec.bridge for spec in self._networks.values()]
            self._host.update(self._runner, bridges, published=closed)

    def _run(self, script: str) -> None:
        if self._runner is None:
            self._runner = self._open()
        self._runner.run(script)


class NoFirewall:
    """No rules at all (``--iptables=false``): nothing isolates networks, nothing is published."""

    def open(self) -> None:
        """Nothing is needed."""

    def close(self) -> None:
        """Nothing is held."""

    def add_network(self, spec: NetworkSpec) -> None:
        """Nothing to do: packets pass as the host lets them."""

    def remove_network(self, network_id: str) -> None:
        """Nothing was done."""

    def publish(self, endpoint_id: str, rows: tuple[Published, ...]) -> None:
        """Refuses: ports are published by rules. Raises :class:`Unsupported`."""
        if rows:
            raise Unsupported("ports cannot be published: the daemon runs with --iptables=false")

    def unpublish(self, endpoint_id: str) -> tuple[Published, ...]:
        """Nothing was published."""
        return ()

    def replace(
        self, networks: Iterable[NetworkSpec], rows: Mapping[str, tuple[Published, ...]]
    ) -> None:
        """Nothing to do."""

    def bridges(self) -> frozenset[str]:
        """None that rules are about."""
        return frozenset()

    def rows(self) -> frozenset[Published]:
        """Nothing is published."""
        return frozenset()
