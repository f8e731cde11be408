"""``container ls``."""

from __future__ import annotations

import json

from sampan.cli.clock import NANOSECONDS, go_string
from sampan.cli.command import NONE, Command, Flag
from sampan.cli.kinds import BOOL, FILTER, INT, STRING
from sampan.cli.listing import FORMAT_HELP, Column, Listing
from sampan.cli.show import ellipsis, labels_text, ports_text, short_id, since
from sampan.cli.units import human_size
from sampan.client.document import as_tables, labels, number, table, tables, text, texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.gotemplate.values import Value
    from sampan.cli.session import Session
    from sampan.client.api import Query
    from sampan.client.document import Document

FLAGS = (
    Flag("all", "a", BOOL, "Show all containers (default shows just running)"),
    Flag("filter", "f", FILTER, "Filter output based on conditions provided"),
    Flag("format", "", STRING, FORMAT_HELP),
    Flag("last", "n", INT, "Show n last created containers (includes all states)", "-1"),
    Flag("latest", "l", BOOL, "Show the latest created container (includes all states)"),
    Flag("no-trunc", "", BOOL, "Don't truncate output"),
    Flag("quiet", "q", BOOL, "Only display container IDs"),
    Flag("size", "s", BOOL, "Display total file sizes"),
)


def _names(row: Document) -> str:
    return ",".join(name.removeprefix("/") for name in texts(row, "Names"))


def _short_names(row: Document) -> str:
    # A name with a second slash is a link's alias seen from another container.
    return ",".join(name.removeprefix("/") for name in texts(row, "Names") if "/" not in name[1:])


def _image(row: Document) -> str:
    return text(row, "Image") or "<no image>"


def _short_image(row: Document) -> str:
    image = _image(row)
    identity = short_id(text(row, "ImageID"))
    if identity and identity == short_id(image):
        return identity
    name, at, _digest = image.partition("@")
    return name if at and ":" in name.rpartition("/")[2] else image


def _command(row: Document) -> str:
    return _quote(text(row, "Command"))


def _short_command(row: Document) -> str:
    return _quote(ellipsis(text(row, "Command"), 20))


def _quote(command: str) -> str:
    return json.dumps(command, ensure_ascii=False)


def _created(row: Document) -> int:
    return number(row, "Created") * NANOSECONDS


def _size(row: Document) -> str:
    shown = human_size(float(number(row, "SizeRw")), 3)
    root = number(row, "SizeRootFs")
    return f"{shown} (virtual {human_size(float(root), 3)})" if root > 0 else shown


def _mount_names(row: Document) -> list[str]:
    return [text(mount, "Name") or text(mount, "Source") for mount in tables(row, "Mounts")]


def _local_volumes(row: Document) -> str:
    return str(sum(text(mount, "Driver") == "local" for mount in tables(row, "Mounts")))


def _networks(row: Document) -> str:
    return ",".join(sorted(table(table(row, "NetworkSettings"), "Networks")))


def _health(row: Document) -> str:
    health = text(table(row, "Health"), "Status")
    if health:
        return health
    status = text(row, "Status")
    for mark in ("(healthy)", "(unhealthy)", "(health: starting)"):
        if status.endswith(mark):
            return mark.strip("()").removeprefix("health: ")
    return ""


def _platform_names(row: Document) -> dict[str, str]:
    return labels(table(row, "ImageManifestDescriptor"), "platform")


def _platform(row: Document) -> Value:
    names = _platform_names(row)
    return {**names} if names else None


def _label(row: Document, name: str) -> str:
    return labels(row, "Labels").get(name, "")


_COLUMNS = {
    "ID": Column("CONTAINER ID", lambda row: short_id(text(row, "Id"))),
    "Names": Column("NAMES", _short_names),
    "Image": Column("IMAGE", _short_image),
    "Command": Column("COMMAND", _short_command),
    "CreatedAt": Column("CREATED AT", lambda row: go_string(_created(row))),
    "RunningFor": Column("CREATED", lambda row: since(_created(row))),
    "Ports": Column("PORTS", lambda row: ports_text(tables(row, "Ports"))),
    "State": Column("STATE", lambda row: text(row, "State")),
    "Status": Column("STATUS", lambda row: text(row, "Status")),
    "Size": Column("SIZE", _size),
    "Labels": Column("LABELS", lambda row: labels_text(labels(row, "Labels"))),
    "Mounts": Column(
        "MOUNTS", lambda row: ",".join(ellipsis(name, 15) for name in _mount_names(row))
    ),
    "LocalVolumes": Column("LOCAL VOLUMES", _local_volumes),
    "Networks": Column("NETWORKS", _networks),
    "HealthStatus": Column("HEALTH STATUS", _health),
    "Platform": Column("PLATFORM", lambda row: _platform_names(row).get("os", "")),
}
_LONG = {
    "ID": Column("CONTAINER ID", lambda row: text(row, "Id")),
    "Names": Column("NAMES", _names),
    "Image": Column("IMAGE", _image),
    "Command": Column("COMMAND", _command),
    "Mounts": Column("MOUNTS", lambda row: ",".join(_mount_names(row))),
}
_TABLE = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
_RAW = (
    ("container_id", "ID"),
    ("image", "Image"),
    ("command", "Command"),
    ("created_at", "CreatedAt"),
    ("state", "State"),
    ("status", "Status"),
    ("names", "Names"),
    ("labels", "Labels"),
    ("ports", "Ports"),
)


def listing(*, truncate: bool, size: bool) -> Listing:
    """How containers are listed."""
    return Listing(
        type_name="*formatter.ContainerContext",
        columns=_COLUMNS if truncate else {**_COLUMNS, **_LONG},
        table=(*_TABLE, "Size") if size else _TABLE,
        raw=(*_RAW, ("size", "Size")) if size else _RAW,
        methods={"Label": _label},
        typed={"Platform": _platform},
        complaints=("failed to parse template", "failed to execute template"),
    )


def _ls(session: Session, arguments: Arguments) -> None:
    form = arguments.text("format")
    quiet = arguments.flag("quiet")
    if not form and not quiet:
        form = session.config.text("psFormat")
    shape = listing(truncate=not arguments.flag("no-trunc"), size=arguments.flag("size"))
    last = 1 if arguments.flag("latest") else arguments.number("last")
    size = arguments.flag("size") or ("{{" in form and shape.uses(form, "Size"))
    query: Query = {
        "all": arguments.flag("all"),
        "limit": last if last > 0 else 0,
        "size": size,
        "filters": arguments.filters(),
    }
    rows = as_tables(session.client.get("/containers/json", query))
    if quiet:
        if form:
            session.warn(
                "WARNING: Ignoring custom format, because both --format and --quiet are set."
            )
        session.out(shape.quiet(rows, "ID"))
    else:
        session.out(shape.render(rows, form))


LS = Command("[OPTIONS]", FLAGS, NONE, _ls)
