"""``system service install`` and ``status``: sampand under systemd, started by its socket."""

from __future__ import annotations

import os
import sys

from sampan.cli.command import NONE, Command, Flag
from sampan.cli.fault import CliError
from sampan.cli.kinds import BOOL, STRING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session

_DIRECTORY = "/etc/systemd/system"
_SERVICE, _SOCKET = "sampan.service", "sampan.socket"


def service_unit(program: str) -> str:
    """The service: containers outlive it, so only its own process is ended (KillMode)."""
    return f"""[Unit]
Description=sampan container engine
After=network-online.target nss-lookup.target {_SOCKET}
Wants=network-online.target
Requires={_SOCKET}

[Service]
Type=notify
ExecStart={program} --host fd://
ExecReload=/bin/kill -s HUP $MAINPID
KillMode=process
Delegate=yes
Restart=always
RestartSec=2
TimeoutStartSec=0
LimitNOFILE=infinity
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
"""


def socket_unit(path: str, group: str) -> str:
    """The socket that starts the service."""
    return f"""[Unit]
Description=sampan API socket

[Socket]
ListenStream={path}
SocketMode=0660
SocketUser=root
SocketGroup={group}

[Install]
WantedBy=sockets.target
"""


def _units(arguments: Arguments) -> dict[str, str]:
    program = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "sampand")
    if not os.access(program, os.X_OK):
        raise CliError(f"there is no sampand beside {sys.argv[0]}")
    return {
        _SERVICE: service_unit(program),
        _SOCKET: socket_unit("/run/sampan.sock", arguments.text("group")),
    }


def _systemctl(*words: str) -> tuple[int, str]:
    import subprocess

    try:
        done = subprocess.run(
            ["systemctl", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
    except FileNotFoundError:
        raise CliError("systemctl is not installed: this machine is not run by systemd") from None
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


def _install(session: Session, arguments: Arguments) -> None:
    units = _units(arguments)
    if arguments.flag("dry-run"):
        for name, content in units.items():
            session.out(f"# {name}\n{content}\n")
        return
    if not os.path.isdir("/run/systemd/system"):
        raise CliError("this machine is not run by systemd")
    for name, content in units.items():
        path = os.path.join(_DIRECTORY, name)
        temporary = f"{path}.tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        session.line(path)
    for words in (("daemon-reload",), ("enable", "--now", _SOCKET)):
        status, output = _systemctl(*words)
        if status:
            raise CliError(f"systemctl {' '.join(words)}: {output}")
    session.line(f"{_SOCKET} is enabled; the first command starts the engine")


def _status(session: Session, _arguments: Arguments) -> int:
    installed = os.path.exists(os.path.join(_DIRECTORY, _SERVICE))
    session.line(f"installed: {'yes' if installed else 'no'}")
    if not os.path.isdir("/run/systemd/system"):
        session.line("active: no (this machine is not run by systemd)")
        return 3
    status = 0
    for name in (_SOCKET, _SERVICE):
        status, output = _systemctl("is-active", name)
        session.line(f"{name}: {output}")
    return status


INSTALL = Command(
    "[OPTIONS]",
    (
        Flag("dry-run", "", BOOL, "Print the units instead of installing them"),
        Flag("group", "", STRING, "Group that may use the socket", "root"),
    ),
    NONE,
    _install,
)
STATUS = Command("", (), NONE, _status)
