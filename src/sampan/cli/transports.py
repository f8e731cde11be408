"""Images in files: where ``oci:``, ``oci-archive:``, ``docker-archive:`` and ``dir:`` point.

``containers-transports(5)``. What is read becomes one OCI archive for ``/images/load``; what is
written comes from ``/images/get``, whose archive is both an OCI layout and a docker-archive.
"""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from sampan.cli.fault import CliError
from sampan.client.document import as_table, labels, table, tables, text, texts
from sampan.model import attachment

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from collections.abc import Callable, Iterable, Iterator
    from typing import IO, TypeAlias

    from sampan.client.document import Document

    _Files: TypeAlias = "_Directory | _Archive"
    _Where: TypeAlias = Callable[[str, bool], str]

_FILES = ("oci", "oci-archive", "docker-archive", "dir")
_UNSUPPORTED = ("containers-storage", "docker-daemon", "sif", "ostree", "tarball")
_NAME = "io.containerd.image.name"
_REF = "org.opencontainers.image.ref.name"
_PIECE = 1 << 20
_DOCUMENT_LIMIT = 8 << 20
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_DIR_VERSION = b"Directory Transport Version: 1.1\n"


class Place(NamedTuple):
    """A transport, the path and what follows it: a tag or name, or empty."""

    transport: str
    path: str
    name: str


def parse(argument: str, *, target: bool = False) -> Place | None:
    """The place in files that ``argument`` names; None for an image of a registry.

    ``oci:latest`` may be an image too: it is a place if there is such a path, or as a ``target``.
    """
    transport, colon, rest = argument.partition(":")
    if colon and transport in _UNSUPPORTED:
        raise CliError(f"transport {transport} is not supported")
    if not colon or transport not in _FILES:
        return None
    path, name = rest, ""
    if transport != "dir":
        # The tag or name begins at the first colon of the path's last part, if that is a path.
        path, _, name = rest.partition(":")
    if not (target or "/" in path or os.path.exists(path)):
        return None
    if not path:
        raise CliError(f"invalid reference {argument}: it names no path")
    return Place(transport, path, name)


def guess(path: str) -> Place:
    """What a directory holds: an OCI layout, or what ``dir:`` writes."""
    transport = "oci" if os.path.exists(os.path.join(path, "index.json")) else "dir"
    return Place(transport, path, "")


# -- reading


class _Directory:
    """Files below a directory."""

    def __init__(self, root: str) -> None:
        self._root = root

    def open(self, name: str) -> tuple[IO[bytes], int]:
        """A file and its size in bytes; raises CliError."""
        try:
            file = open(os.path.join(self._root, name), "rb")  # noqa: SIM115 (the caller closes)
        except OSError as error:
            raise CliError(f"cannot read {self._root}/{name}: {error.strerror}") from error
        return file, os.fstat(file.fileno()).st_size

    def close(self) -> None:
        """Nothing is held open."""


class _Archive:
    """Files in a tar archive."""

    def __init__(self, path: str) -> None:
        import tarfile

        self._path = path
        try:
            self._tar = tarfile.open(path)  # noqa: SIM115 (close() closes it)
            self._members = {os.path.normpath(each.name): each for each in self._tar}
        except (OSError, tarfile.TarError) as error:
            raise CliError(f"cannot read {path}: {error}") from error

    def open(self, name: str) -> tuple[IO[bytes], int]:
        """A file and its size in bytes; raises CliError."""
        member = self._members.get(name)
        file = self._tar.extractfile(member) if member else None
        if member is None or file is None:
            raise CliError(f"{self._path} has no {name}")
        return file, member.size

    def close(self) -> None:
        """Close the archive."""
        self._tar.close()

    def names(self) -> list[str]:
        """All files."""
        return [name for name, member in self._members.items() if member.isfile()]


def _read(files: _Files, name: str) -> bytes:
    file, size = files.open(name)
    with file:
        if size > _DOCUMENT_LIMIT:
            raise CliError(f"{name} is too large to be a manifest")
        return file.read()


def _document(files: _Files, name: str) -> Document:
    try:
        return as_table(json.loads(_read(files, name)))
    except ValueError as error:
        raise CliError(f"{name} is malformed: {error}") from error


