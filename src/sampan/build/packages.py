"""Which packages a file system tree holds, by the databases of their managers (reads, never runs).

dpkg, apk and rpm databases and the metadata of Python distributions. Everything read is hostile:
files are opened inside the tree, bounded in size, and what makes no sense is left out.
"""

from __future__ import annotations

import email.parser
import os
import sqlite3
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from sampan.kernel.openat import in_root
from sampan.layer.tree import walk

_LIMIT = 256 << 20
_METADATA_LIMIT = 4 << 20
#: rpm tags (lib/rpmtag.h): name, version, release, epoch, license, vendor, architecture
_RPM_TAGS = {1000: "name", 1001: "version", 1002: "release", 1003: "epoch", 1014: "license"}
_RPM_TAGS |= {1011: "vendor", 1022: "arch"}
_RPM_INT32, _RPM_STRING, _RPM_I18N = 4, 6, 9
_NDB_MAGIC, _NDB_BLOB = b"RpmP", b"BlbS"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Package:
    """One installed package; ``url`` is its package URL, ``supplier`` who made it."""

    kind: str
    name: str
    version: str
    architecture: str = ""
    license: str = ""
    supplier: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """What ``os-release`` says of the tree."""

    id: str = ""
    version: str = ""
    name: str = ""


def distribution(root: int) -> Distribution:
    """The distribution of the tree; empty where it does not tell."""
    text = _text(root, "etc/os-release") or _text(root, "usr/lib/os-release")
    values = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            values[key.strip()] = value.strip().strip("\"'")
    return Distribution(
        id=values.get("ID", ""),
        version=values.get("VERSION_ID", ""),
        name=values.get("PRETTY_NAME", ""),
    )


def installed(root: int) -> list[Package]:
    """Every package found below directory descriptor ``root``, sorted, each once."""
    system = distribution(root)
    found: set[Package] = set()
    found.update(_dpkg(root, system))
    found.update(_apk(root, system))
    found.update(_rpm(root, system))
    found.update(_python(root))
    return sorted(found)


def _url(kind: str, namespace: str, name: str, version: str, **qualifiers: str) -> str:
    """A package URL (https://github.com/package-url/purl-spec)."""
    place = f"{quote(namespace, safe='')}/" if namespace else ""
    given = "&".join(
        f"{key}={quote(value, safe='')}" for key, value in sorted(qualifiers.items()) if value
    )
    text = f"pkg:{kind}/{place}{quote(name, safe='')}@{quote(version, safe='')}"
    return f"{text}?{given}" if given else text


def _dpkg(root: int, system: Distribution) -> Iterator[Package]:
    texts = [_text(root, "var/lib/dpkg/status")]
    for name in _listing(root, "var/lib/dpkg/status.d"):  # distroless images keep one file each
        if not name.endswith(".md5sums"):
            texts.append(_text(root, f"var/lib/dpkg/status.d/{name}"))
    distro = f"{system.id}-{system.version}" if system.version else system.id
    for text in texts:
        for paragraph in text.split("\n\n"):
            fields = _fields(paragraph)
            name, version = fields.get("package", ""), fields.get("version", "")
            status = fields.get("status", "installed").split()
            if not name or not version or status[-1:] != ["installed"]:
                continue
            architecture = fields.get("architecture", "")
            yield Package(
                kind="deb",
                name=name,
                version=version,
                architecture=architecture,
                supplier=fields.get("maintainer", ""),
                url=_url(
                    "deb", system.id or "debian", name, version, arch=architecture, distro=distro
                ),
            )


def _apk(root: int, system: Distribution) -> Iterator[Package]:
    for path in ("lib/apk/db/installed", "usr/lib/apk/db/installed"):
        for paragraph in _text(root, path).split("\n\n"):
            fields = dict(
                (line[0], line[2:]) for line in paragraph.splitlines() if line[1:2] == ":"
            )
            name, version = fields.get("P", ""), fields.get("V", "")
            if not name or not version:
                continue
            architecture = fields.get("A", "")
            yield Package(
                kind="apk",
                name=name,
                version=version,
                architecture=architecture,
                license=fields.get("L", ""),
                supplier=fields.get("m", ""),
                url=_url(
                    "apk",
                    system.id or "alpine",
                    name,
                    version,
                    arch=architecture,
                    distro=f"{system.id}-{system.version}" if system.version else "",
                ),
            )


def _fields(paragraph: str) -> dict[str, str]:
    """First lines of the fields of a Debian control paragraph, names in lower case."""
    found = {}
    for line in paragraph.splitlines():
        key, colon, value = line.partition(":")
        if colon and not line.startswith((" ", "\t")):
            found[key.lower()] = value.strip()
    return found


