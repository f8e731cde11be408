"""Building images by the classic protocol, and the cache that building leaves behind."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Mapping

import msgspec
from aiohttp import web

from sampan.api import query, reply
from sampan.api.call import Call
from sampan.api.router import Effect, Route
from sampan.api.routes.buildkit import buildkit_of
from sampan.api.shape import complete
from sampan.api.version import ApiVersion
from sampan.build.executor import Limits
from sampan.engine.builds import BuildOptions
from sampan.engine.options import RegistryAuth
from sampan.errors import InvalidParameter, Unsupported

_PRUNE_FILTERS = ("until", "id", "parent", "type", "description", "inuse", "shared", "private")
#: Parameters of the classic builder that ask for what this one does not do.
_REFUSED = ("squash", "outputs", "session")


async def build(call: Call) -> web.StreamResponse:
    """``POST /build``: a context tar in, the classic builder's progress out."""
    if call.text("version") == "2":
        return await _by_buildkit(call)
    call.require(("1",), "version")
    for name in _REFUSED:
        if call.text(name) and query.flag(call.text(name)):
            raise Unsupported(f"build parameter {name!r} is not supported")
    if call.text("isolation") not in ("", "default"):
        raise InvalidParameter(f"unsupported isolation: {call.text('isolation')!r}")
    options = _options(call)
    await call.accept_body()
    body: AsyncIterator[bytes] = call.stream()
    return await reply.progress(call.request, call.engine.builds.build(body, options))


async def _by_buildkit(call: Call) -> web.StreamResponse:
    """A build with a session, as docker command lines before 23 ask for it."""
    service = buildkit_of(call)
    from sampan.buildkit.olddoor import Asked

    outputs = tuple((one.type, one.attrs) for one in _outputs(call.text("outputs")))
    asked = Asked(options=_options(call), session=call.text("session"), outputs=outputs)
    await call.accept_body()
    return await reply.progress(call.request, service.old.build(asked, call.stream()))


class _Output(msgspec.Struct, rename="pascal"):
    type: str
    attrs: dict[str, str] = {}


def _outputs(text: str) -> list[_Output]:
    if not text:
        return []
    try:
        return msgspec.json.decode(text, type=list[_Output] | None) or []
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InvalidParameter(f"outputs: {error}") from None


def _options(call: Call) -> BuildOptions:
    return BuildOptions(
        dockerfile=call.text("dockerfile") or "Dockerfile",
        remote=call.text("remote"),
        tags=tuple(call.texts("t")),
        target=call.text("target"),
        platform=call.platform(),
        arguments=_strings(call, "buildargs"),
        labels=_strings(call, "labels"),
        auth=_auth(call.request.headers.get("X-Registry-Config")),
        quiet=call.flag("q"),
        no_cache=call.flag("nocache"),
        cache_from=_list(call, "cachefrom"),
        pull=call.flag("pull"),
        network=call.text("networkmode") or "default",
        extra_hosts=tuple(
            entry for text in call.texts("extrahosts") for entry in text.split(",") if entry
        ),
        limits=Limits(
            memory=call.integer("memory"),
            memory_swap=call.integer("memswap"),
            cpu_shares=call.integer("cpushares"),
            cpu_period=call.integer("cpuperiod"),
            cpu_quota=call.integer("cpuquota"),
            cpuset_cpus=call.text("cpusetcpus"),
            cpuset_mems=call.text("cpusetmems"),
            shm_size=call.integer("shmsize"),
            cgroup_parent=call.text("cgroupparent"),
            ulimits=_ulimits(call.text("ulimits")),
        ),
        id=call.text("buildid"),
    )


def _strings(call: Call, name: str) -> dict[str, str]:
    """A JSON object of strings; null values (an argument without one) are left out."""
    text = call.text(name)
    if not text:
        return {}
    try:
        found = msgspec.json.decode(text, type=dict[str, str | None] | None) or {}
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InvalidParameter(f"{name}: {error}") from None
    return {key: value for key, value in found.items() if value is not None}


def _list(call: Call, name: str) -> tuple[str, ...]:
    """A JSON list of strings."""
    text = call.text(name)
    if not text:
        return ()
    try:
        return tuple(msgspec.json.decode(text, type=list[str] | None) or ())
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InvalidParameter(f"{name}: {error}") from None


class _Ulimit(msgspec.Struct, rename="pascal"):
    name: str
    hard: int
    soft: int


def _ulimits(text: str) -> tuple[tuple[str, int, int], ...]:
    if not text:
        return ()
    try:
        found = msgspec.json.decode(text, type=list[_Ulimit] | None)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InvalidParameter(f"ulimits: {error}") from None
    return tuple((limit.name, limit.soft, limit.hard) for limit in found or ())


def _auth(header: str | None) -> Mapping[str, RegistryAuth]:
    """The credentials of ``X-Registry-Config`` by registry; none that can be read are none."""
    if not header:
        return {}
    try:
        padded = header.strip() + "=" * (-len(header.strip()) % 4)
        found = msgspec.json.decode(
            base64.b64decode(padded.replace("-", "+").replace("_", "/")),
            type=dict[str, object] | None,
        )
        return {
            host.removeprefix("https://")
            .partition("/")[0]
            .replace("index.docker.io", "docker.io"): (
                query.credentials(value, "X-Registry-Config header")
            )
            for host, value in (found or {}).items()
        }
    except (binascii.Error, ValueError, InvalidParameter):
        return {}


async def prune(call: Call) -> web.StreamResponse:
    """``POST /build/prune``."""
    chosen = query.filters(call.request.query.get("filters"), _PRUNE_FILTERS)
    report = await call.engine.builds.prune(
        chosen,
        all=call.flag("all"),
        keep=max(call.integer("keep-storage"), call.integer("reserved-space")),
        max_used=call.integer("max-used-space"),
        min_free=call.integer("min-free-space"),
    )
    return reply.json(complete(report))


async def cancel(call: Call) -> web.StreamResponse:
    """``POST /build/cancel``."""
    identity = call.text("id")
    if not identity:
        raise InvalidParameter("build ID not provided")
    await call.engine.builds.cancel(identity)
    return reply.empty()


ROUTES = (
    Route(method="POST", pattern="/build", handler=build, effect=Effect.STREAM),
    Route(
        method="POST",
        pattern="/build/prune",
        handler=prune,
        effect=Effect.WRITE,
        since=ApiVersion(1, 31),
    ),
    Route(method="POST", pattern="/build/cancel", handler=cancel, effect=Effect.WRITE),
)
