"""create, run, start: from a bundle to a container (runtime.md "Lifecycle").

Without a monitor, as runc works: ``create`` leaves init behind, waiting on start.sock; ``start``
connects to it and returns when the program was executed or with what prevented that.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import cast

from sampan.errors import Conflict, InvalidParameter, NotFound, SampanError, StartFailed
from sampan.kernel import cgroup, mount, namespaces, process
from sampan.kernel import facts as kernel_facts
from sampan.kernel.seccomp import Filter
from sampan.kernel.seccomp_compiler import Compiler
from sampan.model import oci
from sampan.model.mount import Mount
from sampan.runtime import oci_control, oci_lean, oci_state, plan, rdt, spawn, validate
from sampan.runtime.limits import set_limits
from sampan.runtime.oci_arguments import Parsed
from sampan.runtime.oci_control import Runtime
from sampan.runtime.oci_log import os_error_text
from sampan.runtime.oci_state import OCI_VERSION, Record
from sampan.runtime.operation import Value
from sampan.runtime.planned import Plan
from sampan.runtime.process_plan import ProcessOptions

#: Compiled filters are the same for every root and every engine of this host.
_FILTERS = Path("/run/sampan/seccomp")


class Creation:
    """One container being made; everything ``create`` and ``run`` share."""

    def __init__(self, runtime: Runtime, parsed: Parsed, *, detached: bool) -> None:
        """Read and check the bundle. Raises InvalidParameter, OSError."""
        self.runtime = runtime
        self.id = parsed.arguments[0]
        self.parsed = parsed
        runtime.store.directory(self.id)
        self.bundle = os.path.abspath(parsed.string("bundle") or os.getcwd())
        self.spec = self._read_spec()
        process_ = self.spec.get("process")
        if process_ is None:
            raise InvalidParameter("config.json: process: is missing")
        root = self.spec.get("root")
        if root is None:
            raise InvalidParameter("config.json: root: is missing")
        self.rootfs = os.path.join(self.bundle, root["path"])
        self.terminal = process_.get("terminal", False)
        check_console(self.terminal, parsed.string("console-socket"), detached)

    def _read_spec(self) -> oci.Spec:
        path = f"{self.bundle}/config.json"
        try:
            with open(path, "rb") as file:
                text = file.read()
        except FileNotFoundError:
            raise NotFound(f"JSON specification file {path} not found") from None
        spec, unknown = validate.parse_config(text)
        for place in unknown:
            self.runtime.log.write("debug", f"config.json: unknown property {place} is ignored")
        return known_only(spec)

    def make(self, verb: str, on_terminal: Callable[[int], None]) -> Record:
        """Init up to where it waits to be started. Nothing is left after an error."""
        directory = self.runtime.store.claim(self.id)
        try:
            with failures(verb):
                return self._make(directory, on_terminal)
        except BaseException:
            self.runtime.store.release(self.id)
            if hooks := (self.spec.get("hooks") or {}).get("poststop"):
                from sampan.runtime import oci_hooks

                oci_hooks.run_tolerant(hooks, self._state("stopped", 0), self.runtime.log)
            raise

    def _make(self, directory: str, on_terminal: Callable[[int], None]) -> Record:
        plan_, layout = self._plan()
        oci_state.write_atomically(f"{directory}/config.json", json.dumps(self.spec).encode())
        preserve = self._preserved()
        process.forget_affinity()
        below = mount.mount_id(self.rootfs) if self._shares_mounts() else 0
        with (
            short_path(directory) as short,
            spawn.start_listener(Path(short, "start.sock")) as listener,
            standard_streams(self.terminal) as streams,
        ):
            child = spawn.spawn(
                plan_, layout, streams=streams, listener=listener, preserve=preserve
            )
        group = None
        try:
            spawn.provision(child, plan_, layout)
            if plan_.resctrl:
                group = rdt.assign(plan_.resctrl, child.pid)
            record = self._record(plan_, child.pid, group)
            spawn.wait_ready(child, on_terminal=on_terminal, on_hooks=lambda: self._hooks(record))
            if below:
                record["shared_root"] = mount.mount_id(self.rootfs)
            self._save_live(record, plan_, layout)
            self.runtime.store.save(record)
            self._announce(child.pidfd, child.pid)
        except BaseException as error:
            out_of_memory = child.cgroup_made and cgroup.oom_kills(layout, plan_.cgroup)
            if isinstance(error, StartFailed) and out_of_memory:
                error.message += " (out of memory in its cgroup: linux.resources.memory)"
            spawn.undo(child, plan_, layout)
            rdt.release(group.made if group else ())
            if below and mount.mount_id(self.rootfs) != below:
                mount.umount2(self.rootfs, mount.MNT_DETACH)
            raise
        for warning in child.warnings:
            self.runtime.log.write("warning", warning)
        child.close()
        return record

    def _shares_mounts(self) -> bool:
        entries = (self.spec.get("linux") or {}).get("namespaces") or ()
        return all(entry.get("type") != "mount" for entry in entries)

    def _plan(self) -> tuple[Plan, cgroup.Layout]:
        facts = kernel_facts.probe()
        console = (self.spec.get("process") or {}).get("consoleSize")
        keyring = "" if self.parsed.switch("no-new-keyring") else f"_ses.{self.id}"
        profile = (self.spec.get("linux") or {}).get("seccomp")
        options = plan.PlanOptions(
            process=ProcessOptions(terminal=self.terminal, keyring=keyring, die_with_parent=False),
            bundle=self.bundle,
            no_pivot=self.parsed.switch("no-pivot"),
            console_size=(console["height"], console["width"]) if console else None,
            idmap_root=False,
            resctrl=True,
            cgroups=self._has_cgroups(facts.layout),
            shared_root=os.path.realpath(self.rootfs),
            systemd=self.runtime.systemd,
            state=cast("Mapping[str, Value]", self._state("creating", 0)),
        )
        made = plan.plan(
            self.spec,
            facts,
            container_id=self.id,
            rootfs=(Mount(type="bind", source=self.rootfs, options=("rbind",)),),
            options=options,
            seccomp=compile_filter(profile) if profile else None,
        )
        for warning in made.warnings:
            self.runtime.log.write("warning", warning)
        return made, facts.layout

    def _has_cgroups(self, layout: cgroup.Layout) -> bool:
        """Whether there is a cgroup for it: the user's own processes are in one anyway."""
        named = (self.spec.get("linux") or {}).get("cgroupsPath")
        if named or self.runtime.systemd or not self.runtime.rootless:
            return True
        return cgroup.may_create(layout, plan.cgroup_path("", self.id))

    def _preserved(self) -> int:
        """--preserve-fds, and the sockets systemd handed over (sd_listen_fds(3))."""
        count = self.parsed.number("preserve-fds")
        listen = os.environ.get("LISTEN_FDS", "")
        if listen.isdecimal():
            count += int(listen)
            process_ = self.spec.setdefault("process", {})
            environment = process_.setdefault("env", [])
            environment += [f"LISTEN_FDS={listen}", "LISTEN_PID=1"]
        for fd in range(3, 3 + count):
            try:
                os.fstat(fd)
            except OSError:
                raise InvalidParameter(f"please check that preserved-fd {fd} is present") from None
        return count

    def _record(self, plan_: Plan, pid: int, group: rdt.Assigned | None) -> Record:
        kinds = {
            entry.get("type") for entry in (self.spec.get("linux") or {}).get("namespaces") or ()
        }
        nanoseconds = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(nanoseconds // 10**9))
        return {
            "id": self.id,
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "annotations": dict(self.spec.get("annotations") or {}),
            "created": f"{stamp}.{nanoseconds % 10**9:09d}Z",
            "owner": _owner(),
            "pid": pid,
            "start_time": process.start_time(pid),
            "cgroup": plan_.cgroup,
            "scope": plan_.scope.unit if plan_.scope else "",
            "limits": [list(limit) for limit in plan_.limits],
            "shares_pids": "pid" not in kinds,
            "shared_root": 0,
            "resctrl": list(group.directories) if group else [],
            "resctrl_made": list(group.made) if group else [],
            "oci_version": OCI_VERSION,
        }

    def _save_live(self, record: Record, plan_: Plan, layout: cgroup.Layout) -> None:
        hooks = self.spec.get("hooks") or {}
        profile = (self.spec.get("linux") or {}).get("seccomp") or {}
        freezer = layout.directory("freezer", plan_.cgroup)
        if layout.mode == "v2" and layout.unified is not None:
            freezer_file = f"{layout.unified.directory(plan_.cgroup)}/cgroup.freeze"
        else:
            freezer_file = f"{freezer}/freezer.state" if freezer else ""
        live = oci_lean.Live(
            pid=record["pid"],
            start_time=record["start_time"],
            shares_pids=record["shares_pids"],
            special=bool(
                hooks.get("poststart")
                or hooks.get("poststop")
                or profile.get("listenerPath")
                or record["scope"]
                or record["shared_root"]
                or record["resctrl"]
            ),
            freezer=freezer_file if plan_.cgroup else "",
            limits=plan_.limits,
            cgroups=layout.directories(plan_.cgroup) if plan_.cgroup else (),
        )
        path = f"{self.runtime.store.directory(self.id)}/{oci_lean.NAME}"
        oci_state.write_atomically(path, live.dump())

    def _state(self, status: str, pid: int) -> dict[str, object]:
        document: dict[str, object] = {
            "ociVersion": OCI_VERSION,
            "id": self.id,
            "status": status,
            "pid": pid,
            "bundle": self.bundle,
        }
        if annotations := self.spec.get("annotations"):
            document["annotations"] = dict(annotations)
        return document

    def _hooks(self, record: Record) -> None:
        """prestart and createRuntime, in our own namespaces, once the container's exist."""
        from sampan.runtime import oci_hooks

        hooks = self.spec.get("hooks") or {}
        document = self._state("creating", record["pid"])
        oci_hooks.run(hooks.get("prestart") or (), document, "prestart")
        oci_hooks.run(hooks.get("createRuntime") or (), document, "createRuntime")

    def _announce(self, pidfd: int, pid: int) -> None:
        if path := self.parsed.string("pidfd-socket"):
            send_descriptor(path, pidfd, b"pidfd")
        if path := self.parsed.string("pid-file"):
            oci_state.write_atomically(path, str(pid).encode(), 0o644)


def create(runtime: Runtime, parsed: Parsed) -> int:
    """runtime.md "Create"."""
    creation = Creation(runtime, parsed, detached=True)
    creation.make("create", console_sender(parsed.string("console-socket")))
    return 0


def start(runtime: Runtime, parsed: Parsed) -> int:
    """runtime.md "Start"."""
    record = runtime.store.load(parsed.arguments[0])
    status = runtime.status(record)
    if status == "stopped":
        raise Conflict("cannot start a container that has stopped")
    if status != "created":
        raise Conflict("cannot start an already running container")
    start_created(runtime, record)
    return 0


def start_created(runtime: Runtime, record: Record) -> None:
    """Let a waiting init go on; poststart hooks after that.

    When either fails the container is destroyed (runtime.md "Lifecycle", steps 7 to 13).
    """
    directory = runtime.store.directory(record["id"])
    limits = [(number, soft, hard) for number, soft, hard in record["limits"]]
    try:
        for warning in set_limits(record["pid"], limits):
            runtime.log.write("warning", warning)
        spec = runtime.store.load_spec(record["id"])
        state = oci_state.document(runtime.store, record, "created")
        with failures("start"), short_path(directory) as short:
            spawn.start(Path(short, "start.sock"), on_seccomp=notifier(spec, state, record["pid"]))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/start.sock")
        if hooks := (spec.get("hooks") or {}).get("poststart"):
            from sampan.runtime import oci_hooks

            document = oci_state.document(runtime.store, record, "running")
            oci_hooks.run(hooks, document, "poststart")
    except BaseException:
        oci_control.end(runtime, record)
        oci_control.destroy(runtime, record)
        raise


def run(runtime: Runtime, parsed: Parsed) -> int:
    """create, start, wait, delete. Returns the program's exit status, 128+N for signal N."""
    detached = parsed.switch("detach")
    creation = Creation(runtime, parsed, detached=detached)
    from sampan.runtime import oci_foreground

    if not detached and not parsed.switch("no-subreaper"):
        oci_foreground.become_subreaper()
    console = parsed.string("console-socket")
    with oci_foreground.Foreground(creation.terminal and not console) as foreground:
        sender = console_sender(console) if console else foreground.take_terminal
        record = creation.make("run", sender)
        start_created(runtime, record)
        status = 0 if detached else foreground.wait(record["pid"])
    if not detached and not parsed.switch("keep"):
        oci_control.destroy(runtime, record)
    return status


def known_only(spec: oci.Spec) -> oci.Spec:
    """Without properties that neither we nor the specification know (they MUST be ignored)."""
    known = {key: value for key, value in spec.items() if key in oci.Spec.__annotations__}
    result = cast("oci.Spec", known)
    if linux := result.get("linux"):
        inside = {key: value for key, value in linux.items() if key in oci.Linux.__annotations__}
        result["linux"] = cast("oci.Linux", inside)
    return result


def notifier(spec: oci.Spec, state: Mapping[str, object], pid: int) -> Callable[[int], None] | None:
    """What sends a seccomp notification descriptor to linux.seccomp.listenerPath.

    config-linux.md "The Container Process State". ``pid``: the process that has the filter.
    """
    profile = (spec.get("linux") or {}).get("seccomp") or {}
    path = profile.get("listenerPath")
    if not path:
        return None
    document: dict[str, object] = {
        "ociVersion": OCI_VERSION,
        "fds": ["seccompFd"],
        "pid": pid,
        "state": state,
    }
    if metadata := profile.get("listenerMetadata"):
        document["metadata"] = metadata

    def send(fd: int) -> None:
        try:
            send_descriptor(path, fd, json.dumps(document).encode())
        except OSError as error:
            raise StartFailed(f"linux.seccomp.listenerPath: {path}: {error.strerror}") from error

    return send


def compile_filter(profile: oci.Seccomp) -> Filter:
    """The filter for ``profile``, from the host-wide cache when the host's root."""
    hosts_root = os.geteuid() == 0 and namespaces.in_initial_user()
    made = Compiler(_FILTERS if hosts_root else None).compile(profile)
    if made.listener and not profile.get("listenerPath"):
        raise InvalidParameter("linux.seccomp: SCMP_ACT_NOTIFY needs a listenerPath")
    if profile.get("listenerMetadata") and not profile.get("listenerPath"):
        raise InvalidParameter("linux.seccomp: listenerMetadata needs a listenerPath")
    return made


def check_console(terminal: bool, console_socket: str, detached: bool) -> None:
    """A terminal needs somebody to hold its master end, and nobody else gets one."""
    if detached and terminal and not console_socket:
        raise InvalidParameter(
            "cannot allocate tty if sampan-runtime will detach without setting console socket"
        )
    if console_socket and not (detached and terminal):
        raise InvalidParameter(
            "cannot use console socket if sampan-runtime will not detach or allocate tty"
        )


def console_sender(path: str) -> Callable[[int], None]:
    """What hands the terminal's master end to whoever listens on ``path``."""

    def send(master: int) -> None:
        send_descriptor(path, master, b"/dev/ptmx")

    return send


def send_descriptor(path: str, fd: int, name: bytes) -> None:
    """One descriptor, with a name as data, over an AF_UNIX stream socket. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        socket.send_fds(connection, [name], [fd])


@contextlib.contextmanager
def standard_streams(terminal: bool) -> Iterator[tuple[int, int, int]]:
    """Our own, which the container gets; with a terminal /dev/null until it is there.

    containerd reads our output until the last holder is gone, and init outlives us.
    """
    if not terminal:
        yield 0, 1, 2
        return
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield null, null, null
    finally:
        os.close(null)


@contextlib.contextmanager
def short_path(directory: str) -> Iterator[str]:
    """Another name of ``directory``: an address of an AF_UNIX socket has 107 bytes (unix(7))."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


@contextlib.contextmanager
def failures(verb: str) -> Iterator[None]:
    """Give errors the beginning that docker, containerd and podman know from runc."""
    beginning = f"sampan-runtime {verb} failed: unable to start container process"
    try:
        yield
    except SampanError as error:
        error.message = f"{beginning}: {error.message}"
        raise
    except OSError as error:
        raise StartFailed(f"{beginning}: {os_error_text(error)}") from error


def _owner() -> str:
    """Who created it, as runc writes it: "" for a user without a name."""
    uid = os.getuid()
    if uid == 0:
        return "root"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""