def _rpm(root: int, system: Distribution) -> Iterator[Package]:
    distro = f"{system.id}-{system.version}" if system.version else system.id
    for directory in ("var/lib/rpm", "usr/lib/sysimage/rpm"):
        headers = _rpm_sqlite(_read(root, f"{directory}/rpmdb.sqlite", _LIMIT))
        headers += _rpm_ndb(_read(root, f"{directory}/Packages.db", _LIMIT))
        for header in headers:
            fields = rpm_header(header)
            name, version = fields.get("name", ""), fields.get("version", "")
            if not name or not version or name == "gpg-pubkey":
                continue
            full = f"{version}-{fields['release']}" if fields.get("release") else version
            yield Package(
                kind="rpm",
                name=name,
                version=full,
                architecture=fields.get("arch", ""),
                license=fields.get("license", ""),
                supplier=fields.get("vendor", ""),
                url=_url(
                    "rpm",
                    system.id or "rpm",
                    name,
                    full,
                    arch=fields.get("arch", ""),
                    epoch=fields.get("epoch", ""),
                    distro=distro,
                ),
            )


def _rpm_sqlite(data: bytes) -> list[bytes]:
    """The headers in rpm's SQLite database; it is read from a copy in memory."""
    if not data.startswith(b"SQLite format 3\0"):
        return []
    # the header says "write-ahead log"; without one beside it there is nothing to replay
    data = data[:18] + b"\1\1" + data[20:]
    database = sqlite3.connect(":memory:")
    try:
        database.deserialize(data)
        database.execute("pragma trusted_schema = off")
        return [bytes(row[0]) for row in database.execute("select blob from Packages")]
    except (sqlite3.Error, TypeError, ValueError):
        return []
    finally:
        database.close()


def _rpm_ndb(data: bytes) -> list[bytes]:
    """The headers in rpm's own database (lib/backend/ndb/rpmpkg.c): slots, then blobs."""
    if data[:4] != _NDB_MAGIC or len(data) < 4096:
        return []
    (pages,) = struct.unpack_from("<I", data, 12)
    found = []
    for at in range(32, min(pages * 4096, len(data) - 16), 16):
        magic, _, block, count = struct.unpack_from("<4sIII", data, at)
        start = block * 16
        if magic != b"Slot" or not block or data[start : start + 4] != _NDB_BLOB:
            continue
        (length,) = struct.unpack_from("<I", data, start + 12)
        if length <= count * 16:
            found.append(data[start + 16 : start + 16 + length])
    return found


def rpm_header(data: bytes) -> dict[str, str]:
    """Some fields of a package header (rpm's "header structure", without its magic)."""
    found: dict[str, str] = {}
    if len(data) < 8:
        return found
    entries, size = struct.unpack_from(">II", data)
    store = 8 + entries * 16
    if entries > 65536 or store + size > len(data):
        return found
    for number in range(entries):
        tag, kind, offset, _ = struct.unpack_from(">IIiI", data, 8 + number * 16)
        name = _RPM_TAGS.get(tag)
        if name is None or not 0 <= offset < size:
            continue
        at = store + offset
        if kind in (_RPM_STRING, _RPM_I18N):
            end = data.find(b"\0", at, store + size)
            found[name] = data[at : end if end >= 0 else store + size].decode(errors="replace")
        elif kind == _RPM_INT32 and at + 4 <= len(data):
            found[name] = str(struct.unpack_from(">I", data, at)[0])
    return found


def _python(root: int) -> Iterator[Package]:
    """Distributions by their metadata, wherever in the tree they are installed."""
    for node in walk(root):
        if node.name not in (b"METADATA", b"PKG-INFO") or not stat.S_ISREG(node.status.st_mode):
            continue
        directory = node.path.rpartition(b"/")[0]
        if not directory.endswith((b".dist-info", b".egg-info")):
            continue
        if node.status.st_size > _METADATA_LIMIT:
            continue
        text = _text(root, os.fsdecode(node.path), _METADATA_LIMIT)
        message = email.parser.HeaderParser().parsestr(text)
        name, version = str(message.get("Name", "")), str(message.get("Version", ""))
        if not name or not version:
            continue
        licence = str(message.get("License-Expression") or message.get("License") or "")
        yield Package(
            kind="python",
            name=name,
            version=version,
            license=licence if "\n" not in licence else "",
            supplier=str(message.get("Author") or message.get("Author-email") or ""),
            url=_url("pypi", "", name.lower().replace("_", "-"), version),
        )


def _text(root: int, path: str, limit: int = _LIMIT) -> str:
    return _read(root, path, limit).decode(errors="replace")


def _read(root: int, path: str, limit: int) -> bytes:
    """A regular file of the tree, empty where there is none or it is too large."""
    try:
        fd = in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            return b""
        return file.read(limit)


def _listing(root: int, path: str) -> list[str]:
    try:
        fd = in_root(root, path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return []
    try:
        return sorted(os.listdir(fd))
    finally:
        os.close(fd)
