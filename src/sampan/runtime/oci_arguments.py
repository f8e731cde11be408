"""runc's command line as a table, and a parser for it in the manner of Go's flag package.

Flags come before the arguments, or among them for a command that takes no words of another
program (as in urfave/cli, which runc uses); ``-x v``, ``--x v``, ``-x=v``, ``--x=v`` are the same;
a switch takes ``=true`` or ``=false``. argparse is not used: importing it costs as much as starting
the interpreter does, and this program is started several times per container.
"""

from __future__ import annotations

# Not from typing, which takes as long to import as everything here to run; type checkers know it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sampan.errors import InvalidParameter

Value = str | int | bool | list[str]

#: kind of value -> what an absent flag is
_DEFAULTS: Mapping[str, Value] = {"switch": False, "string": "", "number": 0, "list": []}


class Flag:
    """One flag: ``names`` without dashes, the long one first; ``kind`` as in ``_DEFAULTS``."""

    __slots__ = ("default", "kind", "names", "usage")

    def __init__(self, names: str, kind: str, usage: str, default: Value | None = None) -> None:
        self.names = names.split()
        self.kind = kind
        self.usage = usage
        self.default = _DEFAULTS[kind] if default is None else default


class Command:
    """A command: its flags and how many arguments it takes.

    ``most`` None: any number, which are words of another program.
    """

    __slots__ = ("arguments", "flags", "least", "most", "usage")

    def __init__(
        self, arguments: str, usage: str, least: int, most: int | None, flags: Sequence[Flag] = ()
    ) -> None:
        self.arguments = arguments
        self.usage = usage
        self.least = least
        self.most = most
        self.flags = flags


class Parsed:
    """Values of all flags of a table, typed on access."""

    def __init__(self, values: dict[str, Value], given: set[str], arguments: list[str]) -> None:
        self._values = values
        self.given = given
        self.arguments = arguments

    def switch(self, name: str) -> bool:
        """A switch."""
        return bool(self._values[name])

    def string(self, name: str) -> str:
        """A string, "" when absent."""
        return str(self._values[name])

    def number(self, name: str) -> int:
        """A number."""
        value = self._values[name]
        assert isinstance(value, int)
        return value

    def list(self, name: str) -> list[str]:
        """Every value a repeatable flag was given."""
        value = self._values[name]
        return list(value) if isinstance(value, list) else [str(value)]


_BUNDLE = Flag("bundle b", "string", "path of the bundle, the current directory by default")
_CONSOLE = Flag(
    "console-socket", "string", "AF_UNIX socket which receives the master end of the terminal"
)
_PIDFD = Flag("pidfd-socket", "string", "AF_UNIX socket which receives a pidfd of the process")
_PID_FILE = Flag("pid-file", "string", "file to write the process id to")
_PRESERVE = Flag("preserve-fds", "number", "pass N more descriptors to the process")
_DETACH = Flag("detach d", "switch", "do not wait for the process")
_FORMAT = Flag("format f", "string", "table or json", "table")
_CREATE = (
    _BUNDLE,
    _CONSOLE,
    _PIDFD,
    _PID_FILE,
    Flag("no-pivot", "switch", "do not use pivot_root, for a root on a ram disk"),
    Flag("no-new-keyring", "switch", "share the caller's session keyring"),
    _PRESERVE,
)

GLOBALS = (
    Flag("debug", "switch", "log more"),
    Flag("log", "string", "file to log to, standard error by default"),
    Flag("log-format", "string", "text or json", "text"),
    Flag("root", "string", "directory of container state, on a tmpfs"),
    Flag("criu", "string", "accepted for compatibility; there is no checkpoint"),
    Flag(
        "systemd-cgroup", "switch", 'let systemd make cgroups; cgroupsPath is "slice:prefix:name"'
    ),
    Flag("rootless", "string", "ignore cgroup permission errors: true, false or auto", "auto"),
    Flag("help h", "switch", "show help"),
    Flag("version v", "switch", "show the version"),
)

