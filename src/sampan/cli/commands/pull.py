"""``image pull``."""

from __future__ import annotations

from sampan.cli import transports
from sampan.cli.command import ONE, Command, Flag
from sampan.cli.commands.archives import load_place
from sampan.cli.kinds import BOOL, STRING
from sampan.cli.transfer import pull

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session


def _pull(session: Session, arguments: Arguments) -> None:
    source = arguments.positional[0]
    platform = arguments.text("platform")
    if place := transports.parse(source):
        load_place(session, place, platforms=[platform] if platform else [])
        return
    pull(
        session,
        source.removeprefix("docker://"),
        platform=platform or session.environment.get("DOCKER_DEFAULT_PLATFORM", ""),
        all_tags=arguments.flag("all-tags"),
        quiet=arguments.flag("quiet"),
    )


PULL = Command(
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    (
        Flag("all-tags", "a", BOOL, "Download all tagged images in the repository"),
        Flag("platform", "", STRING, "Set platform if server is multi-platform capable"),
        Flag("quiet", "q", BOOL, "Suppress verbose output"),
        Flag("disable-content-trust", "", BOOL, "", "true", hidden=True),
    ),
    ONE,
    _pull,
    complete="image",
)
