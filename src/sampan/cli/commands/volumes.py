"""``volume create``, ``ls``, ``rm``."""

from __future__ import annotations

from sampan.cli.command import AT_MOST_ONE, NONE, ONE, SOME, TWO, Arity, Command, Flag
from sampan.cli.commands.archives import check_output, chunks, deliver
from sampan.cli.commands.lifecycle import for_each
from sampan.cli.fault import CliError
from sampan.cli.kinds import BOOL, BYTES, FILTER, LIST, MAP, STRING
from sampan.cli.listing import FORMAT_HELP, Column, Listing
from sampan.cli.opts.variables import LABEL, to_map
from sampan.cli.show import labels_text
from sampan.cli.units import human_size
from sampan.client.document import as_table, labels, number, table, tables, text, texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.document import Document


def _links(row: Document) -> str:
    usage = table(row, "UsageData")
    return str(number(usage, "RefCount")) if usage else "N/A"


def _size(row: Document) -> str:
    usage = table(row, "UsageData")
    return human_size(float(number(usage, "Size"))) if usage else "N/A"


def _unknown(_row: Document) -> str:
    return "N/A"


_NO_SWARM = "need a swarm, which this engine does not have"
#: flags of cluster volumes
_CLUSTER_FLAGS = (
    ("availability", STRING),
    ("group", STRING),
    ("limit-bytes", BYTES),
    ("required-bytes", BYTES),
    ("scope", STRING),
    ("secret", MAP),
    ("sharing", STRING),
    ("topology-preferred", LIST),
    ("topology-required", LIST),
    ("type", STRING),
)

LISTING = Listing(
    type_name="*formatter.volumeContext",
    columns={
        "Name": Column("VOLUME NAME", lambda row: text(row, "Name")),
        "Driver": Column("DRIVER", lambda row: text(row, "Driver")),
        "Scope": Column("SCOPE", lambda row: text(row, "Scope")),
        "Mountpoint": Column("MOUNTPOINT", lambda row: text(row, "Mountpoint")),
        "Labels": Column("LABELS", lambda row: labels_text(labels(row, "Labels"))),
        "Links": Column("LINKS", _links),
        "Size": Column("SIZE", _size),
        "Status": Column("STATUS", _unknown),
        "Group": Column("GROUP", _unknown),
        "Availability": Column("AVAILABILITY", _unknown),
    },
    table=("Driver", "Name"),
    raw=(("name", "Name"), ("driver", "Driver")),
    methods={"Label": lambda row, name: labels(row, "Labels").get(name, "")},
)


def _ls(session: Session, arguments: Arguments) -> None:
    if arguments.flag("cluster"):
        raise CliError(f"cluster volumes {_NO_SWARM}")
    form = arguments.text("format")
    quiet = arguments.flag("quiet")
    if not form and not quiet:
        form = session.config.text("volumesFormat")
    answer = as_table(session.client.get("/volumes", {"filters": arguments.filters()}))
    for warning in texts(answer, "Warnings"):
        session.warn(f"WARNING: {warning}")
    rows = sorted(tables(answer, "Volumes"), key=lambda row: text(row, "Name"))
    session.out(LISTING.quiet(rows, "Name") if quiet and not form else LISTING.render(rows, form))


def _create(session: Session, arguments: Arguments) -> None:
    name = arguments.text("name")
    if arguments.positional:
        if name:
            raise CliError(
                "conflicting options: cannot specify a volume-name through both --name and as a "
                "positional arg"
            )
        name = arguments.positional[0]
    body: Document = {
        "Name": name,
        "Driver": arguments.text("driver"),
        "DriverOpts": {**arguments.pairs("opt")},
        "Labels": {**to_map(arguments.texts("label"))},
    }
    session.line(text(as_table(session.client.post("/volumes/create", None, body)), "Name"))


def _rm(session: Session, arguments: Arguments) -> int:
    query = {"force": arguments.flag("force")}

    def act(name: str) -> None:
        session.client.delete(f"/volumes/{name}", query)

    return for_each(session, arguments.positional, act)


def _rename(session: Session, arguments: Arguments) -> None:
    name, new = arguments.positional
    session.client.post(f"/volumes/{name}/rename", {"name": new})


def _snapshot(session: Session, arguments: Arguments) -> None:
    name, new = arguments.positional
    body: Document = {"Name": new}
    if "label" in arguments.changed:
        body["Labels"] = {**to_map(arguments.texts("label"))}
    answer = as_table(session.client.post(f"/volumes/{name}/snapshot", None, body))
    session.line(text(answer, "Name"))


def _export(session: Session, arguments: Arguments) -> None:
    check_output(session, arguments.text("output"), "export volume")
    response = session.client.open("GET", f"/volumes/{arguments.positional[0]}/export")
    deliver(session, response, arguments.text("output"))


def _import(session: Session, arguments: Arguments) -> None:
    import sys

    name, *rest = arguments.positional
    source = rest[0] if rest else "-"
    if source == "-" and session.is_terminal(0):
        raise CliError("requested import from stdin, but stdin is empty")
    body = chunks(sys.stdin.buffer if source == "-" else open(source, "rb"))  # noqa: SIM115
    headers = {"Content-Type": "application/x-tar"}
    session.client.open("POST", f"/volumes/{name}/import", None, body, headers).read()


LS = Command(
    "[OPTIONS]",
    (
        Flag(
            "cluster",
            "",
            BOOL,
            "Display only cluster volumes, and use cluster volume list formatting",
        ),
        Flag("filter", "f", FILTER, "Provide filter values (e.g. dangling=true)"),
        Flag("format", "", STRING, FORMAT_HELP),
        Flag("quiet", "q", BOOL, "Only display volume names"),
    ),
    NONE,
    _ls,
)
CREATE = Command(
    "[OPTIONS] [VOLUME]",
    (
        Flag("driver", "d", STRING, "Specify volume driver name", "local"),
        Flag("label", "", LABEL, "Set metadata for a volume"),
        Flag("name", "", STRING, "Specify volume name", hidden=True),
        Flag("opt", "o", MAP, "Set driver specific options"),
        *(
            Flag(
                name,
                "",
                kind,
                "",
                hidden=True,
                refused=f"is for cluster volumes, which {_NO_SWARM}",
            )
            for name, kind in _CLUSTER_FLAGS
        ),
    ),
    AT_MOST_ONE,
    _create,
)
RM = Command(
    "[OPTIONS] VOLUME [VOLUME...]",
    (Flag("force", "f", BOOL, "Force the removal of one or more volumes"),),
    SOME,
    _rm,
    complete="volume",
)
RENAME = Command("VOLUME NEW_NAME", (), TWO, _rename, complete="volume")
SNAPSHOT = Command(
    "[OPTIONS] VOLUME NEW_VOLUME",
    (Flag("label", "", LABEL, "Labels of the new volume (default: the original's)"),),
    TWO,
    _snapshot,
    complete="volume",
    detail=(
        "Copies what the volume holds to a new one, file by file (sharing blocks where the file "
        "system can). Pause what writes to it meanwhile."
    ),
)
EXPORT = Command(
    "[OPTIONS] VOLUME",
    (Flag("output", "o", STRING, "Write to a file, instead of STDOUT", complete="file"),),
    ONE,
    _export,
    complete="volume",
)
IMPORT = Command(
    "VOLUME [FILE|-]",
    (),
    Arity(1, 2),
    _import,
    complete="volume",
    detail="Extracts a tar archive (plain or compressed) into the volume, over what it holds.",
)
