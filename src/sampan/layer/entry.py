"""Tar entries and their 512-byte headers, both ways; pure functions over bytes.

Names are bytes: a layer may hold any. Formats read: v7, POSIX ustar, pax (local and global
records, POSIX.1-2008 "pax interchange format"), GNU (long names, base-256 numbers, sparse) and
star. Formats written: ustar, with pax records when a value does not fit.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sampan.errors import ArchiveRefused

BLOCK = 512
NUL_BLOCK = bytes(BLOCK)

REGULAR, OLD_REGULAR, CONTIGUOUS = b"0", b"\0", b"7"
HARD_LINK, SYMBOLIC_LINK = b"1", b"2"
CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"3", b"4", b"5", b"6"
PAX, PAX_GLOBAL, PAX_SOLARIS = b"x", b"g", b"X"
GNU_LONG_NAME, GNU_LONG_LINK, GNU_SPARSE, GNU_VOLUME = b"L", b"K", b"S", b"V"

REGULAR_TYPES = frozenset((REGULAR, OLD_REGULAR, CONTIGUOUS, GNU_SPARSE))
#: Types whose size field counts no data, whatever it says.
WITHOUT_DATA = frozenset((HARD_LINK, SYMBOLIC_LINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO))

XATTR_PREFIX = b"SCHILY.xattr."

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_CHECKSUM_FIELD = slice(148, 156)
_MAX_NUMBER = 1 << 62


@dataclass(slots=True, kw_only=True)
class Entry:
    """One member of an archive.

    ``size`` is of the file as extracted; ``stored`` the bytes in the archive, which differ only
    for sparse files, whose data segments ``sparse`` lists as (offset, length). ``mtime`` is in
    nanoseconds since the epoch. Filled by the reader field by field, never changed afterwards.
    """

    name: bytes
    type: bytes = REGULAR
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    stored: int = 0
    mtime: int = 0
    link: bytes = b""
    uname: bytes = b""
    gname: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    sparse: tuple[tuple[int, int], ...] | None = None
    pax: Mapping[bytes, bytes] = field(default_factory=dict)


def parse_number(raw: bytes) -> int:
    """A numeric field: octal digits, or base-256 when the first bit is set (GNU tar manual)."""
    first = raw[0]
    if first & 0x80:
        if first & 0x40:
            value = int.from_bytes(raw, "big", signed=True)
        else:
            value = int.from_bytes(raw, "big") & ((1 << (8 * len(raw) - 1)) - 1)
        if not -_MAX_NUMBER < value < _MAX_NUMBER:
            raise ArchiveRefused("malformed tar: a number in a header is out of range")
        return value
    digits = raw.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    try:
        if digits.isdigit():  # int() would take signs and underscores
            return int(digits, 8)
    except ValueError:
        pass
    raise ArchiveRefused(f"malformed tar: {digits!r} is not an octal number")


def parse_header(block: bytes) -> tuple[Entry, bytes]:
    """The entry in a header block and its magic; raises ArchiveRefused.

    ``stored`` is the data's length as the header says it.
    """
    (
        name, mode, uid, gid, size, mtime, checksum, kind,
        link, magic, uname, gname, major, minor, prefix,
    ) = _HEADER.unpack(block)  # fmt: skip
    expected = parse_number(checksum)
    actual = sum(block) - sum(checksum) + 256  # the field counts as spaces
    if actual != expected and _signed_sum(block) != expected:
        raise ArchiveRefused("malformed tar: the checksum of a header is wrong")
    name = name.partition(b"\0")[0]
    if magic == b"ustar\x0000" and prefix[0]:
        if block[508:512] == b"tar\0":  # star keeps times in the prefix's last 24 bytes
            prefix = prefix[:131]
        prefix = prefix.partition(b"\0")[0]
        if prefix:
            name = prefix + b"/" + name
    length = parse_number(size)
    if length < 0:
        raise ArchiveRefused("malformed tar: negative size")
    entry = Entry(
        name=name,
        type=kind,
        mode=parse_number(mode) & 0o7777,
        uid=parse_number(uid),
        gid=parse_number(gid),
        size=length,
        stored=length,
        mtime=parse_number(mtime) * 1_000_000_000,
        link=link.partition(b"\0")[0],
        uname=uname.partition(b"\0")[0],
        gname=gname.partition(b"\0")[0],
    )
    if kind in (CHARACTER, BLOCK_DEVICE):
        entry.major, entry.minor = parse_number(major), parse_number(minor)
    return entry, magic


def _signed_sum(block: bytes) -> int:
    """The checksum as tars with signed characters computed it (tar(5), "Header")."""
    blank = block[:148] + b" " * 8 + block[156:]
    return sum(byte - 256 if byte > 127 else byte for byte in blank)


def parse_pax(data: bytes) -> list[tuple[bytes, bytes]]:
    """The records ``LENGTH KEY=VALUE\\n`` of a pax header, in order; raises ArchiveRefused."""
    records: list[tuple[bytes, bytes]] = []
    position, end = 0, len(data)
    while position < end:
        space = data.find(b" ", position, position + 20)
        digits = data[position:space]
        if space < 0 or not digits.isdigit():
            if not data[position:].strip(b"\0"):  # padding some writers count in
                break
            raise ArchiveRefused("malformed tar: a pax record has no length")
        stop = position + int(digits)
        key, equals, value = data[space + 1 : stop - 1].partition(b"=")
        if stop > end or stop <= space + 1 or data[stop - 1] != 0x0A or not equals or not key:
            raise ArchiveRefused("malformed tar: a pax record does not fit its length")
        records.append((key, value))
        position = stop
    return records


def parse_pax_number(value: bytes, what: str) -> int:
    """A decimal integer of a pax record."""
    if not value.isdigit() or len(value) > 19:
        raise ArchiveRefused(f"malformed tar: pax {what} {value[:40]!r}")
    return int(value)


def parse_pax_time(value: bytes) -> int:
    """Seconds since the epoch with a fraction, as nanoseconds; digits beyond nine are dropped."""
    negative = value.startswith(b"-")
    whole, _, fraction = value.removeprefix(b"-").partition(b".")
    if not whole.isdigit() or len(whole) > 18 or (fraction and not fraction.isdigit()):
        raise ArchiveRefused(f"malformed tar: pax time {value[:40]!r}")
    nanoseconds = int(whole) * 1_000_000_000 + int((fraction + b"000000000")[:9])
    return -nanoseconds if negative else nanoseconds


def quote_xattr(key: bytes) -> bytes:
    """An attribute's name as GNU tar puts it into a pax key, which cannot hold ``=``."""
    return key.replace(b"%", b"%25").replace(b"=", b"%3D")


