"""Operations that make init what the container's program is to be: names, identity, privileges."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import stat
from collections.abc import Mapping, Sequence

from sampan.kernel import capabilities as caps
from sampan.kernel import mount as m
from sampan.kernel import namespaces, openat, prctl, process, seccomp, tty
from sampan.kernel import process as proc
from sampan.runtime import channel, identity
from sampan.runtime.context import Abandoned, Context, Refused
from sampan.runtime.program_operations import environment

_KILL = 9
_HOOK_OUTPUT = 4096


def enter(context: Context) -> None:
    """Get into the namespaces that init joins, and into its identity in a user namespace.

    Until the maps are written our ids are unmapped; then we become its root, so that what we make
    is owned by it.
    """
    if context.apart:
        namespaces.unshare(context.apart)
    namespaces.join(context.join)
    if context.into is not None:
        if context.into[1]:  # a container with no namespace of its own has none to join
            namespaces.setns(*context.into)
        os.close(context.into[0])
    if not context.mapped:
        context.expect("mapped")
    if context.remapped:
        os.setresgid(0, 0, 0)
        process.set_groups(())
        os.setresuid(0, 0, 0)
        # The change of ids made us as dumpable as the system's default says.
        prctl.set_dumpable(False)
    if context.transferred:
        message, fds = context.expect("slots")
        for slot, fd in zip(message["slots"], fds, strict=True):
            context.store(slot, fd)


def await_cgroups(context: Context) -> None:
    """Join the container's cgroups, once; then a cgroup namespace starts at them.

    What arrives are descriptors of files to write "0" to, opened by the runtime's side: also a
    process inside a user namespace may use them.
    """
    if context.cgroups_done:
        return
    if context.cgroups_expected:
        _, fds = context.expect("cgroups")
        join_cgroups(fds)
    context.cgroups_done = True
    if context.new & namespaces.CLONE_NEWCGROUP:
        namespaces.unshare(namespaces.CLONE_NEWCGROUP)


def affinity(context: Context, *, cpus: Sequence[int]) -> None:
    """sched_setaffinity(2), once the cgroup with its cpuset is joined; without ``cpus`` to all."""
    process.allow_processors(cpus)


def join_cgroups(files: Sequence[int]) -> None:
    """Join cgroups by descriptors of their lists of members, which are closed."""
    for fd in files:
        with m.descriptor(fd):
            os.write(fd, b"0")


def hostname(context: Context, *, name: str) -> None:
    """sethostname(2) in the container's UTS namespace."""
    socket.sethostname(name)


def domainname(context: Context, *, name: str) -> None:
    """setdomainname(2) in the container's UTS namespace."""
    process.setdomainname(name)


def sysctls(context: Context, *, slot: str | None, values: Mapping[str, str]) -> None:
    """Write kernel parameters through a procfs no path of the container leads to.

    Crossing into anything mounted on it is refused, so a bind mount over /proc/sys/... catches no
    write (CVE-2025-52881).
    """
    if slot is None:
        fd, own = m.new_filesystem("proc", "proc"), True
    else:
        fd, own = context.take(slot), False
    try:
        for name, value in values.items():
            _write_sysctl(fd, name, value)
    finally:
        if own:
            os.close(fd)


def _write_sysctl(procfs: int, name: str, value: str) -> None:
    path = "sys/" + (name if "/" in name else name.replace(".", "/"))
    _write_proc(procfs, path, value, name)


def _write_proc(procfs: int, path: str, value: str, what: str) -> None:
    resolve = openat.RESOLVE_BENEATH | openat.RESOLVE_NO_XDEV | openat.RESOLVE_NO_SYMLINKS
    try:
        with m.descriptor(openat.openat2(procfs, path, os.O_WRONLY, resolve)) as fd:
            if openat.filesystem_magic(fd) != openat.PROC_SUPER_MAGIC:
                raise OSError(errno.EXDEV, "not a procfs", what)
            os.write(fd, value.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, what) from error


def runtime_hooks(context: Context) -> None:
    """Let the other side run hooks of the runtime's namespace, and wait for it."""
    channel.send(context.channel, {"kind": "hooks"})
    context.expect("hooks-done")


def hook(
    context: Context,
    *,
    name: str,
    path: str,
    args: Sequence[str],
    env: Sequence[str],
    timeout: int,
    state: Mapping[str, object],
) -> None:
    """Run one hook here, with the container's state on its standard input."""
    try:
        run_hook(path, args, env, timeout, {**state, "pid": os.getpid()})
    except Refused as error:
        raise Refused(error.kind, f"error running {name}: {error.message}") from None


