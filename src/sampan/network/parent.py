"""Networks on an interface of the host: the ``macvlan`` and ``ipvlan`` drivers.

A container's interface is a child of the host's ``parent``; there is no bridge, no translation
and no way between the host itself and its containers (macvlan's nature). ``eth0.50`` as parent
means VLAN 50 on eth0, made when it is missing. Without a parent (or internal) containers only
reach each other, through a link of ours.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterator, Sequence

from sampan.errors import Conflict, InvalidParameter, SampanError, StartFailed, Unsupported
from sampan.kernel import rtdump, rtnetlink
from sampan.kernel.netlink import Message, NetlinkSocket
from sampan.kernel.rtnetlink import LinkOptions
from sampan.network import interface
from sampan.network.bridge import link_group
from sampan.network.hostsysctl import automatic_link_local
from sampan.network.model import (
    EndpointSpec,
    EndpointStatus,
    NetworkSpec,
    Observation,
    PortBinding,
)

_FLAG_OPTION = "ipvlan_flag"


def own_parent(spec: NetworkSpec) -> str:
    """The name of the parent we make when none was given."""
    return f"dm-{spec.id[:12]}"


def vlan_of(parent: str) -> tuple[str, int] | None:
    """``eth0.50`` as ("eth0", 50); ``None`` when the name is not of that form."""
    base, dot, number = parent.rpartition(".")
    if dot and base and number.isdecimal() and 0 < int(number) < 4095:
        return base, int(number)
    return None


class ParentDriver:
    """``macvlan`` or ``ipvlan``; implements :class:`sampan.network.driver.Driver`."""

    def __init__(self, instance: str = "sampan", name: str = "macvlan") -> None:
        """``name`` is the driver's; parents it made are told by it and ``instance``."""
        self._name = name
        self._group = link_group(f"{instance}-{name}")
        self._lock = threading.Lock()
        self._socket = NetlinkSocket()

    def close(self) -> None:
        """Close the driver's socket; interfaces stay."""
        self._socket.close()

    def ensure(self, spec: NetworkSpec) -> None:
        """See :meth:`Driver.ensure`."""
        name = spec.parent or own_parent(spec)
        if name == "lo":
            raise InvalidParameter(f"loopback interface is not a valid {self._name} parent link")
        with self._lock, _translated(f"cannot prepare parent {name}"):
            self._check_supported()
            if rtdump.link(self._socket, name) is not None:
                return
            if not spec.parent:
                # One end of a pair: always has a carrier; not every kernel has dummy links.
                options, peer = LinkOptions(group=self._group), f"dp-{spec.id[:12]}"
                up = LinkOptions(up=True, ipv6_link_local=automatic_link_local(0))
                self._socket.request(
                    [
                        rtnetlink.veth_add(name, options, peer, options),
                        rtnetlink.link_set(name, up),
                        rtnetlink.link_set(peer, up),
                    ]
                )
                return
            vlan = vlan_of(spec.parent)
            base = rtdump.link(self._socket, vlan[0]) if vlan else None
            if vlan is None or base is None:
                raise InvalidParameter(f"parent interface {name} was not found on the host")
            options = LinkOptions(up=True, group=self._group)
            self._socket.request([rtnetlink.vlan_add(name, base.index, vlan[1], options)])

    def _check_supported(self) -> None:
        """Refuse at once what no container could be connected to.

        A kernel that knows such interfaces asks for the parent next, which nobody names here.
        """
        options = LinkOptions()
        if self._name == "ipvlan":
            message = rtnetlink.ipvlan_add("probe", 0, "l2", "bridge", options)
        else:
            message = rtnetlink.macvlan_add("probe", 0, "bridge", options)
        [error] = self._socket.attempt([message])
        if error is not None and error.errno == errno.EOPNOTSUPP:
            raise Unsupported(f"this kernel has no {self._name} interfaces")

    def attach(self, spec: NetworkSpec, endpoint: EndpointSpec, netns_fd: int) -> EndpointStatus:
        """See :meth:`Driver.attach`. Ports are not published: the container has its own address
        on the parent's network."""
        name = spec.parent or own_parent(spec)
        with self._lock, _translated(f"cannot connect to network {spec.name}"):
            parent = rtdump.link(self._socket, name)
            if parent is None:
                raise StartFailed(f"parent interface {name} of network {spec.name} is gone")
            mac = "" if spec.driver == "ipvlan" else endpoint.mac or interface.default_mac(endpoint)
            message = _child(spec, endpoint, parent.index, mac, netns_fd)
            self._socket.request([message])
        interface.configure(netns_fd, endpoint, mac_is_derived=not endpoint.mac)
        return EndpointStatus(interface=endpoint.interface, mac=mac or parent.mac)

    def publish(self, spec: NetworkSpec, endpoint: EndpointSpec) -> tuple[PortBinding, ...]:
        """See :meth:`Driver.publish`: nothing is published."""
        return ()

    def detach(
        self, spec: NetworkSpec, endpoint: EndpointSpec, netns_fd: int | None = None
    ) -> None:
        """See :meth:`Driver.detach`. The interface ends with its namespace."""
        if netns_fd is not None:
            interface.delete(netns_fd, endpoint.interface)

    def remove(self, spec: NetworkSpec) -> None:
        """See :meth:`Driver.remove`. The parent goes when it was made by us."""
        name = spec.parent or own_parent(spec)
        with self._lock, _translated(f"cannot remove {name}"):
            link = rtdump.link(self._socket, name)
            if link is not None and link.group == self._group:
                self._socket.request([rtnetlink.link_delete(name)])

    def observe(self) -> Observation:
        """See :meth:`Driver.observe`: the parents made by us."""
        with self._lock, _translated("cannot list interfaces"):
            links = rtdump.links(self._socket)
        return Observation(
            networks=frozenset(
                link.name
                for link in links
                if link.group == self._group
                and (link.kind == "vlan" or link.name.startswith("dm-"))
            )
        )

    def converge(
        self, desired: Sequence[tuple[NetworkSpec, Sequence[EndpointSpec]]]
    ) -> tuple[str, ...]:
        """See :meth:`Driver.converge`. Endpoints live in their namespaces alone; those whose parent
        cannot be made again are lost."""
        lost: list[str] = []
        for spec, endpoints in desired:
            try:
                self.ensure(spec)
            except SampanError:
                lost.extend(endpoint.endpoint_id for endpoint in endpoints)
        wanted = {spec.parent or own_parent(spec) for spec, _ in desired}
        strays = sorted(self.observe().networks - wanted)
        with self._lock, _translated("cannot remove left-over interfaces"):
            self._socket.request([rtnetlink.link_delete(name) for name in strays])
        return tuple(lost)


def _child(
    spec: NetworkSpec, endpoint: EndpointSpec, parent: int, mac: str, netns_fd: int
) -> Message:
    options = LinkOptions(netns_fd=netns_fd, mac=mac, mtu=spec.mtu)
    if spec.driver == "ipvlan":
        flag = spec.options.get(_FLAG_OPTION, "bridge")
        return rtnetlink.ipvlan_add(endpoint.interface, parent, spec.mode, flag, options)
    return rtnetlink.macvlan_add(endpoint.interface, parent, spec.mode, options)


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        detail = f"{what}: {error.strerror}" + (f" ({error.filename})" if error.filename else "")
        # "Unknown device type" is EOPNOTSUPP: the kernel was built without the driver.
        if error.errno == errno.EOPNOTSUPP:
            raise Unsupported(f"{what}: this kernel cannot {error.filename}") from error
        if error.errno in (errno.EBUSY, errno.EEXIST):
            raise Conflict(detail) from error
        raise StartFailed(detail) from error
