"""``image save``, ``load``, ``import`` and ``container export``: tar archives in and out."""

from __future__ import annotations

import os
import sys

from sampan.cli import transports
from sampan.cli.command import NONE, ONE, SOME, Arity, Command, Flag
from sampan.cli.fault import CliError
from sampan.cli.kinds import BOOL, LIST, STRING, STRINGS
from sampan.cli.opts.platforms import parse_platform
from sampan.cli.progress import Progress
from sampan.cli.reference import parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.api import Query
    from sampan.client.http import Response

_CHUNK = 256 * 1024
#: Formats of ``save`` by podman's names; the archives are both at once.
_FORMATS = {
    "docker-archive": "docker-archive",
    "oci-archive": "oci-archive",
    "oci-dir": "oci",
    "docker-dir": "dir",
}


def chunks(file: BinaryIO) -> Iterator[bytes]:
    """A file in pieces, closed at the end."""
    with file:
        while piece := file.read(_CHUNK):
            yield piece


def deliver(session: Session, response: Response, path: str) -> None:
    """Write a response's body to a file, whole or not at all, or to standard output."""
    if not path:
        for piece in response:
            session.write_bytes(piece)
        return
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "xb") as file:
            for piece in response:
                file.write(piece)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def check_output(session: Session, path: str, what: str) -> None:
    """Refuse a terminal, a directory, or a place that does not exist as output."""
    if not path:
        if session.is_terminal(1):
            message = f"cowardly refusing to {what.split()[0]} to a terminal."
            raise CliError(f"{message} Use the -o flag or redirect")
        return
    directory = os.path.dirname(path)
    problem = ""
    if directory and not os.path.isdir(directory):
        problem = f"stat {directory}: no such file or directory"
    elif os.path.isdir(path):
        problem = f'"{path}" must be a regular file'
    if problem:
        raise CliError(f"failed to {what}: invalid output path: {problem}")


def _platforms(arguments: Arguments) -> list[str]:
    return _parsed(arguments.texts("platform"))


def _parsed(platforms: list[str]) -> list[str]:
    try:
        return [parse_platform(name) for name in platforms]
    except ValueError as error:
        raise CliError(str(error)) from error


def save_place(
    session: Session, place: transports.Place, image: str, *, platforms: list[str]
) -> None:
    """Write an image where a transport points."""
    query: Query = {"names": [image], "platform": _parsed(platforms)}
    transports.write(place, image, session.client.open("GET", "/images/get", query))


def load_place(session: Session, place: transports.Place, *, platforms: list[str]) -> None:
    """Take in the image a transport points to."""
    query: Query = {"quiet": not session.is_terminal(1), "platform": _parsed(platforms)}
    headers = {"Content-Type": "application/x-tar"}
    archive = transports.archive(place)
    records = session.client.stream("POST", "/images/load", query, archive, headers)
    Progress(1, terminal=session.is_terminal(1)).show(records)


def _save(session: Session, arguments: Arguments) -> None:
    transport = _FORMATS.get(arguments.text("format"))
    if transport is None:
        raise CliError(f"unknown format {arguments.text('format')!r}: use {', '.join(_FORMATS)}")
    if transport in ("oci", "dir"):
        if not arguments.text("output") or len(arguments.positional) != 1:
            raise CliError(f"format {arguments.text('format')} needs one image and -o DIRECTORY")
        place = transports.Place(transport, arguments.text("output"), "")
        image = arguments.positional[0]
        save_place(session, place, image, platforms=arguments.texts("platform"))
        return
    check_output(session, arguments.text("output"), "save image")
    query: Query = {"names": arguments.positional, "platform": _platforms(arguments)}
    response = session.client.open("GET", "/images/get", query)
    deliver(session, response, arguments.text("output"))


def _export(session: Session, arguments: Arguments) -> None:
    check_output(session, arguments.text("output"), "export container")
    response = session.client.open("GET", f"/containers/{arguments.positional[0]}/export")
    deliver(session, response, arguments.text("output"))


def _load(session: Session, arguments: Arguments) -> None:
    path = arguments.text("input")
    if path and os.path.isdir(path):
        load_place(session, transports.guess(path), platforms=arguments.texts("platform"))
        return
    if not path and session.is_terminal(0):
        raise CliError("requested load from stdin, but stdin is empty")
    file: BinaryIO = open(path, "rb") if path else sys.stdin.buffer  # noqa: SIM115 (see chunks)
    query: Query = {
        "quiet": arguments.flag("quiet") or not session.is_terminal(1),
        "platform": _platforms(arguments),
    }
    headers = {"Content-Type": "application/x-tar"}
    records = session.client.stream("POST", "/images/load", query, chunks(file), headers)
    Progress(1, terminal=session.is_terminal(1)).show(records)


def _import(session: Session, arguments: Arguments) -> None:
    source, *names = arguments.positional
    repository = tag = ""
    if names and names[0]:
        reference = parse_reference(names[0])
        repository, tag = reference.familiar_name, reference.with_default_tag().tag
    body: Iterator[bytes] | None = None
    if source == "-":
        body = chunks(sys.stdin.buffer)
    elif not source.startswith(("http://", "https://")):
        body = chunks(open(source, "rb"))  # noqa: SIM115 (chunks closes it)
        source = "-"
    query: Query = {
        "fromSrc": source,
        "repo": repository,
        "tag": tag,
        "message": arguments.text("message"),
        "changes": arguments.texts("change"),
        "platform": arguments.text("platform"),
    }
    headers = {"Content-Type": "application/x-tar"}
    records = session.client.stream("POST", "/images/create", query, body, headers)
    Progress(1, terminal=session.is_terminal(1)).show(records)


SAVE = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    (
        Flag(
            "format",
            "",
            STRING,
            'Form of the output ("docker-archive", "oci-archive", "oci-dir", "docker-dir")',
            "docker-archive",
        ),
        Flag("output", "o", STRING, "Write to a file, instead of STDOUT", complete="file"),
        Flag(
            "platform",
            "",
            STRINGS,
            "Save only the given platform(s). Formatted as a comma-separated list "
            "of os[/arch[/variant]] (e.g., linux/amd64,linux/arm64/v8)",
            since="1.48",
        ),
    ),
    SOME,
    _save,
    complete="image",
)
EXPORT = Command(
    "[OPTIONS] CONTAINER",
    (Flag("output", "o", STRING, "Write to a file, instead of STDOUT", complete="file"),),
    ONE,
    _export,
    complete="container",
)
LOAD = Command(
    "[OPTIONS]",
    (
        Flag("input", "i", STRING, "Read from tar archive file, instead of STDIN", complete="file"),
        Flag(
            "platform",
            "",
            STRINGS,
            "Load only the given platform(s). Formatted as a comma-separated list "
            "of os[/arch[/variant]] (e.g., linux/amd64,linux/arm64/v8).",
            since="1.48",
        ),
        Flag("quiet", "q", BOOL, "Suppress the load output"),
    ),
    NONE,
    _load,
)
IMPORT = Command(
    "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    (
        Flag("change", "c", LIST, "Apply Dockerfile instruction to the created image"),
        Flag("message", "m", STRING, "Set commit message for imported image"),
        Flag("platform", "", STRING, "Set platform if server is multi-platform capable"),
    ),
    Arity(1, 2),
    _import,
    complete="file",
)
