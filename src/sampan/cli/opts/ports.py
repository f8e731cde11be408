"""``-p`` and ``--expose``.

publish ::= [ [ ip ":" ] [ range ] ":" ] range [ "/" protocol ]
          | CSV of target= published= protocol= mode=
range   ::= port [ "-" port ]
"""

from __future__ import annotations

from typing import NamedTuple

from sampan.cli.fault import CliError
from sampan.cli.kinds import parse_ip

_PROTOCOLS = ("tcp", "udp", "sctp")


class Published(NamedTuple):
    """One container port and where it is published; an empty host port is chosen at start."""

    port: str
    host_ip: str
    host_port: str


def parse_port_range(text: str) -> tuple[int, int]:
    """First and last of a range. Raises ``ValueError``."""
    first, dash, last = text.partition("-")
    if not text:
        raise ValueError("empty string specified for ports")
    bounds = []
    for part in (first, last if dash else first):
        if not part.isdecimal():
            raise ValueError(f'strconv.ParseUint: parsing "{part}": invalid syntax')
        if int(part) > 65535:
            raise ValueError(f'strconv.ParseUint: parsing "{part}": value out of range')
        bounds.append(int(part))
    if bounds[1] < bounds[0]:
        raise ValueError(f"invalid range specified for port: {text}")
    return bounds[0], bounds[1]


def parse_publish(text: str) -> list[Published]:
    """The ports of one ``-p``. Raises :class:`CliError`."""
    if "=" in text:
        text = _from_long_form(text)
    address, host, container = _split(text)
    container, slash, protocol = container.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if not container:
        raise CliError(f"no port specified: {text}<empty>")
    address = _host_address(address)
    first, last = _range(container, "containerPort")
    if protocol not in _PROTOCOLS:
        raise CliError(f"invalid proto: {protocol}")
    if not host:
        return [Published(f"{port}/{protocol}", address, "") for port in range(first, last + 1)]
    host_first, host_last = _range(host, "hostPort")
    if last - first != host_last - host_first:
        if last != first:
            message = "invalid ranges specified for container and host Ports"
            raise CliError(f"{message}: {container} and {host}")
        return [Published(f"{first}/{protocol}", address, host)]
    return [
        Published(f"{first + step}/{protocol}", address, str(host_first + step))
        for step in range(last - first + 1)
    ]


def _range(text: str, name: str) -> tuple[int, int]:
    try:
        return parse_port_range(text)
    except ValueError:
        raise CliError(f"invalid {name}: {text}") from None


def _host_address(address: str) -> str:
    if not address:
        return ""
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    try:
        return parse_ip(bare)
    except ValueError:
        raise CliError(f"invalid IP address: {address}") from None


def _split(text: str) -> tuple[str, str, str]:
    """Host address, host port and container port of the short form."""
    rest, colon, container = text.rpartition(":")
    if not colon:
        return "", "", text
    address, colon, host = rest.rpartition(":")
    if not colon:
        return "", host, container
    return address, host, container


def _from_long_form(text: str) -> str:
    fields = {}
    for field in text.split(","):
        name, equals, value = field.partition("=")
        if not equals or not value:
            raise CliError(f"invalid field: {field}")
        fields[name.lower()] = value
    for name in fields:
        if name not in ("target", "published", "protocol", "mode"):
            raise CliError(f"invalid field key: {name}")
    if fields.get("mode", "ingress") != "ingress":
        mode = f"mode={fields['mode']}"
        raise CliError(f"unsupported publish mode for a container: {mode}")
    if "target" not in fields:
        raise CliError(f"missing mandatory field 'target' in {text}")
    published = f"{fields['published']}:" if "published" in fields else ""
    return f"{published}{fields['target']}/{fields.get('protocol', 'tcp')}"


def parse_expose(text: str) -> list[str]:
    """The container ports of one ``--expose``. Raises :class:`CliError`."""
    if ":" in text:
        raise CliError(f"invalid port format for --expose: {text}")
    span, slash, protocol = text.partition("/")
    try:
        first, last = parse_port_range(span)
    except ValueError as error:
        raise CliError(f"invalid range format for --expose: {text}, error: {error}") from error
    protocol = protocol.lower() if slash else "tcp"
    return [f"{port}/{protocol}" for port in range(first, last + 1)]
