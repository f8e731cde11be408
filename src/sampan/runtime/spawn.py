"""Making a container's first process from a plan, and serving it until it runs.

This is the part of the runtime that both the monitor and ``sampan-runtime`` stand on. Without a
monitor (runc's model: ``create`` ends, init waits, ``start`` comes from another process)::

    listener = spawn.start_listener(state_dir / "start.sock")
    child = spawn.spawn(plan, streams=(0, 1, 2), listener=listener, preserve=N)
    try:
        spawn.provision(child, plan, layout)         # cgroups, id maps, what init cannot do
        spawn.wait_ready(child, plan,
            on_terminal=send_to_console_socket, on_hooks=run_prestart_and_createRuntime)
    except BaseException:
        spawn.undo(child, plan, layout); raise
    ...
    spawn.start(state_dir / "start.sock")            # later, elsewhere: returns when it runs

With one, the monitor keeps ``child.channel`` and calls :func:`release`, then :func:`wait_started`.
Callers are single-threaded: init is a fork of them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from sampan.errors import CommandNotExecutable, CommandNotFound, StartFailed
from sampan.kernel import cgroup, namespaces, process
from sampan.kernel import mount as m
from sampan.model.idmap import IdMap
from sampan.runtime import channel, init
from sampan.runtime.context import Context, Refused
from sampan.runtime.limits import set_limits
from sampan.runtime.operations import Failure, perform, sentence
from sampan.runtime.planned import Plan
from sampan.runtime.userns import hand_over, id_map_of, pid_of, write_maps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

DIED = "the container's first process died while it was being set up"
_ERRORS = {"not-found": CommandNotFound, "not-executable": CommandNotExecutable}
#: Children find these by clone flags or unshare(2) inside init, at the right moment.
_LATE = namespaces.CLONE_NEWCGROUP | namespaces.CLONE_NEWTIME
_USER = namespaces.CLONE_NEWUSER
_NETWORK = namespaces.CLONE_NEWNET


@dataclass(slots=True, kw_only=True)
class Child:
    """A process being made. ``pidfd`` and ``channel`` are ours to close (:meth:`close`).

    ``warnings`` grow until it is ready. ``cgroup_made``: directories made for it;
    ``cgroup_joined``: it is in them already. ``stage``: the pid of a short-lived helper our
    parent has to reap, 0 for none. ``stand_in``: ``pid`` and ``pidfd`` are of one that
    stands in for it (:mod:`sampan.runtime.standin`), until it executes. ``helper``: the pid of a
    child of ours that speaks in its place on the channel (:mod:`sampan.runtime.foreign`), 0 for
    none; reaped once that ends.
    """

    pid: int
    pidfd: int
    channel: socket.socket
    warnings: list[str] = field(default_factory=list)
    cgroup_made: bool = False
    cgroup_joined: bool = False
    stage: int = 0
    stand_in: bool = False
    helper: int = 0

    def close(self) -> None:
        """Close the descriptors; the process is not touched. Idempotent."""
        self.channel.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def spawn(
    plan: Plan,
    layout: cgroup.Layout,
    *,
    streams: tuple[int, int, int],
    listener: socket.socket | None = None,
    preserve: int = 0,
    into: tuple[int, int] | None = None,
    sibling: bool = False,
    spare_network: int = -1,
    cgroup_made: bool = False,
) -> Child:
    """Fork init into the plan's namespaces; they exist when this returns.

    ``streams`` become its descriptors 0, 1, 2; ``listener`` is what it waits on instead of its
    channel; ``preserve`` descriptors from 3 on stay open in the program. ``into``, for exec: (a
    pidfd, CLONE_NEW* flags to join of it). ``sibling``: init becomes our parent's child, which has
    to reap it (and :attr:`Child.stage`). ``spare_network``: a network namespace to use instead of a
    new one, if the plan's may belong to the host's user namespace. On cgroup v2 init is born in its
    cgroup, which is made here unless ``cgroup_made``. Raises :class:`OSError`.
    """
    staged = _needs_stage(plan, into)
    give_streams(streams, plan, into)
    ours, theirs = channel.pair()
    with contextlib.ExitStack() as cleanup, contextlib.ExitStack() as done:
        cleanup.callback(ours.close)
        done.callback(theirs.close)
        born_in = -1
        if plan.cgroup and layout.mode == "v2" and not staged and plan.scope is None:
            if not cgroup_made:
                _make_unified(plan, layout, cleanup)
            (directory,) = layout.directories(plan.cgroup)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            born_in = done.enter_context(m.descriptor(os.open(directory, flags)))
        context = init_context(plan, theirs, listener, preserve, into)
        context.cgroups_expected = bool(plan.cgroup) and born_in < 0
        done.enter_context(_children_in(plan, None if staged else into))
        stage = 0
        if staged:
            context.into = into  # the pid namespace as well
            pid, pidfd, stage = _clone_staged(plan, context, sibling)
        else:
            flags = plan.new & ~_LATE | (process.CLONE_PARENT if sibling else 0)
            if spare_network >= 0 and plan.new & _NETWORK and not plan.new & _USER:
                flags &= ~_NETWORK
                done.enter_context(_children_on(spare_network))
            pid, pidfd = process.clone3(flags, cgroup=max(born_in, 0))
        if pid == 0:
            _become_init(plan, context, streams)
        cleanup.pop_all()
        born = born_in >= 0
        made = born or cgroup_made
        return Child(
            pid=pid, pidfd=pidfd, channel=ours, cgroup_made=made, cgroup_joined=born, stage=stage
        )


def init_context(
    plan: Plan,
    theirs: socket.socket,
    listener: socket.socket | None = None,
    preserve: int = 0,
    into: tuple[int, int] | None = None,
) -> Context:
    """What init starts from; arguments as :func:`spawn`'s."""
    kinds = plan.new | sum(flag for flag, _ in plan.join) | (into[1] if into else 0)
    return Context(
        channel=theirs,
        new=plan.new,
        join=tuple(entry for entry in plan.join if entry[0] != namespaces.CLONE_NEWPID),
        into=(into[0], into[1] & ~namespaces.CLONE_NEWPID) if into else None,
        remapped=bool(kinds & namespaces.CLONE_NEWUSER),
        mapped=not plan.uid_map,
        dumpable=bool(plan.uid_map) and os.geteuid() != 0,
        transferred=bool(plan.transferred),
        filter=plan.seccomp,
        preserve=preserve,
        listener=listener,
    )


