"""Kernel settings of the host that bridge networks need (ip-sysctl in the kernel's docs)."""

from __future__ import annotations

import contextlib
import os

from sampan.errors import Unsupported
from sampan.kernel import netns
from sampan.network.model import NetworkSpec

#: The least every link with IPv6 must carry (RFC 8200, 5).
_IPV6_MTU = 1280


def prepare_bridge(spec: NetworkSpec, *, forwarding: bool = True) -> None:
    """Switch on what packets of this network need; values already right are not written.

    Forwarding is a setting of the whole host, as Docker's; a network that nothing leaves
    (internal) does not need it, and with ``forwarding`` False it is the host's own affair.
    Raises :class:`Unsupported` when the host forbids a setting.
    """
    if spec.ipv6 and 0 < spec.mtu < _IPV6_MTU:
        raise Unsupported(f"an MTU of {spec.mtu} is too small for IPv6: {_IPV6_MTU} is the least")
    bridge = spec.bridge.replace(".", "/")
    if spec.ipv4 and not spec.internal:
        # Lets packets from 127.0.0.1 to published ports out; only on our own bridge.
        _set(f"net.ipv4.conf.{bridge}.route_localnet", "1")
        if forwarding:
            _set("net.ipv4.ip_forward", "1")
    # A container with CAP_NET_RAW could otherwise announce itself as the host's IPv6 router, on
    # networks without IPv6 as well (CVE-2020-13401). Below an MTU of 1280 the kernel has no IPv6.
    if spec.ipv6 or os.path.exists(f"/proc/sys/net/ipv6/conf/{spec.bridge}"):
        _set(f"net.ipv6.conf.{bridge}.accept_ra", "0")
    if spec.ipv6 and not spec.internal and forwarding:
        _forward_ipv6()


def automatic_link_local(mtu: int) -> bool:
    """Whether to let the kernel give a new link of ours a link-local address: it is told not to,
    but where it has no IPv6, or not at this MTU, it refuses to be told."""
    return 0 < mtu < _IPV6_MTU or not os.path.exists("/proc/sys/net/ipv6")


def bridge_netfilter(version: int) -> bool:
    """Whether bridged packets of IP ``version`` pass the IP hooks (br_netfilter)."""
    name = "iptables" if version == 4 else "ip6tables"
    try:
        return netns.read_sysctl(f"net.bridge.bridge-nf-call-{name}") == "1"
    except OSError:  # the module is not there
        return False


def _forward_ipv6() -> None:
    if _get("net.ipv6.conf.all.forwarding") == "1":
        return
    # A forwarding host ignores router advertisements unless told to keep listening: without
    # this, the first IPv6 network would cost the host its own IPv6 route.
    for name in os.listdir("/proc/sys/net/ipv6/conf"):
        key = f"net.ipv6.conf.{name.replace('.', '/')}.accept_ra"
        with contextlib.suppress(FileNotFoundError):  # interfaces come and go
            if name not in ("all", "lo") and netns.read_sysctl(key) == "1":
                _set(key, "2")
    _set("net.ipv6.conf.all.forwarding", "1")


def _get(name: str) -> str:
    try:
        return netns.read_sysctl(name)
    except OSError as error:
        raise Unsupported(f"cannot read sysctl {name}: {error.strerror}") from error


def _set(name: str, value: str) -> None:
    if _get(name) == value:
        return
    try:
        netns.write_sysctls({name: value})
    except OSError as error:
        raise Unsupported(f"cannot set sysctl {name}={value}: {error.strerror}") from error
