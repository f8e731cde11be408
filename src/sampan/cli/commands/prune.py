"""The ``prune`` of each kind of object, and ``system prune``."""

from __future__ import annotations

from sampan.cli.command import NONE, Command, Flag
from sampan.cli.fault import CliError
from sampan.cli.kinds import BOOL, BYTES, FILTER
from sampan.cli.units import human_size
from sampan.client.document import as_table, number, tables, text, texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.api import Query

    Filters = dict[str, list[str]]

_QUESTION = "Are you sure you want to continue?"
_CONTAINERS = "all stopped containers"
_NETWORKS = "all networks not used by at least one container"


def filters_of(session: Session, arguments: Arguments) -> Filters:
    """The filters of the flags and those of ``pruneFilters`` in the configuration."""
    filters = arguments.filters()
    for entry in texts(session.config.document, "pruneFilters"):
        name, equals, value = entry.partition("=")
        opposite = name.removesuffix("!") if name.endswith("!") else f"{name}!"
        if equals and value not in filters.get(opposite, []):
            filters.setdefault(name, []).append(value)
    return filters


def _containers(session: Session, filters: Filters) -> tuple[int, str]:
    answer = as_table(session.client.post("/containers/prune", {"filters": filters}))
    return number(answer, "SpaceReclaimed"), _list(
        "Deleted Containers:", texts(answer, "ContainersDeleted")
    )


def _networks(session: Session, filters: Filters) -> tuple[int, str]:
    answer = as_table(session.client.post("/networks/prune", {"filters": filters}))
    return 0, _list("Deleted Networks:", texts(answer, "NetworksDeleted"))


def _volumes(session: Session, filters: Filters) -> tuple[int, str]:
    answer = as_table(session.client.post("/volumes/prune", {"filters": filters}))
    return number(answer, "SpaceReclaimed"), _list(
        "Deleted Volumes:", texts(answer, "VolumesDeleted")
    )


def _images(session: Session, filters: Filters) -> tuple[int, str]:
    answer = as_table(session.client.post("/images/prune", {"filters": filters}))
    lines = [
        f"untagged: {text(item, 'Untagged')}"
        if text(item, "Untagged")
        else f"deleted: {text(item, 'Deleted')}"
        for item in tables(answer, "ImagesDeleted")
    ]
    return number(answer, "SpaceReclaimed"), _list("Deleted Images:", lines)


def _cache(
    session: Session, filters: Filters, *, everything: bool, keep: int = 0
) -> tuple[int, str]:
    query: Query = {"all": everything, "keep-storage": keep, "filters": filters}
    answer = as_table(session.client.post("/build/prune", query))
    return number(answer, "SpaceReclaimed"), _list(
        "Deleted build cache objects:", texts(answer, "CachesDeleted")
    )


def _list(title: str, lines: list[str]) -> str:
    return "\n".join([title, *lines]) + "\n" if lines else ""


def _agreed(session: Session, arguments: Arguments, warning: str) -> bool:
    if arguments.flag("force"):
        return True
    return session.confirm(f"{warning}{_QUESTION}")


def _finish(session: Session, result: tuple[int, str]) -> None:
    space, output = result
    if output:
        session.line(output)
    session.line(f"Total reclaimed space: {human_size(float(space))}")


def _prune_containers(session: Session, arguments: Arguments) -> None:
    filters = filters_of(session, arguments)
    if _agreed(session, arguments, f"WARNING! This will remove {_CONTAINERS}.\n"):
        _finish(session, _containers(session, filters))


def _prune_images(session: Session, arguments: Arguments) -> None:
    everything = arguments.flag("all")
    what = (
        "all images without at least one container associated to them"
        if everything
        else "all dangling images"
    )
    filters = {**filters_of(session, arguments), "dangling": ["false" if everything else "true"]}
    if _agreed(session, arguments, f"WARNING! This will remove {what}.\n"):
        _finish(session, _images(session, filters))


def _prune_networks(session: Session, arguments: Arguments) -> None:
    filters = filters_of(session, arguments)
    what = "all custom networks not used by at least one container"
    if _agreed(session, arguments, f"WARNING! This will remove {what}.\n"):
        output = _networks(session, filters)[1]
        if output:
            session.line(output)


def _prune_volumes(session: Session, arguments: Arguments) -> None:
    filters = filters_of(session, arguments)
    everything = arguments.flag("all")
    if everything and "all" in filters:
        raise CliError("conflicting options: cannot specify both --all and --filter all=1")
    anonymous = session.client.at_least("1.42") and not everything
    if everything:
        filters["all"] = ["true"]
    kind = "anonymous local volumes" if anonymous else "all local volumes"
    warning = f"WARNING! This will remove {kind} not used by at least one container.\n"
    if _agreed(session, arguments, warning):
        _finish(session, _volumes(session, filters))


