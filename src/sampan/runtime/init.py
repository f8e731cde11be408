"""The first process of a container, until it becomes the container's program.

It is a fork of a process that has already imported everything: from here on nothing is imported,
loaded or looked up (``sys.meta_path`` is empty), whatever root it stands in. It talks to the
runtime's side over its channel:

====================  ===============================================================
to init               ``mapped``, ``slots`` + fds, ``cgroups`` + fds, ``hooks-done``, ``start``
from init             ``terminal`` + fd, ``seccomp`` + fd, ``hooks``, ``ready``, ``failed``,
                      ``executing`` (+ pidfd of the program, from who stood in for it)
end of the channel    after ``start``: the program was executed. Before: init has died
====================  ===============================================================
"""

from __future__ import annotations

import fcntl
import gc
import os
import socket
import sys
from collections.abc import Iterable
from typing import NoReturn

from sampan.kernel import prctl, process
from sampan.runtime import channel
from sampan.runtime.context import Abandoned, Context, Refused
from sampan.runtime.limits import set_limits
from sampan.runtime.operation import Operation
from sampan.runtime.operations import Failure, perform, sentence

_FAILED = 255
_FORGOTTEN: list[object] = []
_HIGH = 512  # where the channel is moved to when low descriptors are to be preserved


def run(
    context: Context,
    setup: Iterable[Operation],
    finish: Iterable[Operation],
    streams: tuple[int, int, int],
) -> NoReturn:
    """Perform ``setup``, say ``ready``, wait for ``start``, perform ``finish``. Never returns.

    ``streams``: what becomes descriptors 0, 1 and 2. All other descriptors are closed, but those
    the context holds.
    """
    try:
        _isolate(context, streams)
        perform(setup, context)
        _await_start(context)
        perform(finish, context)
    except Abandoned:
        os._exit(_FAILED)
    except Refused as error:
        _report(context, {"kind": "failed", "why": error.kind, "message": error.message})
    except Failure as error:
        message = sentence(error.name, error.reason, error.path)
        _report(
            context,
            {
                "kind": "failed",
                "why": "failed",
                "message": message,
                "operation": error.name,
                "errno": error.code,
                "path": error.path,
            },
        )
    except BaseException as error:  # nothing may unwind into what the parent was doing
        _report(context, {"kind": "failed", "why": "failed", "message": _explain(error)})
    os._exit(_FAILED)


def _isolate(context: Context, streams: tuple[int, int, int]) -> None:
    """Stop being what we were forked from: no importing, no foreign descriptors, no ptrace."""
    gc.disable()
    prctl.set_dumpable(context.dumpable)
    forget_imports()
    for target, fd in enumerate(streams):
        os.dup2(fd, target)
    keep = {context.channel.fileno(), *context.premade.values()}
    if context.listener is not None:
        keep.add(context.listener.fileno())
    if context.into is not None:
        keep.add(context.into[0])
    if context.blank >= 0:
        keep.add(context.blank)
    if context.preserve:
        moved = fcntl.fcntl(context.channel.fileno(), fcntl.F_DUPFD_CLOEXEC, _HIGH)
        context.channel.detach()
        context.channel = socket.socket(fileno=moved)
        keep.add(moved)
        for fd in range(3, 3 + context.preserve):
            os.set_inheritable(fd, True)
    process.close_all_but(keep, 3 + context.preserve)
    os.umask(0)
    os.chdir("/")


def forget_imports() -> None:
    """Make importing impossible. Nothing is freed: that would write to memory we share."""
    if sys.meta_path:
        _FORGOTTEN.append((sys.meta_path, sys.path_hooks, sys.path, sys.path_importer_cache))
        sys.meta_path, sys.path_hooks, sys.path, sys.path_importer_cache = [], [], [], {}


def _await_start(context: Context) -> None:
    channel.send(context.channel, {"kind": "ready", "warnings": context.warnings})
    if context.listener is not None:
        # No monitor: whoever connects starts us, and reads on that connection how it went.
        context.channel.close()
        context.channel, _ = context.listener.accept()
        context.listener.close()
    message, _ = context.expect("start")
    context.warnings = set_limits(0, message.get("limits", ()))


def _report(context: Context, message: channel.Message) -> None:
    try:
        channel.send(context.channel, message)
    except OSError:
        os._exit(_FAILED)


def _explain(error: BaseException) -> str:
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    code = place.tb_frame.f_code if place is not None else None
    where = f" in {code.co_name}" if code is not None else ""
    return f"internal error{where}: {type(error).__name__}: {error}"
