"""``system df``."""

from __future__ import annotations

from typing import NamedTuple

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


class Usage(NamedTuple):
    """The space one kind of object takes."""

    title: str
    items: list[Document]
    total: int
    active: int
    size: int
    reclaimable: int

    def row(self) -> Document:
        """The line of the summary; a share is only told where there is something."""
        reclaimable = human_size(self.reclaimable)
        if self.size > 0 and self.title != "Build Cache":
            reclaimable += f" ({self.reclaimable * 100 // self.size}%)"
        return {
            "Type": self.title,
            "TotalCount": str(self.total),
            "Active": str(self.active),
            "Size": human_size(self.size),
            "Reclaimable": reclaimable,
        }


class Usages(NamedTuple):
    """The space everything takes."""

    images: Usage
    containers: Usage
    volumes: Usage
    cache: Usage

    @classmethod
    def read(cls, answer: Document) -> Usages:
        """The answer of ``/system/df``, in the shape of API 1.52 or an older one."""
        if "ImageUsage" in answer:
            return cls(
                _summed("Images", table(answer, "ImageUsage")),
                _summed("Containers", table(answer, "ContainerUsage")),
                _summed("Local Volumes", table(answer, "VolumeUsage")),
                _summed("Build Cache", table(answer, "BuildCacheUsage")),
            )
        return cls(
            _images(tables(answer, "Images"), number(answer, "LayersSize")),
            _containers(tables(answer, "Containers")),
            _volumes(tables(answer, "Volumes")),
            _cache(tables(answer, "BuildCache")),
        )


def _summed(title: str, usage: Document) -> Usage:
    return Usage(
        title,
        tables(usage, "Items"),
        number(usage, "TotalCount"),
        number(usage, "ActiveCount"),
        number(usage, "TotalSize"),
        number(usage, "Reclaimable"),
    )


def _images(rows: list[Document], total: int) -> Usage:
    active = [image for image in rows if number(image, "Containers") > 0]
    used = sum(
        number(image, "Size") - max(number(image, "SharedSize"), 0)
        for image in active
        if number(image, "Size") != -1 and number(image, "SharedSize") != -1
    )
    return Usage("Images", rows, len(rows), len(active), total, total - used)


def _containers(rows: list[Document]) -> Usage:
    live = [row for row in rows if text(row, "State") in ("running", "paused", "restarting")]
    total = sum(number(row, "SizeRw") for row in rows)
    busy = sum(number(row, "SizeRw") for row in live)
    return Usage("Containers", rows, len(rows), len(live), total, total - busy)


def _volumes(rows: list[Document]) -> Usage:
    usages = [table(row, "UsageData") for row in rows]
    sizes = [(number(usage, "RefCount") > 0, max(number(usage, "Size"), 0)) for usage in usages]
    total = sum(size for _busy, size in sizes)
    free = sum(size for busy, size in sizes if not busy)
    return Usage("Local Volumes", rows, len(rows), sum(busy for busy, _ in sizes), total, free)


def _cache(rows: list[Document]) -> Usage:
    own = [row for row in rows if not flag(row, "Shared")]
    total = sum(number(row, "Size") for row in own)
    free = sum(number(row, "Size") for row in own if not flag(row, "InUse"))
    active = sum(flag(row, "InUse") for row in rows)
    return Usage("Build Cache", rows, len(rows), active, total, free)


def _verbose(usages: Usages) -> str:
    image_rows = [images.rows_of([image], digests=False)[0] for image in usages.images.items]
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
    container_rows = [{**row, "SizeRootFs": 0} for row in usages.containers.items]
    volume_shape = volumes.LISTING._replace(table=("Name", "Links", "Size"))
    return (
        "Images space usage:\n\n"
        + image_shape.render(image_rows, "")
        + "\nContainers space usage:\n\n"
        + container_shape.render(container_rows, "")
        + "\nLocal Volumes space usage:\n\n"
        + volume_shape.render(usages.volumes.items, "")
        + f"\nBuild cache usage: {human_size(usages.cache.size)}\n\n"
        + _CACHE.render(usages.cache.items, "")
    )


def _verbose_value(usages: Usages) -> Value:
    """What a template sees of the verbose form: the rows of each kind."""
    from sampan.cli.gotemplate import Struct

    kinds = (
        ("Images", images.listing(truncate=False, digests=False),
         [images.rows_of([image], digests=False)[0] for image in usages.images.items]),
        ("Containers", containers.listing(truncate=False, size=False), usages.containers.items),
        ("Volumes", volumes.LISTING, usages.volumes.items),
        ("BuildCache", _CACHE, usages.cache.items),
    )  # fmt: skip
    fields: dict[str, Value] = {name: shape.records(rows) for name, shape, rows in kinds}
    return Struct("formatter.diskUsageContext", fields)


def _df(session: Session, arguments: Arguments) -> None:
    verbose = arguments.flag("verbose")
    usages = Usages.read(as_table(session.client.get("/system/df", {"verbose": verbose})))
    form = arguments.text("format")
    if not verbose:
        session.out(_SUMMARY.render([usage.row() for usage in usages], form))
    elif form:
        from sampan.cli.inspection import print_one

        print_one(session, form, _verbose_value(usages))
    else:
        session.out(_verbose(usages))


DF = Command(
    "[OPTIONS]",
    (
        Flag("format", "", STRING, FORMAT_HELP),
        Flag("verbose", "v", BOOL, "Show detailed information on space usage"),
    ),
    NONE,
    _df,
)
