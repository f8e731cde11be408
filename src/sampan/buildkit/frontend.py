"""The Dockerfile frontend: what a client asks for becomes a request of the solver.

The Dockerfile, its ignore file and the context are fetched from the client's session (or from
where the client says they are), each a vertex of its own as BuildKit shows them; secrets and
agents are asked for when a step that runs may want them.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from sampan.build.executor import Secrets
from sampan.build.needs import context_paths, instructions, names
from sampan.build.places import looked_at
from sampan.build.request import BuildRequest, Material
from sampan.build.selection import Tree
from sampan.build.sourcepolicy import SourcePolicy
from sampan.build.stages import SCRATCH, Plan, Stage, plan, platform_arguments
from sampan.buildkit.attributes import Attributes, check_syntax
from sampan.buildkit.caller import Filter, agent, secret, uploaded
from sampan.buildkit.contexts import Contexts
from sampan.buildkit.sessions import Session
from sampan.buildkit.status import Status
from sampan.dockerfile.ignore import IgnoreMatcher, parse_ignore_file
from sampan.dockerfile.instructions import Run
from sampan.dockerfile.parser import Dockerfile, DockerfileError, parse
from sampan.engine.buildcontext import fetched, unpack_context
from sampan.engine.buildlayouts import layout_reference
from sampan.engine.builds import Builds
from sampan.errors import InvalidParameter, NotFound, SampanError, Unsupported
from sampan.kernel.openat import in_root
from sampan.model.digest import Digest
from sampan.model.platform import Platform

_FILE_LIMIT = 16 << 20
_UPLOAD_HOST = "buildkit-session"
_IGNORE_FILE = ".dockerignore"
_IMAGE = "docker-image://"
#: Inputs that stand for the client's own directories.
_CONTEXT, _DOCKERFILE = "context", "dockerfile"
#: How the solver names what another build of this client made.
RESULT = "sampan-result:"


@dataclass(slots=True, kw_only=True)
class Source:
    """A Dockerfile with what belongs to it: its name as the client knows it, and the ignore file.

    ``directory`` holds the context already when it came from elsewhere than a session's directory;
    ``material`` is then what it was made from, if it was fetched.
    """

    file: Dockerfile
    filename: str
    ignore: tuple[str, ...] | None
    directory: Path | None = None
    material: Material | None = None


@dataclass(slots=True, kw_only=True)
class Frontend:
    """One build's inputs. Directories it fetched last as long as ``stack``."""

    attributes: Attributes
    session: Session
    status: Status
    contexts: Contexts
    builds: Builds
    stack: AsyncExitStack
    uploaded: Path | None = None
    policy: SourcePolicy = field(default_factory=SourcePolicy)
    inputs: Mapping[str, str] = field(default_factory=dict)
    roots: Mapping[str, Digest | None] = field(default_factory=dict)
    _material: Material | None = None

    async def source(self) -> Source:
        """Fetch and parse the Dockerfile. Raises DockerfileError, SampanError."""
        attributes = self.attributes
        if attributes.hostname:
            attributes.arguments.setdefault("BUILDKIT_SANDBOX_HOSTNAME", attributes.hostname)
        directory = await self._elsewhere()
        name = attributes.filename
        with self.status.step(
            f"[internal] load build definition from {posixpath.basename(name)}"
        ) as step:
            if _DOCKERFILE in self.roots:
                place = await self._rooted(_DOCKERFILE)
            elif self._has_dockerfile(directory):
                place = directory or Path()
            else:
                wanted = Filter(
                    name=attributes.dockerfile_key,
                    include=(name, f"{name}{_IGNORE_FILE}", name.lower()),
                    follow=(name, f"{name}{_IGNORE_FILE}", name.lower()),
                )
                place = await self.stack.enter_async_context(
                    self.contexts.received(
                        self.session,
                        wanted,
                        posixpath.basename(name),
                        step,
                        "dockerfile",
                        other=self.attributes.sessions.get(wanted.name, ""),
                    )
                )
            text = await self.builds.threads.run(_dockerfile, place, name)
            ignore = await self.builds.threads.run(_read, place, f"{name}{_IGNORE_FILE}")
        file = parse(text)
        syntax = file.directives.get("syntax", "")
        if syntax:
            _check_syntax(file, syntax.split()[0])
        return Source(
            file=file,
            filename=posixpath.basename(name),
            ignore=parse_ignore_file(ignore) if ignore is not None else None,
            directory=directory,
            material=self._material,
        )

    async def request(self, source: Source, platform: Platform) -> BuildRequest:
        """What the solver is to do for one platform, its context and named contexts fetched."""
        attributes = self.attributes
        planned = plan(
            source.file,
            attributes.arguments,
            platform_arguments(platform, Platform.host(), attributes.target),
        )
        needed = planned.needed(planned.target(attributes.target))
        await self.ignore(source)
        tree, path = await self._context(source, needed, planned)
        contexts = await self._named(names(planned, needed))
        epoch = attributes.arguments.get("SOURCE_DATE_EPOCH")
        return BuildRequest(
            file=source.file,
            context=tree,
            context_path=path,
            contexts=contexts,
            target=attributes.target,
            platform=platform,
            arguments=attributes.arguments,
            labels=attributes.labels,
            secrets=await self._secrets(needed),
            ssh=await self._agents(needed),
            no_cache=attributes.no_cache == frozenset(),
            no_cache_stages=attributes.no_cache or frozenset(),
            pull=attributes.pull,
            network=attributes.network,
            extra_hosts=attributes.hosts,
            limits=attributes.limits,
            now=time.time(),
            epoch=_epoch(epoch) if epoch else None,
        )

    async def _elsewhere(self) -> Path | None:
        """The context when it is no directory of the client's: fetched, or unpacked from it."""
        if self.uploaded is not None:
            return self.uploaded
        if _CONTEXT in self.roots:
            return await self._rooted(_CONTEXT)
        address = self.attributes.context
        if not address:
            return None
        with self.status.step(f"[internal] load remote build context: {address}"):
            found, self._material = await self._fetched(address)
        directory = found / self.attributes.context_directory.strip("/")
        if ".." in Path(self.attributes.context_directory).parts or not directory.is_dir():
            raise NotFound(f"no directory {self.attributes.context_directory!r} in the context")
        return directory

    def _has_dockerfile(self, directory: Path | None) -> bool:
        """Whether the Dockerfile is in the context, when that is no directory of the client's."""
        if directory is None or self.attributes.dockerfile_key != _DOCKERFILE:
            return False
        return _CONTEXT not in self.roots

    async def _rooted(self, name: str) -> Path:
        """What an input holds, mounted for the length of the build."""
        return Path(
            self.stack.enter_context(
                looked_at(
                    self.builds.workspace,
                    self.roots[name],
                    self.builds.mount_directory,
                    writable=False,
                )
            )
        )

    async def _fetched(self, address: str) -> tuple[Path, Material | None]:
        directory = await self.stack.enter_async_context(self.contexts.temporary())
        url = urlsplit(address)
        if url.hostname == _UPLOAD_HOST:
            body = uploaded(self.session, url.path)
            return await unpack_context(self.builds.threads, body, directory), None
        return await self.builds.threads.run_long(fetched, address, directory, self.policy)

    async def ignore(self, source: Source) -> None:
        """Find the context's own ignore file unless the Dockerfile brought one."""
        if source.ignore is not None:
            return
        with self.status.step(f"[internal] load {_IGNORE_FILE}") as step:
            place = source.directory
            if place is None:
                wanted = Filter(
                    name=self.attributes.context_key,
                    include=(_IGNORE_FILE,),
                    follow=(_IGNORE_FILE,),
                )
                place = await self.stack.enter_async_context(
                    self.contexts.received(
                        self.session,
                        wanted,
                        _IGNORE_FILE,
                        step,
                        "context",
                        other=self.attributes.sessions.get(wanted.name, ""),
                    )
                )
            text = await self.builds.threads.run(_read, place, _IGNORE_FILE)
        source.ignore = parse_ignore_file(text) if text is not None else ()

    async def _context(
        self, source: Source, needed: tuple[Stage, ...], planned: Plan
    ) -> tuple[Tree | None, str]:
        patterns = source.ignore or ()
        ignore = IgnoreMatcher(patterns) if patterns else None
        directory = source.directory
        if directory is None:
            paths = context_paths(needed)
            if await _triggers(self, planned, needed):
                paths = None
            if paths is not None and not paths:
                return None, ""
            with self.status.step("[internal] load build context") as step:
                wanted = Filter(
                    name=self.attributes.context_key,
                    exclude=patterns,
                    follow=paths or (),
                )
                directory = await self.stack.enter_async_context(
                    self.contexts.received(
                        self.session,
                        wanted,
                        "",
                        step,
                        "context",
                        other=self.attributes.sessions.get(wanted.name, ""),
                    )
                )
        return Tree(root=self._opened(directory), ignore=ignore), str(directory)

    def _opened(self, directory: Path) -> int:
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.stack.callback(os.close, root)
        return root

    async def _named(self, names: set[str]) -> dict[str, str | Tree]:
        """The named contexts that are used, by name."""
        found: dict[str, str | Tree] = {}
        for name, address in self.attributes.contexts.items():
            if name in names or name.partition("::")[0] in names:
                found[name.partition("::")[0]] = await self._one(name, address)
        return found

    async def _one(self, name: str, address: str) -> str | Tree:
        if address.startswith(_IMAGE):
            return address.removeprefix(_IMAGE)
        kind, _, rest = address.partition(":")
        if kind == "input":
            if rest not in self.inputs:
                raise InvalidParameter(f"invalid input {rest!r} for the named context {name}")
            return self.inputs[rest]
        if kind == "local":
            return await self._local(name, rest)
        if kind == "oci-layout":
            return _layout(name, rest)
        with self.status.step(f"[context {name}] load from {address}"):
            return Tree(root=self._opened((await self._fetched(address))[0]))

    async def _local(self, name: str, directory: str) -> Tree:
        other = self.attributes.sessions.get(directory, "")
        hint = f"{self.attributes.keys.get(f'localdir:{name}', '')}:{name}"
        with self.status.step(f"[context {name}] load {_IGNORE_FILE}") as step:
            wanted = Filter(name=directory, include=(_IGNORE_FILE,), follow=(_IGNORE_FILE,))
            async with self.contexts.received(
                self.session, wanted, f"{hint}-ignore", step, name, other=other
            ) as place:
                text = await self.builds.threads.run(_read, place, _IGNORE_FILE)
        patterns = parse_ignore_file(text) if text is not None else ()
        with self.status.step(f"[context {name}] load from client") as step:
            wanted = Filter(name=directory, exclude=patterns)
            path = await self.stack.enter_async_context(
                self.contexts.received(self.session, wanted, hint, step, name, other=other)
            )
        return Tree(root=self._opened(path))

    async def _secrets(self, needed: tuple[Stage, ...]) -> Secrets:
        values: dict[str, bytes] = {}
        for identity in _identities(needed, "secret"):
            value = await secret(self.session, identity)
            if value is not None:
                values[identity] = value
        return Secrets(values=values)

    async def _agents(self, needed: tuple[Stage, ...]) -> dict[str, str]:
        found: dict[str, str] = {}
        for identity in _identities(needed, "ssh"):
            with contextlib.suppress(NotFound, Unsupported, SampanError):  # may not be required
                found[identity] = await self.stack.enter_async_context(
                    agent(self.session, identity, self.builds.scratch)
                )
        return found