def give_streams(streams: tuple[int, int, int], plan: Plan, into: tuple[int, int] | None) -> None:
    """Let the root of the user namespace it will be in own a process's streams."""
    hand_over(streams, _ids(plan, into))


def _ids(plan: Plan, into: tuple[int, int] | None) -> IdMap | None:
    """The ids of the user namespace init will be in, None when it is ours."""
    if plan.uid_map:
        return IdMap(plan.uid_map, plan.gid_map)
    joined = next((path for flag, path in plan.join if flag == _USER), None)
    if joined is not None:
        pid = joined.removeprefix("/proc/").partition("/")[0]
        return id_map_of(pid) if pid.isdecimal() else None
    if into is not None and into[1] & _USER:
        return id_map_of(pid_of(into[0]))
    return None


def _needs_stage(plan: Plan, into: tuple[int, int] | None) -> bool:
    """Whether init cannot be cloned into its namespaces at once.

    What is joined must be joined with the host's privileges, before init is in a user namespace;
    and what is new must be made after, so that the user namespace owns it. Without the host's
    privileges, it is the user namespace that gives those to join the rest.
    """
    if into is not None and into[1] & _USER and os.geteuid():
        return True
    joined = {flag for flag, _ in plan.join}
    if namespaces.CLONE_NEWUSER in joined:
        return True
    return bool(plan.new & namespaces.CLONE_NEWUSER and joined - {namespaces.CLONE_NEWPID})


def _become_init(plan: Plan, context: Context, streams: tuple[int, int, int]) -> NoReturn:
    if plan.affinity:
        os.sched_setaffinity(0, plan.affinity)
    init.run(context, plan.setup, plan.finish, streams)


def _clone_staged(plan: Plan, context: Context, sibling: bool) -> tuple[int, int, int]:
    """Clone init by way of a stage that joins namespaces first and then ends.

    With CLONE_PARENT init is not the stage's child, but its parent's. Returns as clone3 does, and
    the stage's pid when it is not ours to reap.
    """
    ours, theirs = channel.pair()
    stage, pidfd = process.clone3(process.CLONE_PARENT if sibling else 0)
    if stage == 0:
        _join_and_clone(plan, context, theirs)
        return 0, -1, 0
    os.close(pidfd)
    theirs.close()
    with ours:
        message, fds = channel.receive(ours)
    if not sibling:
        os.waitpid(stage, 0)
    if message is None or not fds:
        answer = message or {}
        raise OSError(answer.get("errno", 0), answer.get("reason", "ended"), answer.get("path"))
    # Its own word for the pid would be of the pid namespace it was born in.
    return pid_of(fds[0]), fds[0], stage if sibling else 0