def _prune_cache(session: Session, arguments: Arguments) -> None:
    everything = arguments.flag("all")
    filters = filters_of(session, arguments)
    what = "all build cache" if everything else "all dangling build cache"
    if _agreed(session, arguments, f"WARNING! This will remove {what}. "):
        keep = arguments.number("keep-storage")
        _finish(session, _cache(session, filters, everything=everything, keep=keep))


def _prune_system(session: Session, arguments: Arguments) -> None:
    everything, with_volumes = arguments.flag("all"), arguments.flag("volumes")
    filters = filters_of(session, arguments)
    if with_volumes and "until" in filters:
        raise CliError('ERROR: The "until" filter is not supported with "--volumes"')
    if not _agreed(session, arguments, _system_warning(session, arguments, filters)):
        return
    images = {**filters, "dangling": ["false" if everything else "true"]}
    steps: list[Callable[[], tuple[int, str]]] = [lambda: _containers(session, filters)]
    if with_volumes:
        steps.append(lambda: _volumes(session, filters))
    steps.append(lambda: _networks(session, filters))
    steps.append(lambda: _images(session, images))
    steps.append(lambda: _cache(session, filters, everything=everything))
    total = 0
    for step in steps:
        space, output = step()
        total += space
        if output:
            session.line(output)
    session.line(f"Total reclaimed space: {human_size(float(total))}")


def _system_warning(session: Session, arguments: Arguments, filters: Filters) -> str:
    lines = [_CONTAINERS, _NETWORKS]
    if arguments.flag("volumes"):
        anonymous = session.client.at_least("1.42")
        kind = "anonymous volumes" if anonymous else "volumes"
        lines.append(f"all {kind} not used by at least one container")
    if arguments.flag("all"):
        lines.append("all images without at least one container associated to them")
    else:
        lines.append("all dangling images")
    lines.append("all build cache" if arguments.flag("all") else "unused build cache")
    warning = "WARNING! This will remove:\n" + "".join(f"  - {line}\n" for line in lines)
    if filters:
        chosen = sorted(f"{name}={value}" for name in filters for value in filters[name])
        warning += "\n  Items to be pruned will be filtered with:\n"
        warning += "".join(f"  - {line}\n" for line in chosen)
    return warning + "\n"


CONTAINER = Command(
    "[OPTIONS]",
    (
        Flag("filter", "", FILTER, "Provide filter values (e.g. until=<timestamp>)"),
        Flag("force", "f", BOOL, "Do not prompt for confirmation"),
    ),
    NONE,
    _prune_containers,
)
IMAGE = Command(
    "[OPTIONS]",
    (
        Flag("all", "a", BOOL, "Remove all unused images, not just dangling ones"),
        Flag("filter", "", FILTER, "Provide filter values (e.g. until=<timestamp>)"),
        Flag("force", "f", BOOL, "Do not prompt for confirmation"),
    ),
    NONE,
    _prune_images,
)
NETWORK = Command(
    "[OPTIONS]",
    (
        Flag("filter", "", FILTER, "Provide filter values (e.g. until=<timestamp>)"),
        Flag("force", "f", BOOL, "Do not prompt for confirmation"),
    ),
    NONE,
    _prune_networks,
)
VOLUME = Command(
    "[OPTIONS]",
    (
        Flag(
            "all",
            "a",
            BOOL,
            "Remove all unused volumes, not just anonymous ones",
            since="1.42",
        ),
        Flag("filter", "", FILTER, "Provide filter values (e.g. label=<label>)"),
        Flag("force", "f", BOOL, "Do not prompt for confirmation"),
    ),
    NONE,
    _prune_volumes,
)
SYSTEM = Command(
    "[OPTIONS]",
    (
        Flag("all", "a", BOOL, "Remove all unused images not just dangling ones"),
        Flag("filter", "", FILTER, "Provide filter values (e.g. label=<key>=<value>)"),
        Flag("force", "f", BOOL, "Do not prompt for confirmation"),
        Flag("volumes", "", BOOL, "Prune anonymous volumes"),
    ),
    NONE,
    _prune_system,
)
BUILDER = Command(
    "[OPTIONS]",
    (
        Flag("all", "a", BOOL, "Remove all unused build cache, not just dangling ones"),
        Flag("filter", "", FILTER, "Provide filter values (e.g. until=24h)"),
        Flag("force", "f", BOOL, "Do not prompt for confirmation"),
        Flag("keep-storage", "", BYTES, "Amount of disk space to keep for cache"),
    ),
    NONE,
    _prune_cache,
)
