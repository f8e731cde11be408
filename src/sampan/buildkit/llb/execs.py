"""ExecOp: a program run on top of a root, with other roots, caches and secrets mounted.

It runs as a RUN step does (:mod:`sampan.build.executor`): the same confinement, mounts and limits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sampan.build import actions
from sampan.build.cache import Record
from sampan.build.copying import digest, items
from sampan.build.executor import Limits, RunRequest, Secrets
from sampan.build.keys import graph_key
from sampan.build.mounts import Prepared, prepare
from sampan.build.outline import taking
from sampan.build.places import inside, looked_at, mounted
from sampan.build.progress import Vertex
from sampan.build.steps import DEFAULT_PATH
from sampan.build.tail import Tail
from sampan.build.tools import StepFailed, Tools
from sampan.build.work import RUNTIME_MOUNTS
from sampan.build.workspace import Change
from sampan.buildkit.llb.graph import EMPTY as NOTHING
from sampan.buildkit.llb.graph import Node
from sampan.buildkit.llb.values import EMPTY, Directory, Root, Value, tree
from sampan.buildkit.protocol import ops_pb2 as ops
from sampan.buildkit.status import Status
from sampan.dockerfile.run_mount import RunMount
from sampan.errors import Forbidden

_ROOT = "/"
_SHARING = {ops.SHARED: "shared", ops.PRIVATE: "private", ops.LOCKED: "locked"}
_NETWORKS = {ops.UNSET: "default", ops.HOST: "host", ops.NONE: "none"}
_AGENT = "SSH_AUTH_SOCK="


class Client(Protocol):
    """What programs get of the client whose build it is, and what it may have."""

    @property
    def entitlements(self) -> frozenset[str]:
        """What the build is allowed besides what every build is."""
        ...

    async def secrets(self, identities: Sequence[str]) -> Secrets:
        """The values of those secrets that the client has."""
        ...

    async def agents(self, identities: Sequence[str]) -> Mapping[str, str]:
        """Sockets of those agents that the client forwards, by id."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecWork:
    """One ExecOp, what it takes and where it says what it does."""

    node: Node
    inputs: Sequence[Value]
    tools: Tools
    status: Status
    client: Client
    latest: int | None
    now: int

    @property
    def _op(self) -> ops.ExecOp:
        return self.node.op.exec

    def _value(self, mount: ops.Mount) -> Value:
        return EMPTY if mount.input == NOTHING else self.inputs[mount.input]

    @property
    def outputs(self) -> list[ops.Mount]:
        """The mounts whose changes are kept; those of secrets and the like have none."""
        return [
            one
            for one in self._op.mounts
            if one.mountType == ops.BIND and one.output != NOTHING and not one.readonly
        ]

    def check(self) -> None:
        """Raise Forbidden for what this build is not allowed."""
        for wanted, name in (
            (self._op.network == ops.HOST, "network.host"),
            (self._op.security == ops.INSECURE, "security.insecure"),
        ):
            if wanted and name not in self.client.entitlements:
                raise Forbidden(f"{name} is not allowed")

    def key(self) -> str:
        """What the program does, and what it does it with. Blocking."""
        said = ops.ExecOp()
        said.CopyFrom(self._op)
        said.meta.ClearField("proxy_env")
        text = said.SerializeToString(deterministic=True).hex()
        contents = [self._content(one) for one in said.mounts if one.input != NOTHING]
        return graph_key("exec", str(self.node.platform), text, *contents)

    def _content(self, mount: ops.Mount) -> str:
        value = self._value(mount)
        if isinstance(value, Root):
            return value.key
        with tree(value, self.tools.workspace) as found:
            taken = items(
                taking(mount.selector.strip("/")),
                found,
                owner=None,
                destination_is_directory=True,
                mtime=0,
            )
            return digest(taken, self.tools.hashes)

    def bases(self) -> dict[int, Value]:
        """What is changed, by the number of its output; -1 is a root whose changes are lost."""
        found = {one.output: self._value(one) for one in self.outputs}
        root = next(one for one in self._op.mounts if one.dest == _ROOT)
        if root not in self.outputs:
            found[NOTHING] = self._value(root)
        return found

    async def run(self, bases: Mapping[int, Root]) -> dict[int, Record]:
        """Run the program; what it left in each output, by its number.

        ``bases`` are the roots of the outputs and of the root itself. Raises StepFailed, and what
        mounting and the executor raise; then nothing is left.
        """
        tools, workspace = self.tools, self.tools.workspace
        root = next(one for one in self._op.mounts if one.dest == _ROOT)
        async with AsyncExitStack() as stack:
            changes = {
                number: stack.enter_context(workspace.change(base.chain))
                for number, base in bases.items()
            }
            kept = {one.output for one in self.outputs}
            change = changes[root.output if root.output in kept else NOTHING]
            prepared = await self._prepared(root, changes, stack)
            base = bases[root.output if root.output in kept else NOTHING]
            with workspace.look(base.chain) as below:
                targets = (*RUNTIME_MOUNTS, *(one.target for one in prepared.mounts))
                stubs = actions.missing(below, targets)
            await self._program(change, prepared, read_only=root.readonly)
            if stubs:
                with workspace.writable(change) as writable:
                    actions.remove_stubs(writable, stubs)
            return {
                number: await tools.in_thread(self._kept, changes[number], bases[number], number)
                for number in kept
            }

    def _kept(self, change: Change, base: Root, number: int) -> Record:
        layer = self.tools.workspace.keep(change, base.chain, self.latest)
        return Record(
            key="",
            parent=base.key,
            kind="regular",
            description=self.node.title,
            layer=layer,
            size=layer.descriptor.size,
            created=self.now,
        )

    async def _program(self, change: Change, prepared: Prepared, *, read_only: bool) -> None:
        meta, tail = self._op.meta, Tail()
        vertex = Vertex(id=self.node.digest, name=self.node.title)

        def output(stream: int, data: bytes) -> None:
            tail.add(data)
            self.status.log(vertex, stream, data)

        environment = list(meta.env)
        if not any(one.startswith("PATH=") for one in environment):
            environment.insert(0, f"PATH={DEFAULT_PATH}")
        hidden = [one for one in prepared.environment if not one.startswith(_AGENT)]
        code = await self.tools.executor.run(
            RunRequest(
                key=change.key,
                rootfs=change.mounts,
                words=tuple(meta.args),
                environment=tuple(environment),
                hidden=(*_proxies(meta.proxy_env), *hidden),
                directory=meta.cwd or "/",
                user=meta.user,
                network=_NETWORKS[self._op.network],
                mounts=prepared.mounts,
                extra_hosts=tuple(f"{one.Host}:{one.IP}" for one in meta.extraHosts),
                hostname=meta.hostname,
                insecure=self._op.security == ops.INSECURE,
                devices=tuple(one.name for one in self._op.cdiDevices),
                limits=_limits(meta, self.node.resources),
                read_only=read_only,
            ),
            output,
        )
        if code not in (tuple(meta.validExitCodes) or (0,)):
            raise StepFailed(" ".join(meta.args), code, tail.text(), 0)

    async def _prepared(
        self, root: ops.Mount, changes: Mapping[int, Change], stack: AsyncExitStack
    ) -> Prepared:
        """Everything but the root itself, mounted; what lies deeper comes later."""
        tools, op = self.tools, self._op
        scratch = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="run-", dir=tools.scratch))
        )
        written = sorted((one for one in op.mounts if one is not root), key=lambda one: one.dest)
        wanted: list[RunMount] = []
        places: dict[RunMount, str] = {}
        for one in written:
            place = await tools.in_thread(self._place, one, changes, stack)
            mount = _mount(one, place)
            wanted.append(mount)
            if place:
                places[mount] = place
        wanted += (_secret_variable(one) for one in op.secretenv)
        identities = [one.id for one in wanted if one.type == "secret"]
        agents = [one.id for one in wanted if one.type == "ssh"]
        return await prepare(
            tuple(wanted),
            stack=stack,
            directory=op.meta.cwd or "/",
            caches=tools.directories,
            scratch=scratch,
            secrets=await self.client.secrets(identities),
            ssh=await self.client.agents(agents),
            sources=places,
        )

    def _place(self, mount: ops.Mount, changes: Mapping[int, Change], stack: AsyncExitStack) -> str:
        """The host path of what is mounted, "" where that is nothing of another vertex."""
        tools = self.tools
        if mount.mountType not in (ops.BIND, ops.CACHE):
            return ""
        if mount.mountType == ops.CACHE and mount.input == NOTHING:
            return ""
        value = self._value(mount)
        change = changes.get(mount.output) if mount.output != NOTHING else None
        directory = tools.mount_directory
        if change is not None and not mount.readonly:
            path = stack.enter_context(mounted(change.mounts, directory, writable=True))
        elif isinstance(value, Directory):
            path = str(value.path)
        else:
            writable = not mount.readonly and mount.mountType == ops.BIND
            path = stack.enter_context(
                looked_at(tools.workspace, value.chain, directory, writable=writable)
            )
        return inside(path, mount.selector.strip("/"))


