"""Containers whose processes another OCI runtime makes: runc, crun, or whatever has their commands.

The monitor, its worker, streams, log and records are the same as for our own. What differs is who
makes a process: a *driver*, forked by the worker for one process, which has the runtime make it and
then speaks to the worker as init does (:mod:`sampan.runtime.init`). It lives until the program
runs. The container's first process becomes the monitor's child, an exec's the worker's: who was
asked for them ends, and orphans go to the nearest subreaper (prctl(2)).

In the container's directory::

    bundle/     config.json, rootfs, and what a call of the runtime leaves: log, pid, socket
    runtime/    the runtime's own state (``--root``), of this container alone

The root is mounted in the driver's mount namespace only. The container's own has a copy, and with
the last process of the two it is gone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from sampan.errors import CommandNotExecutable, CommandNotFound, Corrupt, StartFailed
from sampan.kernel import mount as m
from sampan.kernel import namespaces, prctl, process
from sampan.runtime import channel, json_text
from sampan.runtime.forked import forked
from sampan.runtime.spawn import Child, failure

#: Seconds a call of the runtime may take.
_PATIENCE = 60.0
#: Seconds its console may take to arrive once the call has ended.
_CONSOLE_SECONDS = 5.0
_LOG_LIMIT = 64 * 1024
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
}
#: What runtimes say of a program that is not there, and of one that cannot be executed. They have
#: words alone; dockerd tells exit codes 127 and 126 by the same ones.
_ABSENT = ("no such file or directory", "executable file not found", "executable file `")
_UNFIT = ("permission denied", "is a directory", "exec format error", "operation not permitted")
_OF_PROGRAM = ('exec: "', "executable", "exec container process", "exec user process", "exec the")
_WHY = {CommandNotFound: "not-found", CommandNotExecutable: "not-executable"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The runtime of one container.

    ``command``: the program's absolute path and the arguments it is always given; ``directory``:
    the container's.
    """

    command: Sequence[str]
    directory: str
    container_id: str

    @property
    def name(self) -> str:
        """As messages call it."""
        return os.path.basename(self.command[0])

    @property
    def bundle(self) -> str:
        """The directory of its config.json."""
        return f"{self.directory}/bundle"

    def words(self, log: str, *words: str) -> list[str]:
        """A whole command line, told to log to the file ``log`` of the bundle."""
        own = ("--root", f"{self.directory}/runtime", "--log", f"{self.bundle}/{log}")
        return [*self.command, *own, "--log-format", "json", *words]


def make(
    runtime: Runtime,
    config: bytes,
    tree: int,
    streams: tuple[int, int, int],
    *,
    terminal: bool,
    shared: bool,
) -> Child:
    """Have a container's first process made; it waits for its start when this returns.

    ``config``: its config.json, whose root is at :func:`root_of`; ``tree``: a descriptor of the
    mounts that are its root, attached nowhere. ``shared``: what is mounted inside is to show up
    outside. Who is its parent has to be a subreaper. Raises :class:`StartFailed` or one of its
    kinds, :class:`OSError`; then :func:`erase` is still to be called.
    """
    os.makedirs(root_of(runtime.directory), 0o700, exist_ok=True)
    with open(f"{runtime.bundle}/config.json", "wb") as file:
        file.write(config)

    def drive(told: socket.socket) -> None:
        _drive(runtime, told, tree, streams, terminal=terminal, shared=shared)

    driver, pidfd, ours = _fork(drive, (tree, *streams))
    os.close(pidfd)
    try:
        message, fds = channel.receive(ours)
        if message is None:
            raise StartFailed(f"{runtime.name}: what drives it died")
        if message["kind"] == "failed":
            raise failure(message)
    except BaseException:
        ours.close()
        os.waitpid(driver, 0)
        raise
    return Child(pid=message["pid"], pidfd=fds[0], channel=ours, helper=driver)


