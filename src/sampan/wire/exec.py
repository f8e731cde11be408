"""Exec instances, as the Docker Engine API writes them (API v1.55, spec/docker-api).

Every field is optional on the wire; ``None`` means absent. Only the edge decodes these from
untrusted input; msgspec names the offending field.
"""

from __future__ import annotations

import msgspec

from sampan.wire.base import Json, Object


class ExecCreateRequest(Object, kw_only=True, frozen=True, omit_defaults=True):
    """What ``POST /containers/{id}/exec`` takes: a program and how to run it."""

    attach_stdin: bool | None = msgspec.field(default=None, name="AttachStdin")
    attach_stdout: bool | None = msgspec.field(default=None, name="AttachStdout")
    attach_stderr: bool | None = msgspec.field(default=None, name="AttachStderr")
    console_size: list[int] | None = msgspec.field(default=None, name="ConsoleSize")
    detach_keys: str | None = msgspec.field(default=None, name="DetachKeys")
    tty: bool | None = msgspec.field(default=None, name="Tty")
    env: list[str] | None = msgspec.field(default=None, name="Env")
    cmd: list[str] | None = msgspec.field(default=None, name="Cmd")
    privileged: bool | None = msgspec.field(default=None, name="Privileged")
    user: str | None = msgspec.field(default=None, name="User")
    working_dir: str | None = msgspec.field(default=None, name="WorkingDir")


class ExecStartRequest(Object, kw_only=True, frozen=True, omit_defaults=True):
    """What ``POST /exec/{id}/start`` takes."""

    detach: bool | None = msgspec.field(default=None, name="Detach")
    tty: bool | None = msgspec.field(default=None, name="Tty")
    console_size: list[int] | None = msgspec.field(default=None, name="ConsoleSize")


class ExecInspect(Object, kw_only=True, frozen=True, omit_defaults=True):
    """State and configuration of an exec instance (``GET /exec/{id}/json``)."""

    can_remove: bool | None = msgspec.field(default=None, name="CanRemove")
    detach_keys: str | None = msgspec.field(default=None, name="DetachKeys")
    id: str | None = msgspec.field(default=None, name="ID")
    running: bool | None = msgspec.field(default=None, name="Running")
    exit_code: int | None = msgspec.field(default=None, name="ExitCode")
    process_config: Json | None = msgspec.field(default=None, name="ProcessConfig")
    open_stdin: bool | None = msgspec.field(default=None, name="OpenStdin")
    open_stderr: bool | None = msgspec.field(default=None, name="OpenStderr")
    open_stdout: bool | None = msgspec.field(default=None, name="OpenStdout")
    container_id: str | None = msgspec.field(default=None, name="ContainerID")
    pid: int | None = msgspec.field(default=None, name="Pid")