def archive(place: Place) -> Iterator[bytes]:
    """The image at ``place`` as an archive for ``/images/load``; raises CliError."""
    if place.transport == "docker-archive":
        return _docker_archive(place)
    if place.transport == "dir":
        import hashlib

        directory = _Directory(place.path)
        raw = _read(directory, "manifest.json")
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        kind = text(as_table(json.loads(raw)), "mediaType")
        entry: Document = {"mediaType": kind, "digest": digest, "size": len(raw)}
        return _layout(directory, entry, _local_name(place), _in_dir(digest))
    files = _Directory(place.path) if place.transport == "oci" else _Archive(place.path)
    entry = _choose(files, place)
    notes = labels(entry, "annotations")
    name = notes.get(_NAME) or (notes.get(_REF, "") if "/" in notes.get(_REF, "") else "")
    about = [each for each in _listed(files) if _is_about(each)]
    return _layout(files, entry, name or _local_name(place, notes.get(_REF, "")), _blob, about)


def _in_dir(root: str) -> _Where:
    """Where a ``dir:`` has a digest's file; its root manifest has a name of its own."""

    def where(digest: str, manifest: bool) -> str:
        if digest == root:
            return "manifest.json"
        encoded = _blob(digest).rpartition("/")[2]
        return f"{encoded}.manifest.json" if manifest else encoded

    return where


def _blob(digest: str, manifest: bool = False) -> str:
    """Where an OCI layout has a digest's file; raises CliError for one that is malformed."""
    algorithm, _, encoded = digest.partition(":")
    if not algorithm.isalnum() or not encoded.isalnum():
        raise CliError(f"malformed digest {digest!r}")
    return f"blobs/{algorithm}/{encoded}"


def _local_name(place: Place, tag: str = "") -> str:
    base = os.path.basename(os.path.normpath(place.path)).lower().removesuffix(".tar")
    base = "".join(c if c.isascii() and c.isalnum() else "-" for c in base).strip("-") or "image"
    return f"localhost/{base}:{place.name or tag or 'latest'}"


def _choose(files: _Files, place: Place) -> Document:
    """The entry of ``index.json`` that is meant."""
    entries = [each for each in _listed(files) if not _is_about(each)]
    if place.name:
        entries = [
            entry
            for entry in entries
            if place.name in (labels(entry, "annotations").get(key) for key in (_NAME, _REF))
        ]
    if len(entries) == 1:
        return entries[0]
    where = f"{place.transport}:{place.path}"
    if not entries:
        raise CliError(f"{where} has no image {place.name}".rstrip())
    names = [labels(entry, "annotations").get(_REF, text(entry, "digest")) for entry in entries]
    raise CliError(f"{where} has several images, choose one of: {', '.join(names)}")


def _listed(files: _Files) -> list[Document]:
    """The entries of ``index.json``."""
    return tables(_document(files, "index.json"), "manifests")


def _is_about(entry: Document) -> bool:
    """Whether an entry has no name of its own: it is there for another, which it refers to."""
    notes = labels(entry, "annotations")
    if attachment.tag(notes):
        return True
    return bool(text(entry, "artifactType")) and not (notes.get(_NAME) or notes.get(_REF))


