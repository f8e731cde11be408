"""Host ports: who has which, reserved by holding a bound socket on each.

The socket makes a conflict with any program of the host visible at once, both ways. Packets for
the container never reach it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv6Address

from sampan.errors import Conflict, InvalidParameter, NoSpace, Unavailable, Unsupported
from sampan.kernel import descriptors
from sampan.network.model import IPAddress, PortBinding
from sampan.network.portholder import describe_holder

_SO_ATTACH_FILTER = 26
_DEFAULT_EPHEMERAL = (32768, 60999)


@dataclass(frozen=True, slots=True)
class _Held:
    holder: str
    name: str
    binding: PortBinding
    sockets: tuple[socket.socket, ...]


class PortReservations:
    """The host's ports as far as they are ours. Safe to use from several threads.

    Sockets are opened in the network namespace of the calling thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[tuple[str, int], list[_Held]] = {}
        self._by_holder: dict[str, list[_Held]] = {}
        self._next = 0

    def reserve(
        self,
        holder: str,
        bindings: Sequence[PortBinding],
        *,
        name: str = "",
    ) -> tuple[PortBinding, ...]:
        """Reserve all ``bindings`` for ``holder`` (an endpoint id) or none.

        ``name`` is what conflicts call it. A binding that names no address is held in both
        families. Returns the bindings with their definite host ports. Raises :class:`Conflict`
        naming who holds a port, :class:`NoSpace` when a range or the ephemeral range is used up,
        :class:`InvalidParameter` for an address not of this host.
        """
        # Asked once: the answer costs a socket.
        ipv6 = socket.has_dualstack_ipv6()
        with self._lock:
            try:
                return tuple(self._reserve_one(holder, name, binding, ipv6) for binding in bindings)
            except BaseException:
                self._release(holder)
                raise

    def release(self, holder: str) -> None:
        """Give every port of ``holder`` back. Idempotent."""
        with self._lock:
            self._release(holder)

    def keep_only(self, holders: Iterable[str]) -> None:
        """Give back the ports of everybody else."""
        kept = set(holders)
        with self._lock:
            for holder in [held for held in self._by_holder if held not in kept]:
                self._release(holder)

    def held(self, holder: str) -> tuple[PortBinding, ...]:
        """The ports ``holder`` has."""
        with self._lock:
            return tuple(held.binding for held in self._by_holder.get(holder, ()))

    def sockets_of(self, holder: str, bindings: Sequence[PortBinding]) -> list[socket.socket]:
        """The bound sockets that reserve ``bindings``, to be served until they are released.

        Ours to close: of ports there are thousands, and a duplicate each would be as many
        descriptors again. Raises :class:`KeyError` when ``holder`` does not have one.
        """
        with self._lock:
            held = {h.binding: h.sockets for h in self._by_holder.get(holder, ()) if h.sockets}
            return [held[binding][0] for binding in bindings]

    def close(self) -> None:
        """Give everything back."""
        with self._lock:
            for holder in list(self._by_holder):
                self._release(holder)

    def _reserve_one(self, holder: str, name: str, binding: PortBinding, ipv6: bool) -> PortBinding:
        if binding.host_port and not binding.host_port_end:
            return self._take(holder, name, binding, ipv6)
        if not binding.host_port:
            low, high = _ephemeral_range()
            start = self._next if low <= self._next <= high else low
            candidates = [*range(start, high + 1), *range(low, start)]
        else:
            candidates = list(range(binding.host_port, binding.host_port_end + 1))
        for port in candidates:
            wanted = replace(binding, host_port=port, host_port_end=0)
            if self._conflict(wanted) is not None:
                continue
            with contextlib.suppress(Conflict):
                taken = self._take(holder, name, wanted, ipv6)
                if not binding.host_port:
                    self._next = port + 1
                return taken
        if not binding.host_port:
            raise NoSpace("no available port in the ephemeral range")
        raise NoSpace(
            f"Bind for {_shown(binding.host_address)}:{binding.host_port}-"
            f"{binding.host_port_end} failed: all ports are allocated"
        )

    def _take(self, holder: str, name: str, binding: PortBinding, ipv6: bool) -> PortBinding:
        other = self._conflict(binding)
        shown = f"{_shown(binding.host_address)}:{binding.host_port}"
        if other is not None:
            by = f" by container {other.name}" if other.name else ""
            raise Conflict(f"Bind for {shown} failed: port is already allocated{by}")
        try:
            sockets = tuple(_bind(binding, _family(binding, ipv6)))
        except OSError as error:
            raise _bind_error(error, binding, shown) from error
        held = _Held(holder, name, binding, sockets)
        self._held.setdefault((binding.protocol, binding.host_port), []).append(held)
        self._by_holder.setdefault(holder, []).append(held)
        return binding

    def _conflict(self, binding: PortBinding) -> _Held | None:
        for held in self._held.get((binding.protocol, binding.host_port), ()):
            if _overlap(held.binding.host_address, binding.host_address):
                return held
        return None

    def _release(self, holder: str) -> None:
        for held in self._by_holder.pop(holder, ()):
            key = (held.binding.protocol, held.binding.host_port)
            self._held[key].remove(held)
            if not self._held[key]:
                del self._held[key]
            for sock in held.sockets:
                sock.close()


