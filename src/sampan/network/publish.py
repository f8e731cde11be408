"""Published ports as the API writes them, to and from :class:`PortBinding` (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sampan.errors import InvalidParameter
from sampan.network.ipam import parse_address
from sampan.network.model import PROTOCOLS, IPAddress, PortBinding
from sampan.wire import container as wire


def parse_port(text: str) -> tuple[int, str]:
    """``80`` or ``80/tcp`` as (80, "tcp"); raises :class:`InvalidParameter`."""
    number, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if not number.isdecimal() or not 0 < int(number) < 65536 or protocol not in PROTOCOLS:
        raise InvalidParameter(f"invalid port specification: {text!r}")
    return int(number), protocol


def parse_range(text: str) -> tuple[int, int]:
    """A host port ``8080``, range ``8000-8010`` or "" (0, 0) as (first, last or 0)."""
    if not text:
        return 0, 0
    first, dash, last = text.partition("-")
    if (
        not first.isdecimal()
        or int(first) > 65535
        or (dash and (not last.isdecimal() or not int(first) <= int(last) <= 65535))
    ):
        raise InvalidParameter(f"invalid host port: {text!r}")
    return int(first), int(last) if dash and int(last) > int(first) else 0


def port_bindings(
    bindings: Mapping[str, Sequence[wire.PortBinding] | None] | None,
    exposed: Iterable[str] = (),
    *,
    publish_all: bool = False,
) -> tuple[PortBinding, ...]:
    """What ``HostConfig.PortBindings`` and ``PublishAllPorts`` ask for.

    ``exposed`` are the keys of the configuration's ``ExposedPorts``. Raises
    :class:`InvalidParameter` naming the entry that is wrong.
    """
    result: list[PortBinding] = []
    seen = set()
    for key, entries in (bindings or {}).items():
        port, protocol = parse_port(key)
        seen.add((port, protocol))
        for entry in entries or [wire.PortBinding()]:
            first, last = parse_range(entry.host_port or "")
            result.append(
                PortBinding(
                    container_port=port,
                    protocol=protocol,
                    host_address=parse_address(entry.host_ip) if entry.host_ip else None,
                    host_port=first,
                    host_port_end=last,
                )
            )
    if publish_all:
        wanted = sorted({parse_port(key) for key in exposed} - seen)
        result.extend(PortBinding(container_port=p, protocol=proto) for p, proto in wanted)
    return tuple(result)


def port_map(
    ports: Iterable[PortBinding],
    exposed: Iterable[str] = (),
    *,
    ipv4: bool = True,
    ipv6: bool = False,
    relayed: bool = False,
) -> dict[str, list[wire.PortBinding] | None]:
    """``NetworkSettings.Ports`` of a running container: exposed ports that are not published
    are null, a publication without an address shows once for each family it is reached by.

    ``ipv4`` and ``ipv6`` say what addresses the container has; one with IPv4 alone is reached
    by IPv6 too where ports are ``relayed`` (:mod:`sampan.network.relay`).
    """
    result: dict[str, list[wire.PortBinding] | None] = {}
    for key in exposed:
        port, protocol = parse_port(key)
        result[f"{port}/{protocol}"] = None
    for binding in ports:
        entries = result.get(key := f"{binding.container_port}/{binding.protocol}") or []
        shown = str(binding.host_port) if binding.host_port else ""
        addresses = (
            [str(binding.host_address)]
            if binding.host_address is not None
            else _everywhere(binding, ipv4=ipv4, ipv6=ipv6, relayed=relayed)
        )
        entries.extend(wire.PortBinding(host_ip=address, host_port=shown) for address in addresses)
        result[key] = entries
    return result


def _everywhere(binding: PortBinding, *, ipv4: bool, ipv6: bool, relayed: bool) -> list[str]:
    relayed = relayed and binding.host_port != 0 and binding.protocol != "sctp"
    return ["0.0.0.0"] * ipv4 + ["::"] * (ipv6 or relayed)


def default_address(ports: Iterable[PortBinding], address: IPAddress) -> tuple[PortBinding, ...]:
    """``ports`` with publications that name no address moved to ``address`` (the daemon option
    that keeps them on 127.0.0.1)."""
    return tuple(
        PortBinding(
            container_port=b.container_port,
            protocol=b.protocol,
            host_address=b.host_address if b.host_address is not None else address,
            host_port=b.host_port,
            host_port_end=b.host_port_end,
        )
        for b in ports
    )