def _layout(
    files: _Files, entry: Document, name: str, where: _Where, about: list[Document] | None = None
) -> Iterator[bytes]:
    """An OCI archive with the one image ``entry``, called ``name``, and what is ``about`` it."""
    from sampan.layer.writer import TarWriter

    found: dict[str, str] = {}

    def collect(descriptor: Document, depth: int) -> None:
        digest = text(descriptor, "digest")
        path = where(digest, True)
        if depth > 4 or digest in found:
            return
        manifest = _document(files, path)
        found[digest] = path
        for blob in [table(manifest, "config"), *tables(manifest, "layers")]:
            if text(blob, "digest"):
                found[text(blob, "digest")] = where(text(blob, "digest"), False)
        for child in tables(manifest, "manifests"):
            try:
                collect(child, depth + 1)
            except CliError:
                continue  # a platform that is not here

    collect(entry, 0)
    listed: list[Document] = [{**entry, "annotations": {_NAME: name, _REF: name}}]
    for each in about or ():
        manifest = _document(files, where(text(each, "digest"), True))
        attached = attachment.subject(labels(each, "annotations"))
        if (text(table(manifest, "subject"), "digest") or str(attached)) in found:
            collect(each, 0)
            listed.append(each)
    index: Document = {"schemaVersion": 2, "manifests": [*listed]}

    def write() -> Iterator[bytes]:
        writer = TarWriter()
        for digest, path in sorted(found.items()):
            file, size = files.open(path)
            with file:
                chunks = iter(lambda: file.read(_PIECE), b"")  # noqa: B023  # used up right here
                yield from writer.stream(_blob(digest).encode(), chunks, size)
        yield from writer.document(b"index.json", json.dumps(index).encode())
        yield from writer.document(b"oci-layout", _LAYOUT)
        yield from writer.finish()
        files.close()

    return write()


def _docker_archive(place: Place) -> Iterator[bytes]:
    """A docker-archive as it is, or with the one image called ``place.name``."""
    if not place.name:
        from sampan.cli.commands.archives import chunks

        try:
            return chunks(open(place.path, "rb"))
        except OSError as error:
            raise CliError(f"cannot read {place.path}: {error.strerror}") from error
    from sampan.cli.reference import parse_reference
    from sampan.layer.writer import TarWriter

    files = _Archive(place.path)
    wanted = parse_reference(place.name).with_default_tag()
    items = [as_table(item) for item in json.loads(_read(files, "manifest.json"))]
    kept: list[Document] = [
        {**item, "RepoTags": [wanted.familiar]}
        for item in items
        if wanted in map(parse_reference, texts(item, "RepoTags"))
    ]
    if not kept:
        raise CliError(f"{place.path} has no image {place.name}")

    def write() -> Iterator[bytes]:
        writer = TarWriter()
        for name in files.names():
            if name in ("manifest.json", "index.json", "oci-layout", "repositories"):
                continue
            file, size = files.open(name)
            with file:
                chunks = iter(lambda: file.read(_PIECE), b"")  # noqa: B023  # used up right here
                yield from writer.stream(name.encode(), chunks, size)
        yield from writer.document(b"manifest.json", json.dumps(kept).encode())
        yield from writer.finish()

    return write()


# -- writing


class _Stream:
    """The body of an answer as a file for :mod:`tarfile`."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._held = b""

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; empty at the end."""
        while len(self._held) < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            self._held += piece
        data, self._held = self._held[:size], self._held[size:]
        return data


def write(place: Place, image: str, body: Iterable[bytes]) -> None:
    """Write what ``/images/get`` answered for one ``image`` to ``place``; raises CliError."""
    if place.transport in ("oci", "dir"):
        _write_directory(place, image, body)
        return
    temporary = f"{place.path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "xb") as file:
            for piece in _renamed(place, image, body):
                file.write(piece)
        os.replace(temporary, place.path)
    except OSError as error:
        raise CliError(f"cannot write {place.path}: {error.strerror}") from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _renamed(place: Place, image: str, body: Iterable[bytes]) -> Iterator[bytes]:
    """The archive with the name that was asked for."""
    import tarfile

    from sampan.layer.writer import TarWriter

    writer = TarWriter()
    with tarfile.open(fileobj=_Stream(body), mode="r|") as tar:  # type: ignore[call-overload]
        for member in tar:
            if not member.isfile():
                continue
            file = tar.extractfile(member)
            assert file is not None  # it is a file
            if member.name in ("index.json", "manifest.json"):
                data = _named(member.name, file.read(), place.name or image)
                yield from writer.document(member.name.encode(), data)
                continue
            chunks = iter(lambda: file.read(_PIECE), b"")  # noqa: B023  # used up right here
            yield from writer.stream(member.name.encode(), chunks, member.size)
    yield from writer.finish()


