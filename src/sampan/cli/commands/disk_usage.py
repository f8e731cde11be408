"""``system df``."""

from __future__ import annotations

from sampan.cli.clock import parse_rfc3339
from sampan.cli.command import NONE, Command, Flag
from sampan.cli.commands import containers, images, volumes
from sampan.cli.kinds import BOOL, STRING
from sampan.cli.listing import FORMAT_HELP, Column, Listing
from sampan.cli.show import ellipsis, since
from sampan.cli.units import human_size
from sampan.client.document import as_table, flag, number, table, tables, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.gotemplate.values import Value
    from sampan.cli.session import Session
    from sampan.client.document import Document

_SUMMARY = Listing(
    type_name="*formatter.diskUsageContext",
    columns={
        "Type": Column("TYPE", lambda row: text(row, "Type")),
        "TotalCount": Column("TOTAL", lambda row: text(row, "TotalCount")),
        "Active": Column("ACTIVE", lambda row: text(row, "Active")),
        "Size": Column("SIZE", lambda row: text(row, "Size")),
        "Reclaimable": Column("RECLAIMABLE", lambda row: text(row, "Reclaimable")),
    },
    table=("Type", "TotalCount", "Active", "Size", "Reclaimable"),
)


def _ago(row: Document, key: str) -> str:
    instant = parse_rfc3339(text(row, key))
    return "" if instant is None else since(instant)


_CACHE = Listing(
    type_name="*formatter.buildCacheContext",
    columns={
        "ID": Column("CACHE ID", lambda row: ellipsis(text(row, "ID"), 12)),
        "Parent": Column("PARENT", lambda row: text(row, "Parent")),
        "CacheType": Column("CACHE TYPE", lambda row: text(row, "Type")),
        "Size": Column("SIZE", lambda row: human_size(number(row, "Size"), 3)),
        "CreatedSince": Column("CREATED", lambda row: _ago(row, "CreatedAt")),
        "LastUsedSince": Column("LAST USED", lambda row: _ago(row, "LastUsedAt")),
        "UsageCount": Column("USAGE", lambda row: str(number(row, "UsageCount"))),
        "InUse": Column("IN USE", lambda row: "true" if flag(row, "InUse") else "false"),
        "Shared": Column("SHARED", lambda row: "true" if flag(row, "Shared") else "false"),
        "Description": Column("DESCRIPTION", lambda row: text(row, "Description")),
    },
    table=("ID", "CacheType", "Size", "CreatedSince", "LastUsedSince", "UsageCount", "Shared"),
)


def _row(kind: str, total: int, active: int, size: int, reclaimable: str) -> Document:
    return {
        "Type": kind,
        "TotalCount": str(total),
        "Active": str(active),
        "Size": human_size(size),
        "Reclaimable": reclaimable,
    }


def _share(reclaimable: int, total: int) -> str:
    shown = human_size(reclaimable)
    return f"{shown} ({reclaimable * 100 // total}%)" if total > 0 else shown


def _images_row(usage: Document) -> Document:
    all_images = tables(usage, "Images")
    active = [image for image in all_images if number(image, "Containers") > 0]
    total = number(usage, "LayersSize")
    used = sum(
        number(image, "Size") - max(number(image, "SharedSize"), 0)
        for image in active
        if number(image, "Size") != -1 and number(image, "SharedSize") != -1
    )
    return _row("Images", len(all_images), len(active), total, _share(total - used, total))


def _containers_row(usage: Document) -> Document:
    rows = tables(usage, "Containers")
    live = [row for row in rows if text(row, "State") in ("running", "paused", "restarting")]
    total = sum(number(row, "SizeRw") for row in rows)
    reclaimable = total - sum(number(row, "SizeRw") for row in live)
    return _row("Containers", len(rows), len(live), total, _share(reclaimable, total))


def _volumes_row(usage: Document) -> Document:
    rows = [(row, table(row, "UsageData")) for row in tables(usage, "Volumes")]
    used = [number(data, "RefCount") > 0 for _row_, data in rows]
    sizes = [max(number(data, "Size"), 0) for _row_, data in rows]
    reclaimable = sum(size for size, busy in zip(sizes, used, strict=True) if not busy)
    total = sum(sizes)
    return _row("Local Volumes", len(rows), sum(used), total, _share(reclaimable, total))


def _cache_row(usage: Document) -> Document:
    rows = tables(usage, "BuildCache")
    active = sum(flag(row, "InUse") for row in rows)
    total = sum(number(row, "Size") for row in rows if not flag(row, "Shared"))
    reclaimable = sum(
        number(row, "Size") for row in rows if not flag(row, "InUse") and not flag(row, "Shared")
    )
    return _row("Build Cache", len(rows), active, total, human_size(reclaimable))


def _verbose(usage: Document) -> str:
    image_rows = images.rows_of(tables(usage, "Images"), digests=False)
    image_shape = images.listing(truncate=True, digests=False)._replace(
        table=(
            "Repository",
            "Tag",
            "ID",
            "CreatedSince",
            "Size",
            "SharedSize",
            "UniqueSize",
            "Containers",
        )
    )
    container_shape = containers.listing(truncate=True, size=False)._replace(
        table=(
            "ID",
            "Image",
            "Command",
            "LocalVolumes",
            "Size",
            "RunningFor",
            "Status",
            "Names",
        )
    )
    container_rows = [{**row, "SizeRootFs": 0} for row in tables(usage, "Containers")]
    volume_shape = volumes.LISTING._replace(table=("Name", "Links", "Size"))
    cache = tables(usage, "BuildCache")
    size = sum(number(row, "Size") for row in cache if not flag(row, "Shared"))
    return (
        "Images space usage:\n\n"
        + image_shape.render(image_rows, "")
        + "\nContainers space usage:\n\n"
        + container_shape.render(container_rows, "")
        + "\nLocal Volumes space usage:\n\n"
        + volume_shape.render(tables(usage, "Volumes"), "")
        + f"\nBuild cache usage: {human_size(size)}\n\n"
        + _CACHE.render(cache, "")
    )


def _verbose_value(usage: Document) -> Value:
    """What a template sees of the verbose form: the rows of each kind."""
    from sampan.cli.gotemplate import Struct

    kinds = (
        ("Images", images.listing(truncate=False, digests=False),
         images.rows_of(tables(usage, "Images"), digests=False)),
        ("Containers", containers.listing(truncate=False, size=False), tables(usage, "Containers")),
        ("Volumes", volumes.LISTING, tables(usage, "Volumes")),
        ("BuildCache", _CACHE, tables(usage, "BuildCache")),
    )  # fmt: skip
    fields: dict[str, Value] = {name: shape.records(rows) for name, shape, rows in kinds}
    return Struct("formatter.diskUsageContext", fields)


def _df(session: Session, arguments: Arguments) -> None:
    usage = as_table(session.client.get("/system/df"))
    form = arguments.text("format")
    if arguments.flag("verbose"):
        if form:
            from sampan.cli.inspection import print_one

            print_one(session, form, _verbose_value(usage))
        else:
            session.out(_verbose(usage))
        return
    rows = [_images_row(usage), _containers_row(usage), _volumes_row(usage), _cache_row(usage)]
    session.out(_SUMMARY.render(rows, form))


DF = Command(
    "[OPTIONS]",
    (
        Flag("format", "", STRING, FORMAT_HELP),
        Flag("verbose", "v", BOOL, "Show detailed information on space usage"),
    ),
    NONE,
    _df,
)
