"""``image ls``, ``image rm``, ``image tag``."""

from __future__ import annotations

from typing import NamedTuple

from sampan.cli.clock import NANOSECONDS, go_string
from sampan.cli.command import AT_MOST_ONE, SOME, TWO, Command, Flag
from sampan.cli.fault import CliError
from sampan.cli.kinds import BOOL, FILTER, STRING, STRINGS
from sampan.cli.listing import FORMAT_HELP, Column, Listing
from sampan.cli.opts.platforms import parse_platform
from sampan.cli.reference import parse_reference
from sampan.cli.show import short_id, since
from sampan.cli.units import human_size
from sampan.client.document import as_tables, number, text, texts
from sampan.client.failure import DaemonError, DaemonNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.api import Query
    from sampan.client.document import Document
    from sampan.model.reference import Reference

FLAGS = (
    Flag("all", "a", BOOL, "Show all images (default hides intermediate and dangling images)"),
    Flag("digests", "", BOOL, "Show digests"),
    Flag("filter", "f", FILTER, "Filter output based on conditions provided"),
    Flag("format", "", STRING, FORMAT_HELP),
    Flag("no-trunc", "", BOOL, "Don't truncate output"),
    Flag("quiet", "q", BOOL, "Only show image IDs"),
    Flag("tree", "", BOOL, "List multi-platform images as a tree (EXPERIMENTAL)"),
)
_NONE = "<none>"


def _created(row: Document) -> int:
    return number(row, "Created") * NANOSECONDS


def _count(row: Document, key: str) -> str:
    value = number(row, key)
    return str(value) if value >= 0 and key in row else "N/A"


def _shared(row: Document) -> str:
    size = number(row, "SharedSize")
    return human_size(float(size)) if size >= 0 and "SharedSize" in row else "N/A"


def _unique(row: Document) -> str:
    shared, size = number(row, "SharedSize"), number(row, "Size")
    if shared < 0 or size < 0 or "SharedSize" not in row:
        return "N/A"
    return human_size(float(size - shared))


_COLUMNS = {
    "ID": Column("IMAGE ID", lambda row: short_id(text(row, "Id"))),
    "Repository": Column("REPOSITORY", lambda row: text(row, "Repository")),
    "Tag": Column("TAG", lambda row: text(row, "Tag")),
    "Digest": Column("DIGEST", lambda row: text(row, "Digest") or _NONE),
    "CreatedSince": Column("CREATED", lambda row: since(_created(row))),
    "CreatedAt": Column("CREATED AT", lambda row: go_string(_created(row))),
    "Size": Column("SIZE", lambda row: human_size(float(number(row, "Size")), 3)),
    "Containers": Column("CONTAINERS", lambda row: _count(row, "Containers")),
    "VirtualSize": Column("SIZE", lambda row: human_size(float(number(row, "Size")))),
    "SharedSize": Column("SHARED SIZE", _shared),
    "UniqueSize": Column("UNIQUE SIZE", _unique),
}
_LONG = {"ID": Column("IMAGE ID", lambda row: text(row, "Id"))}


def listing(*, truncate: bool, digests: bool) -> Listing:
    """How images are listed."""
    digest = ("Digest",) if digests else ()
    return Listing(
        type_name="*formatter.imageContext",
        columns=_COLUMNS if truncate else {**_COLUMNS, **_LONG},
        table=("Repository", "Tag", *digest, "ID", "CreatedSince", "Size"),
        raw=(
            ("repository", "Repository"),
            ("tag", "Tag"),
            *((("digest", "Digest"),) if digests else ()),
            ("image_id", "ID"),
            ("created_at", "CreatedAt"),
            ("virtual_size", "Size"),
        ),
    )


class _Names(NamedTuple):
    """One line's worth of names of an image."""

    repository: str
    tag: str
    digest: str = ""


