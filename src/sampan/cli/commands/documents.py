"""``completion``, ``man``, and what the completion scripts call."""

from __future__ import annotations

import os

from sampan.cli.command import ANY, NONE, ONE, Command, Flag
from sampan.cli.fault import CliError
from sampan.cli.kinds import STRING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session


def _completion(session: Session, arguments: Arguments) -> None:
    from sampan.cli.completion import SCRIPTS, script

    shell = arguments.positional[0]
    if shell not in SCRIPTS:
        raise CliError(f'unknown shell "{shell}": must be one of {", ".join(SCRIPTS)}')
    session.out(script(shell, session.program))


def _complete(session: Session, arguments: Arguments) -> None:
    from sampan.cli.completion import candidates

    session.out("".join(f"{word}\n" for word in candidates(session, arguments.positional)))


def _man(session: Session, arguments: Arguments) -> None:
    from sampan import __version__
    from sampan.cli.manual import pages

    directory = arguments.text("output")
    os.makedirs(directory, 0o755, exist_ok=True)
    found = pages(session.program, __version__)
    for name, content in found.items():
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(content)
    session.line(f"{len(found)} pages in {directory}")


COMPLETION = Command(
    "bash|zsh|fish",
    (),
    ONE,
    _completion,
    detail="Load it with: source <(sampan completion bash)",
)
COMPLETE = Command("WORD...", (), ANY, _complete, interspersed=False)
MAN = Command(
    "[OPTIONS]",
    (
        Flag(
            "output",
            "o",
            STRING,
            "Directory to write the pages to",
            "man1",
            complete="directory",
        ),
    ),
    NONE,
    _man,
)
