"""``system info``."""

from __future__ import annotations

from sampan.cli.command import NONE, Command, Flag
from sampan.cli.commands.version import client_information
from sampan.cli.kinds import STRING
from sampan.cli.listing import INSPECT_FORMAT_HELP
from sampan.cli.units import binary_size
from sampan.client.document import as_table, flag, items, number, table, tables, text, texts
from sampan.client.failure import DaemonError
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.document import Document


def _info(session: Session, arguments: Arguments) -> int:
    client = {"Debug": session.options.debug, **client_information(session)}
    client |= {"Plugins": [], "Warnings": None}
    client.pop("ApiVersion")
    server: Document = {}
    failure = ""
    try:
        server = as_table(session.client.get("/info"))
    except DaemonError as error:
        failure = f"Error response from daemon: {error.message}"
    except SampanError as error:
        failure = error.message
    form = arguments.text("format")
    if form:
        from sampan.cli.gotemplate import Struct
        from sampan.cli.gotypes import plain
        from sampan.cli.inspection import print_one

        shown: Document = {**server, "ClientInfo": client}
        if failure:
            shown["ServerErrors"] = [failure]
        fields = {name: plain(value) for name, value in shown.items()}
        print_one(session, form, Struct("system.dockerInfo", fields))
        if failure:
            session.warn(failure)
        return 1 if failure else 0
    session.out(_client(client))
    session.out("\nServer:\n")
    if failure:
        session.warn(f"{failure}\nerrors pretty printing info")
        return 1
    session.out("\n".join(_server(server)) + "\n\n")
    for warning in texts(server, "Warnings"):
        session.warn(warning)
    return 0


def _client(client: Document) -> str:
    return (
        f"Client:\n Version:    {text(client, 'Version')}\n Context:    {text(client, 'Context')}\n"
        f" Debug Mode: {_boolean(client, 'Debug')}\n"
    )


def _boolean(document: Document, key: str) -> str:
    return "true" if flag(document, key) else "false"


def _server(info: Document) -> list[str]:
    return [
        *_counts(info),
        *_drivers(info),
        *_runtimes(info),
        *_host(info),
        *_settings(info),
    ]


def _counts(info: Document) -> list[str]:
    return [
        f" Containers: {number(info, 'Containers')}",
        f"  Running: {number(info, 'ContainersRunning')}",
        f"  Paused: {number(info, 'ContainersPaused')}",
        f"  Stopped: {number(info, 'ContainersStopped')}",
        f" Images: {number(info, 'Images')}",
        *_given(info, "Server Version", "ServerVersion"),
    ]


def _given(info: Document, title: str, key: str) -> list[str]:
    value = text(info, key)
    return [f" {title}: {value}"] if value else []


def _pairs(info: Document, key: str) -> list[str]:
    return [
        f"  {pair[0]}: {pair[1]}"
        for pair in items(info, key)
        if isinstance(pair, list) and len(pair) == 2
    ]


def _drivers(info: Document) -> list[str]:
    plugins = table(info, "Plugins")
    lines = [
        *_given(info, "Storage Driver", "Driver"),
        *_pairs(info, "DriverStatus"),
        *_given(info, "Logging Driver", "LoggingDriver"),
        *_given(info, "Cgroup Driver", "CgroupDriver"),
        *_given(info, "Cgroup Version", "CgroupVersion"),
        " Plugins:",
        f"  Volume: {' '.join(texts(plugins, 'Volume'))}",
        f"  Network: {' '.join(texts(plugins, 'Network'))}",
    ]
    if texts(plugins, "Authorization"):
        lines.append(f"  Authorization: {' '.join(texts(plugins, 'Authorization'))}")
    lines.append(f"  Log: {' '.join(texts(plugins, 'Log'))}")
    if texts(info, "CDISpecDirs"):
        lines.append(" CDI spec directories:")
        lines += [f"  {directory}" for directory in texts(info, "CDISpecDirs")]
    devices = tables(info, "DiscoveredDevices")
    if devices:
        lines.append(" Discovered Devices:")
        lines += [f"  {text(device, 'Source')}: {text(device, 'ID')}" for device in devices]
    lines.append(f" Swarm: {text(table(info, 'Swarm'), 'LocalNodeState')}")
    return lines