def _join_and_clone(plan: Plan, context: Context, report: socket.socket) -> None:
    """The stage. Returns in init alone; what it was cloned from passes its pidfd and ends."""
    try:
        # The user namespace last: it takes the privilege to join the others away.
        namespaces.join(sorted(context.join, key=lambda entry: entry[0] == _USER))
        if context.into is not None:
            namespaces.setns(*context.into)
            os.close(context.into[0])
            context.into = None
        pid, pidfd = process.clone3(plan.new & ~_LATE | process.CLONE_PARENT)
        if pid:
            channel.send(report, {}, [pidfd])
    except OSError as error:
        reason = {"errno": error.errno, "reason": error.strerror, "path": error.filename}
        channel.send(report, reason)
        os._exit(1)
    except BaseException:
        os._exit(1)
    if pid:
        os._exit(0)
    report.close()
    context.join = ()


@contextlib.contextmanager
def _children_on(network: int) -> Iterator[None]:
    """While inside, we and so our children are in another network namespace."""
    with m.descriptor(namespaces.own("net")) as home:
        namespaces.setns(network, _NETWORK)
        try:
            yield
        finally:
            namespaces.setns(home, _NETWORK)


@contextlib.contextmanager
def _children_in(plan: Plan, into: tuple[int, int] | None) -> Iterator[None]:
    """While inside, our children are born in the plan's pid and time namespaces; we stay put."""
    pid_path = next((path for flag, path in plan.join if flag == namespaces.CLONE_NEWPID), None)
    joins_pid = pid_path is not None or (into and into[1] & namespaces.CLONE_NEWPID)
    new_time = bool(plan.new & namespaces.CLONE_NEWTIME)
    if not joins_pid and not new_time:
        yield
        return
    with contextlib.ExitStack() as stack:
        if joins_pid:
            stack.callback(_back_to, "pid", namespaces.CLONE_NEWPID)
            if pid_path is not None:
                fd = os.open(pid_path, os.O_RDONLY | os.O_CLOEXEC)
                with m.descriptor(fd):
                    namespaces.setns(fd, namespaces.CLONE_NEWPID)
            elif into is not None:
                namespaces.setns(into[0], namespaces.CLONE_NEWPID)
        if new_time:
            namespaces.unshare(namespaces.CLONE_NEWTIME)
            stack.callback(_back_to, "time", namespaces.CLONE_NEWTIME)
            _write("/proc/self/timens_offsets", "\n".join(plan.time_offsets))
        yield


def _back_to(name: str, flag: int) -> None:
    """Have our next children in our own namespace again (in a child: no matter, it stays)."""
    with contextlib.suppress(OSError), m.descriptor(namespaces.own(name)) as fd:
        namespaces.setns(fd, flag)


