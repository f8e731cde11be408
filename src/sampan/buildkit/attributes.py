"""The options of the ``dockerfile.v0`` frontend as clients send them, decoded (pure).

Every one that is not known is refused by name. Names and forms are those of BuildKit's dockerui
package and of what docker buildx sends.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from sampan.build.executor import Limits
from sampan.errors import InvalidParameter, Unsupported
from sampan.model.platform import Platform

#: What tells of where a build comes from or of the client's abilities, and asks for nothing.
_INFORMATION = ("vcs:", "local-sessionid:", "input-metadata:", "frontend.caps", "source", "cmdline")
_LIMITS = {
    "memory": "memory",
    "memswap": "memory_swap",
    "cpushares": "cpu_shares",
    "cpuperiod": "cpu_period",
    "cpuquota": "cpu_quota",
}
_CPUSETS = {"cpusetcpus": "cpuset_cpus", "cpusetmems": "cpuset_mems"}
_ULIMIT = re.compile(r"([a-z]+)=(-?\d+)(?::(-?\d+))?")
_SYNTAX = re.compile(r"(?:docker\.io/)?docker/dockerfile(?:-upstream)?(?:[:@].*)?")
_TRUE = ("1", "t", "true")
_FALSE = ("", "0", "f", "false")


class _Cache(msgspec.Struct):
    type: str = msgspec.field(name="Type", default="")
    attributes: dict[str, str] | None = msgspec.field(name="Attrs", default=None)


@dataclass(slots=True, kw_only=True)
class Attributes:
    """A build as the client asks for it.

    ``no_cache`` is None when the cache is used, else the stages it is not used for (none: all).
    ``contexts`` are named contexts by name, as addresses; ``keys`` their shared keys;
    ``cache_imports`` are as the engine takes them, ``type`` among their keys.
    """

    filename: str = "Dockerfile"
    target: str = ""
    platforms: tuple[Platform, ...] = ()
    multi_platform: bool = False
    arguments: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    contexts: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    attestations: dict[str, str] = field(default_factory=dict)
    context: str = ""
    context_directory: str = ""
    context_key: str = "context"
    sessions: dict[str, str] = field(default_factory=dict)
    dockerfile_key: str = "dockerfile"
    no_cache: frozenset[str] | None = None
    pull: bool = False
    network: str = "default"
    hosts: tuple[str, ...] = ()
    hostname: str = ""
    limits: Limits = field(default_factory=Limits)
    request: str = ""
    cache_imports: tuple[Mapping[str, str], ...] = ()


def parse(attributes: Mapping[str, str]) -> Attributes:
    """Decode a frontend's options. Raises InvalidParameter, Unsupported naming the option."""
    found = Attributes()
    limits: dict[str, object] = {}
    for key, value in sorted(attributes.items()):  # Go's maps have no order, images must
        prefix, colon, name = key.partition(":")
        if colon and prefix in _TABLES:
            table: dict[str, str] = getattr(found, _TABLES[prefix])
            table[name] = value
        elif key in _TEXTS:
            setattr(found, _TEXTS[key], value)
        elif key in _LIMITS:
            limits[_LIMITS[key]] = _integer(key, value)
        elif key in _CPUSETS:
            limits[_CPUSETS[key]] = value
        elif not key.startswith(_INFORMATION) and not _special(found, limits, key, value):
            raise Unsupported(f"frontend option {key!r} is not supported")
    found.limits = Limits(**limits)  # type: ignore[arg-type]
    _arguments(found)
    if "source" in attributes:
        check_syntax(attributes["source"])
    return found


_TABLES = {
    "build-arg": "arguments",
    "label": "labels",
    "context": "contexts",
    "attest": "attestations",
    "local-sessionid": "sessions",
    "sharedkey": "keys",
    "input": "keys",
}
_TEXTS = {
    "filename": "filename",
    "target": "target",
    "context": "context",
    "contextsubdir": "context_directory",
    "contextkey": "context_key",
    "dockerfilekey": "dockerfile_key",
    "hostname": "hostname",
    "requestid": "request",
}


