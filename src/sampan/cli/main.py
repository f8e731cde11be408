"""The console script: global flags, command look-up, exit status.

Exit status: the command's own; 125 when the flags are wrong or ``run`` fails on this side; 130
after an interrupt; 141 when standard output was closed by its reader.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from sampan.cli.command import Command, Flag
from sampan.cli.fault import CliError, UsageError
from sampan.cli.flags import FlagParser, HelpRequested
from sampan.cli.index import Entry, lookup
from sampan.cli.kinds import BOOL, LIST, STRING
from sampan.cli.session import GlobalOptions, Session
from sampan.client.failure import DaemonError, StreamFailed
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.arguments import Arguments

GLOBAL_FLAGS = (
    Flag("config", "", STRING, "Location of client config files (default ~/.docker)"),
    Flag(
        "context",
        "c",
        STRING,
        "Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var and "
        'default context set with "docker context use")',
        complete="context",
    ),
    Flag("debug", "D", BOOL, "Enable debug mode"),
    Flag("host", "H", LIST, "Daemon socket to connect to"),
    Flag(
        "log-level",
        "l",
        STRING,
        'Set the logging level ("debug", "info", "warn", "error", "fatal")',
        "info",
    ),
    Flag("tls", "", BOOL, "Use TLS; implied by --tlsverify"),
    Flag("tlscacert", "", STRING, "Trust certs signed only by this CA"),
    Flag("tlscert", "", STRING, "Path to TLS certificate file"),
    Flag("tlskey", "", STRING, "Path to TLS key file"),
    Flag("tlsverify", "", BOOL, "Use TLS and verify the remote"),
    Flag("version", "v", BOOL, "Print version information and quit"),
)
_LOG_LEVELS = ("debug", "info", "warn", "warning", "error", "fatal", "panic", "trace")


def main() -> None:
    """Run the command line in ``sys.argv`` and exit with its status."""
    name = os.path.basename(sys.argv[0])
    status = run("docker" if name == "docker" else "sampan", sys.argv[1:], dict(os.environ))
    sys.exit(status)


def run(program: str, words: list[str], environment: dict[str, str]) -> int:
    """Run one command line. Returns the exit status."""
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    sys.stderr.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    try:
        status = _run(program, words, environment)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader of standard output went away: end as a program killed by SIGPIPE would.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except KeyboardInterrupt:
        return 130


def _run(program: str, words: list[str], environment: dict[str, str]) -> int:
    session = Session(program, environment, GlobalOptions())
    try:
        arguments = FlagParser(GLOBAL_FLAGS, interspersed=False, warn=session.warn).parse(words)
    except HelpRequested:
        return _help(session, [])
    except UsageError as error:
        session.warn(
            f"{error.message}\n\nUsage:  {program} [OPTIONS] COMMAND [ARG...]\n\n"
            f"Run '{program} --help' for more information"
        )
        return error.code
    hosts = arguments.texts("host")
    if len(hosts) > 1:
        session.warn(
            f'invalid argument "{hosts[1]}" for "-H, --host" flag: specify only one -H\n\n'
            f"Usage:  {program} [OPTIONS] COMMAND [ARG...]\n\n"
            f"Run '{program} --help' for more information"
        )
        return 125
    if arguments.flag("version"):
        from sampan import __version__

        session.line(f"{program.capitalize()} version {__version__}")
        return 0
    if arguments.text("log-level") not in _LOG_LEVELS:
        session.warn(f"Unable to parse logging level: {arguments.text('log-level')}")
        return 1
    session.options = _global_options(arguments)
    try:
        return _dispatch(session, arguments.positional)
    finally:
        session.close()


def _global_options(arguments: Arguments) -> GlobalOptions:
    return GlobalOptions(
        config=arguments.text("config"),
        context=arguments.text("context"),
        hosts=tuple(arguments.texts("host")),
        debug=arguments.flag("debug"),
        # --tlsverify=false is a wish for TLS as well, only without verification (Docker's rule).
        tls=arguments.flag("tls") or "tlsverify" in arguments.changed,
        tls_verify=arguments.flag("tlsverify"),
        tls_ca=arguments.text("tlscacert"),
        tls_cert=arguments.text("tlscert"),
        tls_key=arguments.text("tlskey"),
    )


def _dispatch(session: Session, words: list[str]) -> int:
    if not words or words[0] == "help":
        return _help(session, words[1:], stream=session.out if words else session.complain)
    table = lookup()
    path, entry = _find(table, words)
    if entry is None:
        return _not_a_command(session, words, table)
    session.path = path
    command = load(entry)
    rest = words[path.count(" ") + 1 :]
    parser = FlagParser(command.flags, interspersed=command.interspersed, warn=session.warn)
    try:
        arguments = parser.parse(rest)
        complaint = command.arity.complaint(len(arguments.positional))
        if complaint:
            hint = "See" if complaint.startswith("requires at least") else "Run"
            raise UsageError(f"'{session.program} {path}' {complaint}", hint=hint)
        _check_versions(session, command, arguments)
        _check_trust(session, command, arguments)
        return command.run(session, arguments) or 0
    except HelpRequested as request:
        if request.deprecated:
            session.warn("Flag shorthand -h has been deprecated, use --help")
        return _help(session, path.split(" "))
    except UsageError as error:
        _explain_usage(session, command, error)
        return error.code
    except CliError as error:
        code = command.fault_code if error.code == 1 else error.code
        return _report(session, command, error.message, code)
    except StreamFailed as error:
        return _report(session, command, error.message, command.fault_code)
    except DaemonError as error:
        code = error.exit_code if command.fault_code == 125 else command.fault_code
        return _report(session, command, f"Error response from daemon: {error.message}", code)
    except SampanError as error:
        return _report(session, command, error.message, command.fault_code)
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        message = f"open {error.filename}: {reason}" if error.filename else reason
        return _report(session, command, message, command.fault_code)


def _check_versions(session: Session, command: Command, arguments: Arguments) -> None:
    """Refuse flags the daemon is too old for or never has, rather than have it ignore them."""
    for flag in command.flags:
        if flag.refused and flag.key in arguments.changed:
            raise UsageError(f'"--{flag.name}" {flag.refused}', bare=True)
        if flag.since and flag.key in arguments.changed and not session.client.at_least(flag.since):
            raise UsageError(
                f'"--{flag.name}" requires API version {flag.since}, but the daemon API version '
                f"is {session.client.version}",
                bare=True,
            )


def _check_trust(session: Session, command: Command, arguments: Arguments) -> None:
    """Refuse where content trust (Notary, which Docker gave up) is asked for.

    Going on without it would run what nobody vouches for.
    """
    from sampan.cli.kinds import parse_bool

    if all(flag.name != "disable-content-trust" for flag in command.flags):
        return
    wished = session.environment.get("DOCKER_CONTENT_TRUST", "")
    try:
        disabled = not (wished and parse_bool(wished))
    except ValueError:
        disabled = True  # as Docker reads what is neither true nor false
    if "disable-content-trust" in arguments.changed:
        disabled = arguments.flag("disable-content-trust")
    if not disabled:
        raise CliError(
            "content trust is not available: unset DOCKER_CONTENT_TRUST or use "
            "--disable-content-trust"
        )


def _find(table: dict[str, Entry], words: list[str]) -> tuple[str, Entry | None]:
    """The longest run of leading words that names a command."""
    for count in (3, 2, 1):
        path = " ".join(words[:count])
        if len(words) >= count and path in table:
            return path, table[path]
    return "", None


def load(entry: Entry) -> Command:
    """Import the module of a command and return its declaration."""
    module = import_module(f"sampan.cli.commands.{entry.module}")
    command = getattr(module, entry.attribute)
    assert isinstance(command, Command)
    return command


def _report(session: Session, command: Command, message: str, code: int) -> int:
    if message:
        if command.fault_code == 125:
            message = f"{session.program}: {message}\n\n{_more(session)}"
        session.warn(message)
    return code


def _more(session: Session, hint: str = "Run") -> str:
    return f"{hint} '{session.program} {session.path} --help' for more information"


def _explain_usage(session: Session, command: Command, error: UsageError) -> None:
    lead = "" if error.bare else f"{session.program}: "
    usage = f"Usage:  {session.program} {session.path} {command.usage}".rstrip()
    session.warn(f"{lead}{error.message}\n\n{usage}\n\n{_more(session, error.hint)}")


def _not_a_command(session: Session, words: list[str], table: dict[str, Entry]) -> int:
    from sampan.cli.index import GROUPS

    depth = 0
    while " ".join(words[: depth + 1]) in GROUPS and depth < len(words):
        depth += 1
    group = " ".join(words[:depth])
    rest = words[depth:]
    if (group and not rest) or "--help" in rest or "-h" in rest:
        return _help(session, [*words[:depth]], stream=session.out if rest else session.complain)
    if group and rest[0].startswith("-"):
        message = f"unknown flag: {rest[0]}"
        code = 125
    else:
        name = " ".join(words[: depth + 1])
        message = f"{session.program}: unknown command: {session.program} {name}"
        code = 1
    usage = f"Usage:  {session.program} {group}\n\n" if group else ""
    where = f"{session.program} {group}".rstrip()
    session.warn(f"{message}\n\n{usage}Run '{where} --help' for more information")
    return code


def _help(
    session: Session, words: list[str], *, stream: Callable[[str], None] | None = None
) -> int:
    """Print a help page: on standard output where it was asked for."""
    from sampan.cli import help as pages
    from sampan.cli.index import COMMON, ENTRIES, GROUPS
    from sampan.cli.terminal import width

    table = lookup()
    path = " ".join(words)
    if path in table:
        text = pages.command_help(session.program, path, table[path], load(table[path]), width())
    elif path in GROUPS:
        inside = [e for e in ENTRIES if e.path.rpartition(" ")[0] == path]
        inside += [
            Entry(group, short, "", "")
            for group, short in GROUPS.items()
            if group.rpartition(" ")[0] == path
        ]
        text = pages.group_help(session.program, path, GROUPS[path], inside)
    elif not words:
        tops = {n: entry.short for n, entry in table.items() if entry.short and " " not in n}
        common = [(name, tops[name]) for name in COMMON]
        groups = [(name, short) for name, short in GROUPS.items() if " " not in name]
        others = sorted((name, short) for name, short in tops.items() if name not in COMMON)
        sections = [("Common Commands", common), ("Management Commands", groups)]
        flags = pages.flag_table(GLOBAL_FLAGS, width())
        text = pages.root_help(session.program, [*sections, ("Commands", others)], flags)
    else:
        session.warn(f"unknown help topic: {path}")
        return 1
    (stream or session.out)(text)
    return 0
