"""Do one step: find its key, look in the cache, else change a snapshot and keep the layer."""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sampan.build import actions
from sampan.build.cache import Layer, Record
from sampan.build.copying import digest, items
from sampan.build.executor import ExtraMount, RunRequest
from sampan.build.keys import copy_key, directory_key, mount_label, run_key
from sampan.build.mounts import Prepared, prepare
from sampan.build.outline import taking
from sampan.build.places import inside, looked_at
from sampan.build.progress import Vertex
from sampan.build.remote import check_out, download, is_remote, parse_git
from sampan.build.request import Material
from sampan.build.selection import Tree
from sampan.build.steps import CopyStep, MakeDirectoryStep, RunStep, Step
from sampan.build.tail import Tail
from sampan.build.tools import StageResult, StepFailed
from sampan.build.workspace import Change
from sampan.dockerfile.run_mount import RunMount
from sampan.errors import InvalidParameter, NotFound
from sampan.image import chain_ids
from sampan.kernel.mount import descriptor
from sampan.model.digest import Digest
from sampan.model.platform import Platform

if TYPE_CHECKING:
    from sampan.build.solver import Build
    from sampan.build.stages import Stage

#: What the runtime mounts into every container; made as mount points when the root lacks them.
RUNTIME_MOUNTS = ("/proc", "/sys", "/dev", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname")
#: Where a step finds its here-document when that is a program of its own.
_SCRIPT = "/dev/pipes/EOF"
#: How a program ends that the kernel cannot execute.
_NOT_BEGUN = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One step and what it starts from."""

    build: Build
    stage: Stage
    vertex: Vertex
    step: Step
    result: StageResult


async def perform(
    build: Build, stage: Stage, vertex: Vertex, step: Step, result: StageResult
) -> tuple[Record, bool]:
    """The record of the step and whether it was cached.

    Raises :class:`StepFailed`, and what copying and the executor raise.
    """
    work = _Work(build=build, stage=stage, vertex=vertex, step=step, result=result)
    match step.action:
        case CopyStep() as action:
            source = await build.source(stage, action.from_)
            try:
                return await build.tools.in_thread(_copy, work, action, source)
            except NotFound as error:
                raise NotFound(uncomputed(result.key, error.message)) from None
        case RunStep() as action:
            return await _run(work, action)
        case MakeDirectoryStep() as action:
            return await build.tools.in_thread(_make_directory, work, action)
    raise InvalidParameter(f"{step.node.keyword.upper()} does nothing to files")


def uncomputed(key: str, message: str) -> str:
    """What is missing of a copy's sources, in the words clients look for."""
    return f"failed to compute cache key: failed to calculate checksum of ref {key[:25]}: {message}"


def _copy(work: _Work, action: CopyStep, source: StageResult | Tree | None) -> tuple[Record, bool]:
    workspace, build, result = work.build.tools.workspace, work.build, work.result
    with ExitStack() as stack:
        parts = list(_parts(work, action, source, stack))
        below = None if action.link else result.chain
        root = stack.enter_context(workspace.look(below)) if below is not None else None
        several = len(action.sources) + len(action.inline) > 1
        copyings = [
            actions.look_up(
                part,
                tree,
                root,
                keeps_owner=isinstance(source, StageResult),
                mtime=int(build.request.time * 1_000_000_000),
                several=several,
            )
            for part, tree, _ in parts
        ]
        pairs = list(zip(copyings, [tree for _, tree, _ in parts], strict=True))
        content = ":".join(
            known or copying.content(tree, build.tools.hashes)
            for (copying, tree), (_, _, known) in zip(pairs, parts, strict=True)
        )
        key = copy_key(result.key, action, content, build.epoch)
        record = _cached(work, key)
        if record is not None:
            return record, True
        with workspace.change(below) as change:
            with workspace.writable(change) as writable:
                for copying, tree in pairs:
                    actions.copy(copying, tree, writable)
            return _keep(work, key, workspace.keep(change, result.chain, build.request.latest))


def _parts(
    work: _Work, action: CopyStep, source: StageResult | Tree | None, stack: ExitStack
) -> Iterator[tuple[CopyStep, Tree | None, str]]:
    """The step as copies from one tree each: ADD's remote sources are fetched into their own.

    With each goes what its content is where that is known without looking: a commit.
    """
    remote = [path for path in action.sources if action.add and is_remote(path)]
    local = tuple(path for path in action.sources if path not in remote)
    if work.build.request.confined:
        _check_confined(work.step.node.keyword, local)
    if local or action.inline:
        tree = _tree(work, source, stack)
        if tree is None and local:
            raise InvalidParameter(f"{work.step.node.keyword.upper()} needs a build context")
        yield replace(action, sources=local), tree, ""
    for address in remote:
        directory = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="add-", dir=work.build.tools.mount_directory)
            )
        )
        policy = work.build.tools.policy
        if (git := parse_git(address)) is not None:
            keep = git.keep_git_directory or action.keep_git_dir
            checksum = action.checksum or git.checksum
            git = replace(git, keep_git_directory=keep, checksum=checksum)
            done = check_out(policy.repository(git), directory)
            directory = done.directory
            material = Material(uri=address, algorithm="sha1", digest=done.commit)
            sources: tuple[str, ...] = (".",)
            how = replace(git, ref="", checksum="")
            known = f"{how!r}:{done.commit}:{action.chown}:{action.chmod}"
        else:
            address, checksum = policy.address(address, action.checksum)
            file = download(address, directory, checksum)
            with file.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            material = Material(uri=address, algorithm="sha256", digest=found)
            sources, known = (file.name,), ""
        work.build.materials.add(material)
        root = stack.enter_context(descriptor(os.open(directory, os.O_RDONLY | os.O_DIRECTORY)))
        unpack = action.unpack or False
        yield replace(action, sources=sources, inline=(), unpack=unpack), Tree(root=root), known