def execute(
    runtime: Runtime, spec: object, streams: tuple[int, int, int], *, terminal: bool
) -> Child:
    """Begin to have one more process made in a running container; ``spec``: as OCI has it.

    The child returned stands in for it. Raises :class:`OSError`.
    """

    def drive(told: socket.socket) -> None:
        _drive_exec(runtime, told, spec, streams, terminal=terminal)

    prctl.set_child_subreaper(True)
    driver, pidfd, ours = _fork(drive, streams)
    return Child(pid=driver, pidfd=pidfd, channel=ours, stand_in=True)


def root_of(directory: str) -> str:
    """Where a container's root is while it is being made."""
    return f"{directory}/bundle/rootfs"


def erase(runtime: Runtime) -> str:
    """Have the runtime forget a container, ending what is left of it. Idempotent.

    Safe with threads. Returns what the runtime complained of, "" without; our own directories are
    gone in any case, unless that is what is complained of.
    """
    complaint, own = "", f"{runtime.directory}/runtime"
    if os.path.isdir(own) and os.listdir(own):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{runtime.bundle}/log")
        words = runtime.words("log", "delete", "--force", runtime.container_id)
        null = (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0)
        copies = [(os.POSIX_SPAWN_DUP2, 0, fd) for fd in (1, 2)]
        try:
            pid = os.posix_spawn(
                words[0], words, _ENVIRONMENT, file_actions=[null, *copies], setsigdef=_SIGNALS
            )
            _wait(pid, runtime, "log", "delete")
        except StartFailed as error:
            complaint = error.message
        except OSError as error:
            complaint = f"{words[0]}: {error.strerror}"
    for name in ("bundle", "runtime"):
        try:
            _remove_tree(f"{runtime.directory}/{name}")
        except OSError as error:
            complaint = complaint or f"{error.filename}: {error.strerror}"
    return complaint


#: Those whose being ignored a program would inherit.
_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM, signal.SIGXFSZ)


def _fork(
    drive: Callable[[socket.socket], None], keep: Sequence[int]
) -> tuple[int, int, socket.socket]:
    """A process that calls ``drive`` with its end of a channel: (pid, pidfd, our end).

    Nothing but ``keep`` stays open in it, and what is raised there is told as init tells it.
    """
    me = os.getpid()
    return forked(lambda told: _be_driver(drive, told, keep, me))


def _be_driver(
    drive: Callable[[socket.socket], None], told: socket.socket, keep: Sequence[int], parent: int
) -> NoReturn:
    status = 1
    try:
        prctl.set_parent_death_signal(int(signal.SIGKILL))
        if os.getppid() != parent:
            os._exit(status)
        prctl.set_name("sampan-driver")
        process.close_all_but({told.fileno(), *keep})
        drive(told)
        status = 0
    except StartFailed as error:
        _tell_failure(told, error)
    except OSError as error:
        what = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        _tell_failure(told, StartFailed(f"cannot make the process: {what}{error.strerror}"))
    except BaseException as error:
        _tell_failure(told, StartFailed(f"{type(error).__name__}: {error}"))
    os._exit(status)


def _tell_failure(told: socket.socket, error: StartFailed) -> None:
    why = next((why for kind, why in _WHY.items() if isinstance(error, kind)), "")
    with contextlib.suppress(OSError):  # nobody is there to hear it
        channel.send(told, {"kind": "failed", "why": why, "message": error.message})


def _drive(
    runtime: Runtime,
    told: socket.socket,
    tree: int,
    streams: tuple[int, int, int],
    *,
    terminal: bool,
    shared: bool,
) -> None:
    """Make the first process, wait until it is to be started, start it."""
    _mount_root(runtime, tree, shared=shared)
    os.close(tree)
    with _Console(runtime, terminal) as console:
        words = ("create", "--bundle", runtime.bundle, "--pid-file", f"{runtime.bundle}/pid")
        _run(runtime, "log", [*words, *console.words, runtime.container_id], streams)
        pid, pidfd = _made(runtime, "pid", os.getpid(), grandparent=True)
        channel.send(told, {"kind": "made", "pid": pid}, [pidfd])
        console.pass_on(told)
    for fd in set(streams) - {0, 1, 2}:
        os.close(fd)
    channel.send(told, {"kind": "ready", "warnings": []})
    if not _await_start(runtime, told, pidfd):
        return
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        _run(runtime, "log", ["start", runtime.container_id], (null, null, null))
    except StartFailed:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        raise
    channel.send(told, {"kind": "executing"})


