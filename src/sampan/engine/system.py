"""The system service: what the engine is, what it can do and how much room it takes."""

from __future__ import annotations

from sampan.wire.image import AuthConfig, AuthResponse
from sampan.wire.system import SystemDataUsage, SystemInfo, SystemVersion


class System:
    """Information about one engine."""

    async def info(self) -> SystemInfo:
        """Counts, limits and features, read from the kernel and the state."""
        raise NotImplementedError

    async def version(self) -> SystemVersion:
        """Versions of the engine, its API and the kernel."""
        raise NotImplementedError

    async def df(self, types: list[str] | None = None, *, verbose: bool = True) -> SystemDataUsage:
        """Disk usage of images, containers, volumes and build cache, in bytes."""
        raise NotImplementedError

    async def auth(self, body: AuthConfig) -> AuthResponse:
        """Check credentials with a registry; Unauthorized when refused."""
        raise NotImplementedError
