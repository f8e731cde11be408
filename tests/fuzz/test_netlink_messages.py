"""Netlink packing and parsing: what was packed is read back, damaged bytes are a ValueError."""

from __future__ import annotations

import contextlib
import errno
import struct

from hypothesis import given
from hypothesis import strategies as st

from sampan.kernel import netlink, rtdump


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40), max_size=8))
def test_attributes_are_read_back(values: dict[int, bytes]) -> None:
    data = b"".join(netlink.attribute(kind, payload) for kind, payload in values.items())
    assert len(data) % 4 == 0
    assert netlink.attributes(data) == values
    assert netlink.attributes(netlink.nested(5, data)) == {5: data}


@given(st.binary(max_size=120))
def test_damaged_messages(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        for _, flags, _, body in netlink.messages(data):
            with contextlib.suppress(ValueError, struct.error):
                netlink.failure(flags, body, "x")
            with contextlib.suppress(ValueError, struct.error):
                rtdump.parse_link(body)


def test_kernels_own_words_are_in_the_error() -> None:
    body = struct.pack("=i", -errno.EINVAL) + bytes(16) + netlink.text(1, "MTU too small")
    error = netlink.failure(netlink.NLM_F_ACK_TLVS, body, "set link eth0")
    assert str(error) == "[Errno 22] Invalid argument (MTU too small): 'set link eth0'"
    assert netlink.failure(0, bytes(20), "x") is None
