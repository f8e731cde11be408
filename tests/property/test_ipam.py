"""Addresses and subnets are never handed out twice, and only ones that may be."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import Conflict, InvalidParameter, NoSpace
from sampan.network import ipam
from sampan.network.ipam import Pool, allocate, choose_subnet, make_subnet, usable
from sampan.network.model import IPAddress, IPNetwork, Subnet

networks = st.one_of(
    st.builds(
        lambda n, p: ip_network((n, p), strict=False),
        st.integers(0, 2**32 - 1),
        st.integers(25, 30),
    ),
    st.builds(
        lambda n, p: ip_network((n, p), strict=False),
        st.integers(2**32, 2**128 - 1),
        st.integers(121, 126),
    ),
)


@st.composite
def subnets(draw: st.DrawFn) -> Subnet:
    prefix: IPNetwork = draw(networks)
    ip_range = None
    if draw(st.booleans()):
        length = draw(st.integers(prefix.prefixlen, prefix.max_prefixlen - 2))
        address = draw(st.integers(int(prefix[0]), int(prefix[-1])))
        ip_range = ip_network((address, length), strict=False)
    auxiliary = draw(st.lists(st.integers(0, prefix.num_addresses - 1), max_size=2))
    return make_subnet(
        prefix,
        ip_range=ip_range,
        auxiliary={str(i): prefix[i] for i in auxiliary},
        with_gateway=draw(st.booleans()) and len(auxiliary) < 2,
    )


@given(subnets())
def test_every_address_once_and_no_other(subnet: Subnet) -> None:
    used: set[IPAddress] = set()
    area = subnet.ip_range or subnet.prefix
    while True:
        try:
            address = allocate(subnet, used)
        except NoSpace:
            break
        assert address not in used
        assert address in area
        assert address != subnet.gateway
        assert address not in subnet.auxiliary.values()
        assert address != subnet.prefix.network_address
        assert subnet.prefix.version == 6 or address != subnet.prefix.broadcast_address
        used.add(address)
    assert len(used) == usable(subnet)


@given(subnets(), st.integers(0, 2**10))
def test_requested_addresses_are_given_or_refused(subnet: Subnet, index: int) -> None:
    wanted = subnet.prefix[index % subnet.prefix.num_addresses]
    try:
        assert allocate(subnet, (), wanted) == wanted
    except Conflict:
        assert wanted == subnet.gateway or wanted in subnet.auxiliary.values()
    except InvalidParameter:
        assert wanted in (subnet.prefix[0], subnet.prefix[-1])
    with pytest.raises((Conflict, InvalidParameter)):
        allocate(subnet, {wanted}, wanted)


small = st.builds(
    lambda n, p: ip_network((0x0A000000 + n, p), strict=False),
    st.integers(0, 2**12 - 1),
    st.integers(20, 32),
)


@given(st.lists(small, max_size=12))
def test_chosen_subnets_overlap_nothing_and_are_the_first_free(taken: list[IPNetwork]) -> None:
    pools = (Pool(ip_network("10.0.0.0/21"), 26), Pool(ip_network("10.0.8.0/22"), 24))
    every = [s for pool in pools for s in pool.base.subnets(new_prefix=pool.size)]
    free = [s for s in every if not any(s.overlaps(t) for t in taken)]  # type: ignore[arg-type]
    if free:
        assert choose_subnet(pools, taken, 4) == free[0]
    else:
        with pytest.raises(NoSpace):
            choose_subnet(pools, taken, 4)


def test_default_pools_and_overlap_errors() -> None:
    first = choose_subnet(ipam.DEFAULT_POOLS, [ip_network("172.17.0.0/24")], 4)
    assert first == ip_network("172.18.0.0/16")
    pool = ipam.ula_pool(b"machine")
    assert pool.base.is_private
    assert choose_subnet([pool], [], 6).prefixlen == 64
    assert Pool.parse("base=172.30.0.0/16,size=24").size == 24
    for text in ("base=172.30.0.0/16", "base=x,size=24", "base=172.30.0.0/16,size=8", "a=b"):
        with pytest.raises(InvalidParameter):
            Pool.parse(text)
    with pytest.raises(Conflict, match="Pool overlaps"):
        ipam.check_free([Subnet(prefix=ip_network("10.0.0.0/8"))], [ip_network("10.9.0.0/16")])
    with pytest.raises(InvalidParameter, match="not in subnet"):
        Subnet(prefix=ip_network("10.0.0.0/24"), gateway=ip_address("10.0.1.1"))
