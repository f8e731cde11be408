"""``build`` through sampand's own door: one conversation, then files with what came of it."""

from __future__ import annotations

import json
import os

from sampan.cli.build_progress import Display, display
from sampan.cli.build_request import Request, from_arguments, make
from sampan.cli.fault import CliError
from sampan.client.buildwire import Conversation
from sampan.client.document import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.api import ApiClient
    from sampan.client.document import Document


def build(session: Session, arguments: Arguments) -> int:
    """``image build``; the exit status."""
    for name in ("squash", "security-opt", "isolation", "memory-swap"):
        if name in arguments.changed and name != "memory-swap":
            value = arguments.value(name)
            if value not in ("", "default", False, []):
                raise CliError(f"--{name} is not supported by this builder: DOCKER_BUILDKIT=0 is")
    quiet = arguments.flag("quiet")
    try:
        shown = display("quiet" if quiet else arguments.text("progress"))
    except ValueError as error:
        raise CliError(str(error)) from error
    request = make(session, from_arguments(session, arguments))
    try:
        found = perform(session.another_client(), request, shown)
    finally:
        shown.end()
    if request.asked.get("call"):
        return _called(session, arguments, found)
    identity = text(found, "id")
    if quiet:
        session.line(identity)
    _write(arguments.text("iidfile"), identity)
    metadata = found.get("metadata")
    if arguments.text("metadata-file"):
        _write(arguments.text("metadata-file"), json.dumps(metadata, indent=2) + "\n")
    return 0


def perform(client: ApiClient, request: Request, shown: Display) -> Document:
    """Have the daemon do a build; what it says of the result."""
    stream = client.hijack("/sampan/build")
    return Conversation(stream, request.inputs, shown.news, request.sink).run(request.asked)


def _called(session: Session, arguments: Arguments, found: Document) -> int:
    """Print what ``--call`` asked for; the exit status is the method's own."""
    form = arguments.text("call").partition(",")[2]
    if form in ("format=json", "json"):
        session.line(text(found, "json"))
    else:
        shown = text(found, "text")
        method = "check" if arguments.flag("check") else arguments.text("call").partition(",")[0]
        if method == "check" and not shown:
            shown = "Check complete, no warnings found.\n"
        session.out(shown)
    status = found.get("status")
    return status if isinstance(status, int) else 0


def _write(path: str, content: str) -> None:
    """Write a file that appears when it is complete; no path, no file."""
    if not path:
        return
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(content)
    os.replace(temporary, path)
