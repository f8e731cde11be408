"""``--security-opt`` values -> one frozen decision (pure; dockerd's parser and messages)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sampan.errors import InvalidParameter, Unsupported


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityOptions:
    """What a container's security options add up to.

    ``seccomp`` is ``""`` (the default profile), ``unconfined``, or the text of a profile.
    """

    no_new_privileges: bool = False
    seccomp: str = ""
    apparmor: str = ""
    labels: tuple[str, ...] = ()
    system_paths_confined: bool = True
    writable_cgroups: bool = False


def parse_security_options(
    options: Sequence[str], *, apparmor: bool = False, selinux: bool = False
) -> SecurityOptions:
    """The meaning of ``options``; ``apparmor``, ``selinux`` tell whether the host enforces them.

    Raises InvalidParameter for an unknown option, Unsupported for a profile this host has no
    kernel support for.
    """
    result = SecurityOptions()
    for option in options:
        if option in ("no-new-privileges", "writable-cgroups", "systempaths=unconfined"):
            key, value = option.partition("=")[0], option.partition("=")[2] or "true"
        elif "=" in option:
            key, _, value = option.partition("=")
        elif ":" in option:  # the separator before Docker 1.11, still accepted
            key, _, value = option.partition(":")
        else:
            raise InvalidParameter(f'invalid --security-opt 1: "{option}"')
        result = _apply(result, key, value, option, apparmor=apparmor, selinux=selinux)
    return result


def _apply(
    result: SecurityOptions, key: str, value: str, option: str, *, apparmor: bool, selinux: bool
) -> SecurityOptions:
    if key == "no-new-privileges":
        return replace(result, no_new_privileges=_boolean(value, option))
    if key == "seccomp":
        return replace(result, seccomp="" if value == "builtin" else value)
    if key == "apparmor":
        if value != "unconfined" and not apparmor:
            raise Unsupported(
                f'apparmor profile "{value}" asked for, but AppArmor is not enabled on this host'
            )
        return replace(result, apparmor=value)
    if key == "label":
        if value != "disable" and not selinux:
            raise Unsupported(
                f'SELinux label "{value}" asked for, but SELinux is not enabled on this host'
            )
        return replace(result, labels=(*result.labels, value))
    if key == "systempaths":
        if value != "unconfined":
            raise InvalidParameter(f'invalid --security-opt 2: "{option}"')
        return replace(result, system_paths_confined=False)
    if key == "writable-cgroups":
        if value not in ("true", "false"):
            raise InvalidParameter(f'invalid --security-opt 2: "{option}"')
        return replace(result, writable_cgroups=value == "true")
    raise InvalidParameter(f'invalid --security-opt 2: "{option}"')


def _boolean(text: str, option: str) -> bool:
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise InvalidParameter(f'invalid --security-opt 2: "{option}"')
