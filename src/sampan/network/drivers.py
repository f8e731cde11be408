"""All drivers of one engine, by name."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.errors import NotFound
from sampan.network.bridge import BridgeDriver
from sampan.network.driver import Driver
from sampan.network.model import EndpointSpec, NetworkSpec
from sampan.network.overlay import OverlayDriver, with_room
from sampan.network.parent import ParentDriver
from sampan.network.simple import PassiveDriver


class Drivers:
    """The drivers of one engine. Opens sockets in the calling thread's namespace (the host's)."""

    def __init__(self, instance: str = "sampan") -> None:
        """``instance`` as for :class:`BridgeDriver`. Open early: see :class:`Nftables`."""
        self.bridge = BridgeDriver(instance)
        self._overlay = OverlayDriver(self.bridge, instance)
        self._parent = ParentDriver(instance)
        self._by_name: dict[str, Driver] = {
            "bridge": self.bridge,
            "overlay": self._overlay,
            "macvlan": self._parent,
            "ipvlan": self._parent,
            **{name: PassiveDriver(name) for name in ("host", "none", "null", "ns")},
        }

    def __getitem__(self, name: str) -> Driver:
        """The driver called ``name``; raises :class:`NotFound` (``plugin "x" not found``)."""
        try:
            return self._by_name[name]
        except KeyError:
            raise NotFound(f'plugin "{name}" not found') from None

    def converge(
        self, desired: Sequence[tuple[NetworkSpec, Sequence[EndpointSpec]]]
    ) -> tuple[str, ...]:
        """Every driver's :meth:`Driver.converge` with its share of ``desired``; endpoint ids
        that could not be kept."""
        share: dict[str, list[tuple[NetworkSpec, Sequence[EndpointSpec]]]] = {}
        for spec, endpoints in desired:
            share.setdefault(spec.driver, []).append((spec, endpoints))
        overlay = share.get("overlay", [])
        bridges = [*share.get("bridge", []), *((with_room(s), e) for s, e in overlay)]
        lost = self.bridge.converge(bridges)
        self._overlay.converge(overlay)
        self._parent.converge([*share.get("macvlan", []), *share.get("ipvlan", [])])
        return lost

    def close(self) -> None:
        """Release sockets and reservations; networks stay for running containers."""
        self._overlay.close()
        self._parent.close()
        self.bridge.close()