def _special(found: Attributes, limits: dict[str, object], key: str, value: str) -> bool:
    """Options with a form of their own; whether ``key`` is one."""
    match key:
        case "platform":
            found.platforms = tuple(
                dict.fromkeys(Platform.parse(text) for text in value.split(",") if text)
            )
        case "multi-platform":
            found.multi_platform = flag(key, value)
        case "no-cache":
            found.no_cache = frozenset(filter(None, value.split(",")))
        case "image-resolve-mode":
            if value not in ("", "default", "pull", "local"):
                raise InvalidParameter(f"invalid image-resolve-mode: {value!r}")
            found.pull = value == "pull"
        case "force-network-mode":
            if value not in ("", "default", "none", "host"):
                raise InvalidParameter(f"invalid network mode {value!r}")
            found.network = value or "default"
        case "add-hosts":
            found.hosts = tuple(_host(text) for text in value.split(",") if text)
        case "shm-size":
            limits["shm_size"] = _integer(key, value)
        case "cgroup-parent":
            limits["cgroup_parent"] = value
        case "ulimit":
            limits["ulimits"] = tuple(_ulimit(text) for text in value.split(",") if text)
        case "cache-from":
            refs = filter(None, value.split(","))
            found.cache_imports += tuple({"type": "registry", "ref": ref} for ref in refs)
        case "cache-imports":
            found.cache_imports += _caches(value)
        case _:
            return False
    return True


def _caches(text: str) -> tuple[Mapping[str, str], ...]:
    """Caches to import, as JSON of Control.CacheOptionsEntry."""
    try:
        entries = msgspec.json.decode(text or "[]", type=list[_Cache])
    except msgspec.DecodeError as error:
        raise InvalidParameter(f"invalid cache-imports: {error}") from None
    return tuple({"type": entry.type, **(entry.attributes or {})} for entry in entries)


def _arguments(found: Attributes) -> None:
    """What build arguments of BuildKit's own say."""
    given = found.arguments
    if "BUILDKIT_MULTI_PLATFORM" in given:
        name = "BUILDKIT_MULTI_PLATFORM"
        found.multi_platform = flag(name, given[name])
    if given.get("BUILDKIT_SANDBOX_HOSTNAME"):
        found.hostname = given["BUILDKIT_SANDBOX_HOSTNAME"]
    if given.get("BUILDKIT_SYNTAX"):
        check_syntax(given["BUILDKIT_SYNTAX"].split()[0])


def check_syntax(image: str) -> None:
    """Refuse a frontend that is not the Dockerfile's, which is built in."""
    if not _SYNTAX.fullmatch(image):
        raise Unsupported(
            f"frontend image {image!r} cannot be run: only docker/dockerfile is built in"
        )


def flag(name: str, value: str) -> bool:
    """A truth value as Go's strconv has it."""
    if value.lower() not in (*_TRUE, *_FALSE):
        raise InvalidParameter(f"invalid {name}: {value!r}")
    return value.lower() in _TRUE


def _integer(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise InvalidParameter(f"invalid {name}: {value!r}") from None


def _host(text: str) -> str:
    """``name=address`` as the engine's extra hosts have it."""
    name, equals, address = text.strip().strip('"').partition("=")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise InvalidParameter(f"invalid host {text!r}") from None
    if not (name and equals):
        raise InvalidParameter(f"invalid host {text!r}")
    return f"{name}:{address}"


def _ulimit(text: str) -> tuple[str, int, int]:
    found = _ULIMIT.fullmatch(text.strip())
    if found is None:
        raise InvalidParameter(f"invalid ulimit {text!r}")
    soft = int(found[2])
    return found[1], soft, int(found[3]) if found[3] else soft
