"""Pulling and pushing through the daemon, with the registry's credentials."""

from __future__ import annotations

from sampan.cli.credentials import registry_auth
from sampan.cli.fault import CliError
from sampan.cli.progress import Progress
from sampan.cli.reference import parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.session import Session


def pull(
    session: Session,
    image: str,
    *,
    platform: str = "",
    all_tags: bool = False,
    quiet: bool = False,
    descriptor: int = 1,
) -> None:
    """Pull an image, showing progress on a standard stream.

    Raises :class:`CliError` and the daemon's errors.
    """
    reference = parse_reference(image)
    if all_tags and (reference.tag or reference.digest):
        raise CliError("tag can't be used with --all-tags/-a")
    if not all_tags and not reference.tag and not reference.digest:
        reference = reference.with_default_tag()
        if not quiet and descriptor == 1:
            session.line(f"Using default tag: {reference.tag}")
    tag = str(reference.digest) if reference.digest else reference.tag
    query = {"fromImage": reference.familiar_name, "tag": tag, "platform": platform}
    headers = {"X-Registry-Auth": registry_auth(session, reference.domain)}
    records = session.client.stream("POST", "/images/create", query, None, headers)
    if quiet:
        Progress(descriptor, terminal=False).swallow(records)
    else:
        Progress(descriptor, terminal=session.is_terminal(descriptor)).show(records)
    if descriptor == 1:
        session.line(str(reference))


def push(session: Session, image: str, *, platform: str, all_tags: bool, quiet: bool) -> None:
    """Push an image or every tag of it.

    Raises :class:`CliError` and the daemon's errors.
    """
    reference = parse_reference(image)
    if all_tags and (reference.tag or reference.digest):
        raise CliError("tag can't be used with --all-tags/-a")
    if not all_tags and not reference.digest and not reference.tag:
        reference = reference.with_default_tag()
        if not quiet:
            session.line(f"Using default tag: {reference.tag}")
    query = {"tag": "" if all_tags else reference.tag}
    if platform:
        from sampan.cli.opts.platforms import parse_platform

        try:
            query["platform"] = parse_platform(platform)
        except ValueError as error:
            raise CliError(str(error)) from error
    headers = {"X-Registry-Auth": registry_auth(session, reference.domain)}
    path = f"/images/{reference.familiar_name}/push"
    records = session.client.stream("POST", path, query, None, headers)
    if quiet:
        Progress(1, terminal=False).swallow(records)
        session.line(str(reference))
    else:
        Progress(1, terminal=session.is_terminal(1)).show(records)