def run_hook(
    path: str, args: Sequence[str], env: Sequence[str], timeout: int, state: Mapping[str, object]
) -> None:
    """config.md "POSIX-platform Hooks": execute, feed ``state``, wait ``timeout`` s (0: for ever).

    Raises :class:`Refused` when it fails.
    """
    document = json.dumps(state).encode()
    to_read, to_feed = os.pipe()
    output, errors = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(to_read, 0)
            os.dup2(errors, 1)
            os.dup2(errors, 2)
            proc.close_range(3)
            os.execve(path, list(args), environment(env))
        finally:
            os._exit(127)
    os.close(to_read)
    os.close(errors)
    with m.descriptor(output), m.descriptor(os.pidfd_open(pid)) as pidfd:
        with m.descriptor(to_feed), contextlib.suppress(BrokenPipeError):
            os.write(to_feed, document)
        text, ended = _collect(output, pidfd, timeout * 1000 if timeout > 0 else None)
        if not ended:
            os.kill(pid, _KILL)
    _, status = os.waitpid(pid, 0)
    if not ended:
        raise Refused("failed", f"hook {path}: did not end within {timeout} seconds")
    if status:
        code = os.waitstatus_to_exitcode(status)
        raise Refused("failed", f"hook {path}: ended with {code}: {text.strip()}".rstrip(": "))


def _collect(output: int, pidfd: int, timeout: int | None) -> tuple[str, bool]:
    """(what a hook wrote, whether it ended in time), in milliseconds."""
    poller = select.poll()
    poller.register(output, select.POLLIN)
    poller.register(pidfd, select.POLLIN)
    kept = b""
    while True:
        ready = dict(poller.poll(timeout))
        if not ready:
            return kept.decode("utf-8", "replace"), False
        if output in ready:
            data = os.read(output, _HOOK_OUTPUT)
            kept = (kept + data)[:_HOOK_OUTPUT]
            if not data:
                poller.unregister(output)
        elif pidfd in ready:
            return kept.decode("utf-8", "replace"), True


def session(context: Context) -> None:
    """setsid(2): a session and process group of its own."""
    with contextlib.suppress(PermissionError):  # a group leader already, as PID 1 may be
        os.setsid()


def controlling_terminal(context: Context) -> None:
    """Make the terminal stdin, stdout and stderr, and the session's controlling terminal."""
    for fd in (0, 1, 2):
        os.dup2(context.terminal, fd)
    tty.make_controlling(0)


def keyring(context: Context, *, name: str) -> None:
    """A new session keyring, so that the host's keys stay unreachable (keyrings(7))."""
    try:
        process.join_session_keyring(name)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EDQUOT):
            raise
        context.warnings.append(f"no session keyring of its own: {error.strerror}")


def personality(context: Context, *, persona: int) -> None:
    """personality(2)."""
    process.personality(persona)


def memory_policy(context: Context, *, mode: int, nodes: str) -> None:
    """set_mempolicy(2); ``nodes`` is a decimal bit mask."""
    process.set_mempolicy(mode, int(nodes))


def scheduler(
    context: Context,
    *,
    policy: int,
    flags: int,
    nice: int,
    priority: int,
    runtime: int,
    deadline: int,
    period: int,
) -> None:
    """sched_setattr(2)."""
    process.sched_setattr(policy, flags, nice, priority, runtime, deadline, period)


def io_priority(context: Context, *, kind: int, priority: int) -> None:
    """ioprio_set(2)."""
    process.ioprio_set(kind, priority)


def identify(
    context: Context,
    *,
    user: str | None,
    groups: Sequence[str],
    uid: int,
    gid: int,
    additional: Sequence[int],
) -> None:
    """Find out who to become, from numbers or from the container's passwd and group files."""
    with m.descriptor(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        passwd = identity.read_database(root, "etc/passwd")
        try:
            if user is None and not groups:
                home = identity.home_of(uid, passwd)
                context.identity = identity.Identity(uid, gid, tuple(additional), home)
                return
            database = identity.read_database(root, "etc/group")
            wanted = f"{uid}:{gid}" if user is None else user
            context.identity = identity.resolve(wanted, groups, passwd, database, additional)
        except identity.UnknownName as error:
            raise Refused("failed", str(error)) from None


def own_streams(context: Context) -> None:
    """Give stdin, stdout and stderr to the user, so that /dev/stdout can be opened again.

    Only pipes, sockets and terminals change hands, never a device or a file of the host.
    """
    uid = context.identity.uid
    for fd in (0, 1, 2):
        status = os.fstat(fd)
        mode = status.st_mode
        ours = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd)
        if not ours or status.st_uid == uid:
            continue
        try:
            os.fchown(fd, uid, -1)
        except OSError as error:
            # Not ours to give: the user can still read and write through the descriptor.
            if error.errno not in (errno.EPERM, errno.EINVAL, errno.EROFS):
                raise