def unquote_xattr(key: bytes) -> bytes:
    """The inverse of :func:`quote_xattr`."""
    return key.replace(b"%3D", b"=").replace(b"%25", b"%")


def format_pax(records: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The body of a pax header."""
    out = []
    for key, value in records:
        rest = len(key) + len(value) + 3
        length = rest + len(str(rest))
        if len(str(length)) != len(str(rest)):  # the length counts its own digits
            length = rest + len(str(length))
        out.append(b"%d %b=%b\n" % (length, key, value))
    return b"".join(out)


def format_entry(entry: Entry) -> bytes:
    """The header blocks of ``entry`` (pax header first if one is needed); deterministic."""
    records: dict[bytes, bytes] = {}
    name, prefix = entry.name, b""
    if len(name) > 100 or not name.isascii():
        fitted = _split_name(name) if name.isascii() else None
        if fitted is None:
            records[b"path"] = name
        else:
            prefix, name = fitted
    if len(entry.link) > 100 or not entry.link.isascii():
        records[b"linkpath"] = entry.link
    for key, number in ((b"uid", entry.uid), (b"gid", entry.gid)):
        if not 0 <= number < 1 << 21:
            records[key] = b"%d" % number
    if entry.stored >= 1 << 33:
        records[b"size"] = b"%d" % entry.stored
    seconds, nanoseconds = divmod(entry.mtime, 1_000_000_000)
    if nanoseconds or not 0 <= seconds < 1 << 33:
        records[b"mtime"] = _format_time(entry.mtime)
    for key in entry.xattrs:
        records[XATTR_PREFIX + quote_xattr(key)] = entry.xattrs[key]
    header = _format_header(entry, name, prefix, seconds)
    if not records:
        return header
    body = format_pax(sorted(records.items()))
    base = entry.name.rstrip(b"/").rpartition(b"/")[2]
    extended = Entry(
        name=b"PaxHeaders.0/" + base.decode("ascii", "replace").encode("ascii", "replace")[:80],
        type=PAX,
        stored=len(body),
    )
    return b"".join(
        (_format_header(extended, extended.name, b"", 0), body, bytes(-len(body) % BLOCK), header)
    )


def _format_time(nanoseconds: int) -> bytes:
    sign = b"-" if nanoseconds < 0 else b""
    seconds, fraction = divmod(abs(nanoseconds), 1_000_000_000)
    text = b"%b%d.%09d" % (sign, seconds, fraction)
    return text.rstrip(b"0").rstrip(b".")


def _split_name(name: bytes) -> tuple[bytes, bytes] | None:
    """``name`` as ustar's prefix (155 bytes) and name (100), split at a slash, if it fits."""
    cut = name.rfind(b"/", 0, min(156, len(name) - 1))
    if cut <= 0 or len(name) - cut - 1 > 100:
        return None
    return name[:cut], name[cut + 1 :]


def _format_header(entry: Entry, name: bytes, prefix: bytes, seconds: int) -> bytes:
    device = entry.type in (CHARACTER, BLOCK_DEVICE)
    block = bytearray(
        _HEADER.pack(
            name[:100],
            b"%07o\0" % entry.mode,
            b"%07o\0" % (entry.uid if 0 <= entry.uid < 1 << 21 else 0),
            b"%07o\0" % (entry.gid if 0 <= entry.gid < 1 << 21 else 0),
            b"%011o\0" % (entry.stored if entry.stored < 1 << 33 else 0),
            b"%011o\0" % (seconds if 0 <= seconds < 1 << 33 else 0),
            b"        ",
            entry.type,
            entry.link[:100],
            b"ustar\x0000",
            entry.uname[:32],
            entry.gname[:32],
            _format_device(entry.major) if device else b"0000000\0",
            _format_device(entry.minor) if device else b"0000000\0",
            prefix,
        )
    )
    block[_CHECKSUM_FIELD] = b"%06o\0 " % sum(block)
    return bytes(block)


def _format_device(number: int) -> bytes:
    if number < 1 << 21:
        return b"%07o\0" % number
    return (number | 1 << 63).to_bytes(8, "big")  # GNU base-256; pax has no record for it
