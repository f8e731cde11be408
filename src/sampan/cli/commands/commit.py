"""``container commit``."""

from __future__ import annotations

from sampan.cli.command import Arity, Command, Flag
from sampan.cli.fault import CliError
from sampan.cli.kinds import BOOL, LIST, STRING
from sampan.cli.reference import parse_reference
from sampan.client.document import as_table, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.api import Query


def _commit(session: Session, arguments: Arguments) -> None:
    container, *names = arguments.positional
    repository = tag = ""
    if names and names[0]:
        reference = parse_reference(names[0])
        if reference.digest:
            raise CliError("refusing to create a tag with a digest reference")
        repository, tag = reference.familiar_name, reference.with_default_tag().tag
    pause = arguments.flag("pause") and not arguments.flag("no-pause")
    query: Query = {
        "container": container,
        "repo": repository,
        "tag": tag,
        "comment": arguments.text("message"),
        "author": arguments.text("author"),
        "changes": arguments.texts("change"),
        "pause": "1" if pause else "0",
    }
    session.line(text(as_table(session.client.post("/commit", query, {})), "Id"))


COMMIT = Command(
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    (
        Flag("author", "a", STRING, "Author (e.g., John Hannibal Smith <hannibal@a-team.com>)"),
        Flag("change", "c", LIST, "Apply Dockerfile instruction to the created image"),
        Flag("message", "m", STRING, "Commit message"),
        Flag("no-pause", "", BOOL, "Disable pausing container during commit"),
        Flag(
            "pause",
            "p",
            BOOL,
            "Pause container during commit",
            "true",
            hidden=True,
            deprecated="and enabled by default. Use --no-pause to disable pausing during commit.",
        ),
    ),
    Arity(1, 2),
    _commit,
    complete="container",
)