def _write(path: str, text: str) -> None:
    if not text:
        return
    with m.descriptor(os.open(path, os.O_WRONLY | os.O_CLOEXEC)) as fd:
        try:
            os.write(fd, text.encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error


def _make_unified(plan: Plan, layout: cgroup.Layout, cleanup: contextlib.ExitStack) -> None:
    """Make the v2 cgroup if the plan brings resources."""
    if plan.resources is not None:
        cgroup.create(cgroup.plan(layout, plan.cgroup, plan.resources))
        cleanup.callback(cgroup.remove, layout, plan.cgroup)


def provision(child: Child, plan: Plan, layout: cgroup.Layout) -> None:
    """Give init what it cannot do itself: id maps, cgroups, mounts with the host's privileges.

    Raises :class:`OSError`, :class:`StartFailed`, or what :func:`sampan.kernel.cgroup.plan` does.
    """
    try:
        _provide(child, plan, layout)
    except BrokenPipeError as error:
        wait_ready(child)  # init has failed and gone meanwhile: its last word says why
        raise StartFailed(DIED) from error


def _provide(child: Child, plan: Plan, layout: cgroup.Layout) -> None:
    if plan.uid_map:
        write_maps(child.pid, plan.uid_map, plan.gid_map)
        channel.send(child.channel, {"kind": "mapped"})
    made = child.cgroup_made
    if plan.scope is not None:
        from sampan.kernel.cgroup import systemd

        systemd.start(plan.scope, child.pid)
        child.cgroup_made = True
    if plan.cgroup and plan.resources is not None and not made:
        cgroup.create(cgroup.plan(layout, plan.cgroup, plan.resources))
        child.cgroup_made = True
    _perform_on_host(child, plan)
    if plan.cgroup and not child.cgroup_joined:
        with cgroup_files(plan.cgroup, layout, dict(plan.below)) as fds:
            channel.send(child.channel, {"kind": "cgroups"}, fds)


def _perform_on_host(child: Child, plan: Plan) -> None:
    context = Context(channel=child.channel, pid=child.pid, warnings=child.warnings)
    try:
        if plan.transferred and (plan.new | sum(flag for flag, _ in plan.join)) & _USER:
            context.userns = os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            context.slots["userns"] = context.userns
        perform(plan.host, context)
        if plan.transferred:
            fds = [context.slots[slot] for slot in plan.transferred]
            channel.send(child.channel, {"kind": "slots", "slots": list(plan.transferred)}, fds)
    except Failure as error:
        raise StartFailed(sentence(error.name, error.reason, error.path)) from error
    except Refused as error:
        raise StartFailed(error.message) from error
    finally:
        for fd in context.slots.values():
            os.close(fd)


@contextlib.contextmanager
def cgroup_files(
    path: str, layout: cgroup.Layout, below: Mapping[str, str] | None = None
) -> Iterator[list[int]]:
    """Descriptors of what a process writes "0" to, to join a cgroup.

    ``below``: by mount point, the cgroup to join in place of ``path``.

    A single-threaded process moves itself into a v1 cgroup by ``tasks`` without the grace period
    that being moved costs (kernel/cgroup/members.py).
    """
    fds: list[int] = []
    try:
        for hierarchy in layout.owning:
            name = "cgroup.procs" if hierarchy.unified else "tasks"
            there = (below or {}).get(hierarchy.mountpoint, path)
            file = f"{hierarchy.directory(there)}/{name}"
            fds.append(os.open(file, os.O_WRONLY | os.O_CLOEXEC))
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def failure(message: channel.Message) -> StartFailed:
    """The error for a ``failed`` message of init."""
    kind = _ERRORS.get(str(message.get("why")), StartFailed)
    return kind(str(message.get("message")))


def wait_ready(
    child: Child,
    *,
    on_terminal: Callable[[int], None] | None = None,
    on_hooks: Callable[[], None] | None = None,
    on_seccomp: Callable[[int], None] | None = None,
) -> None:
    """Serve init until it waits to be started.

    ``on_terminal`` and ``on_seccomp`` get a descriptor, which is closed after. ``on_hooks`` runs
    the hooks of the runtime's namespace (prestart, createRuntime); what it raises is passed on.
    Raises :class:`StartFailed` or one of its kinds.
    """
    handlers = {"terminal": on_terminal, "seccomp": on_seccomp}
    while True:
        message, fds = channel.receive(child.channel)
        if message is None:
            raise StartFailed(DIED)
        try:
            kind = message["kind"]
            if kind == "failed":
                raise failure(message)
            if kind == "ready":
                child.warnings += message["warnings"]
                return
            if kind == "hooks":
                if on_hooks is not None:
                    on_hooks()
                channel.send(child.channel, {"kind": "hooks-done"})
            handler = handlers.get(kind)
            if handler is not None:
                handler(fds[0])
        finally:
            for fd in fds:
                os.close(fd)


def release(child: Child, plan: Plan) -> None:
    """Let an init that is ready run its program."""
    child.warnings += set_limits(child.pid, plan.limits)
    channel.send(child.channel, {"kind": "start"})


def wait_started(
    connection: socket.socket, *, on_seccomp: Callable[[int], None] | None = None
) -> None:
    """Wait until the program was executed. Raises :class:`StartFailed` or one of its kinds."""
    executing = False
    while True:
        message, fds = channel.receive(connection)
        if message is None:
            if not executing:
                raise StartFailed(DIED)
            return
        try:
            executing = executing or message["kind"] == "executing"
            if message["kind"] == "failed":
                raise failure(message)
            if message["kind"] == "seccomp" and on_seccomp is not None:
                on_seccomp(fds[0])
        finally:
            for fd in fds:
                os.close(fd)


def start_listener(path: Path) -> socket.socket:
    """A socket an init without a monitor waits on; remove ``path`` with the container."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener


def start(path: Path, *, on_seccomp: Callable[[int], None] | None = None) -> None:
    """Start the init that waits on ``path``; returns once the program was executed.

    Raises :class:`StartFailed` or one of its kinds, :class:`OSError` when nobody waits there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(str(path))
        channel.send(connection, {"kind": "start"})
        wait_started(connection, on_seccomp=on_seccomp)


def undo(child: Child, plan: Plan, layout: cgroup.Layout) -> None:
    """End a process that was made in vain, and what was made for it. Idempotent."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child.pid, 0)
    child.close()
    if child.cgroup_made:
        cgroup.destroy(layout, plan.cgroup, plan.scope.unit if plan.scope else "")
