"""``image push``."""

from __future__ import annotations

from sampan.cli.command import ONE, Command, Flag
from sampan.cli.kinds import BOOL, STRING
from sampan.cli.transfer import push

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session


def _push(session: Session, arguments: Arguments) -> None:
    push(
        session,
        arguments.positional[0],
        platform=arguments.text("platform"),
        all_tags=arguments.flag("all-tags"),
        quiet=arguments.flag("quiet"),
    )


PUSH = Command(
    "[OPTIONS] NAME[:TAG]",
    (
        Flag("all-tags", "a", BOOL, "Push all tags of an image to the repository"),
        Flag(
            "platform",
            "",
            STRING,
            "Push a platform-specific manifest as a single-platform image to the registry.\n"
            "Image index won't be pushed, meaning that other manifests, including attestations "
            "won't be preserved.\n"
            "'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)",
            since="1.46",
        ),
        Flag("quiet", "q", BOOL, "Suppress verbose output"),
        Flag("disable-content-trust", "", BOOL, "", "true", hidden=True),
    ),
    ONE,
    _push,
    complete="image",
)
