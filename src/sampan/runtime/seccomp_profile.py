"""Docker-format seccomp profiles resolved to OCI ``linux.seccomp`` (pure).

Docker's format is the OCI one plus: ``archMap`` instead of ``architectures``; per rule
``includes``/``excludes`` with ``caps``, ``arches`` (Go names) and ``minKernel``; a single ``name``
instead of ``names`` in old files; ``comment``. A plain OCI profile passes through unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypedDict, cast

from sampan.errors import InvalidParameter
from sampan.model.oci import Seccomp, SeccompArg, SeccompRule

_GO_ARCH = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "riscv64": "riscv64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "loongarch64": "loong64",
    "i686": "386",
}
_NATIVE = {
    "x86_64": "SCMP_ARCH_X86_64",
    "aarch64": "SCMP_ARCH_AARCH64",
    "armv7l": "SCMP_ARCH_ARM",
    "riscv64": "SCMP_ARCH_RISCV64",
    "ppc64le": "SCMP_ARCH_PPC64LE",
    "s390x": "SCMP_ARCH_S390X",
    "loongarch64": "SCMP_ARCH_LOONGARCH64",
    "i686": "SCMP_ARCH_X86",
}


class Condition(TypedDict, total=False):
    """``includes`` and ``excludes`` of a rule."""

    caps: list[str]
    arches: list[str]
    minKernel: str


class DockerRule(SeccompRule, total=False):
    """One entry of ``syscalls``."""

    name: str
    comment: str
    includes: Condition
    excludes: Condition


class ArchitectureMapping(TypedDict, total=False):
    """One entry of ``archMap``."""

    architecture: str
    subArchitectures: list[str]


class DockerProfile(TypedDict, total=False):
    """The whole file."""

    defaultAction: str
    defaultErrnoRet: int
    architectures: list[str]
    archMap: list[ArchitectureMapping]
    flags: list[str]
    listenerPath: str
    listenerMetadata: str
    syscalls: list[DockerRule]


def load_default() -> DockerProfile:
    """Docker's default profile, as shipped beside this module."""
    return parse(Path(__file__).with_name("seccomp-default.json").read_text())


def parse(text: str) -> DockerProfile:
    """A profile from ``--security-opt seccomp=FILE``.

    Raises InvalidParameter when it is no JSON object with a defaultAction.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidParameter(f"Decoding seccomp profile failed: {error}") from None
    if not isinstance(value, dict):
        raise InvalidParameter("Decoding seccomp profile failed: not a JSON object")
    if not isinstance(value.get("defaultAction"), str):
        raise InvalidParameter("seccomp profile has no defaultAction")
    rules = value.get("syscalls")
    if rules is not None and not (
        isinstance(rules, list) and all(isinstance(rule, dict) for rule in rules)
    ):
        raise InvalidParameter("seccomp profile: syscalls is not a list of objects")
    return cast("DockerProfile", value)


def resolve(
    profile: DockerProfile,
    *,
    capabilities: Collection[str],
    kernel: tuple[int, int],
    machine: str,
) -> Seccomp:
    """What ``profile`` means for a container.

    ``capabilities`` is the container's bounding set ("CAP_SYS_ADMIN", ...), ``kernel`` the
    (major, minor) version, ``machine`` the uname(2) machine. Raises InvalidParameter for a
    profile that contradicts itself.
    """
    result: Seccomp = {"defaultAction": profile["defaultAction"]}
    if (number := profile.get("defaultErrnoRet")) is not None:
        result["defaultErrnoRet"] = number
    if architectures := _architectures(profile, machine):
        result["architectures"] = architectures
    if (flags := profile.get("flags")) is not None:
        result["flags"] = flags
    if path := profile.get("listenerPath"):
        result["listenerPath"] = path
    if metadata := profile.get("listenerMetadata"):
        result["listenerMetadata"] = metadata
    arch = _GO_ARCH.get(machine, machine)
    rules = [
        _oci_rule(rule, index)
        for index, rule in enumerate(profile.get("syscalls") or ())
        if _applies(rule, capabilities, kernel, arch)
    ]
    result["syscalls"] = rules
    return result


def _architectures(profile: DockerProfile, machine: str) -> list[str]:
    plain, mapped = profile.get("architectures"), profile.get("archMap")
    if plain and mapped:
        raise InvalidParameter(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, "
            "use either 'architectures' or 'archMap'"
        )
    if not mapped:
        return list(plain or ())
    native = _NATIVE.get(machine)
    for entry in mapped:
        if entry.get("architecture") == native:
            return [entry["architecture"], *(entry.get("subArchitectures") or ())]
    return []


def _oci_rule(rule: DockerRule, index: int) -> SeccompRule:
    names = list(rule.get("names") or ())
    if name := rule.get("name"):
        if names:
            raise InvalidParameter(
                f"seccomp profile: syscalls[{index}]: both 'name' and 'names' are specified"
            )
        names = [name]
    result: SeccompRule = {"names": names, "action": rule.get("action", "")}
    if (number := rule.get("errnoRet")) is not None:
        result["errnoRet"] = number
    if args := cast("Sequence[SeccompArg] | None", rule.get("args")):
        result["args"] = list(args)
    return result


def _applies(
    rule: DockerRule, capabilities: Collection[str], kernel: tuple[int, int], arch: str
) -> bool:
    """Every condition of ``includes`` holds and none of ``excludes`` does."""
    includes = cast("Mapping[str, object]", rule.get("includes") or {})
    excludes = cast("Mapping[str, object]", rule.get("excludes") or {})
    return _included(includes, capabilities, kernel, arch) and not _excluded(
        excludes, capabilities, kernel, arch
    )


def _included(
    condition: Mapping[str, object],
    capabilities: Collection[str],
    kernel: tuple[int, int],
    arch: str,
) -> bool:
    arches, caps = _strings(condition, "arches"), _strings(condition, "caps")
    return (
        (not arches or arch in arches)
        and all(capability in capabilities for capability in caps)
        and ("minKernel" not in condition or kernel >= _version(condition["minKernel"]))
    )


def _excluded(
    condition: Mapping[str, object],
    capabilities: Collection[str],
    kernel: tuple[int, int],
    arch: str,
) -> bool:
    return (
        arch in _strings(condition, "arches")
        or any(capability in capabilities for capability in _strings(condition, "caps"))
        or ("minKernel" in condition and kernel >= _version(condition["minKernel"]))
    )


def _strings(condition: Mapping[str, object], key: str) -> Collection[str]:
    value = condition.get(key) or ()
    if not isinstance(value, (list, tuple)):
        raise InvalidParameter(f"seccomp profile: {key} is not a list")
    return value


def _version(text: object) -> tuple[int, int]:
    """ "4.8" -> (4, 8)"""
    parts = str(text).split(".")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise InvalidParameter(f"seccomp profile: invalid minKernel {text!r}")
    return int(parts[0]), int(parts[1])
