"""Any bytes at all: extracted inside, or refused as an error of ours; never anything else."""

from __future__ import annotations

import gzip
import io
import os
import tempfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sampan.content.store import FileStore
from sampan.errors import SampanError
from sampan.image import load
from sampan.layer import Destination, Limits, Whiteouts, apply
from sampan.layer.entry import Entry, format_entry, parse_header, parse_pax
from sampan.layer.reader import TarReader
from sampan.layer.source import Incoming, Source, decompress
from tests.archives import DIRECTORY, LINK, SYMLINK, docker_archive, member, oci_archive, tar

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners need root")
SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
LIMITS = Limits(size=16 << 20, expanded=64 << 20, entries=1000, header=1 << 16)

SAMPLE = tar(
    member("d", type=DIRECTORY, mode=0o755),
    member("d/file", b"some text" * 100),
    member("d/link", type=SYMLINK, link="file"),
    member("d/hard", type=LINK, link="d/file"),
    member("d/" + "n" * 120, b"x", mtime="1.5"),
    member("d/.wh.gone"),
    member("d/sparse", b"0123", **{"GNU.sparse.map": "0,4", "GNU.sparse.size": "99"}),
)


@st.composite
def mutations(draw: st.DrawFn, original: bytes) -> bytes:
    """``original`` with bytes changed, cut out, doubled or cut off."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        action = draw(st.sampled_from(["set", "set", "text", "cut", "double", "end"]))
        if action == "set" and data:
            data[at] = draw(st.integers(0, 255))
        elif action == "text":
            text = draw(
                st.sampled_from([b"../", b"/", b"\0", b"7777777", b"\x80\xff", b"-1", b"="])
            )
            data[at : at + len(text)] = text
        elif action == "cut":
            del data[at : at + draw(st.sampled_from([1, 512, 1000]))]
        elif action == "double":
            data[at:at] = data[at : at + 512]
        elif action == "end":
            del data[at:]
    return bytes(data)


def fixed(data: bytes) -> bytes:
    """``data`` with every header's checksum put right, so that more of it is looked at."""
    out = bytearray(data)
    for start in range(0, len(out) - 511, 512):
        block = out[start : start + 512]
        if block[257:262] == b"ustar":
            block[148:156] = b"        "
            out[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    return bytes(out)


def one_sentence(error: SampanError) -> None:
    assert "\n" not in error.message


def extract(data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="sampan-fuzz-") as directory:
        root = Path(directory, "root")
        root.mkdir()
        for whiteouts in Whiteouts:
            try:
                apply(io.BytesIO(data), Destination(root=root, whiteouts=whiteouts), limits=LIMITS)
            except SampanError as error:
                one_sentence(error)
        assert os.listdir(directory) == ["root"]


@given(mutations(SAMPLE).map(fixed))
@SETTINGS
def test_mutated_tar(data: bytes) -> None:
    extract(data)


@given(
    st.one_of(
        mutations(gzip.compress(SAMPLE, mtime=0)),
        mutations(zstandard.compress(SAMPLE)),
        st.binary(max_size=2000),
    )
)
@SETTINGS
def test_mutated_compression(data: bytes) -> None:
    extract(data)


@given(
    st.one_of(
        mutations(docker_archive(SAMPLE)).map(fixed), mutations(oci_archive(SAMPLE)).map(fixed)
    )
)
@settings(SETTINGS, max_examples=80)
def test_mutated_images(data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="sampan-fuzz-") as directory:
        content = FileStore(Path(directory))
        try:
            load(io.BytesIO(data), content, limits=LIMITS)
        except SampanError as error:
            one_sentence(error)
            kept = list(content.walk())
        else:
            kept = []
        assert kept == []
        assert list(Path(directory, "ingest").iterdir()) == []


@given(st.binary(max_size=300))
@SETTINGS
def test_any_pax_header(data: bytes) -> None:
    try:
        parse_pax(data)
    except SampanError:
        return


@given(
    st.binary(min_size=512, max_size=512).map(
        lambda block: fixed(block[:257] + b"ustar" + block[262:])
    )
)
@SETTINGS
def test_any_header(block: bytes) -> None:
    try:
        parse_header(block)
    except SampanError:
        return


_bytes = st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name)


@given(
    st.builds(
        Entry,
        name=_bytes.filter(lambda name: not name.endswith(b"/")),
        type=st.sampled_from([b"0", b"2", b"3", b"4", b"6"]),
        mode=st.integers(0, 0o7777),
        uid=st.integers(0, 2**32 - 2),
        gid=st.integers(0, 2**32 - 2),
        mtime=st.integers(-(10**18), 10**19),
        link=_bytes,
        xattrs=st.dictionaries(_bytes, st.binary(max_size=50), max_size=3),
    )
)
@SETTINGS
def test_headers_survive(entry: Entry) -> None:
    if entry.type in (b"3", b"4"):
        entry.major, entry.minor = 4095, 1 << 20
    data = format_entry(entry)
    incoming = Incoming(io.BytesIO(data + bytes(1024)), hashed=False)
    (found,) = list(TarReader(Source(decompress(incoming), LIMITS, incoming), LIMITS))
    found.pax = {}
    assert found == entry
