"""``container clone``: a new container with the configuration of another."""

from __future__ import annotations

from sampan.cli.command import Arity, Command, Flag
from sampan.cli.fault import CliError
from sampan.cli.kinds import BOOL, BYTES, DECIMAL, STRING
from sampan.cli.opts.variables import ENV
from sampan.client.document import as_table, table, text, texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.document import Document, Json

#: Settings of an endpoint that were asked for; the others are what it got.
_ENDPOINT_SETTINGS = ("IPAMConfig", "Links", "Aliases", "DriverOpts", "GwPriority")


def _networking(details: Document) -> Document:
    identity = text(details, "Id")
    endpoints: dict[str, Json] = {}
    networks = table(table(details, "NetworkSettings"), "Networks")
    if text(table(details, "HostConfig"), "NetworkMode") in ("default", "bridge", "host", "none"):
        return {}
    for name, value in networks.items():
        settings = as_table(value)
        kept = {key: settings[key] for key in _ENDPOINT_SETTINGS if settings.get(key)}
        aliases = [alias for alias in texts(settings, "Aliases") if not identity.startswith(alias)]
        kept["Aliases"] = [*aliases]
        kept.pop("IPAMConfig", None)  # the address belongs to the original
        endpoints[name] = kept
    return {"EndpointsConfig": endpoints}


def _config(details: Document, arguments: Arguments) -> Document:
    config = dict(table(details, "Config"))
    if text(config, "Hostname") == text(details, "Id")[:12]:
        config["Hostname"] = ""
    changed = {entry.partition("=")[0] for entry in arguments.texts("env")}
    kept = [entry for entry in texts(config, "Env") if entry.partition("=")[0] not in changed]
    config["Env"] = [*kept, *arguments.texts("env")]
    if len(arguments.positional) > 2:
        config["Image"] = arguments.positional[2]
    return config


def _clone(session: Session, arguments: Arguments) -> None:
    source, *rest = arguments.positional
    details = as_table(session.client.get(f"/containers/{source}/json"))
    if not details:
        raise CliError(f"no such container: {source}")
    host = dict(table(details, "HostConfig"))
    if "cpus" in arguments.changed:
        host |= {"NanoCpus": arguments.number("cpus"), "CpuQuota": 0, "CpuPeriod": 0}
    if "memory" in arguments.changed:
        host |= {"Memory": arguments.number("memory"), "MemorySwap": 0}
    host.pop("ContainerIDFile", None)
    original = text(details, "Name").removeprefix("/")
    name = arguments.text("name") or (rest[0] if rest else f"{original}-clone")
    body = {**_config(details, arguments), "HostConfig": host}
    body["NetworkingConfig"] = _networking(details)
    if arguments.flag("destroy"):
        query = {"force": arguments.flag("force"), "v": False}
        session.client.delete(f"/containers/{source}", query)
    answer = as_table(session.client.post("/containers/create", {"name": name}, body))
    identity = text(answer, "Id")
    if arguments.flag("run"):
        session.client.post(f"/containers/{identity}/start")
    session.line(identity)


CLONE = Command(
    "[OPTIONS] CONTAINER [NAME] [IMAGE]",
    (
        Flag("cpus", "", DECIMAL, "Number of CPUs of the clone"),
        Flag("destroy", "", BOOL, "Remove the original container"),
        Flag("env", "e", ENV, "Set or replace environment variables"),
        Flag("force", "f", BOOL, "With --destroy: also when the original is running"),
        Flag("memory", "m", BYTES, "Memory limit of the clone"),
        Flag("name", "", STRING, "Name of the clone (default: the original's with -clone)"),
        Flag("run", "", BOOL, "Start the clone"),
    ),
    Arity(1, 3),
    _clone,
    complete="container",
    detail="Mounts of named volumes are shared with the original; its writable layer is not.",
)
