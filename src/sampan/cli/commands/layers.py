"""``image tree``, ``diff``, ``mount``, ``unmount`` and ``scp``: images by their layers.

They ask sampan's own additions to the API; a dockerd answers them with "not found".
"""

from __future__ import annotations

import os

from sampan.cli.command import ONE, SOME, Arity, Command, Flag
from sampan.cli.commands.diff import show_changes
from sampan.cli.commands.lifecycle import for_each
from sampan.cli.daemon import run_directory, target
from sampan.cli.fault import CliError
from sampan.cli.kinds import BOOL
from sampan.cli.progress import Progress
from sampan.cli.reference import parse_reference
from sampan.cli.show import short_id
from sampan.cli.units import human_size
from sampan.client.document import as_table, as_tables, number, table, text, texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.api import ApiClient, Query


def _tree(session: Session, arguments: Arguments) -> None:
    name = arguments.positional[0]
    details = as_table(session.client.get(f"/images/{name}/json"))
    layers = as_tables(session.client.get(f"/images/{name}/layers"))
    tops = _tops(session)
    session.line(f"Image ID: {short_id(text(details, 'Id'))}")
    session.line(f"Tags:     [{' '.join(texts(details, 'RepoTags'))}]")
    session.line(f"Size:     {human_size(number(details, 'Size'), 3)}")
    session.line("Image Layers")
    for place, layer in enumerate(layers):
        branch = "└──" if place == len(layers) - 1 else "├──"
        size = human_size(number(layer, "Size"), 3)
        line = f"{branch} ID: {short_id(text(layer, 'ChainID'))} Size: {size}"
        names = tops.get(tuple(text(each, "DiffID") for each in layers[: place + 1]), [])
        session.line(f"{line} Top Layer of: [{' '.join(names)}]" if names else line)
        if arguments.flag("whatrequires"):
            _print_above(session, tops, tuple(text(each, "DiffID") for each in layers[: place + 1]))


def _print_above(
    session: Session, tops: dict[tuple[str, ...], list[str]], below: tuple[str, ...]
) -> None:
    """The images that stand on a layer without ending there."""
    above = [
        name
        for layers, names in tops.items()
        if len(layers) > len(below) and layers[: len(below)] == below
        for name in names
    ]
    if above:
        session.line(f"│   Required by: [{' '.join(sorted(above))}]")


def _tops(session: Session) -> dict[tuple[str, ...], list[str]]:
    """The names of images by all of their layers."""
    found: dict[tuple[str, ...], list[str]] = {}
    for image in as_tables(session.client.get("/images/json", {"all": True})):
        identity = text(image, "Id")
        details = as_table(session.client.get(f"/images/{identity}/json"))
        names = texts(image, "RepoTags") or [short_id(identity)]
        layers = tuple(texts(table(details, "RootFS"), "Layers"))
        known = found.setdefault(layers, [])
        known += [name for name in names if name not in known]
    return found


def _diff(session: Session, arguments: Arguments) -> None:
    image, *since = arguments.positional
    query: Query = {"since": since[0] if since else ""}
    show_changes(session, as_tables(session.client.get(f"/images/{image}/changes", query)))


def _check_local(session: Session) -> None:
    if target(session).endpoint.scheme != "unix":
        raise CliError("an image can only be mounted on the daemon's own machine")
    if os.geteuid() != 0:
        raise CliError("mounting an image needs root")


def _place(session: Session, identity: str) -> str:
    identity = identity.partition(":")[2] or identity
    return os.path.join(run_directory(session.environment), "sampan", "images", identity)


def _mount(session: Session, arguments: Arguments) -> None:
    from sampan.kernel import mount

    _check_local(session)
    if not arguments.positional:
        _list_mounted(session)
        return
    for name in arguments.positional:
        made = as_table(session.client.post(f"/images/{name}/mount"))
        place = _place(session, text(made, "Id"))
        if not os.path.ismount(place):
            os.makedirs(place, 0o700, exist_ok=True)
            if text(made, "Type") == "bind":
                mount.mount(text(made, "Source"), place, "", mount.MS_BIND)
                flags = mount.MS_BIND | mount.MS_REMOUNT | mount.MS_RDONLY
                mount.mount("", place, "", flags)
            else:
                options = [option for option in texts(made, "Options") if option != "ro"]
                mount.mount("overlay", place, "overlay", mount.MS_RDONLY, ",".join(options))
        session.line(place)


