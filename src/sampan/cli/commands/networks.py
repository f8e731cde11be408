"""``network create``, ``ls``, ``rm``, ``connect``, ``disconnect``."""

from __future__ import annotations

from sampan.cli.clock import go_string, parse_rfc3339
from sampan.cli.command import NONE, ONE, SOME, TWO, Command, Flag
from sampan.cli.fault import CliError
from sampan.cli.kinds import BOOL, FILTER, INT, IP, IP_NETS, IPS, MAP, STRING, STRINGS
from sampan.cli.listing import FORMAT_HELP, Column, Listing
from sampan.cli.opts.hosts import LINK
from sampan.cli.opts.ipam import ipam_configs
from sampan.cli.opts.network import Attachment
from sampan.cli.opts.variables import LABEL, to_map
from sampan.cli.show import labels_text, short_id
from sampan.client.document import as_table, as_tables, flag, labels, text
from sampan.client.failure import DaemonError, DaemonNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.document import Document


def _boolean(row: Document, key: str) -> str:
    return "true" if flag(row, key) else "false"


def _created(row: Document) -> str:
    created = text(row, "Created")
    instant = parse_rfc3339(created)
    return created if instant is None else go_string(instant)


def listing(*, truncate: bool) -> Listing:
    """How networks are listed."""
    return Listing(
        type_name="*network.networkContext",
        columns={
            "ID": Column(
                "NETWORK ID",
                lambda row: short_id(text(row, "Id")) if truncate else text(row, "Id"),
            ),
            "Name": Column("NAME", lambda row: text(row, "Name")),
            "Driver": Column("DRIVER", lambda row: text(row, "Driver")),
            "Scope": Column("SCOPE", lambda row: text(row, "Scope")),
            "IPv4": Column("IPV4", lambda row: _boolean(row, "EnableIPv4")),
            "IPv6": Column("IPV6", lambda row: _boolean(row, "EnableIPv6")),
            "Internal": Column("INTERNAL", lambda row: _boolean(row, "Internal")),
            "Labels": Column("LABELS", lambda row: labels_text(labels(row, "Labels"))),
            "CreatedAt": Column("CREATED AT", _created),
        },
        table=("ID", "Name", "Driver", "Scope"),
        raw=(
            ("network_id", "ID"),
            ("name", "Name"),
            ("driver", "Driver"),
            ("scope", "Scope"),
        ),
        methods={"Label": lambda row, name: labels(row, "Labels").get(name, "")},
    )


