"""Operations that find the container's program and execute it: the last ones of a plan."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import NoReturn

from sampan.kernel import mount as m
from sampan.kernel import process
from sampan.runtime import channel
from sampan.runtime import reaper as reaper_signals
from sampan.runtime.context import Context, Refused


def find_program(context: Context, *, args: Sequence[str], env: Sequence[str]) -> None:
    """Tell early that the program is missing; who may execute it is asked later."""
    if "/" not in args[0] or args[0].startswith("/"):
        locate(args[0], environment(env).get("PATH", ""))


def locate(name: str, path: str) -> str:
    """The file to execute for ``name``, as Go's exec.LookPath finds it for runc.

    Raises :class:`Refused` with Docker's words.
    """
    if "/" in name:
        problem = _problem(name)
        if problem is None:
            return name
        kind, text = problem
        raise Refused(kind, f'exec: "{name}": {text}')
    for directory in path.split(":") if path else ():
        candidate = f"{directory or '.'}/{name}"
        if _problem(candidate) is None:
            return candidate
    raise Refused("not-found", f'exec: "{name}": executable file not found in $PATH')


def _problem(path: str) -> tuple[str, str] | None:
    try:
        status = os.stat(path)
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
        text = (error.strerror or "error").lower()
        return ("not-found", f"stat {path}: {text}") if missing else ("not-executable", text)
    except ValueError:
        return "not-found", "invalid name"
    if stat.S_ISDIR(status.st_mode):
        return "not-executable", "is a directory"
    if not process.accessible(path, os.X_OK):
        return "not-executable", "permission denied"
    return None


def program(context: Context, *, name: str, env: Sequence[str]) -> None:
    """Find out what to execute, as who we are now, and with which environment."""
    context.environment = environment(env)
    if not context.environment.get("HOME"):
        context.environment["HOME"] = context.identity.home
    context.program = locate(name, context.environment.get("PATH", ""))


def execute(context: Context, *, args: Sequence[str], reaper: bool, terminal: bool) -> None:
    """execve(2): the program replaces us, with descriptors 0, 1, 2 and those to be preserved.

    The channel closes by it, which tells the other side that it worked. With a filter in place
    this is all it must allow: sendto, rt_sigaction, rt_sigprocmask and execve.
    """
    if context.stands_in:
        _stand_aside(context, args)
    # From here on the end of the channel means that the program runs.
    channel.send(context.channel, _executing(context))
    if context.filter is None:
        process.close_all_but({context.channel.fileno()}, 3 + context.preserve)
    if reaper:
        _reap(context, args, terminal)
    reaper_signals.default_signals()
    _replace(context, args)


def _replace(context: Context, args: Sequence[str]) -> None:
    try:
        os.execve(context.program, list(args), context.environment)
    except OSError as error:
        _complain(context, error)


def _complain(context: Context, error: OSError) -> NoReturn:
    """Docker's runtime is past "start" here: the container did run, wrote this and ended."""
    context.channel.close()
    os.write(2, f"exec {context.program}: {(error.strerror or '').lower()}\n".encode())
    os._exit(255)


def _stand_aside(context: Context, args: Sequence[str]) -> NoReturn:
    """posix_spawn(3) the program where it belongs, and end: it is our maker's child then.

    Until it executes it shares our memory, which has given up all rights by now.
    """
    reaper_signals.default_signals()
    try:
        pid = os.posix_spawn(context.program, list(args), context.environment, setsid=True)
    except OSError as error:
        channel.send(context.channel, _executing(context))
        _complain(context, error)
    with m.descriptor(os.pidfd_open(pid)) as pidfd:
        channel.send(context.channel, _executing(context), [pidfd])
    # Our memory is given back behind the backs of those who have something to do now.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    context.channel.close()
    os._exit(0)


def _executing(context: Context) -> channel.Message:
    told: channel.Message = {"kind": "executing"}
    return {**told, "warnings": context.warnings} if context.warnings else told


def _reap(context: Context, args: Sequence[str], terminal: bool) -> None:
    signals = reaper_signals.block()
    child = os.fork()
    if child == 0:
        reaper_signals.unblock(signals)
        os.setpgid(0, 0)
        if terminal:
            reaper_signals.take_foreground()
        reaper_signals.default_signals()
        _replace(context, args)
    context.channel.close()
    reaper_signals.supervise(child)


def environment(env: Sequence[str]) -> dict[str, str]:
    """``NAME=value`` strings as a mapping, the last one of a name counts."""
    pairs = (entry.partition("=") for entry in env)
    return {name: value for name, equals, value in pairs if name and equals}