def _check_confined(keyword: str, sources: Sequence[str]) -> None:
    """Refuse what leads out of the context, in the classic builder's words."""
    for path in sources:
        if posixpath.normpath(path.lstrip("/")).split("/")[0] == "..":
            raise InvalidParameter(
                f"{keyword.upper()} failed: forbidden path outside the build context: {path} ()"
            )


def _tree(work: _Work, source: StageResult | Tree | None, stack: ExitStack) -> Tree | None:
    if isinstance(source, StageResult):
        return Tree(root=stack.enter_context(work.build.tools.workspace.look(source.chain)))
    return source


def cached(build: Build, stage: Stage, key: str, result: StageResult) -> Record | None:
    """The record of ``key``, its layer on top of what a stage has; None when it is not there."""
    record = build.cached(key, stage, result.chain)
    if record is None or record.layer is None:
        return record
    # it may have been made on another root: a linked copy, or before a step below was done anew
    chain = _chain(result.chain, record.layer.diff_id)
    if not build.tools.workspace.snapshotter.exists(str(chain)):
        return None
    return replace(record, layer=replace(record.layer, chain_id=chain))


def _cached(work: _Work, key: str) -> Record | None:
    return cached(work.build, work.stage, key, work.result)


def _chain(below: Digest | None, diff_id: Digest) -> Digest:
    return chain_ids([below, diff_id])[-1] if below is not None else diff_id


def _keep(work: _Work, key: str, layer: Layer | None) -> tuple[Record, bool]:
    return work.build.keep(key, work.result, work.step, layer), False


def _make_directory(work: _Work, action: MakeDirectoryStep) -> tuple[Record, bool]:
    workspace, result = work.build.tools.workspace, work.result
    key = directory_key(result.key, action, work.build.epoch)
    record = _cached(work, key)
    if record is not None:
        return record, True
    with workspace.look(result.chain) as root:
        if not actions.missing(root, (action.path,)):
            return _keep(work, key, None)
    with workspace.change(result.chain) as change:
        with workspace.writable(change) as writable:
            actions.make_directory(writable, action.path, str(work.step.config.get("User") or ""))
        return _keep(work, key, workspace.keep(change, result.chain, work.build.request.latest))


async def _run(work: _Work, action: RunStep) -> tuple[Record, bool]:
    build = work.build
    if action.security == "insecure" and not build.request.insecure_allowed:
        raise InvalidParameter("this build may not use RUN --security=insecure")
    build.reaches(action)
    sources = {
        mount: await build.source(work.stage, mount.from_)
        for mount in action.mounts
        if mount.type == "bind" or (mount.type == "cache" and mount.from_)
    }
    key = await build.tools.in_thread(_run_key, work, action, sources)
    record = await build.tools.in_thread(_cached, work, key)
    if record is not None:
        return record, True
    async with AsyncExitStack() as stack:
        change = stack.enter_context(build.tools.workspace.change(work.result.chain))
        await _run_program(work, action, change, sources, stack)
        layer = await build.tools.in_thread(
            build.tools.workspace.keep, change, work.result.chain, build.request.latest
        )
    return _keep(work, key, layer)


async def _run_program(
    work: _Work,
    action: RunStep,
    change: Change,
    sources: dict[RunMount, StageResult | Tree | None],
    stack: AsyncExitStack,
) -> None:
    tools = work.build.tools
    prepared = await _prepared(work, action, sources, stack)
    with tools.workspace.look(work.result.chain) as root:
        targets = (*RUNTIME_MOUNTS, *(mount.target for mount in prepared.mounts))
        stubs = actions.missing(root, targets)
    tail = Tail()

    def output(stream: int, data: bytes) -> None:
        tail.add(data)
        work.build.progress.log(work.vertex, stream, data)

    code = await tools.executor.run(_request(work, action, change, prepared), output)
    if code != 0:
        line, hint = work.step.node.start, _hint(work.result.platform, code)
        raise StepFailed(" ".join(action.words), code, tail.text(), line, hint)
    if stubs:
        with tools.workspace.writable(change) as writable:
            actions.remove_stubs(writable, stubs)


