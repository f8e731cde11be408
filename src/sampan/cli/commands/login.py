"""``login`` and ``logout``."""

from __future__ import annotations

import sys

from sampan.cli.command import AT_MOST_ONE, Command, Flag
from sampan.cli.credentials import HUB, Credentials, Store, server_key
from sampan.cli.fault import CliError
from sampan.cli.kinds import BOOL, STRING
from sampan.client.document import as_table, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session


def _server(arguments: Arguments) -> str:
    if not arguments.positional:
        return HUB
    name = arguments.positional[0].removeprefix("https://").removeprefix("http://")
    return server_key(name.partition("/")[0])


def _password(session: Session, arguments: Arguments) -> str:
    password = arguments.text("password")
    if arguments.flag("password-stdin"):
        if password:
            raise CliError(
                "conflicting options: cannot specify both --password and --password-stdin"
            )
        if not arguments.text("username"):
            raise CliError("the --password-stdin option requires --username to be set")
        return sys.stdin.read().rstrip("\r\n")
    if password:
        session.warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    return password


def _ask(session: Session, arguments: Arguments, former: Credentials | None) -> tuple[str, str]:
    """User name and password, typed on the terminal where they were not given."""
    username = arguments.text("username")
    if not session.is_terminal(0):
        raise CliError("Error: Cannot perform an interactive login from a non TTY device")
    if not username:
        default = former.username if former else ""
        session.out(f"Username ({default}): " if default else "Username: ")
        session.flush()
        username = sys.stdin.readline().strip() or default
        if not username:
            raise CliError("username is required")
    import getpass

    password = getpass.getpass("Password: ")
    if not password:
        raise CliError("password is required")
    return username, password


def _login(session: Session, arguments: Arguments) -> None:
    server = _server(arguments)
    store = Store(session.config)
    password = _password(session, arguments)
    username = arguments.text("username")
    former = None if username and password else store.get(server)
    if former is not None and not username and not password:
        who = f" [Username: {former.username}]" if former.username else ""
        session.warn(
            f"Authenticating with existing credentials...{who}\n\n"
            f" Info -> To login with a different account, run '{session.program} logout' followed "
            f"by '{session.program} login'\n\n"
        )
        credentials = former
    else:
        if not (username and password):
            username, password = _ask(session, arguments, former)
        credentials = Credentials(server, username, password)
    answer = as_table(session.client.post("/auth", None, credentials.document()))
    token = text(answer, "IdentityToken")
    if token:
        credentials = credentials._replace(password="", identity_token=token)
    where = store.put(credentials)
    if not where:
        session.warn(
            f"\nWARNING! Your credentials are stored unencrypted in '{session.config.path}'.\n"
            "Configure a credential helper to remove this warning. See\n"
            "https://docs.docker.com/go/credential-store/\n"
        )
    session.line(text(answer, "Status") or "Login Succeeded")


def _logout(session: Session, arguments: Arguments) -> None:
    server = _server(arguments)
    session.line(f"Removing login credentials for {server}")
    Store(session.config).erase(server)


LOGIN = Command(
    "[OPTIONS] [SERVER]",
    (
        Flag("password", "p", STRING, "Password or Personal Access Token (PAT)"),
        Flag(
            "password-stdin",
            "",
            BOOL,
            "Take the Password or Personal Access Token (PAT) from stdin",
        ),
        Flag("username", "u", STRING, "Username"),
    ),
    AT_MOST_ONE,
    _login,
)
LOGOUT = Command("[SERVER]", (), AT_MOST_ONE, _logout)