def _ls(session: Session, arguments: Arguments) -> None:
    form = arguments.text("format")
    quiet = arguments.flag("quiet")
    if not form and not quiet:
        form = session.config.text("networksFormat")
    rows = as_tables(session.client.get("/networks", {"filters": arguments.filters()}))
    rows.sort(key=lambda row: _natural(text(row, "Name")))
    shape = listing(truncate=not arguments.flag("no-trunc"))
    session.out(shape.quiet(rows, "ID") if quiet and not form else shape.render(rows, form))


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that puts ``net2`` before ``net10``."""
    parts: list[str] = []
    for letter in name:
        if parts and letter.isdecimal() == parts[-1][-1].isdecimal():
            parts[-1] += letter
        else:
            parts.append(letter)
    return [(int(part) if part.isdecimal() else -1, part) for part in parts]


def _create(session: Session, arguments: Arguments) -> None:
    config_from = arguments.text("config-from")
    body: Document = {
        "Name": arguments.positional[0],
        "Driver": arguments.text("driver"),
        "Scope": arguments.text("scope"),
        "Internal": arguments.flag("internal"),
        "Attachable": arguments.flag("attachable"),
        "Ingress": arguments.flag("ingress"),
        "ConfigOnly": arguments.flag("config-only"),
        "Options": {**arguments.pairs("opt")},
        "Labels": {**to_map(arguments.texts("label"))},
        "IPAM": {
            "Driver": arguments.text("ipam-driver"),
            "Options": {**arguments.pairs("ipam-opt")},
            "Config": ipam_configs(arguments),
        },
    }
    if config_from:
        body["ConfigFrom"] = {"Network": config_from}
    if "ipv4" in arguments.changed:
        body["EnableIPv4"] = arguments.flag("ipv4")
    if "ipv6" in arguments.changed:
        body["EnableIPv6"] = arguments.flag("ipv6")
    answer = as_table(session.client.post("/networks/create", None, body))
    warning = text(answer, "Warning")
    if warning:
        session.warn(f"WARNING: {warning}")
    session.line(text(answer, "Id"))


def _rm(session: Session, arguments: Arguments) -> int:
    status = 0
    for name in arguments.positional:
        try:
            session.client.delete(f"/networks/{name}")
        except DaemonError as error:
            if arguments.flag("force") and isinstance(error, DaemonNotFound):
                continue
            session.warn(f"Error response from daemon: {error.message}")
            status = 1
            continue
        session.line(name)
    if status:
        session.warn("exit status 1")
    return status


def _connect(session: Session, arguments: Arguments) -> None:
    network, container = arguments.positional
    options = []
    for option in arguments.texts("driver-opt"):
        name, equals, value = option.partition("=")
        if not equals:
            raise CliError("invalid key/value pair format in driver options")
        options.append((name, value))
    attachment = Attachment(
        target=network if network not in ("bridge", "host", "none", "default") else "user",
        aliases=tuple(arguments.texts("alias")),
        links=tuple(arguments.texts("link")),
        ip=arguments.text("ip"),
        ip6=arguments.text("ip6"),
        link_local=tuple(arguments.texts("link-local-ip")),
        driver_options=tuple(options),
        priority=arguments.number("gw-priority"),
    )
    body: Document = {"Container": container, "EndpointConfig": attachment.endpoint()}
    session.client.post(f"/networks/{network}/connect", None, body)


def _disconnect(session: Session, arguments: Arguments) -> None:
    network, container = arguments.positional
    body: Document = {"Container": container, "Force": arguments.flag("force")}
    session.client.post(f"/networks/{network}/disconnect", None, body)


LS = Command(
    "[OPTIONS]",
    (
        Flag("filter", "f", FILTER, "Provide filter values (e.g. driver=bridge)"),
        Flag("format", "", STRING, FORMAT_HELP),
        Flag("no-trunc", "", BOOL, "Do not truncate the output"),
        Flag("quiet", "q", BOOL, "Only display network IDs"),
    ),
    NONE,
    _ls,
)
CREATE = Command(
    "[OPTIONS] NETWORK",
    (
        Flag("attachable", "", BOOL, "Enable manual container attachment"),
        Flag("aux-address", "", MAP, "Auxiliary IPv4 or IPv6 addresses used by Network driver"),
        Flag("config-from", "", STRING, "The network from which to copy the configuration"),
        Flag("config-only", "", BOOL, "Create a configuration only network"),
        Flag("driver", "d", STRING, "Driver to manage the Network", "bridge"),
        Flag("gateway", "", IPS, "IPv4 or IPv6 Gateway for the master subnet"),
        Flag("ingress", "", BOOL, "Create swarm routing-mesh network"),
        Flag("internal", "", BOOL, "Restrict external access to the network"),
        Flag("ip-range", "", IP_NETS, "Allocate container ip from a sub-range"),
        Flag("ipam-driver", "", STRING, "IP Address Management Driver", "default"),
        Flag("ipam-opt", "", MAP, "Set IPAM driver specific options"),
        Flag("ipv4", "", BOOL, "Enable or disable IPv4 address assignment", "true", since="1.48"),
        Flag("ipv6", "", BOOL, "Enable or disable IPv6 address assignment"),
        Flag("label", "", LABEL, "Set metadata on a network"),
        Flag("opt", "o", MAP, "Set driver specific options"),
        Flag("scope", "", STRING, "Control the network's scope"),
        Flag("subnet", "", STRINGS, "Subnet in CIDR format that represents a network segment"),
    ),
    ONE,
    _create,
)
RM = Command(
    "NETWORK [NETWORK...]",
    (Flag("force", "f", BOOL, "Do not error if the network does not exist"),),
    SOME,
    _rm,
    complete="network",
)
CONNECT = Command(
    "[OPTIONS] NETWORK CONTAINER",
    (
        Flag("alias", "", STRINGS, "Add network-scoped alias for the container"),
        Flag("driver-opt", "", STRINGS, "driver options for the network"),
        Flag(
            "gw-priority",
            "",
            INT,
            "Highest gw-priority provides the default gateway. Accepts positive and "
            "negative values.",
            since="1.48",
        ),
        Flag("ip", "", IP, "IPv4 address (e.g., 172.30.100.104)"),
        Flag("ip6", "", IP, "IPv6 address (e.g., 2001:db8::33)"),
        Flag("link", "", LINK, "Add link to another container"),
        Flag("link-local-ip", "", IPS, "Add a link-local address for the container"),
    ),
    TWO,
    _connect,
    complete="network",
)
DISCONNECT = Command(
    "[OPTIONS] NETWORK CONTAINER",
    (Flag("force", "f", BOOL, "Force the container to disconnect from a network"),),
    TWO,
    _disconnect,
    complete="network",
)
