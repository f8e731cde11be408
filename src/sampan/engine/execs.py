"""The execs service: further programs in a running container."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from sampan.engine import capabilities as caps
from sampan.engine import ending, links, runtimes
from sampan.engine.attaching import ClientAttachment, PendingAttachment, parse_detach_keys
from sampan.engine.core import Core
from sampan.engine.lifecycle import Status
from sampan.engine.merge import environment, override_env
from sampan.engine.options import Attachment, AttachOptions
from sampan.engine.security import parse_security_options
from sampan.engine.spec import rlimits
from sampan.engine.table import Container
from sampan.engine.users import lookup
from sampan.errors import (
    CommandNotFound,
    Conflict,
    InvalidParameter,
    NotFound,
    SampanError,
    StartFailed,
)
from sampan.model import oci
from sampan.runtime.client import ExecRequest
from sampan.wire.container import ResourcesUlimit
from sampan.wire.exec import ExecCreateRequest, ExecInspect, ExecStartRequest

#: seconds an exec that has ended can still be inspected, as in dockerd
_REMEMBERED = 300.0


@dataclass(slots=True, eq=False, kw_only=True)
class Exec:
    """One exec: created, started at most once, ended."""

    id: str
    container: Container
    body: ExecCreateRequest
    started: bool = False
    running: bool = False
    exit_code: int | None = None
    pid: int = 0
    console_size: tuple[int, int] | None = None
    launched: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def command(self) -> str:
        """The command as events show it."""
        return " ".join(self.body.cmd or [])

    def exited(self, core: Core, code: int) -> None:
        """The program has ended (idempotent); call from the loop's thread."""
        if self.exit_code is not None:
            return
        self.running = False
        self.exit_code = code
        self.launched.set()
        self.ended.set()
        self.container.execs.discard(self.id)
        core.publish(self.container, "exec_die", exitCode=str(code), execID=self.id)
        asyncio.get_running_loop().call_later(_REMEMBERED, self._forget, core)

    def _forget(self, core: Core) -> None:
        core.execs.pop(self.id, None)


class Execs:
    """Exec instances of one engine; they live as long as their container runs."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def create(self, ref: str, body: ExecCreateRequest) -> str:
        """Prepare a program for container ``ref``; returns the exec's id.

        Raises NotFound, Conflict (not running, paused), InvalidParameter (no command, a user or
        group that the container does not have).
        """
        container = self._core.containers.find(ref)
        if not body.cmd:
            raise InvalidParameter("No exec command specified")
        if body.detach_keys:
            parse_detach_keys(body.detach_keys)
        check_running(container)
        if body.user and not body.user.replace(":", "").isdecimal():
            await self._core.threads.run(_check_user, container, body.user)
        return new_exec(self._core, container, body).id

    async def start(self, exec_id: str, body: ExecStartRequest) -> Attachment | None:
        """Run it; None when detached.

        Raises NotFound, Conflict (container not running). What goes wrong later (it was started
        before: Conflict; a program that cannot be executed: CommandNotFound,
        CommandNotExecutable) is raised here when detached, else from the attachment's ``open``,
        since a server has answered by then.
        """
        found = self._find(exec_id)
        check_running(found.container)
        if body.detach:
            self._begin(found, body)
            await run(self._core, found, attached=False)
            return None
        options = AttachOptions(
            stdin=bool(found.body.attach_stdin),
            stdout=bool(found.body.attach_stdout),
            stderr=bool(found.body.attach_stderr),
            detach_keys=found.body.detach_keys or "ctrl-p,ctrl-q",
        )
        pending = PendingAttachment(options)

        async def launch() -> None:
            pending.resolve(await run(self._core, found, attached=True))

        async def begin() -> None:
            self._begin(found, body)
            # A client that leaves meanwhile does not lose the stream: its attachment closes it.
            await asyncio.shield(self._core.tasks.spawn(launch(), "exec start", quiet=True))

        return ClientAttachment(
            tty=bool(found.body.tty),
            options=options,
            stdin=options.stdin,
            backlog=None,
            pending=pending,
            on_detach=lambda: self._core.publish(found.container, "exec_detach", execID=found.id),
            before_open=begin,
        )

    def _begin(self, found: Exec, body: ExecStartRequest) -> None:
        """Take the one start there is; Conflict in dockerd's words when it was taken."""
        if found.started:
            state = "is already running" if found.exit_code is None else "has already run"
            raise Conflict(f"exec command {found.id} {state}")
        found.started = True
        size = body.console_size or found.body.console_size
        found.console_size = (size[0], size[1]) if size and any(size) else None

    async def inspect(self, exec_id: str) -> ExecInspect:
        """State and configuration of an exec."""
        found = self._find(exec_id)
        await refresh(self._core, found)
        body, command = found.body, found.body.cmd or [""]
        process: dict[str, object] = {
            "tty": bool(body.tty),
            "entrypoint": command[0],
            "arguments": command[1:],
            "privileged": bool(body.privileged),
        }
        if body.user:
            process["user"] = body.user
        return ExecInspect(
            can_remove=False,
            container_id=found.container.id,
            detach_keys=body.detach_keys or "",
            exit_code=found.exit_code,
            id=found.id,
            open_stderr=bool(body.attach_stderr),
            open_stdin=bool(body.attach_stdin),
            open_stdout=bool(body.attach_stdout),
            pid=found.pid,
            process_config=process,
            running=found.running,
        )

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        """Set its terminal's size in character cells."""
        found = self._find(exec_id)
        if not found.running:
            # Clients resize as they start; the size is then the one to start with.
            if found.exit_code is not None:
                raise Conflict(f"exec {exec_id} is not running")
            found.console_size = (height, width)
            return
        # A server's answer is read before the program is there, which then has no terminal yet.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAUNCH):
                await found.launched.wait()
        await self._core.threads.run(found.container.monitor.resize, height, width, exec_id)

    def _find(self, exec_id: str) -> Exec:
        found = self._core.execs.get(exec_id)
        if found is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        if found.container.run is None and found.exit_code is None:
            raise Conflict(f"Container {found.container.id} is not running")
        return found


