"""``sampan-runtime``: sampan's container runtime behind runc's command line.

podman, containerd and dockerd start this program for every step of a container's life, so it
imports what the one command needs and no more. Errors end with status 1 and one line, in the log
and on standard error; ``run`` and ``exec`` end with the status of the process.
"""

from __future__ import annotations

import os
import sys

from sampan.runtime import oci_arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sampan.runtime.oci_arguments import Parsed
    from sampan.runtime.oci_log import Log

PROGRAM = "sampan-runtime"
_EXEC_FAILED = 255
_LEAN = ("start", "kill", "delete")
_SEALED = ("create", "run", "exec")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        options = oci_arguments.parse(oci_arguments.GLOBALS, words)
        if options.switch("version"):
            return _version()
        if options.switch("help") or not options.arguments or options.arguments[0] == "help":
            print(oci_arguments.usage(PROGRAM), end="")
            return 0
        name, *rest = options.arguments
        command = oci_arguments.find(name)
        if rest[:1] in (["--help"], ["-h"]):
            print(oci_arguments.usage(PROGRAM, name), end="")
            return 0
        among = command.most is not None
        parsed = oci_arguments.parse(command.flags, rest, among=among)
        oci_arguments.check_arguments(name, command, parsed.arguments)
        if name in _SEALED:
            from sampan.runtime import oci_sealed

            oci_sealed.reexecute(words)
    except Exception as error:
        return _usage_error(error)
    return _perform(name, options, parsed)


def _usage_error(error: Exception) -> int:
    """Print what is wrong with the command line; anything unexpected goes on up."""
    from sampan.errors import SampanError

    if not isinstance(error, SampanError | OSError):
        raise error
    print(error, file=sys.stderr)
    return 1


def _perform(name: str, options: Parsed, parsed: Parsed) -> int:
    from sampan.runtime.oci_log import Log

    try:
        log = Log(options.string("log"), options.string("log-format"), options.switch("debug"))
    except Exception as error:
        return _usage_error(error)
    try:
        root = options.string("root") or default_root()
        if name in _LEAN:
            from sampan.runtime import oci_lean

            status = oci_lean.perform(name, root, parsed, log)
            if status is not None:
                return status
        from sampan.runtime import oci_control, oci_state

        runtime = oci_control.Runtime(
            oci_state.Store(root),
            log,
            systemd=options.switch("systemd-cgroup"),
            rootless=options.string("rootless"),
        )
        return _command(name)(runtime, parsed)
    except BrokenPipeError:
        # Whoever read our output has enough of it; nothing more can be told there.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)
        return 1
    except Exception as error:
        _fatal(log, error)
    return _EXEC_FAILED if name == "exec" else 1


def _fatal(log: Log, error: Exception) -> None:
    """Report what ended the command; a bug goes on up with its traceback."""
    from sampan.errors import SampanError
    from sampan.runtime.oci_log import os_error_text

    if isinstance(error, SampanError):
        log.fatal(error.message)
    elif isinstance(error, OSError):
        log.fatal(os_error_text(error))
    else:
        log.write("error", f"internal error: {type(error).__name__}: {error}")
        raise error


def default_root() -> str:
    """/run/sampan-runtime, or below $XDG_RUNTIME_DIR for other users than the host's root.

    Who calls itself root in a user namespace (USER) is taken at its word, as by runc.
    """
    if os.geteuid() == 0 and (os.environ.get("USER") == "root" or _is_hosts_root()):
        return f"/run/{PROGRAM}"
    return f"{os.environ.get('XDG_RUNTIME_DIR') or f'/run/user/{os.getuid()}'}/{PROGRAM}"


def _is_hosts_root() -> bool:
    with open("/proc/self/uid_map", "rb") as file:
        return file.read().split() == [b"0", b"0", b"4294967295"]


def _command(name: str) -> Callable[..., int]:
    """The function behind a command; its module is imported now and no other."""
    if name in ("create", "run", "start"):
        from sampan.runtime import oci_create

        return {"create": oci_create.create, "run": oci_create.run, "start": oci_create.start}[name]
    if name == "exec":
        from sampan.runtime import oci_exec

        return oci_exec.execute
    if name == "events":
        from sampan.runtime import oci_events

        return oci_events.events
    if name in ("spec", "features"):
        from sampan.runtime import oci_documents

        return oci_documents.spec if name == "spec" else oci_documents.features
    from sampan.runtime import oci_control

    return {
        "delete": oci_control.delete,
        "kill": oci_control.kill,
        "list": oci_control.list_containers,
        "pause": oci_control.pause,
        "ps": oci_control.ps,
        "resume": oci_control.resume,
        "state": oci_control.state,
        "update": oci_control.update,
    }[name]


def _version() -> int:
    from sampan.errors import SampanError
    from sampan.kernel.libseccomp import Library
    from sampan.runtime.oci_state import OCI_VERSION

    print(f"{PROGRAM} version {_package_version()}")
    print(f"spec: {OCI_VERSION}")
    print(f"python: {sys.version.split()[0]}")
    try:
        print(f"libseccomp: {Library.load().version}")
    except SampanError:
        print("libseccomp: none")
    return 0


def _package_version() -> str:
    """From the text of sampan/__init__.py, which is not run here."""
    path = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "__init__.py")
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith("__version__"):
                return line.split('"')[1]
    return "unknown"


if __name__ == "__main__":
    sys.exit(main())
