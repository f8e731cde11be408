"""Platforms of images (OCI image spec, image-index.md "platform")."""

from __future__ import annotations

import os
import re
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
#: the operating systems Go knows
_SYSTEMS = frozenset(
    {"aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js", "linux"}
    | {"nacl", "netbsd", "openbsd", "plan9", "solaris", "wasip1", "windows", "zos"}
)
_ALIASES = {"macos": "darwin"}
_WORD = r"^[A-Za-z0-9_.-]+$"
_SYSTEM = r"^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.-]*)\))?$"
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
        if len(parts) > 3:
            raise InvalidParameter(f'"{text}": cannot parse platform specifier: invalid argument')
        _check(text, parts)
        parts[0] = _ALIASES.get(parts[0], parts[0])
        if len(parts) == 1:
            if parts[0] in _SYSTEMS:
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
        """This platform written one way: Go's architectures, no default variants (arm64/v8)."""
        architecture, implied = self.architecture, ""
        if architecture not in _ARCHITECTURES:
            architecture, implied = _MACHINES.get(architecture.lower(), (architecture, ""))
        variant = self.variant or implied
        if (architecture, variant) in _DEFAULT_VARIANTS:
            variant = ""
        elif architecture == "arm":
            variant = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}.get(variant, variant)
        return Platform(
            os=self.os,
            architecture=architecture,
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


def _check(text: str, parts: list[str]) -> None:
    """Raise InvalidParameter in containerd's words for a part that no platform can have."""
    # A version of the system, which Go's grammar has in parentheses, belongs to Windows' images.
    if not re.fullmatch(_WORD, parts[0]) or "." in parts[0]:
        raise InvalidParameter(
            f'"{parts[0]}" is an invalid OS component of "{text}": OSAndVersion specifier '
            f'component must match "{_quoted(_SYSTEM)}": invalid argument'
        )
    for part in parts[1:]:
        if not re.fullmatch(_WORD, part):
            raise InvalidParameter(
                f'"{part}" is an invalid component of "{text}": platform specifier component '
                f'must match "{_WORD}": invalid argument'
            )


def _quoted(pattern: str) -> str:
    return pattern.replace("\\", "\\\\")