def check_running(container: Container) -> None:
    """Raise Conflict in dockerd's words unless programs can be run in the container."""
    status = container.state.status
    if status == Status.PAUSED:
        raise Conflict(f"Container {container.id} is paused, unpause the container before exec")
    if status == Status.RESTARTING:
        raise Conflict(
            f"Container {container.id} is restarting, wait until the container is running"
        )
    if container.run is None:
        raise Conflict(f"container {container.id} is not running")


def _check_user(container: Container, user: str) -> None:
    """Raise InvalidParameter for a name the container's files do not have; blocking.

    It may be there, or gone, by the time the program starts, whose own look then counts.
    """
    try:
        root = os.open(f"/proc/{container.state.pid}/root", os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise Conflict(f"container {container.id} is not running") from error
    try:
        lookup(root, user)
    finally:
        os.close(root)


def new_exec(core: Core, container: Container, body: ExecCreateRequest) -> Exec:
    """A new exec, announced."""
    made = Exec(id=core.new_id(), container=container, body=body)
    core.execs[made.id] = made
    container.execs.add(made.id)
    core.publish(container, f"exec_create: {made.command}", execID=made.id)
    return made


async def run(core: Core, found: Exec, *, attached: bool) -> socket.socket | None:
    """Run an exec; returns its stream when attached. Raises what the monitor raises."""
    body = found.body
    request = ExecRequest(
        exec_id=found.id,
        process=process(core, found.container, body),
        terminal=bool(body.tty),
        console_size=found.console_size,
        stdin=attached and bool(body.attach_stdin),
        stdout=attached and bool(body.attach_stdout),
        stderr=attached and bool(body.attach_stderr),
        user=body.user or found.container.record.config.user or "0",
        groups=tuple(found.container.record.host_config.group_add or ()),
        seccomp=not body.privileged,
    )
    core.publish(found.container, f"exec_start: {found.command}", execID=found.id)
    found.running = True
    try:
        stream, found.pid = await core.threads.run(_execute, found.container, request)
    except SampanError as error:
        code = error.exit_code if isinstance(error, CommandNotFound) else 126
        found.exited(core, code)
        if isinstance(error, StartFailed):
            raise
        raise StartFailed(error.message) from error
    found.launched.set()
    return stream


def _execute(container: Container, request: ExecRequest) -> tuple[socket.socket | None, int]:
    """Blocks."""
    return container.monitor.exec(runtimes.with_user(container, request))


def process(core: Core, container: Container, body: ExecCreateRequest) -> oci.Process:
    """The OCI process of an exec: the container's own, with what the request overrides."""
    record = container.record
    host = record.host_config
    granted = list(
        caps.effective(
            host.cap_add or [],
            host.cap_drop or [],
            privileged=bool(host.privileged or body.privileged),
            available=core.host.capabilities,
        )
    )
    base = environment(
        msgspec.structs.replace(record.config, tty=bool(body.tty)),
        record.hostname,
        links.environment(core, container),
    )
    security = parse_security_options(
        host.security_opt or [],
        apparmor="apparmor" in core.facts.lsm,
        selinux="selinux" in core.facts.lsm,
    )
    return {
        "args": list(body.cmd or []),
        "env": override_env(base, body.env or []),
        "cwd": body.working_dir or record.config.working_dir or "/",
        "capabilities": {"bounding": granted, "effective": granted, "permitted": granted},
        "rlimits": rlimits(_default_ulimits(core), host.ulimits or []),
        "noNewPrivileges": security.no_new_privileges or core.config.no_new_privileges,
        "oomScoreAdj": host.oom_score_adj or 0,
    }


def _default_ulimits(core: Core) -> Sequence[ResourcesUlimit]:
    return [
        ResourcesUlimit(name=limit.name, soft=limit.soft, hard=limit.hard)
        for limit in core.config.default_ulimits
    ]


#: seconds a client that resizes an exec is kept waiting until it has a terminal (dockerd's)
_LAUNCH = 10.0


async def refresh(core: Core, found: Exec) -> None:
    """Ask how an exec ended, if its end may be on its way to us."""
    container = found.container
    if not found.running or not found.pid or container.run is None:
        return
    attached = found.body.attach_stdout or found.body.attach_stderr
    ended = await core.threads.run(ending.ends, found.pid, ending.ENDING if attached else 0.0)
    if not ended or not found.running:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ending.NEWS):
            await found.ended.wait()
