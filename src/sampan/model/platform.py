"""Platforms of images (OCI image spec, image-index.md "platform")."""

from __future__ import annotations

import os
from dataclasses import dataclass

from sampan.errors import InvalidParameter

_MACHINES = {
    "x86_64": ("amd64", ""),
    "amd64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "arm64": ("arm64", ""),
    "armv5l": ("arm", "v5"),
    "armv6l": ("arm", "v6"),
    "armel": ("arm", "v6"),
    "armhf": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv7": ("arm", "v7"),
    "arm": ("arm", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
    "loongarch64": ("loong64", ""),
    "mips64": ("mips64le", ""),
    "386": ("386", ""),
}

#: the other architectures Go knows
_ARCHITECTURES = frozenset(
    {"armbe", "arm64be", "loong64", "mips", "mipsle", "mips64", "mips64le", "mips64p32", "ppc"}
    | {"mips64p32le", "ppc64", "riscv", "s390", "sparc", "sparc64", "wasm"}
)
_DEFAULT_VARIANTS = {("arm64", "8"), ("arm64", "v8"), ("amd64", "v1")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Operating system, architecture (Go's names) and variant."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def host(cls) -> Platform:
        """The platform this process runs on."""
        architecture, variant = _MACHINES.get(os.uname().machine, (os.uname().machine, ""))
        return cls(os="linux", architecture=architecture, variant=variant)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """``os[/arch[/variant]]`` or a bare architecture; raises :class:`InvalidParameter`."""
        parts = text.lower().split("/")
        if (
            not text
            or len(parts) > 3
            or not all(
                part and part.replace("_", "").replace("-", "").replace(".", "").isalnum()
                for part in parts
            )
        ):
            raise InvalidParameter(f"invalid platform {text!r}: expected os[/arch[/variant]]")
        if len(parts) == 1:
            if parts[0] in ("linux", "windows", "darwin", "freebsd"):
                return cls(os=parts[0], architecture=cls.host().architecture)
            if parts[0] not in _MACHINES and parts[0] not in _ARCHITECTURES:
                raise InvalidParameter(
                    f'"{text}": unknown operating system or architecture: invalid argument'
                )
            parts = ["linux", parts[0]]
        architecture, variant = _MACHINES.get(parts[1], (parts[1], ""))
        return cls(
            os=parts[0],
            architecture=architecture,
            variant=parts[2] if len(parts) == 3 else variant,
        ).normalized()

    def normalized(self) -> Platform:
        """This platform with default variants written one way (arm64/v8 is arm64)."""
        variant = self.variant
        if (self.architecture, variant) in _DEFAULT_VARIANTS:
            variant = ""
        elif self.architecture == "arm":
            variant = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}.get(variant, variant)
        return Platform(
            os=self.os,
            architecture=self.architecture,
            variant=variant,
            os_version=self.os_version,
            os_features=self.os_features,
        )

    def runs(self, image: Platform) -> bool:
        """Whether an image made for ``image`` runs here without emulation."""
        mine, its = self.normalized(), image.normalized()
        if (mine.os, mine.architecture) != (its.os, its.architecture):
            return (mine.os, mine.architecture, its.architecture) == ("linux", "amd64", "386")
        if mine.architecture in ("arm", "amd64") and its.variant and mine.variant:
            return its.variant <= mine.variant
        return mine.variant == its.variant or not its.variant

    def selects(self, image: Platform) -> bool:
        """Whether somebody who asks for this by name means an image made for ``image``."""
        mine, its = self.normalized(), image.normalized()
        return (mine.os, mine.architecture) == (its.os, its.architecture) and (
            not mine.variant or mine.variant == its.variant
        )

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)
