"""How a container's configuration is completed from its image's (pure; dockerd's ``merge``)."""

from __future__ import annotations

import msgspec

from sampan.errors import InvalidParameter
from sampan.wire.container import ContainerConfig, HealthConfig, ImageConfig

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def merge_config(user: ContainerConfig, image: ImageConfig) -> ContainerConfig:
    """The user's configuration, with what it leaves out taken from the image.

    An entrypoint given by the user drops the image's command; ``[""]`` resets the entrypoint.
    Raises InvalidParameter when nothing is left to run.
    """
    cmd, entrypoint, escaped = user.cmd, user.entrypoint, user.args_escaped
    if not entrypoint:
        if not cmd:
            cmd, escaped = image.cmd, escaped or image.args_escaped
        if entrypoint is None:
            entrypoint = image.entrypoint
    if entrypoint == [""]:
        entrypoint = None
    if not entrypoint and not cmd:
        raise InvalidParameter("no command specified")
    return msgspec.structs.replace(
        user,
        cmd=cmd,
        entrypoint=entrypoint,
        args_escaped=escaped,
        user=user.user or image.user,
        env=merge_env(user.env or [], image.env or []),
        labels={**(image.labels or {}), **(user.labels or {})},
        exposed_ports={**(image.exposed_ports or {}), **(user.exposed_ports or {})},
        volumes={**(image.volumes or {}), **(user.volumes or {})},
        working_dir=user.working_dir or image.working_dir,
        stop_signal=user.stop_signal or image.stop_signal,
        shell=user.shell or image.shell,
        on_build=user.on_build or image.on_build,
        healthcheck=merge_health(user.healthcheck, image.healthcheck),
    )


def merge_env(user: list[str], image: list[str]) -> list[str]:
    """The user's variables, then those of the image that the user does not name."""
    named = {entry.partition("=")[0] for entry in user}
    return user + [entry for entry in image if entry.partition("=")[0] not in named]


def merge_health(user: HealthConfig | None, image: HealthConfig | None) -> HealthConfig | None:
    """The user's health check, its unset parts from the image's."""
    if user is None or image is None:
        return user or image
    return HealthConfig(
        test=user.test or image.test,
        interval=user.interval or image.interval,
        timeout=user.timeout or image.timeout,
        start_period=user.start_period or image.start_period,
        start_interval=user.start_interval or image.start_interval,
        retries=user.retries or image.retries,
    )


def command_line(config: ContainerConfig) -> tuple[str, list[str]]:
    """Path and arguments: the entrypoint followed by the command."""
    words = [*(config.entrypoint or []), *(config.cmd or [])]
    return words[0], words[1:]


def environment(config: ContainerConfig, hostname: str, linked: list[str]) -> list[str]:
    """The program's environment: defaults, link variables, then the configuration's own.

    A configured entry without ``=`` removes the variable.
    """
    base = [f"PATH={DEFAULT_PATH}", f"HOSTNAME={hostname}"]
    if config.tty:
        base.append("TERM=xterm")
    return override_env(base + linked, config.env or [])


def override_env(base: list[str], overrides: list[str]) -> list[str]:
    """``base`` with ``overrides`` put in place by name, new ones appended, bare names removed."""
    merged: dict[str, str | None] = {}
    for entry in base:
        merged[entry.partition("=")[0]] = entry
    for entry in overrides:
        name, equals, _ = entry.partition("=")
        merged[name] = entry if equals else None
    return [entry for entry in merged.values() if entry is not None]