COMMANDS: Mapping[str, Command] = {
    "create": Command("ID", "create a container", 1, 1, _CREATE),
    "delete": Command(
        "ID",
        "delete what a container holds",
        1,
        1,
        (Flag("force f", "switch", "kill it first; no error when it does not exist"),),
    ),
    "events": Command(
        "ID",
        "show OOM notifications and statistics",
        1,
        1,
        (
            Flag("interval", "string", "between two statistics", "5s"),
            Flag("stats", "switch", "show statistics once"),
        ),
    ),
    "exec": Command(
        "ID [COMMAND [ARG...]]",
        "run one more process in a container",
        1,
        None,
        (
            _CONSOLE,
            _PIDFD,
            Flag("cwd", "string", "working directory"),
            Flag("env e", "list", "environment variable"),
            Flag("tty t", "switch", "allocate a terminal"),
            Flag("user u", "string", "UID[:GID]"),
            Flag("additional-gids g", "list", "additional group ids"),
            Flag("process p", "string", "path of a process.json"),
            _DETACH,
            _PID_FILE,
            Flag("process-label", "string", "SELinux label"),
            Flag("apparmor", "string", "AppArmor profile"),
            Flag("no-new-privs", "switch", "set no_new_privs"),
            Flag("cap c", "list", "add a capability"),
            _PRESERVE,
            Flag("cgroup", "list", "[CONTROLLER:]SUB-CGROUP to run in"),
            Flag("ignore-paused", "switch", "also when the container is paused"),
        ),
    ),
    "features": Command("", "show what this runtime can do", 0, 0),
    "kill": Command(
        "ID [SIGNAL]",
        "send a signal, SIGTERM by default",
        1,
        2,
        (Flag("all a", "switch", "to every process of the container"),),
    ),
    "list": Command(
        "", "list containers", 0, 0, (_FORMAT, Flag("quiet q", "switch", "only the ids"))
    ),
    "pause": Command("ID", "stop all processes for a while", 1, 1),
    "ps": Command("ID [PS-OPTION...]", "show processes of a container", 1, None, (_FORMAT,)),
    "resume": Command("ID", "let paused processes go on", 1, 1),
    "run": Command(
        "ID",
        "create and start a container",
        1,
        1,
        (
            *_CREATE,
            _DETACH,
            Flag("keep", "switch", "do not delete the container after it ends"),
            Flag("no-subreaper", "switch", "leave orphans to somebody else"),
        ),
    ),
    "spec": Command(
        "",
        "write a config.json to start from",
        0,
        0,
        (_BUNDLE, Flag("rootless", "switch", "for a user namespace")),
    ),
    "start": Command("ID", "start a created container", 1, 1),
    "state": Command("ID", "show the state of a container", 1, 1),
    "update": Command(
        "ID",
        "change limits of a container",
        1,
        1,
        (
            Flag("resources r", "string", "file with OCI linux.resources, - for standard input"),
            Flag("blkio-weight", "number", "10 to 1000"),
            Flag("cpu-period", "number", "microseconds"),
            Flag("cpu-quota", "number", "microseconds per period"),
            Flag("cpu-burst", "number", "microseconds"),
            Flag("cpu-share cpu-shares", "number", "relative weight"),
            Flag("cpu-rt-period", "number", "microseconds"),
            Flag("cpu-rt-runtime", "number", "microseconds per period"),
            Flag("cpu-idle", "number", "1: run only when nothing else does"),
            Flag("cpuset-cpus", "string", "CPUs to use"),
            Flag("cpuset-mems", "string", "memory nodes to use"),
            Flag("kernel-memory", "string", "accepted and without effect"),
            Flag("kernel-memory-tcp", "number", "bytes"),
            Flag("memory", "string", "bytes, -1 for no limit"),
            Flag("memory-reservation", "string", "bytes"),
            Flag("memory-swap", "string", "bytes of memory and swap, -1 for no limit"),
            Flag("pids-limit", "number", "number of tasks, -1 for no limit"),
            Flag("l3-cache-schema", "string", "Intel RDT"),
            Flag("mem-bw-schema", "string", "Intel RDT"),
        ),
    ),
}


