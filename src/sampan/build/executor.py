"""What a build needs of the engine: base images, and programs run on top of layers.

The engine implements :class:`Executor` with its own runtime, so a RUN step is confined exactly as
a container is; tests of the solver implement it with a few lines.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sampan.image import Image
from sampan.model.mount import Mount
from sampan.model.platform import Platform

#: Called with 1 (standard output) or 2 (standard error) and some bytes.
Output = Callable[[int, bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraMount:
    """A mount of a RUN step, prepared: ``source`` a host path, or "" for a tmpfs of ``size``
    bytes (0: the kernel's default)."""

    target: str
    source: str = ""
    read_only: bool = False
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Resources of each RUN step, as the classic builder's parameters; 0 or "" is no limit."""

    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    shm_size: int = 0
    cgroup_parent: str = ""
    ulimits: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """One program to run.

    ``key`` is the writable snapshot it runs on, ``rootfs`` its mounts; ``user`` is Docker's USER
    syntax; ``network`` is ``default``, ``none``, ``host`` or a network's name. ``hidden`` is more
    environment, which may hold secrets: it must reach nothing but the program.
    """

    key: str
    rootfs: tuple[Mount, ...]
    words: tuple[str, ...]
    environment: tuple[str, ...]
    hidden: tuple[str, ...] = field(default=(), repr=False)
    directory: str
    user: str
    network: str
    mounts: tuple[ExtraMount, ...]
    extra_hosts: tuple[str, ...] = ()
    hostname: str = ""
    insecure: bool = False
    devices: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    read_only: bool = False


class Executor(Protocol):
    """Runs programs and finds base images. Methods are cancelled by cancelling their task."""

    async def base(self, reference: str, platform: Platform, *, pull: bool) -> Image:
        """The image ``reference``, unpacked; pulled when missing or ``pull``.

        Raises NotFound, and what pulling raises.
        """
        ...

    async def run(self, request: RunRequest, output: Output) -> int:
        """Run to the end and return the exit code (137 and OOM included).

        Nothing of it is left when this returns, raises or is cancelled. Raises StartFailed and
        its subclasses.
        """
        ...


@dataclass(frozen=True, slots=True)
class FindingExecutor:
    """An executor that has images whose references begin with ``prefix`` found by ``find``."""

    inner: Executor
    prefix: str
    find: Callable[[str, Platform], Awaitable[Image]]

    async def base(self, reference: str, platform: Platform, *, pull: bool) -> Image:
        """See :meth:`Executor.base`."""
        if reference.startswith(self.prefix):
            return await self.find(reference, platform)
        return await self.inner.base(reference, platform, pull=pull)

    async def run(self, request: RunRequest, output: Output) -> int:
        """See :meth:`Executor.run`."""
        return await self.inner.run(request, output)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """Values of ``--secret`` by id; never logged, never part of a key."""

    values: Mapping[str, bytes]

    def __repr__(self) -> str:
        return f"Secrets({sorted(self.values)})"
