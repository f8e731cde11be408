"""``image push``."""

from __future__ import annotations

from sampan.cli import transports
from sampan.cli.command import Arity, Command, Flag
from sampan.cli.commands.archives import save_place
from sampan.cli.kinds import BOOL, STRING
from sampan.cli.reference import parse_reference
from sampan.cli.transfer import push
from sampan.client.document import as_table, text
from sampan.client.failure import DaemonNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.api import Query


def _push(session: Session, arguments: Arguments) -> None:
    image, *destinations = arguments.positional
    if not destinations:
        _to_registry(session, arguments, image)
        return
    if place := transports.parse(destinations[0], target=True):
        platform = arguments.text("platform")
        save_place(session, place, image, platforms=[platform] if platform else [])
        return
    target = parse_reference(destinations[0].removeprefix("docker://")).with_default_tag()
    if target == parse_reference(image.removeprefix("docker://")).with_default_tag():
        _to_registry(session, arguments, target.familiar)
        return
    # The daemon pushes an image under a name it has, so it gets that name for the time.
    had = _known(session, target.familiar)
    query: Query = {"repo": target.familiar_name, "tag": target.tag}
    session.client.post(f"/images/{image}/tag", query)
    try:
        _to_registry(session, arguments, target.familiar)
    finally:
        if had:
            session.client.post(f"/images/{had}/tag", query)
        else:
            session.client.delete(f"/images/{target.familiar}", {"noprune": True})


def _known(session: Session, name: str) -> str:
    """The id of the image that has a name, or empty."""
    try:
        return text(as_table(session.client.get(f"/images/{name}/json")), "Id")
    except DaemonNotFound:
        return ""


def _to_registry(session: Session, arguments: Arguments, image: str) -> None:
    push(
        session,
        image.removeprefix("docker://"),
        platform=arguments.text("platform"),
        all_tags=arguments.flag("all-tags"),
        quiet=arguments.flag("quiet"),
    )


PUSH = Command(
    "[OPTIONS] NAME[:TAG] [DESTINATION]",
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
    Arity(1, 2),
    _push,
    complete="image",
)