def _named(kind: str, raw: bytes, name: str) -> bytes:
    """``index.json`` or ``manifest.json`` of one image, which is called ``name`` there."""
    document = json.loads(raw)
    if kind == "manifest.json":
        for item in document:
            item["RepoTags"] = [name] if "/" in name or ":" in name else item.get("RepoTags")
    else:
        entry, *others = document["manifests"]
        entry["annotations"] = {_REF: name}
        if "/" in name or ":" in name:
            entry["annotations"][_NAME] = name
        document["manifests"] = [entry, *filter(_is_about, others)]
    return json.dumps(document).encode()


def _write_directory(place: Place, image: str, body: Iterable[bytes]) -> None:
    """An OCI layout (into one that is there already, beside its images) or a ``dir:``."""
    import tarfile

    layout = place.transport == "oci"
    index: Document = {}
    try:
        os.makedirs(place.path, exist_ok=True)
        with tarfile.open(fileobj=_Stream(body), mode="r|") as tar:  # type: ignore[call-overload]
            for member in tar:
                if member.name == "index.json":
                    file = tar.extractfile(member)
                    index = as_table(json.loads(file.read())) if file else {}
                elif member.isfile() and member.name.startswith("blobs/"):
                    _blob_file(tar, member, place.path, layout=layout)
        entries = tables(index, "manifests")
        if not entries:
            raise CliError(f"there is no image {image}")
        if layout:
            _merge_index(place, entries[0], [each for each in entries if _is_about(each)])
        else:
            _finish_dir(place.path, text(entries[0], "digest"), set())
    except OSError as error:
        raise CliError(f"cannot write {place.path}: {error.strerror}") from error


def _blob_file(tar: tarfile.TarFile, member: tarfile.TarInfo, root: str, *, layout: bool) -> None:
    """Store one blob under its digest, verified."""
    import hashlib

    _, algorithm, encoded = member.name.split("/")
    if not encoded.isalnum() or algorithm not in ("sha256", "sha384", "sha512"):
        raise CliError(f"malformed archive: {member.name}")
    name = os.path.join("blobs", algorithm, encoded) if layout else encoded
    path = os.path.join(root, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    source = tar.extractfile(member)
    assert source is not None  # it is a file
    made = hashlib.new(algorithm)
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "wb") as file:
        while piece := source.read(_PIECE):
            made.update(piece)
            file.write(piece)
    if made.hexdigest() != encoded:
        os.unlink(temporary)
        raise CliError(f"{member.name} does not have its digest")
    os.replace(temporary, path)


def _replace(path: str, data: bytes) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "wb") as file:
        file.write(data)
    os.replace(temporary, path)


def _merge_index(place: Place, entry: Document, about: list[Document]) -> None:
    """Add the image, and what is ``about`` it, to ``index.json``; its name's last one goes."""
    tag = place.name or labels(entry, "annotations").get(_REF, "latest")
    entry = {**entry, "annotations": {_REF: tag}}
    path = os.path.join(place.path, "index.json")
    others: list[Document] = []
    if os.path.exists(path):
        before = _document(_Directory(place.path), "index.json")
        others = [
            each
            for each in tables(before, "manifests")
            if labels(each, "annotations").get(_REF) != tag
        ]
    there = {text(each, "digest") for each in others if _is_about(each)}
    about = [each for each in about if text(each, "digest") not in there]
    index: Document = {"schemaVersion": 2, "manifests": [*others, entry, *about]}
    _replace(os.path.join(place.path, "oci-layout"), _LAYOUT)
    _replace(path, json.dumps(index).encode())


def _finish_dir(root: str, digest: str, seen: set[str]) -> None:
    """Give the manifests of a ``dir:`` their names; the root's last."""
    encoded = digest.partition(":")[2]
    top = not seen
    seen.add(digest)
    path = os.path.join(root, encoded)
    if not os.path.exists(path):
        return  # a platform that is not here
    with open(path, "rb") as file:
        raw = file.read()
    for child in tables(as_table(json.loads(raw)), "manifests"):
        if text(child, "digest") not in seen:
            _finish_dir(root, text(child, "digest"), seen)
    if top:
        _replace(os.path.join(root, "version"), _DIR_VERSION)
    os.replace(path, os.path.join(root, "manifest.json" if top else f"{encoded}.manifest.json"))
