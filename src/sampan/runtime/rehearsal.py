"""Doing what a start takes before there is one, so that the first real one is not the slow one.

The launcher rehearses a few times before its heap is frozen: Python's interpreter specialises code
it has run. Each waiting worker rehearses once: the memory pages it is going to write to are its own
then, copied while nobody waited. Nothing is left: files live in a mount no path leads to, and the
fork that is tried is an impossible one.
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import replace

from sampan.errors import SampanError
from sampan.kernel import cgroup, namespaces, process
from sampan.kernel import mount as m
from sampan.kernel.cgroup import operations
from sampan.runtime import channel, json_text, plan_codec, spawn
from sampan.runtime.context import Context, Refused, Source
from sampan.runtime.hide_operations import EMPTY
from sampan.runtime.maker import Maker
from sampan.runtime.mount_operations import file_system
from sampan.runtime.operations import Failure, perform
from sampan.runtime.planned import Plan
from sampan.runtime.state import freeze, live_record
from sampan.runtime.streams import close_ends

_TIMES = 10
_IMPOSSIBLE = namespaces.CLONE_NEWNS | 0x200  # with CLONE_FS: clone(2) refuses it
#: Operations that do no more than make detached mounts, or files below such a one.
_HARMLESS = frozenset(
    {
        "filesystem",
        "attributes",
        "attach",
        "attach_within",
        "devices",
        "device_links",
        "mask",
        "protect",
        "make_directory",
        "find_program",
        "identify",
    }
)
#: An exec's plan, as far as who stands in for it performs it.
_EXEC = {
    **plan_codec.encode(Plan(container_id="", new=0))[0],
    "finish": [
        (
            "identify",
            {"user": None, "groups": [], "uid": 0, "gid": 0, "additional": []},
        )
    ],
}
#: What these show depends on where the process is that makes them: it joins its cgroups later.
_OF_CGROUPS = frozenset({"cgroup", "cgroup2"})


def launcher(text: bytes, layout: cgroup.Layout) -> None:
    """In the launcher, before its heap is frozen."""
    for _ in range(_TIMES):
        worker(text, layout)
        with m.descriptor(m.new_filesystem("tmpfs", "rehearsal")) as root:
            init(text, root)


def worker(text: bytes, layout: cgroup.Layout) -> None:
    """What a worker does until init is forked and provided for."""
    near, far = socket.socketpair()
    pair, other = channel.pair()
    tree = m.new_filesystem("tmpfs", "rehearsal")
    with near, far, pair, other, m.descriptor(tree):
        channel.send_frame(near, json_text.loads(text))
        message, blob, _ = channel.receive_frame(far)
        assert message is not None
        made = plan_codec.decode(message["plan"], blob)
        maker = Maker(pair, layout)
        directory = f"/proc/self/fd/{tree}/container"
        state, streams = maker.lay_out(far, {**message, "cgroup": "", "directory": directory})
        state.plan(made)
        # Errors are what this is after: each ends where the world would be changed.
        with contextlib.suppress(OSError):
            impossible = replace(made, new=_IMPOSSIBLE, cgroup="")
            spawn.spawn(impossible, layout, streams=streams, sibling=True)
        close_ends(streams)
        close_ends(state.pipes)
        with contextlib.suppress(SampanError, OSError):
            _cgroups(layout, made, f"/proc/self/fd/{tree}")
        channel.send_frame(far, live_record(state, "created"))
        channel.send_value(pair, ("made", 0, state.directory, state.container_id))
        freeze(state)
        maker.undo()


def _cgroups(layout: cgroup.Layout, made: Plan, directory: str) -> None:
    """Make cgroups, with ordinary files in the place of the kernel's."""
    if layout.mode == "v2":
        return
    legacy = tuple(
        replace(hierarchy, mountpoint=f"{directory}/{number}")
        for number, hierarchy in enumerate(layout.legacy)
    )
    steps = cgroup.plan(replace(layout, legacy=legacy), made.cgroup, made.resources or {})
    for step in steps:
        files = []
        if isinstance(step, operations.WriteFile):
            files = [step.path]
        elif isinstance(step, operations.WritePair):
            files = [step.first.path, step.second.path]
        elif isinstance(step, operations.InheritCpuset):
            files = [f"{step.path}/cpuset.cpus", f"{step.path}/cpuset.mems"]
        for file in files:
            with m.descriptor(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)) as fd:
                os.write(fd, b"0")
        cgroup.create([step])


def waiting(text: bytes, root: int) -> dict[Source, int]:
    """What a waiting first process does; the mounts it has ready then, for whom they fit."""
    init(text, root)
    made: dict[Source, int] = {}
    for name, values in plan_codec.decode(json_text.loads(text)["plan"], b"").setup:
        if name == "mask":
            source = EMPTY
        elif name == "filesystem" and values["kind"] not in _OF_CGROUPS:
            source = file_system(**values)  # type: ignore[arg-type]
        else:
            continue
        with contextlib.suppress(OSError):
            made[source] = m.new_filesystem(*source)
    return made


def stand_in() -> None:
    """What a process that stands in for an exec does before that is born."""
    value = {**_EXEC, "id": "rehearsal"}
    near, far = channel.pair()
    with near, far:
        channel.send_value(near, (value, "", b"", -1, 0))
        told, _ = channel.receive_value(far)
        context = spawn.init_context(plan_codec.decode(told[0], b""), near)
        perform(plan_codec.decode(told[0], b"").finish, context)
        channel.send(near, {"kind": "ready", "warnings": []})
        channel.send(near, {"kind": "start", "limits": ()})
        channel.receive(far)
        context.channel = far
        context.expect("start")
        with contextlib.suppress(OSError):
            process.clone3(_IMPOSSIBLE)


def init(text: bytes, root: int) -> None:
    """What init does for its file system, in a tmpfs of nobody."""
    near, far = channel.pair()
    with near, far:
        context = Context(channel=near, root=root)
        for step in plan_codec.decode(json_text.loads(text)["plan"], b"").setup:
            if step.name in _HARMLESS:
                # In a user namespace no mount can be made yet: then its slot is missing.
                with contextlib.suppress(Failure, Refused, KeyError):
                    perform([step], context)
        for fd in context.slots.values():
            os.close(fd)
