"""Networks across hosts: the ``overlay`` driver, VXLAN (RFC 7348) with peers named by the user.

Each host has a bridge of the network with a VXLAN port; unknown and broadcast frames go to every
peer, addresses are learned from what comes back. Hosts share the subnet, so the user divides it
with ``--ip-range``. The way out is through each host's own bridge, so each host's network needs a
``--gateway`` of its own.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from dataclasses import replace

from sampan.errors import InvalidParameter, SampanError, StartFailed, Unsupported
from sampan.kernel import rtdump, rtnetlink
from sampan.kernel.netlink import NetlinkSocket
from sampan.kernel.rtnetlink import LinkOptions
from sampan.network.bridge import BridgeDriver, link_group
from sampan.network.hostsysctl import automatic_link_local
from sampan.network.model import (
    EndpointSpec,
    EndpointStatus,
    HostPolicy,
    NetworkSpec,
    Observation,
    PortBinding,
)

#: What VXLAN puts around a frame: Ethernet, IPv4 or IPv6, UDP, VXLAN header.
_OVERHEAD = {4: 50, 6: 70}
_DEFAULT_MTU = 1500
_PORT = 4789


def tunnel_name(spec: NetworkSpec) -> str:
    """The name of the network's VXLAN interface."""
    return f"vx-{spec.id[:12]}"


def with_room(spec: NetworkSpec) -> NetworkSpec:
    """``spec`` with an MTU that leaves room for the tunnel's headers."""
    if spec.mtu:
        return spec
    family = max((peer.version for peer in spec.peers), default=4)
    return replace(spec, mtu=_DEFAULT_MTU - _OVERHEAD[family])


class OverlayDriver:
    """The ``overlay`` driver: a bridge network with a tunnel in it.

    Implements :class:`sampan.network.driver.Driver` with the help of a bridge driver of its own,
    so that each looks after its bridges and its table alone.
    """

    def __init__(self, instance: str = "sampan", policy: HostPolicy | None = None) -> None:
        """As :class:`BridgeDriver`."""
        instance = f"{instance}-overlay"
        self._bridge = BridgeDriver(instance, policy)
        self._group = link_group(instance)
        self._lock = threading.Lock()
        self._socket = NetlinkSocket()

    def close(self) -> None:
        """Release sockets and reservations; networks stay for running containers."""
        self._socket.close()
        self._bridge.close()

    def ensure(self, spec: NetworkSpec) -> None:
        """See :meth:`Driver.ensure`; peers that changed are put right."""
        spec = with_room(spec)
        self._bridge.ensure(spec)
        self._ensure_tunnel(spec)

    def _ensure_tunnel(self, spec: NetworkSpec) -> None:
        """Put the VXLAN port into the network's bridge, sending to ``spec.peers``."""
        if len({peer.version for peer in spec.peers}) > 1:
            raise InvalidParameter(f"peers of network {spec.name} must be of one IP version")
        name = tunnel_name(spec)
        try:
            with self._lock:
                self._make(spec, name)
        except OSError as error:
            message = f"cannot make tunnel {name} of network {spec.name}: {error.strerror}"
            if error.errno == errno.EOPNOTSUPP:  # no VXLAN in this kernel
                raise Unsupported(message) from error
            raise StartFailed(message) from error

    def _make(self, spec: NetworkSpec, name: str) -> None:
        bridge = rtdump.link(self._socket, spec.bridge)
        if bridge is None:
            raise StartFailed(f"bridge {spec.bridge} of network {spec.name} is gone")
        tunnel = rtdump.link(self._socket, name)
        if tunnel is None:
            parent = rtdump.link(self._socket, spec.parent) if spec.parent else None
            if spec.parent and parent is None:
                raise InvalidParameter(f"parent interface {spec.parent} was not found on the host")
            self._socket.request(
                [
                    rtnetlink.vxlan_add(
                        name,
                        spec.vxlan_id,
                        LinkOptions(mtu=spec.mtu, group=self._group),
                        port=_PORT,
                        parent=parent.index if parent else 0,
                    )
                ]
            )
            tunnel = rtdump.link(self._socket, name)
        if tunnel is None:
            raise StartFailed(f"tunnel {name} disappeared while being created")
        wanted = set(spec.peers)
        present = set(rtdump.flood_peers(self._socket, tunnel.index))
        self._socket.request(
            [
                rtnetlink.link_set(
                    index=tunnel.index,
                    options=LinkOptions(
                        up=True, master=bridge.index, ipv6_link_local=automatic_link_local(spec.mtu)
                    ),
                ),
                *(
                    rtnetlink.fdb_append(tunnel.index, peer)
                    for peer in sorted(wanted - present, key=str)
                ),
                *(
                    rtnetlink.fdb_delete(tunnel.index, peer)
                    for peer in sorted(present - wanted, key=str)
                ),
            ]
        )

    def attach(self, spec: NetworkSpec, endpoint: EndpointSpec, netns_fd: int) -> EndpointStatus:
        """See :meth:`Driver.attach`."""
        return self._bridge.attach(with_room(spec), endpoint, netns_fd)

    def publish(self, spec: NetworkSpec, endpoint: EndpointSpec) -> tuple[PortBinding, ...]:
        """See :meth:`Driver.publish`."""
        return self._bridge.publish(with_room(spec), endpoint)

    def detach(
        self, spec: NetworkSpec, endpoint: EndpointSpec, netns_fd: int | None = None
    ) -> None:
        """See :meth:`Driver.detach`."""
        self._bridge.detach(with_room(spec), endpoint, netns_fd)

    def remove(self, spec: NetworkSpec) -> None:
        """See :meth:`Driver.remove`."""
        with self._lock:
            try:
                self._socket.request([rtnetlink.link_delete(tunnel_name(spec))])
            except OSError as error:
                raise StartFailed(
                    f"cannot remove tunnel {tunnel_name(spec)}: {error.strerror}"
                ) from error
        self._bridge.remove(with_room(spec))

    def observe(self) -> Observation:
        """See :meth:`Driver.observe`: bridges and tunnels, endpoints and ports."""
        seen = self._bridge.observe()
        return replace(seen, networks=seen.networks | self._tunnels())

    def _tunnels(self) -> frozenset[str]:
        try:
            with self._lock:
                links = rtdump.links(self._socket)
        except OSError as error:
            raise StartFailed(f"cannot list interfaces: {error.strerror}") from error
        return frozenset(
            link.name for link in links if link.group == self._group and link.kind == "vxlan"
        )

    def converge(
        self, desired: Sequence[tuple[NetworkSpec, Sequence[EndpointSpec]]]
    ) -> tuple[str, ...]:
        """See :meth:`Driver.converge`."""
        roomy = [(with_room(spec), endpoints) for spec, endpoints in desired]
        lost = self._bridge.converge(roomy)
        for spec, endpoints in roomy:
            try:
                self._ensure_tunnel(spec)
            except SampanError:
                lost += tuple(e.endpoint_id for e in endpoints if e.endpoint_id not in lost)
        strays = sorted(self._tunnels() - {tunnel_name(spec) for spec, _ in roomy})
        try:
            with self._lock:
                self._socket.request([rtnetlink.link_delete(name) for name in strays])
        except OSError as error:
            raise StartFailed(f"cannot remove left-over tunnels: {error.strerror}") from error
        return lost