def _drive_exec(
    runtime: Runtime,
    told: socket.socket,
    spec: object,
    streams: tuple[int, int, int],
    *,
    terminal: bool,
) -> None:
    """Make one more process; its program runs as soon as it is there."""
    log, pid_file, spec_file = (f"{os.getpid()}.{kind}" for kind in ("log", "pid", "json"))
    try:
        with open(f"{runtime.bundle}/{spec_file}", "wb") as file:
            file.write(json_text.dumps(spec))
        with _Console(runtime, terminal) as console:
            words = ("exec", "--detach", "--process", f"{runtime.bundle}/{spec_file}")
            files = ("--pid-file", f"{runtime.bundle}/{pid_file}")
            _run(runtime, log, [*words, *files, *console.words, runtime.container_id], streams)
            _, pidfd = _made(runtime, pid_file, os.getpid(), grandparent=False)
            console.pass_on(told)
        channel.send(told, {"kind": "ready", "warnings": []})
        channel.send(told, {"kind": "executing"}, [pidfd])
    finally:
        for name in (log, pid_file, spec_file):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{runtime.bundle}/{name}")


def _mount_root(runtime: Runtime, tree: int, *, shared: bool) -> None:
    """Attach the root in a mount namespace of ours; nothing of it is seen outside."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    if shared:
        # Only the mount the root goes on keeps to itself: others are to pass on what happens.
        path = runtime.bundle
        while True:
            try:
                m.mount("", path, "", m.MS_PRIVATE)
                break
            except OSError:
                if path == "/":
                    raise
                path = os.path.dirname(path)
    else:
        m.mount("", "/", "", m.MS_SLAVE | m.MS_REC)
    m.move_mount(tree, m.AT_FDCWD, root_of(runtime.directory))


def _await_start(runtime: Runtime, told: socket.socket, pidfd: int) -> bool:
    """Until the worker says so; False when it is gone. Raises when the process has ended first."""
    poller = select.poll()
    poller.register(told, select.POLLIN)
    poller.register(pidfd, select.POLLIN)
    ready = [fd for fd, _ in poller.poll()]
    if told.fileno() not in ready:
        raise StartFailed(f"{runtime.name}: the container's first process ended before its start")
    message, _ = channel.receive(told)
    return message is not None


def _made(runtime: Runtime, name: str, me: int, *, grandparent: bool) -> tuple[int, int]:
    """The process a pid file names, and a pidfd of it.

    Raises :class:`StartFailed` when it is not the child of who has to reap it, our parent or (with
    ``grandparent``) that one's: then nobody would hear of its end.
    """
    path = f"{runtime.bundle}/{name}"
    try:
        with open(path, "rb") as file:
            pid = int(file.read(32))
        pidfd = os.pidfd_open(pid)
        wanted = os.getppid()
        if grandparent:
            wanted = process.parent(wanted)
        found = process.parent(pid)
    except (ValueError, FileNotFoundError, ProcessLookupError) as error:
        raise StartFailed(f"{runtime.name} names no process it made") from error
    if found != wanted:
        raise StartFailed(f"{runtime.name} made a process that is not left to who asked for it")
    return pid, pidfd


class _Console:
    """The socket a runtime sends a terminal's manager over; nothing without a terminal.

    ``words``: what the runtime is told of it.
    """

    def __init__(self, runtime: Runtime, terminal: bool) -> None:
        self.words: tuple[str, ...] = ()
        self._runtime = runtime
        self._listener: socket.socket | None = None
        if not terminal:
            return
        self._name = f"{runtime.bundle}/{os.getpid()}.sock"
        # A socket's name has 108 bytes at most; through /proc any directory's fits.
        self._directory = os.open(runtime.bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        short = f"/proc/{os.getpid()}/fd/{self._directory}/{os.getpid()}.sock"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(short)
        self._listener.listen(1)
        self._listener.settimeout(_CONSOLE_SECONDS)
        self.words = ("--console-socket", short)

    def __enter__(self) -> _Console:
        return self

    def __exit__(self, *_: object) -> None:
        if self._listener is not None:
            self._listener.close()
            os.close(self._directory)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._name)

    def pass_on(self, told: socket.socket) -> None:
        """Send the worker the manager the runtime has sent. Raises :class:`StartFailed`."""
        if self._listener is None:
            return
        fds: list[int] = []
        with contextlib.suppress(TimeoutError):
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(_CONSOLE_SECONDS)
                _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
        if not fds:
            raise StartFailed(f"{self._runtime.name} sent no terminal")
        channel.send(told, {"kind": "terminal"}, fds[:1])
        os.close(fds[0])


def _run(runtime: Runtime, log: str, words: Sequence[str], streams: tuple[int, int, int]) -> None:
    """Call the runtime, with ``streams`` as its own. Raises :class:`StartFailed` with its words."""
    line = runtime.words(log, *words)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{runtime.bundle}/{log}")
    me = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            # What it is about is over when we are: who looks after us undoes the rest.
            prctl.set_parent_death_signal(int(signal.SIGKILL))
            if os.getppid() == me:
                for each in _SIGNALS:
                    process.set_signal(int(each), ignored=False)
                held = [os.dup(fd) for fd in streams]
                for number, fd in enumerate(held):
                    os.dup2(fd, number)
                process.close_range(3)
                os.execve(line[0], line, _ENVIRONMENT)
        finally:
            os._exit(127)
    _wait(pid, runtime, log, words[0])


def _wait(pid: int, runtime: Runtime, log: str, step: str) -> None:
    """Until a call of the runtime ends well. Raises :class:`StartFailed` otherwise."""
    pidfd = os.pidfd_open(pid)
    try:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        late = not poller.poll(_PATIENCE * 1000)
        if late:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(pidfd)
    if late:
        raise StartFailed(f"{runtime.name} {step} did not end within {_PATIENCE:.0f} seconds")
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return
    words = _last_words(f"{runtime.bundle}/{log}")
    if not words:
        ended = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        raise StartFailed(f"{runtime.name} {step} {ended} and did not say why")
    for prefix in (f"{runtime.name} {step} failed: ", f"{step} failed: "):
        words = words.removeprefix(prefix)
    raise _error_of(f"{runtime.name}: {words}")


def _error_of(sentence: str) -> StartFailed:
    """What kind of failure a runtime tells of.

    The reason is put in lower case, as runc writes it: clients, too, go by the words.
    """
    lowered = sentence.lower()
    places = [lowered.find(text) for text in _OF_PROGRAM if text in lowered]
    if not places:
        return StartFailed(sentence)
    reason = lowered[min(places) :]
    for texts, kind in ((_UNFIT, CommandNotExecutable), (_ABSENT, CommandNotFound)):
        for text in texts:
            if text in reason:
                place = min(places) + reason.rfind(text)
                return kind(f"{sentence[:place]}{text}{sentence[place + len(text) :]}")
    return StartFailed(sentence)


def _last_words(path: str) -> str:
    """The last error in a log of JSON lines, in one line; "" when there is none."""
    try:
        with open(path, "rb") as file:
            lines = file.read(_LOG_LIMIT).splitlines()
    except FileNotFoundError:
        return ""
    for line in reversed(lines):
        with contextlib.suppress(Corrupt):
            entry = json_text.loads(line)
            if isinstance(entry, dict) and entry.get("level") in ("error", "fatal", "panic"):
                return " ".join(str(entry.get("msg", "")).split())
    return ""


def _remove_tree(path: str) -> None:
    """Remove a directory and all below; what is not there is fine."""
    for directory, names, files in os.walk(path, topdown=False):
        for entry in (f"{directory}/{name}" for name in (*files, *names)):
            with contextlib.suppress(FileNotFoundError):
                if os.path.isdir(entry) and not os.path.islink(entry):
                    os.rmdir(entry)
                else:
                    os.unlink(entry)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)
