"""``builder du``: what the build cache holds."""

from __future__ import annotations

from sampan.cli.command import NONE, Command, Flag
from sampan.cli.kinds import BOOL
from sampan.cli.units import human_size
from sampan.client.document import as_table, number, tables, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.document import Document


def _records(session: Session) -> list[Document]:
    answer = as_table(session.client.get("/system/df", {"type": ["build-cache"], "verbose": True}))
    usage = answer.get("BuildCacheUsage")
    found = tables(usage if isinstance(usage, dict) else answer, "Items")
    return found or tables(answer, "BuildCache")


def _du(session: Session, arguments: Arguments) -> None:
    records = _records(session)
    if arguments.flag("verbose"):
        for one in records:
            _details(session, one)
    else:
        session.line(f"{'ID':<30} {'RECLAIMABLE':<12} {'SIZE':<12} LAST ACCESSED")
        for one in records:
            free = str(not one.get("InUse")).lower()
            size = human_size(number(one, "Size"))
            used = text(one, "LastUsedAt")
            session.line(f"{text(one, 'ID'):<30} {free:<12} {size:<12} {used}")
    total = sum(number(one, "Size") for one in records)
    free_total = sum(number(one, "Size") for one in records if not one.get("InUse"))
    session.line(f"Reclaimable:\t{human_size(free_total)}")
    session.line(f"Total:\t\t{human_size(total)}")


def _details(session: Session, one: Document) -> None:
    session.line(f"ID:\t\t{text(one, 'ID')}")
    session.line(f"Created at:\t{text(one, 'CreatedAt')}")
    session.line(f"Reclaimable:\t{str(not one.get('InUse')).lower()}")
    session.line(f"Size:\t\t{human_size(number(one, 'Size'))}")
    session.line(f"Description:\t{text(one, 'Description')}")
    session.line(f"Usage count:\t{number(one, 'UsageCount')}")
    session.line(f"Last used:\t{text(one, 'LastUsedAt')}")
    session.line(f"Type:\t\t{text(one, 'Type')}\n")


DU = Command(
    "[OPTIONS]",
    (Flag("verbose", "v", BOOL, "Show every record in full"),),
    NONE,
    _du,
)
