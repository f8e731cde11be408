"""All drivers of one engine, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sampan.errors import NotFound
from sampan.network import remote
from sampan.network.bridge import BridgeDriver
from sampan.network.cni import CniDriver
from sampan.network.driver import Driver
from sampan.network.journal import Journal
from sampan.network.model import EndpointSpec, HostPolicy, NetworkSpec
from sampan.network.overlay import OverlayDriver
from sampan.network.parent import ParentDriver
from sampan.network.remote import RemoteDriver
from sampan.network.simple import PassiveDriver
from sampan.plugin.client import Plugins


class Drivers(Mapping[str, Driver]):
    """The drivers of one engine; each looks after its own networks alone.

    Open early, while descriptor numbers are low (see :class:`sampan.kernel.nftables.Nftables`),
    in the network namespace networks are to be made in.
    """

    def __init__(
        self,
        instance: str = "sampan",
        *,
        policy: HostPolicy | None = None,
        plugins: Plugins | None = None,
        journals: Path | None = None,
    ) -> None:
        """As :class:`BridgeDriver`: two engines on one host need different ``instance`` names.

        Networks of ``plugins`` and of CNI need ``journals``, a durable directory.
        """
        self.bridge = BridgeDriver(instance, policy)
        self._overlay = OverlayDriver(instance, policy)
        self._macvlan = ParentDriver(instance, "macvlan")
        self._ipvlan = ParentDriver(instance, "ipvlan")
        self._by_name: dict[str, Driver] = {
            "bridge": self.bridge,
            "overlay": self._overlay,
            "macvlan": self._macvlan,
            "ipvlan": self._ipvlan,
            **{name: PassiveDriver(name) for name in ("host", "none", "null", "ns")},
        }
        self._plugins = plugins
        self._cni = CniDriver(Journal(journals / "cni")) if journals is not None else None
        self._remote: RemoteDriver | None = None
        if self._cni is not None:
            self._by_name["cni"] = self._cni
        if plugins is not None and journals is not None:
            self._remote = RemoteDriver(plugins, Journal(journals / "plugins"))

    def __getitem__(self, name: str) -> Driver:
        """The built-in driver called ``name``; raises :class:`KeyError`, as mappings do."""
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def find(self, name: str) -> Driver:
        """The driver called ``name``, a plugin's among them; raises :class:`NotFound`
        (``plugin "x" not found``)."""
        if (found := self._by_name.get(name)) is not None:
            return found
        if self._plugins is None or self._remote is None:
            raise NotFound(f'plugin "{name}" not found')
        self._plugins.find(name, remote.INTERFACE)
        return self._remote

    def holder(self, name: str) -> Driver:
        """The driver that looks after networks of driver ``name``: as :meth:`find`, but asks no
        plugin whether it is there."""
        if (found := self._by_name.get(name)) is not None:
            return found
        if self._remote is None:
            raise NotFound(f'plugin "{name}" not found')
        return self._remote

    def groups(
        self, desired: Sequence[tuple[NetworkSpec, Sequence[EndpointSpec]]]
    ) -> Iterator[tuple[str, Driver, list[tuple[NetworkSpec, Sequence[EndpointSpec]]]]]:
        """Each driver, by name, with the networks and endpoints it is to look after."""
        for name, driver in self._by_name.items():
            yield name, driver, [pair for pair in desired if pair[0].driver == name]
        if self._remote is not None:
            others = [pair for pair in desired if pair[0].driver not in self._by_name]
            yield "plugins", self._remote, others

    def close(self) -> None:
        """Release sockets and reservations; networks stay for running containers."""
        for driver in (self._overlay, self._macvlan, self._ipvlan, self.bridge):
            driver.close()
        for other in (self._cni, self._remote):
            if other is not None:
                other.close()