def _overlap(one: IPAddress | None, other: IPAddress | None) -> bool:
    if one is None or other is None:
        return True
    return one.version == other.version and (
        one == other or one.is_unspecified or other.is_unspecified
    )


def _shown(address: IPAddress | None) -> str:
    if address is None:
        return "0.0.0.0"
    return f"[{address}]" if isinstance(address, IPv6Address) else str(address)


def _ephemeral_range() -> tuple[int, int]:
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
            low, high = file.read().split()
    except OSError:
        return _DEFAULT_EPHEMERAL
    return int(low), int(high)


def _family(binding: PortBinding, ipv6: bool) -> int:
    if binding.host_address is not None:
        return socket.AF_INET if binding.host_address.version == 4 else socket.AF_INET6
    return socket.AF_INET6 if ipv6 else socket.AF_INET


def _bind(binding: PortBinding, family: int) -> Iterator[socket.socket]:
    """The socket that holds a port; none where the kernel has no SCTP (then nobody else can
    have the port either).

    Bound without SO_REUSEADDR it excludes every other program, and whoever reaches it past the
    translation is refused. Only old connections in TIME_WAIT make that impossible: then it
    listens, which excludes others as well, and is mute.
    """
    try:
        yield _bound(binding, family, listen=False)
    except OSError as error:
        if binding.protocol == "sctp" and error.errno in (
            errno.EPROTONOSUPPORT,
            errno.ESOCKTNOSUPPORT,
        ):
            return
        if error.errno != errno.EADDRINUSE or binding.protocol == "udp":
            raise
        yield _bound(binding, family, listen=True)


def _bound(binding: PortBinding, family: int, *, listen: bool) -> socket.socket:
    kind = socket.SOCK_DGRAM if binding.protocol == "udp" else socket.SOCK_STREAM
    protocol = socket.IPPROTO_SCTP if binding.protocol == "sctp" else 0
    sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    try:
        if family == socket.AF_INET6:
            # One socket holds the port for both families when no address was asked for.
            sock.setsockopt(
                socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(binding.host_address is not None)
            )
        if listen or kind == socket.SOCK_DGRAM:
            _mute(sock)
        if listen:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        unspecified = "::" if family == socket.AF_INET6 else "0.0.0.0"
        sock.bind((str(binding.host_address or unspecified), binding.host_port))
        if listen:
            sock.listen(0)
    except BaseException:
        sock.close()
        raise
    return descriptors.raised(sock)


def _mute(sock: socket.socket) -> None:
    """Attach a classic BPF program of one instruction: ``ret 0``, keep nothing of any packet."""
    program = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0), 8)
    sock.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(program))
    )


def _bind_error(
    error: OSError, binding: PortBinding, shown: str
) -> Conflict | InvalidParameter | Unavailable | Unsupported:
    if error.errno == errno.EADDRINUSE:
        holder = describe_holder(binding.protocol, binding.host_port)
        by = f" by {holder}" if holder else ""
        return Conflict(
            f"failed to bind host port {shown}/{binding.protocol}: address already in use{by}"
        )
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return InvalidParameter(
            f"failed to bind host port {shown}/{binding.protocol}: cannot assign requested address"
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return Unavailable(
            f"failed to bind host port {shown}/{binding.protocol}: too many open files"
        )
    return Unsupported(f"failed to bind host port {shown}/{binding.protocol}: {error.strerror}")