def _mount(mount: ops.Mount, place: str) -> RunMount:
    """A mount as RUN --mount has it; a cache takes owner and mode from what it begins with."""
    match mount.mountType:
        case ops.TMPFS:
            return RunMount(type="tmpfs", target=mount.dest, size=mount.TmpfsOpt.size)
        case ops.SECRET:
            secret = mount.secretOpt
            return RunMount(
                type="secret",
                target=mount.dest,
                id=secret.ID,
                required=not secret.optional,
                uid=secret.uid,
                gid=secret.gid,
                mode=secret.mode,
            )
        case ops.SSH:
            agent = mount.SSHOpt
            return RunMount(
                type="ssh",
                target=mount.dest,
                id=agent.ID or "default",
                required=not agent.optional,
                uid=agent.uid,
                gid=agent.gid,
                mode=agent.mode,
            )
        case ops.CACHE:
            status = Path(place).stat() if place else None
            return RunMount(
                type="cache",
                target=mount.dest,
                id=mount.cacheOpt.ID or mount.dest,
                sharing=_SHARING[mount.cacheOpt.sharing],
                read_only=mount.readonly,
                uid=status.st_uid if status else 0,
                gid=status.st_gid if status else 0,
                mode=status.st_mode & 0o7777 if status else None,
            )
    return RunMount(type="bind", target=mount.dest, read_only=mount.readonly)


def _secret_variable(one: ops.SecretEnv) -> RunMount:
    return RunMount(type="secret", id=one.ID, env=one.name, required=not one.optional)


def _proxies(proxies: ops.ProxyEnv) -> list[str]:
    """Proxy settings, which no key knows of, in both spellings."""
    found = []
    for name in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"):
        if value := getattr(proxies, name):
            found += [f"{name.upper()}={value}", f"{name}={value}"]
    return found


def _limits(meta: ops.Meta, resources: ops.LinuxResources) -> Limits:
    return Limits(
        memory=resources.memory,
        memory_swap=resources.memorySwap,
        cpu_shares=resources.cpuShares,
        cpu_period=resources.cpuPeriod,
        cpu_quota=resources.cpuQuota,
        cpuset_cpus=resources.cpusetCpus,
        cpuset_mems=resources.cpusetMems,
        cgroup_parent=meta.cgroupParent,
        ulimits=tuple((one.Name, one.Soft, one.Hard) for one in meta.ulimit),
    )