def _check_syntax(file: Dockerfile, image: str) -> None:
    """Refuse the frontend a Dockerfile names when it is another; the error names the line."""
    try:
        check_syntax(image)
    except Unsupported as error:
        line = next(at for at, text in enumerate(file.source, 1) if "syntax" in text.lower())
        wrong = DockerfileError(error.message, line, bare=True)
        wrong.source = file.source
        raise wrong from error


def _identities(needed: tuple[Stage, ...], kind: str) -> list[str]:
    """The ids of the secrets or agents that steps may ask for, as written."""
    found: list[str] = []
    for instruction in instructions(needed):
        if isinstance(instruction, Run):
            found += (mount.id for mount in instruction.parsed_mounts(str) if mount.type == kind)
    return list(dict.fromkeys(found))


async def _triggers(front: Frontend, planned: Plan, needed: tuple[Stage, ...]) -> bool:
    """Whether a base may have ONBUILD triggers, which may copy anything: one not here may."""
    named = front.attributes.contexts
    for stage in needed:
        base = planned.base_of(stage)
        if base == SCRATCH or planned.find(base, before=stage.index) is not None:
            continue
        if base in named or front.attributes.pull or await front.builds.triggers(base):
            return True
    return False


def _layout(name: str, address: str) -> str:
    """The reference that stands for ``//STORE[:TAG]@DIGEST``, STORE being the session's."""
    place, _, digest = address.removeprefix("//").partition("@")
    store = place.partition(":")[0]
    if not store or not digest:
        raise InvalidParameter(f"named context {name}: oci-layout requires a digest")
    return layout_reference(store, Digest.parse(digest))


def _epoch(text: str) -> int:
    if not text.isdecimal():
        raise InvalidParameter(f"invalid SOURCE_DATE_EPOCH: {text!r}")
    return int(text)


def _read(directory: Path, path: str) -> str | None:
    """A file of a context as text, None when there is none; links stay inside."""
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    finally:
        os.close(root)
    with os.fdopen(fd, "rb") as file:
        data = file.read(_FILE_LIMIT + 1)
    if len(data) > _FILE_LIMIT:
        raise InvalidParameter(f"{path} exceeds maximum allowed size of {_FILE_LIMIT} bytes")
    return data.decode(errors="surrogateescape")


def _dockerfile(directory: Path, name: str) -> str:
    try:
        text = _read(directory, name)
        if text is None:
            text = _read(directory, posixpath.join(posixpath.dirname(name), name.lower()))
    except IsADirectoryError:
        raise InvalidParameter(f"the Dockerfile {name} is a directory") from None
    if text is None:
        raise NotFound(f"failed to read dockerfile: open {name}: no such file or directory")
    if not text:
        raise InvalidParameter(f"the Dockerfile ({name}) cannot be empty")
    return text
