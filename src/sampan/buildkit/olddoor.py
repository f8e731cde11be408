"""``POST /build?version=2``: BuildKit as docker command lines before 23 ask for it.

The build is asked for by the classic parameters; files, secrets and agents come through a session
as ever, and the news is BuildKit's, in base64 in the classic stream of JSON.
"""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from grpclib.exceptions import GRPCError

from sampan.buildkit.control import Control
from sampan.buildkit.protocol import control_pb2 as control
from sampan.engine.buildcontext import unpack_context
from sampan.engine.builds import BuildOptions
from sampan.engine.imageflows import Progress
from sampan.errors import InvalidParameter, NotFound, SampanError, Unsupported

_UPLOAD = "upload-request"
_SESSION = "client-session"
#: how long a build waits for the context that another request brings, and that one for the build
WAIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A build by the classic parameters: ``outputs`` are types with their attributes."""

    options: BuildOptions
    session: str
    outputs: Sequence[tuple[str, Mapping[str, str]]] = ()


@dataclass(slots=True)
class _Upload:
    """A context that comes in a request of its own, until its build is over."""

    path: asyncio.Future[Path] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True, kw_only=True)
class OldDoor:
    """Builds asked for by the classic parameters."""

    control: Control
    _uploads: dict[str, _Upload] = field(default_factory=dict)

    async def build(
        self, asked: Asked, body: AsyncIterator[bytes]
    ) -> AsyncGenerator[Progress, None]:
        """The build's news and its image. Raises SampanError for what is wrong from the start."""
        identity = asked.options.id
        if identity.startswith(f"{_UPLOAD}:"):
            await self._upload(identity.removeprefix(f"{_UPLOAD}:"), body)
            return
        async with AsyncExitStack() as stack:
            uploaded = await self._context(asked, body, stack)
            begun = await self.control.begin(_request(asked), uploaded)
            task = asyncio.ensure_future(self.control.finish(begun))
            try:
                async for response in begun.job.status:
                    data = base64.b64encode(response.SerializeToString()).decode()
                    yield {"id": "moby.buildkit.trace", "aux": data}
                found = await task
            except (GRPCError, SampanError) as error:
                yield {"errorDetail": {"message": error.message or ""}, "error": error.message}
                return
            finally:
                task.cancel()
                await asyncio.wait([task])
        if image := found.get("containerimage.digest"):
            yield {"id": "moby.image.id", "aux": {"ID": image}}

    async def _context(
        self, asked: Asked, body: AsyncIterator[bytes], stack: AsyncExitStack
    ) -> Path | None:
        """The context that does not come through the session: of the body, or of another's."""
        remote = asked.options.remote
        builds = self.control.engine.builds
        if remote == _UPLOAD:
            upload = self._uploads.setdefault(asked.options.id, _Upload())
            stack.callback(self._uploads.pop, asked.options.id, None)
            stack.callback(upload.over.set)
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    path = await upload.path
            except TimeoutError:
                raise NotFound(f"nobody brings the context of {asked.options.id}") from None
            upload.taken.set()
            return path
        if remote:
            return None
        directory = await stack.enter_async_context(builds.contexts.temporary())
        return await unpack_context(builds.threads, body, directory)

    async def _upload(self, identity: str, body: AsyncIterator[bytes]) -> None:
        """Bring the context of the build ``identity`` and keep it until that is over."""
        builds = self.control.engine.builds
        upload = self._uploads.setdefault(identity, _Upload())
        if upload.path.done():
            raise InvalidParameter(f"the context of {identity} was brought already")
        async with builds.contexts.temporary() as directory:
            upload.path.set_result(await unpack_context(builds.threads, body, directory))
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    await upload.taken.wait()
            except TimeoutError:
                self._uploads.pop(identity, None)
                raise NotFound(f"no build {identity} takes the context") from None
            await upload.over.wait()


def _request(asked: Asked) -> control.SolveRequest:
    """The same build as BuildKit's own protocol asks for it. Raises Unsupported."""
    options = asked.options
    attributes = {
        "filename": options.dockerfile,
        "image-resolve-mode": "pull" if options.pull else "default",
        "add-hosts": ",".join(_host(text) for text in options.extra_hosts),
        "ulimit": ",".join(f"{n}={soft}:{hard}" for n, soft, hard in options.limits.ulimits),
    }
    attributes |= {f"build-arg:{key}": value for key, value in options.arguments.items()}
    attributes |= {f"label:{key}": value for key, value in options.labels.items()}
    for key, text in (
        ("target", options.target),
        ("platform", options.platform),
        ("cgroup-parent", options.limits.cgroup_parent),
        ("cpusetcpus", options.limits.cpuset_cpus),
        ("cpusetmems", options.limits.cpuset_mems),
        ("context", "" if options.remote in (_SESSION, _UPLOAD) else options.remote),
    ):
        if text:
            attributes[key] = text
    for key, number in (
        ("shm-size", options.limits.shm_size),
        ("memory", options.limits.memory),
        ("memswap", options.limits.memory_swap),
        ("cpushares", options.limits.cpu_shares),
        ("cpuperiod", options.limits.cpu_period),
        ("cpuquota", options.limits.cpu_quota),
    ):
        if number:
            attributes[key] = str(number)
    if options.no_cache:
        attributes["no-cache"] = ""
    if options.cache_from:
        entries = [{"Type": "registry", "Attrs": {"ref": name}} for name in options.cache_from]
        attributes["cache-imports"] = json.dumps(entries)
    if options.network not in ("", "default"):
        attributes["force-network-mode"] = options.network
    return control.SolveRequest(
        Ref=uuid.uuid4().hex,
        Frontend="dockerfile.v0",
        FrontendAttrs=attributes,
        Session=asked.session,
        Exporters=_exporters(asked),
        Entitlements=["network.host"] if options.network == "host" else [],
    )


def _exporters(asked: Asked) -> list[control.Exporter]:
    if len(asked.outputs) > 1:
        raise Unsupported("multiple outputs are not supported by version=2 builds")
    kind, values = asked.outputs[0] if asked.outputs else ("moby", {})
    if kind == "cacheonly":
        return []
    attributes = dict(values)
    if kind in ("moby", "image") and asked.options.tags:
        attributes["name"] = ",".join(asked.options.tags)
    return [control.Exporter(Type=kind, Attrs=attributes)]


def _host(text: str) -> str:
    name, _, address = text.partition("=" if "=" in text else ":")
    return f"{name}={address}"