def _hint(platform: Platform, code: int) -> str:
    """Why nothing of a foreign platform can have begun, when the runtime says that it has not."""
    if code != _NOT_BEGUN or platform.architecture == Platform.host().architecture:
        return ""
    return f"running programs of {platform} takes a handler of this machine's binfmt_misc"


async def _prepared(
    work: _Work,
    action: RunStep,
    sources: dict[RunMount, StageResult | Tree | None],
    stack: AsyncExitStack,
) -> Prepared:
    """The step's mounts made; a here-document with a ``#!`` line is one of them."""
    build = work.build
    scratch = Path(
        stack.enter_context(tempfile.TemporaryDirectory(prefix="run-", dir=build.tools.scratch))
    )
    places = {
        _own_cache(work, mount): stack.enter_context(_place(work, mount, source))
        for mount, source in sources.items()
    }
    prepared = await prepare(
        tuple(_own_cache(work, mount) for mount in action.mounts),
        stack=stack,
        directory=action.directory,
        caches=build.tools.directories,
        scratch=scratch,
        secrets=build.request.secrets,
        ssh=build.request.ssh,
        sources=places,
    )
    if action.stdin_script:
        return replace(prepared, mounts=(*prepared.mounts, _script(action, scratch)))
    return prepared


def _own_cache(work: _Work, mount: RunMount) -> RunMount:
    """A cache mount in the namespace the build asks for (BUILDKIT_CACHE_MOUNT_NS)."""
    space = work.build.request.arguments.get("BUILDKIT_CACHE_MOUNT_NS", "")
    return replace(mount, id=f"{space}/{mount.id}") if space and mount.type == "cache" else mount


def _request(work: _Work, action: RunStep, change: Change, prepared: Prepared) -> RunRequest:
    request = work.build.request
    return RunRequest(
        key=change.key,
        rootfs=change.mounts,
        words=(_SCRIPT,) if action.stdin_script else action.words,
        environment=action.environment,
        hidden=(*action.hidden_environment, *prepared.environment),
        directory=action.directory,
        user=action.user,
        network=request.network if action.network == "default" else action.network,
        mounts=prepared.mounts,
        extra_hosts=request.extra_hosts,
        hostname=request.arguments.get("BUILDKIT_SANDBOX_HOSTNAME", ""),
        insecure=action.security == "insecure",
        devices=action.devices,
        limits=request.limits,
    )


def _script(action: RunStep, scratch: Path) -> ExtraMount:
    """A file only this step sees, executed as it is."""
    path = scratch / "script"
    path.write_text(action.stdin_script)
    path.chmod(0o755)
    return ExtraMount(target=_SCRIPT, source=str(path), read_only=True)


def _run_key(
    work: _Work, action: RunStep, sources: dict[RunMount, StageResult | Tree | None]
) -> str:
    contents: dict[str, str] = {}
    for mount, source in sources.items():
        if isinstance(source, StageResult):
            contents[mount_label(mount)] = f"{source.key}:{mount.source}"
        elif source is not None:
            contents[mount_label(mount)] = _tree_key(work, source, mount.source)
    build = work.build
    return run_key(work.result.key, action, contents, build.circumstances, build.epoch)


def _tree_key(work: _Work, tree: Tree, path: str) -> str:
    found = items(taking(path), tree, owner=None, destination_is_directory=True, mtime=0)
    return digest(found, work.build.tools.hashes)


@contextlib.contextmanager
def _place(work: _Work, mount: RunMount, source: StageResult | Tree | None) -> Iterator[str]:
    """The host path a mount's source has while the block lasts; writes to it are thrown away."""
    writable = mount.type == "bind" and not mount.read_only
    if isinstance(source, StageResult):
        tools = work.build.tools
        with looked_at(
            tools.workspace, source.chain, tools.mount_directory, writable=writable
        ) as path:
            yield inside(path, mount.source)
        return
    if source is None:
        raise InvalidParameter(f"the mount at {mount.target} needs a build context")
    context = os.readlink(f"/proc/self/fd/{source.root}")
    if writable:
        with tempfile.TemporaryDirectory(dir=work.build.tools.mount_directory) as copy:
            shutil.copytree(context, copy, symlinks=True, dirs_exist_ok=True)
            yield inside(copy, mount.source)
    else:
        yield inside(context, mount.source)