def _runtimes(info: Document) -> list[str]:
    lines = []
    if table(info, "Runtimes"):
        lines += [
            f" Runtimes: {' '.join(sorted(table(info, 'Runtimes')))}",
            f" Default Runtime: {text(info, 'DefaultRuntime')}",
        ]
    if text(info, "OSType") == "linux":
        lines.append(f" Init Binary: {text(info, 'InitBinary')}")
        for name, key in (
            ("containerd", "ContainerdCommit"),
            ("runc", "RuncCommit"),
            ("init", "InitCommit"),
        ):
            lines.append(f" {name} version: {text(table(info, key), 'ID')}")
        options = texts(info, "SecurityOptions")
        if options:
            lines.append(" Security Options:")
            lines += [line for option in options for line in _security(option)]
    return lines


def _security(option: str) -> list[str]:
    """``name=seccomp,profile=default`` as a name and indented pairs."""
    pairs = [pair.partition("=") for pair in option.split(",")]
    names = [value for key, _equals, value in pairs if key == "name"]
    others = [(key, value) for key, _equals, value in pairs if key != "name"]
    return [
        f"  {names[0] if names else option}",
        *(f"   {key.capitalize()}: {value}" for key, value in others),
    ]


def _host(info: Document) -> list[str]:
    return [
        *_given(info, "Kernel Version", "KernelVersion"),
        *_given(info, "Operating System", "OperatingSystem"),
        *_given(info, "OSType", "OSType"),
        *_given(info, "Architecture", "Architecture"),
        f" CPUs: {number(info, 'NCPU')}",
        f" Total Memory: {binary_size(number(info, 'MemTotal'))}",
        *_given(info, "Name", "Name"),
        *_given(info, "ID", "ID"),
        f" Docker Root Dir: {text(info, 'DockerRootDir')}",
        f" Debug Mode: {_boolean(info, 'Debug')}",
    ]


def _settings(info: Document) -> list[str]:
    lines = []
    if flag(info, "Debug"):
        lines += [
            f"  File Descriptors: {number(info, 'NFd')}",
            f"  Goroutines: {number(info, 'NGoroutines')}",
            f"  System Time: {text(info, 'SystemTime')}",
            f"  EventsListeners: {number(info, 'NEventsListener')}",
        ]
    lines += [
        *_given(info, "HTTP Proxy", "HttpProxy"),
        *_given(info, "HTTPS Proxy", "HttpsProxy"),
        *_given(info, "No Proxy", "NoProxy"),
    ]
    if texts(info, "Labels"):
        lines.append(" Labels:")
        lines += [f"  {label}" for label in texts(info, "Labels")]
    lines.append(f" Experimental: {_boolean(info, 'ExperimentalBuild')}")
    lines += _registries(table(info, "RegistryConfig"))
    lines.append(f" Live Restore Enabled: {_boolean(info, 'LiveRestoreEnabled')}")
    lines += _given(info, "Product License", "ProductLicense")
    pools = tables(info, "DefaultAddressPools")
    if pools:
        lines.append(" Default Address Pools:")
        lines += [f"   Base: {text(p, 'Base')}, Size: {number(p, 'Size')}" for p in pools]
    firewall = table(info, "FirewallBackend")
    if firewall:
        lines.append(f" Firewall Backend: {text(firewall, 'Driver')}")
        lines += _pairs(firewall, "Info")
    return lines


def _registries(config: Document) -> list[str]:
    insecure = [
        name
        for name, entry in table(config, "IndexConfigs").items()
        if not flag(as_table(entry), "Secure")
    ]
    insecure += texts(config, "InsecureRegistryCIDRs")
    lines = []
    if insecure:
        lines += [" Insecure Registries:", *(f"  {name}" for name in insecure)]
    if texts(config, "Mirrors"):
        lines += [" Registry Mirrors:", *(f"  {name}" for name in texts(config, "Mirrors"))]
    return lines


INFO = Command(
    "[OPTIONS]",
    (Flag("format", "f", STRING, INSPECT_FORMAT_HELP),),
    NONE,
    _info,
)
