"""Rate limits of an interface: a token bucket (tc-tbf(8)) as a root queue discipline.

What a container sends is limited on its own interface, what it receives on the host's end; both
are queues of outgoing packets, so nothing is dropped that could wait its turn.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from sampan.errors import InvalidParameter
from sampan.kernel import netlink
from sampan.kernel.netlink import NLM_F_CREATE, NLM_F_REPLACE, Message
from sampan.network.model import RateLimit

_RTM_NEWQDISC = 36
_TC_H_ROOT = 0xFFFFFFFF
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TBF_PARMS, _TBF_RATE64, _TBF_BURST = 1, 4, 6
_LINKLAYER_ETHERNET = 1
_TCMSG = struct.Struct("=BxxxiIII")
_RATESPEC = struct.Struct("=BBHhHI")
_U32_MAX = 0xFFFFFFFF
#: A packet after segmentation offload may be this large and must fit the bucket.
_MIN_BURST = 65536
#: How long a packet may wait in the queue, in seconds.
_LATENCY = 0.1

#: Endpoint and network options (``--network-opt``, ``docker network create -o``).
EGRESS_OPTION = "sampan.network.egress"
INGRESS_OPTION = "sampan.network.ingress"

_UNITS = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def parse_rate(text: str) -> int:
    """Bytes a second of ``10mbit`` (bits, as tc writes it) or ``5m``/``5mb`` (bytes).

    Raises :class:`InvalidParameter`.
    """
    lowered = text.strip().lower()
    digits = lowered.rstrip("abcdefghijklmnopqrstuvwxyz/")
    unit = lowered[len(digits) :]
    bits = unit.endswith("bit")
    scale = _UNITS.get(unit.removesuffix("it").removesuffix("b") if bits else unit)
    if not digits.isdecimal() or scale is None or int(digits) == 0:
        raise InvalidParameter(f"invalid rate {text!r}: expected a number and kbit, mbit, k, m, g")
    return max(1, int(digits) * scale // (8 if bits else 1))


def limits_of(*tables: Mapping[str, str]) -> RateLimit:
    """The limits in options of an endpoint and of its network, the first that has one."""
    options: dict[str, str] = {}
    for table in reversed(tables):
        options |= table
    return RateLimit(
        egress=parse_rate(options[EGRESS_OPTION]) if options.get(EGRESS_OPTION) else 0,
        ingress=parse_rate(options[INGRESS_OPTION]) if options.get(INGRESS_OPTION) else 0,
    )


def limit_message(index: int, rate: int) -> Message:
    """Limit what leaves through the link ``index`` to ``rate`` bytes a second."""
    burst = max(_MIN_BURST, rate // 100)
    queue = burst + int(rate * _LATENCY)
    ratespec = _RATESPEC.pack(0, _LINKLAYER_ETHERNET, 0, 0, 0, min(rate, _U32_MAX))
    parameters = ratespec + bytes(_RATESPEC.size) + struct.pack("=III", queue, 0, 0)
    options = [netlink.attribute(_TBF_PARMS, parameters), netlink.u32(_TBF_BURST, burst)]
    if rate > _U32_MAX:
        options.append(netlink.attribute(_TBF_RATE64, struct.pack("=Q", rate)))
    return Message(
        type=_RTM_NEWQDISC,
        flags=NLM_F_CREATE | NLM_F_REPLACE,
        body=_TCMSG.pack(0, index, 0, _TC_H_ROOT, 0)
        + netlink.text(_TCA_KIND, "tbf")
        + netlink.nested(_TCA_OPTIONS, *options),
        what=f"limit link {index}",
    )
