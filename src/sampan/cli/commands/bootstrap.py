"""``image bootstrap``: an image of a distribution from its own packages, no registry needed."""

from __future__ import annotations

import os
import sys
import tempfile

from sampan.cli.command import ONE, Command, Flag
from sampan.cli.commands.archives import chunks
from sampan.cli.fault import CliError
from sampan.cli.kinds import BOOL, STRING, STRINGS
from sampan.client.document import text
from sampan.client.failure import StreamFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.api import Query

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _bootstrap(session: Session, arguments: Arguments) -> None:
    import subprocess

    from sampan.cli.reference import parse_reference
    from sampan.image.bootstrap import plan
    from sampan.model.platform import Platform

    name = arguments.positional[0]
    wanted = arguments.text("platform")
    platform = Platform.parse(wanted) if wanted else Platform.host()
    command = plan(
        name,
        packages=arguments.texts("include"),
        variant=arguments.text("variant"),
        platform=platform,
    )
    if arguments.flag("dry-run"):
        session.line(" ".join(command))
        return
    reference = parse_reference(arguments.text("tag") or name).with_default_tag()
    with tempfile.TemporaryDirectory(prefix="sampan-bootstrap-") as directory:
        archive = os.path.join(directory, "root.tar")
        quiet = arguments.flag("quiet")
        try:
            done = subprocess.run(
                [*command[:-1], archive],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                stderr=subprocess.PIPE if quiet else None,
                check=False,
            )
        except FileNotFoundError:
            message = "image bootstrap needs the program mmdebstrap, which is not installed"
            raise CliError(message) from None
        if done.returncode:
            if done.stderr:
                session.warn(done.stderr.decode("utf-8", "replace").rstrip())
            raise CliError(f"{command[0]} ended with status {done.returncode}")
        session.line(_import(session, archive, reference.familiar_name, reference.tag, platform))


def _import(session: Session, archive: str, repository: str, tag: str, platform: object) -> str:
    query: Query = {
        "fromSrc": "-",
        "repo": repository,
        "tag": tag,
        "message": "sampan image bootstrap",
        "changes": [f"ENV PATH={_PATH}", 'CMD ["bash"]'],
        "platform": str(platform),
    }
    headers = {"Content-Type": "application/x-tar"}
    body = chunks(open(archive, "rb"))  # noqa: SIM115 (chunks closes it)
    identity = ""
    for record in session.client.stream("POST", "/images/create", query, body, headers):
        if text(record, "error"):
            raise StreamFailed(text(record, "error"))
        identity = text(record, "status") or identity
    return identity


BOOTSTRAP = Command(
    "[OPTIONS] debian:SUITE|ubuntu:SUITE",
    (
        Flag("dry-run", "", BOOL, "Print the command that would build the root file system"),
        Flag("include", "", STRINGS, "Packages to install besides the variant's"),
        Flag("platform", "", STRING, "Platform of the image (default: the host's)"),
        Flag("quiet", "q", BOOL, "Suppress the progress output"),
        Flag("tag", "t", STRING, "Name of the image (default: the argument)"),
        Flag(
            "variant",
            "",
            STRING,
            'Set of packages ("essential", "apt", "minbase", "buildd", "important", "standard")',
            "minbase",
        ),
    ),
    ONE,
    _bootstrap,
    detail="Uses mmdebstrap with this machine's apt sources and keys.",
)