def _invalid(message: str) -> InvalidParameter:
    from sampan.errors import InvalidParameter

    return InvalidParameter(message)


def parse(flags: Sequence[Flag], words: Sequence[str], *, among: bool = False) -> Parsed:
    """Flags up to the first word that is none (or ``--``); the rest are arguments.

    ``among`` them, flags of the table are taken as well. Raises InvalidParameter as Go's flag
    package words it.
    """
    table = {name: flag for flag in flags for name in flag.names}
    values = {flag.names[0]: flag.default for flag in flags}
    given: set[str] = set()
    arguments: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            break
        name, equals, value = word.lstrip("-").partition("=")
        flag = table.get(name)
        if not word.startswith("-") or word == "-" or (arguments and flag is None):
            arguments.append(word)
            if among:
                continue
            break
        if flag is None:
            raise _invalid(f"flag provided but not defined: -{name}")
        if flag.kind == "switch":
            values[flag.names[0]] = _boolean(name, value) if equals else True
        else:
            if not equals:
                if at == len(words):
                    raise _invalid(f"flag needs an argument: -{name}")
                value = words[at]
                at += 1
            _store(values, flag, name, value)
        given.add(flag.names[0])
    return Parsed(values, given, [*arguments, *words[at:]])


def _store(values: dict[str, Value], flag: Flag, name: str, value: str) -> None:
    key = flag.names[0]
    if flag.kind == "list":
        earlier = values[key]
        values[key] = [*(earlier if isinstance(earlier, list) else ()), value]
    elif flag.kind == "number":
        try:
            values[key] = int(value, 0)
        except ValueError:
            raise _invalid(f'invalid value "{value}" for flag -{name}') from None
    else:
        values[key] = value


def _boolean(name: str, value: str) -> bool:
    if value.lower() in ("1", "t", "true"):
        return True
    if value.lower() in ("0", "f", "false"):
        return False
    raise _invalid(f'invalid boolean value "{value}" for -{name}')


def find(name: str) -> Command:
    """The command called ``name``. Raises InvalidParameter; Unsupported for checkpoints."""
    command = COMMANDS.get(name)
    if command is None:
        from sampan.errors import Unsupported

        if name in ("checkpoint", "restore"):
            raise Unsupported(f"{name}: checkpoints are not supported")
        raise _invalid(f"No help topic for '{name}'")
    return command


def check_arguments(name: str, command: Command, arguments: Sequence[str]) -> None:
    """Raise InvalidParameter unless the number of ``arguments`` fits."""
    count = len(arguments)
    program = "sampan-runtime"
    if command.most is not None and command.least == command.most != count:
        raise _invalid(f'{program}: "{name}" requires exactly {command.least} argument(s)')
    if count < command.least:
        raise _invalid(f'{program}: "{name}" requires a minimum of {command.least} argument(s)')
    if command.most is not None and count > command.most:
        raise _invalid(f'{program}: "{name}" requires a maximum of {command.most} argument(s)')


def usage(program: str, command_name: str | None = None) -> str:
    """The help text of one command, or of all."""
    if command_name is not None:
        command = COMMANDS[command_name]
        lines = [
            f"Usage: {program} {command_name} {'[OPTIONS] ' if command.flags else ''}"
            f"{command.arguments}".rstrip(),
            "",
            command.usage.capitalize(),
        ]
        return "\n".join([*lines, *_flag_lines(command.flags)]) + "\n"
    lines = [f"Usage: {program} [OPTIONS] COMMAND ...", "", "Commands:"]
    lines += [f"  {name:<10} {command.usage}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, *_flag_lines(GLOBALS)]) + "\n"


def _flag_lines(flags: Sequence[Flag]) -> list[str]:
    if not flags:
        return []
    lines = ["", "Options:"]
    for flag in flags:
        names = ", ".join(("-" if len(name) == 1 else "--") + name for name in flag.names)
        value = "" if flag.kind == "switch" else " value"
        lines.append(f"  {names + value:<28} {flag.usage}")
    return lines