def enter_directory(context: Context, *, path: str) -> None:
    """chdir(2) to the working directory, which must be inside the root (CVE-2024-21626)."""
    try:
        os.chdir(path)
    except PermissionError:
        context.late_directory = path  # perhaps the user may where root may not (NFS)
        return
    except FileNotFoundError:
        message = f'chdir to cwd ("{path}") set in config.json failed: no such file or directory'
        raise Refused("not-found", message) from None
    _check_directory(path)


def _check_directory(path: str) -> None:
    try:
        inside = os.getcwd().startswith("/")
    except FileNotFoundError:
        inside = False
    if not inside:
        raise Refused("failed", f"the working directory {path} is outside of the container's root")


def label(context: Context, *, module: str, value: str) -> None:
    """Have the security module confine what we execute next, through a private procfs."""
    names = {"apparmor": ("self/attr/apparmor/exec", f"exec {value}")}
    path, text = names.get(module, ("self/attr/exec", value))
    with m.descriptor(m.new_filesystem("proc", "proc")) as procfs:
        resolve = openat.RESOLVE_BENEATH | openat.RESOLVE_NO_XDEV
        with m.descriptor(openat.openat2(procfs, path, os.O_WRONLY, resolve)) as fd:
            os.write(fd, text.encode())


def seccomp_filter(context: Context) -> None:
    """Install the filter; its notification descriptor, if it has one, goes to the other side.

    Only the channel stays open: a filter need not allow closing what is still there.
    """
    if context.filter is None:
        return
    process.close_all_but({context.channel.fileno()}, 3 + context.preserve)
    listener = seccomp.install(context.filter)
    if listener is not None:
        with m.descriptor(listener):
            channel.send(context.channel, {"kind": "seccomp"}, [listener])


def bounding(context: Context, *, keep: int, last: int) -> None:
    """Cut the capability bounding set down to ``keep``."""
    caps.drop_bounding(keep, last)


def become(context: Context) -> None:
    """Take on user and groups, keeping the permitted capabilities for the next step."""
    prctl.prctl(prctl.PR_SET_KEEPCAPS, 1)
    who = context.identity
    process.set_groups(who.groups)
    os.setresgid(who.gid, who.gid, who.gid)
    os.setresuid(who.uid, who.uid, who.uid)
    prctl.prctl(prctl.PR_SET_KEEPCAPS, 0)
    prctl.set_dumpable(False)
    if context.late_directory:
        os.chdir(context.late_directory)
        _check_directory(context.late_directory)


def capabilities(
    context: Context, *, effective: int, permitted: int, inheritable: int, ambient: int
) -> None:
    """Set the four sets that capset(2) and PR_CAP_AMBIENT set, to exactly these masks."""
    caps.capset(effective, permitted, inheritable)
    caps.raise_ambient(ambient)


def umask(context: Context, *, mask: int) -> None:
    """umask(2)."""
    os.umask(mask)


def no_new_privileges(context: Context) -> None:
    """PR_SET_NO_NEW_PRIVS."""
    prctl.set_no_new_privileges()


def die_with_parent(context: Context) -> None:
    """SIGKILL when the monitor ends. If it already did, its end of the channel is closed."""
    prctl.set_parent_death_signal(_KILL)
    poller = select.poll()
    poller.register(context.channel, select.POLLHUP)
    if any(event & (select.POLLHUP | select.POLLERR) for _, event in poller.poll(0)):
        raise Abandoned


def oom_score_adj(context: Context, *, value: int) -> None:
    """/proc/<pid>/oom_score_adj of init. Lowering needs CAP_SYS_RESOURCE: else a warning."""
    path = f"/proc/{context.pid}/oom_score_adj"
    with m.descriptor(os.open(path, os.O_WRONLY | os.O_CLOEXEC)) as fd:
        try:
            os.write(fd, str(value).encode())
        except PermissionError:
            context.warnings.append(f"oom_score_adj {value} cannot be set without CAP_SYS_RESOURCE")
