"""What callers of an engine pass beside the API's objects: query parameters as values.

The embedded engine and the client of a remote one take the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sampan.wire.container import ContainerConfig

Filters = Mapping[str, list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsOptions:
    """What ``logs`` returns; times are Unix seconds with nanosecond fraction, 0 is no bound.

    ``tail`` is the number of last lines, ``None`` for all of them.
    """

    stdout: bool = True
    stderr: bool = True
    since: float = 0.0
    until: float = 0.0
    timestamps: bool = False
    tail: int | None = None
    follow: bool = False
    details: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachOptions:
    """Which streams to attach; ``logs`` replays the log first, ``stream`` goes on live."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    logs: bool = False
    stream: bool = True
    detach_keys: str = "ctrl-p,ctrl-q"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitOptions:
    """How ``commit`` makes an image of a container; ``changes`` are Dockerfile instructions."""

    repo: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    pause: bool = True
    changes: tuple[str, ...] = ()
    config: ContainerConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """How ``import`` makes an image of a root file system archive."""

    repo: str = ""
    tag: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()
    platform: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryAuth:
    """Credentials of one registry, as ``X-Registry-Auth`` carries them; never logged."""

    username: str = ""
    password: str = field(default="", repr=False)
    server_address: str = ""
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStat:
    """What a path inside a container is (``X-Docker-Container-Path-Stat``).

    ``mode`` is Go's ``os.FileMode``, ``mtime`` RFC 3339 with nanoseconds.
    """

    name: str
    size: int
    mode: int
    mtime: str
    link_target: str
