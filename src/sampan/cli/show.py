"""How single values of API objects are shown: ids, names, ports, labels, ages."""

from __future__ import annotations

from sampan.cli.clock import NANOSECONDS, now
from sampan.cli.units import human_duration
from sampan.client.document import number, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.client.document import Document

SHORT_ID = 12


def short_id(identity: str) -> str:
    """The first twelve digits of an id, its algorithm left out."""
    return identity.partition(":")[2][:SHORT_ID] if ":" in identity else identity[:SHORT_ID]


def ellipsis(content: str, length: int) -> str:
    """``content`` cut to ``length`` characters, the last of which then is an ellipsis."""
    if len(content) <= length:
        return content
    return content[: length - 1] + "…" if length > 1 else content[:length]


def labels_text(labels: Mapping[str, str]) -> str:
    """``a=b,c=d`` in the order of the keys."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def since(instant: int) -> str:
    """``3 hours ago`` for an instant in nanoseconds."""
    return f"{human_duration((now() - instant) / NANOSECONDS)} ago"


def host_port(address: str, port: int | str) -> str:
    """``0.0.0.0:80`` or ``[::]:80``."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def ports_text(ports: list[Document]) -> str:
    """The ports of a container as ``ps`` shows them, neighbours joined to ranges."""

    def order(port: Document) -> tuple[int, str, int, str]:
        public, private = number(port, "PublicPort"), number(port, "PrivatePort")
        return private, text(port, "IP"), public, text(port, "Type")

    groups: dict[tuple[str, str], list[int]] = {}
    ranges: list[str] = []
    mapped: list[str] = []
    for port in sorted(ports, key=order):
        private, address, public, kind = order(port)
        if address and public != private:
            mapped.append(f"{host_port(address, public)}->{private}/{kind}")
            continue
        key = (address, kind)
        group = groups.get(key)
        if group is None:
            groups[key] = [private, private]
        elif private == group[1] + 1:
            group[1] = private
        else:
            ranges.append(_range_text(key, group))
            groups[key] = [private, private]
    ranges += [_range_text(key, group) for key, group in sorted(groups.items())]
    return ", ".join(ranges + mapped)


def _range_text(key: tuple[str, str], group: list[int]) -> str:
    address, kind = key
    first, last = group
    span = str(first) if first == last else f"{first}-{last}"
    lead = f"{host_port(address, span)}->" if address else ""
    return f"{lead}{span}/{kind}"
