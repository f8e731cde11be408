"""``version``."""

from __future__ import annotations

import os
import sys

from sampan import __version__
from sampan.cli.clock import ansi_c, parse_rfc3339
from sampan.cli.command import NONE, Command, Flag
from sampan.cli.daemon import context_name
from sampan.cli.kinds import STRING
from sampan.cli.listing import INSPECT_FORMAT_HELP
from sampan.cli.table import align
from sampan.client.api import API_VERSION
from sampan.client.document import as_table, flag, labels, tables, text
from sampan.client.failure import DaemonError
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.document import Document

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def client_information(session: Session) -> Document:
    """What ``version`` and ``info`` say about this program, under Docker's names.

    ``GoVersion`` is the version of the language runtime, Python's here.
    """
    system = os.uname()
    python = ".".join(str(part) for part in sys.version_info[:3])
    return {
        "Version": __version__,
        "ApiVersion": API_VERSION,
        "DefaultAPIVersion": API_VERSION,
        "GitCommit": "",
        "GoVersion": f"python{python}",
        "Os": system.sysname.lower(),
        "Arch": _ARCHITECTURES.get(system.machine, system.machine),
        "BuildTime": "",
        "Context": context_name(session),
    }


def _version(session: Session, arguments: Arguments) -> int:
    client = client_information(session)
    server: Document | None = None
    failure = ""
    try:
        client["ApiVersion"] = session.client.version
        server = as_table(session.client.get("/version"))
    except DaemonError as error:
        failure = f"Error response from daemon: {error.message}"
    except SampanError as error:
        failure = error.message
    form = arguments.text("format")
    if form:
        from sampan.cli.gotypes import typed
        from sampan.cli.inspection import print_one

        shown: Document = {"Client": client, "Server": _shown(server)}
        print_one(session, form, typed("system.versionInfo", shown), "version")
    else:
        session.out(_client_text(client))
        if server is not None:
            session.out("\n" + _server_text(server))
    if failure:
        session.warn(failure)
        return 1
    return 0


def _shown(server: Document | None) -> Document | None:
    if server is None or not server.get("Components"):
        return server
    return {**server, "Platform": server.get("Platform") or {"Name": ""}}


def _client_text(client: Document) -> str:
    version = text(client, "ApiVersion")
    if version != text(client, "DefaultAPIVersion"):
        version += f" (downgraded from {text(client, 'DefaultAPIVersion')})"
    lines = [
        "Client:",
        f" Version:\t{text(client, 'Version')}",
        f" API version:\t{version}",
        f" Python version:\t{text(client, 'GoVersion').removeprefix('python')}",
        f" OS/Arch:\t{text(client, 'Os')}/{text(client, 'Arch')}",
        f" Context:\t{text(client, 'Context')}",
    ]
    return align("\n".join(lines), 20, 1) + "\n"


def _server_text(server: Document) -> str:
    platform = text(as_table(server.get("Platform")), "Name")
    lines = [f"Server: {platform}".rstrip()]
    for component in tables(server, "Components") or [_as_component(server)]:
        details = labels(component, "Details")
        lines.append(f" {text(component, 'Name')}:")
        lines.append(f"  Version:\t{text(component, 'Version')}")
        if text(component, "Name") == "Engine":
            lines += _engine_lines(details)
        else:
            lines += [f"  {name}:\t{value}" for name, value in sorted(details.items())]
    return align("\n".join(lines), 20, 1) + "\n"


def _engine_lines(details: dict[str, str]) -> list[str]:
    built = parse_rfc3339(details.get("BuildTime", ""))
    build_time = details.get("BuildTime", "") if built is None else ansi_c(built)
    language = details.get("GoVersion", "")
    name = "Python" if language.startswith("python") else "Go"
    minimum = details.get("MinAPIVersion", "")
    return [
        f"  API version:\t{details.get('ApiVersion', '')} (minimum version {minimum})",
        f"  {name} version:\t{language.removeprefix('python')}",
        f"  Git commit:\t{details.get('GitCommit', '')}",
        f"  Built:\t{build_time}",
        f"  OS/Arch:\t{details.get('Os', '')}/{details.get('Arch', '')}",
        f"  Experimental:\t{details.get('Experimental', 'false')}",
    ]


def _as_component(server: Document) -> Document:
    """The engine of a daemon too old to list components."""
    details: Document = {key: str(value) for key, value in server.items() if isinstance(value, str)}
    details["Experimental"] = "true" if flag(server, "Experimental") else "false"
    return {"Name": "Engine", "Version": text(server, "Version"), "Details": details}


VERSION = Command(
    "[OPTIONS]",
    (Flag("format", "f", STRING, INSPECT_FORMAT_HELP),),
    NONE,
    _version,
)
