"""All drivers of one engine, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sampan.errors import NotFound
from sampan.network.bridge import BridgeDriver
from sampan.network.driver import Driver
from sampan.network.overlay import OverlayDriver
from sampan.network.parent import ParentDriver
from sampan.network.simple import PassiveDriver


class Drivers(Mapping[str, Driver]):
    """The drivers of one engine; each looks after its own networks alone.

    Open early, while descriptor numbers are low (see :class:`sampan.kernel.nftables.Nftables`),
    in the network namespace networks are to be made in.
    """

    def __init__(self, instance: str = "sampan", *, respect_host: bool = False) -> None:
        """As :class:`BridgeDriver`: two engines on one host need different ``instance`` names."""
        self.bridge = BridgeDriver(instance, respect_host=respect_host)
        self._overlay = OverlayDriver(instance, respect_host=respect_host)
        self._macvlan = ParentDriver(instance, "macvlan")
        self._ipvlan = ParentDriver(instance, "ipvlan")
        self._by_name: dict[str, Driver] = {
            "bridge": self.bridge,
            "overlay": self._overlay,
            "macvlan": self._macvlan,
            "ipvlan": self._ipvlan,
            **{name: PassiveDriver(name) for name in ("host", "none", "null", "ns")},
        }

    def __getitem__(self, name: str) -> Driver:
        """The driver called ``name``; raises :class:`KeyError`, as mappings do."""
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def find(self, name: str) -> Driver:
        """The driver called ``name``; raises :class:`NotFound` (``plugin "x" not found``)."""
        try:
            return self._by_name[name]
        except KeyError:
            raise NotFound(f'plugin "{name}" not found') from None

    def close(self) -> None:
        """Release sockets and reservations; networks stay for running containers."""
        for driver in (self._overlay, self._macvlan, self._ipvlan, self.bridge):
            driver.close()
