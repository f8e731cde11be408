"""``context export`` and ``import``: a context as a tar archive (or a zip file, to import)."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile

from sampan.cli.command import TWO, Arity, Command
from sampan.cli.commands.contexts import store_of
from sampan.cli.context_store import TLS_NAMES, Context, validate_name
from sampan.cli.fault import CliError
from sampan.client.document import as_table, flag, labels, table, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session

#: A context is a few kilobytes; anything larger is not one.
_LIMIT = 10 * 1024 * 1024


def _export(session: Session, arguments: Arguments) -> None:
    name, *rest = arguments.positional
    store = store_of(session)
    context = store.get(name)
    target = rest[0] if rest else f"{name}.dockercontext"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        document = json.dumps(context.document(), separators=(",", ":")).encode()
        _add(archive, "meta.json", document, 0o644)
        _add(archive, "tls", None, 0o700)
        material = store.tls_material(context)
        if material:
            _add(archive, "tls/docker", None, 0o700)
        for file, content in material.items():
            _add(archive, f"tls/docker/{file}", content, 0o600)
    if target == "-":
        if session.is_terminal(1):
            raise CliError("cowardly refusing to export to a terminal, specify a file path")
        session.write_bytes(buffer.getvalue())
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(target, flags, 0o600), "wb") as output:
        output.write(buffer.getvalue())
    session.warn(f'Written file "{target}"')


def _add(archive: tarfile.TarFile, name: str, content: bytes | None, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    if content is None:
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    else:
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))


def _import(session: Session, arguments: Arguments) -> None:
    name, source = arguments.positional
    store = store_of(session)
    validate_name(name)
    if store.exists(name):
        raise CliError(f'context "{name}" already exists')
    if source == "-":
        content = sys.stdin.buffer.read(_LIMIT + 1)
    else:
        with open(source, "rb") as file:
            content = file.read(_LIMIT + 1)
    if len(content) > _LIMIT:
        raise CliError(f"context archive is larger than {_LIMIT} bytes")
    files = _read_zip(content) if content.startswith(b"PK") else _read_tar(content)
    if "meta.json" not in files:
        raise CliError("unexpected context file: no meta.json")
    try:
        document = as_table(json.loads(files["meta.json"]))
    except ValueError as error:
        raise CliError(f"unexpected context file: meta.json: {error}") from error
    endpoint = table(table(document, "Endpoints"), "docker")
    metadata = labels(document, "Metadata")
    description = metadata.pop("Description", "")
    context = Context(
        name,
        description,
        text(endpoint, "Host"),
        flag(endpoint, "SkipTLSVerify"),
        tuple(metadata.items()),
    )
    tls = {file: files[f"tls/docker/{file}"] for file in TLS_NAMES if f"tls/docker/{file}" in files}
    store.save(context, tls)
    session.line(name)
    session.warn(f'Successfully imported context "{name}"')


def _read_tar(content: bytes) -> dict[str, bytes]:
    files = {}
    # Go's writer does not pad the last file if it is not closed: docker's own test data is such.
    padded = content + bytes(-len(content) % tarfile.BLOCKSIZE)
    try:
        with tarfile.open(fileobj=io.BytesIO(padded), mode="r:") as archive:
            for entry in archive:
                if entry.offset_data + entry.size > len(content):
                    raise CliError(f"unexpected context file: {entry.name} is cut off")
                file = archive.extractfile(entry) if entry.isreg() else None
                if file is not None:
                    files[entry.name.removeprefix("./")] = file.read()
    except tarfile.TarError as error:
        raise CliError("archive/tar: invalid tar header") from error
    return files


def _read_zip(content: bytes) -> dict[str, bytes]:
    import zipfile

    files: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.infolist():
                if entry.file_size > _LIMIT:
                    raise CliError(f"context archive is larger than {_LIMIT} bytes")
                if not entry.is_dir():
                    files[entry.filename] = archive.read(entry)
    except zipfile.BadZipFile as error:
        raise CliError(f"unexpected context file: {error}") from error
    return files


EXPORT = Command("[OPTIONS] CONTEXT [FILE|-]", (), Arity(1, 2), _export, complete="context")
IMPORT = Command("CONTEXT FILE|-", (), TWO, _import, complete="file")