def _list_mounted(session: Session) -> None:
    for image in as_tables(session.client.get("/images/json")):
        place = _place(session, text(image, "Id"))
        if os.path.ismount(place):
            for name in texts(image, "RepoTags") or [short_id(text(image, "Id"))]:
                session.line(f"{name} {place}")


def _unmount(session: Session, arguments: Arguments) -> int:
    from sampan.kernel import mount

    _check_local(session)

    def act(name: str) -> None:
        details = as_table(session.client.get(f"/images/{name}/json"))
        place = _place(session, text(details, "Id"))
        if os.path.ismount(place):
            mount.umount2(place, 0)
            os.rmdir(place)
        session.client.post(f"/images/{name}/unmount")

    return for_each(session, arguments.positional, act)


# -- scp


def _scp(session: Session, arguments: Arguments) -> None:
    """``IMAGE [HOST::]`` copies to a host, ``HOST::IMAGE [HOST::]`` from one."""
    source, *rest = arguments.positional
    host, image = _host(source)
    other, name = _host(rest[0]) if rest else ("", "")
    if not host and not other:
        raise CliError("neither side names another host: write it as [USER@]HOST[:PORT]::")
    if not image:
        raise CliError("the source names no image")
    origin = _client(session, host) if host else session.client
    goal = _client(session, other) if other else session.client
    quiet = arguments.flag("quiet")
    progress = Progress(1, terminal=session.is_terminal(1))
    wanted = _wanted(session, origin, goal, image, quiet=quiet)
    archive = origin.open("GET", "/images/get", wanted)
    headers = {"Content-Type": "application/x-tar"}
    records = goal.stream("POST", "/images/load", {"quiet": True}, iter(archive), headers)
    if quiet:
        progress.swallow(records)
    else:
        progress.show(records)
    if name:
        reference = parse_reference(name).with_default_tag()
        query: Query = {"repo": reference.familiar_name, "tag": reference.tag}
        goal.post(f"/images/{image}/tag", query)


def _host(argument: str) -> tuple[str, str]:
    """Host and image of one side."""
    host, separator, image = argument.partition("::")
    return (host, image) if separator else ("", argument)


def _client(session: Session, host: str) -> ApiClient:
    from sampan.client.api import ApiClient
    from sampan.client.endpoint import Endpoint

    url = host if "://" in host else f"ssh://{host}"
    return ApiClient(Endpoint.parse(url), session.environment)


def _wanted(
    session: Session, origin: ApiClient, goal: ApiClient, image: str, *, quiet: bool
) -> Query:
    """What to ask ``origin`` for: the image without the layers the other side has."""
    from sampan.client.failure import DaemonNotFound

    try:
        layers = as_tables(origin.get(f"/images/{image}/layers"))
        digests = sorted({text(layer, "Digest") for layer in layers})
        missing = goal.get("/images/missing", {"digest": digests}) if digests else []
        assert isinstance(missing, list)
    except DaemonNotFound:
        # Is it the image that is missing, or does one of the daemons not know what we ask?
        origin.get(f"/images/{image}/json")
        return {"names": [image]}
    there = [digest for digest in digests if digest not in missing]
    if not quiet:
        sizes = {text(layer, "Digest"): number(layer, "ContentSize") for layer in layers}
        size = human_size(sum(sizes[digest] for digest in digests if digest in missing), 3)
        session.line(f"Copying {len(digests) - len(there)} of {len(digests)} layers ({size})")
        session.flush()
    return {"names": [image], "without": there}


DIFF = Command("IMAGE [IMAGE]", (), Arity(1, 2), _diff, complete="image")
MOUNT = Command("[IMAGE...]", (), Arity(0, -1), _mount, complete="image")
SCP = Command(
    "[OPTIONS] [HOST::]IMAGE [HOST::][NAME]",
    (Flag("quiet", "q", BOOL, "Suppress the output"),),
    Arity(1, 2),
    _scp,
    detail="A HOST is [USER@]NAME[:PORT], reached by ssh, or the address of a daemon.",
    complete="image",
)
TREE = Command(
    "[OPTIONS] IMAGE",
    (Flag("whatrequires", "", BOOL, "Show the images that stand on each layer"),),
    ONE,
    _tree,
    complete="image",
)
UNMOUNT = Command("IMAGE [IMAGE...]", (), SOME, _unmount, complete="image")