def _names(image: Document, digests: bool) -> list[_Names]:
    """The lines an image takes: one a tag, one a digest without a tag, or one without either."""
    tags: dict[str, list[str]] = {}
    for name in texts(image, "RepoTags"):
        repository, _colon, tag = name.rpartition(":")
        if repository != _NONE:
            tags.setdefault(repository, []).append(tag)
    known: dict[str, list[str]] = {}
    for name in texts(image, "RepoDigests"):
        repository, _at, digest = name.partition("@")
        if repository != _NONE:
            known.setdefault(repository, []).append(digest)
    lines: list[_Names] = []
    for repository, names in tags.items():
        found = known.pop(repository, [])
        wanted = found if digests else [""]
        for tag in names:
            lines += [_Names(repository, tag, digest) for digest in wanted or [""]]
    for repository, found in known.items():
        wanted = found if digests else [""]
        lines += [_Names(repository, _NONE, digest) for digest in wanted]
    return lines or [_Names(_NONE, _NONE)]


def rows_of(images: list[Document], *, digests: bool) -> list[Document]:
    """Images as rows: repository, tag and digest beside the image's own members."""
    return [
        {**image, "Repository": names.repository, "Tag": names.tag, "Digest": names.digest}
        for image in images
        for names in _names(image, digests)
    ]


def _ls(session: Session, arguments: Arguments) -> None:
    filters = arguments.filters()
    if arguments.positional:
        filters.setdefault("reference", []).append(arguments.positional[0])
    form = arguments.text("format")
    quiet = arguments.flag("quiet")
    if arguments.flag("tree"):
        _refuse_tree_with(arguments)
    if not form and not quiet:
        form = session.config.text("imagesFormat")
    shape = listing(truncate=not arguments.flag("no-trunc"), digests=arguments.flag("digests"))
    query: Query = {"all": arguments.flag("all"), "filters": filters}
    if arguments.flag("tree"):
        from sampan.cli.image_tree import render

        images = as_tables(session.client.get("/images/json", {**query, "manifests": True}))
        session.out(render(images))
        return
    images = as_tables(session.client.get("/images/json", query))
    digests = arguments.flag("digests") or ("{{" in form and ".Digest" in form)
    rows = rows_of(images, digests=digests)
    if quiet and not form:
        session.out(shape.quiet(rows, "ID"))
    else:
        session.out(shape.render(rows, form))


def _refuse_tree_with(arguments: Arguments) -> None:
    for name in ("quiet", "no-trunc", "digests", "format"):
        if name in arguments.changed:
            raise CliError(f"--{name} is not yet supported with --tree")


def _rm(session: Session, arguments: Arguments) -> int:
    query: Query = {
        "force": arguments.flag("force"),
        "noprune": arguments.flag("no-prune"),
        "platforms": [parse_platform(name) for name in arguments.texts("platform")],
    }
    failures: list[str] = []
    fatal = False
    for name in arguments.positional:
        try:
            answers = as_tables(session.client.delete(f"/images/{name}", query))
        except DaemonError as error:
            fatal = fatal or not isinstance(error, DaemonNotFound)
            failures.append(f"Error response from daemon: {error.message}")
            continue
        for answer in answers:
            deleted = text(answer, "Deleted")
            session.line(
                f"Deleted: {deleted}" if deleted else f"Untagged: {text(answer, 'Untagged')}"
            )
    if not failures:
        return 0
    session.warn("\n".join(failures))
    return 1 if fatal or not arguments.flag("force") else 0


def _checked(name: str) -> Reference:
    try:
        return parse_reference(name)
    except CliError as error:
        message = f'Error parsing reference: "{name}" is not a valid repository/tag: '
        raise CliError(message + error.message) from error


def _tag(session: Session, arguments: Arguments) -> None:
    source, target = arguments.positional
    _checked(source)
    reference = _checked(target)
    query = {"repo": reference.familiar_name, "tag": reference.tag}
    session.client.post(f"/images/{source}/tag", query)


LS = Command("[OPTIONS] [REPOSITORY[:TAG]]", FLAGS, AT_MOST_ONE, _ls, complete="image")
RM = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    (
        Flag("force", "f", BOOL, "Force removal of the image"),
        Flag("no-prune", "", BOOL, "Do not delete untagged parents"),
        Flag(
            "platform",
            "",
            STRINGS,
            "Remove only the given platform variant. Formatted as "
            "os[/arch[/variant]] (e.g., linux/amd64)",
        ),
    ),
    SOME,
    _rm,
    complete="image",
)
TAG = Command("SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", (), TWO, _tag, complete="image")
