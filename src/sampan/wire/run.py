"""``engine.run("debian", ["echo", "hi"])``: how to run, and what came of it.

The embedded engine and the client of a remote one take and return the same.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from sampan.errors import SampanError
from sampan.wire.container import ContainerCreateRequest, HostConfig
from sampan.wire.hostconfig import PortBinding

#: bytes of output kept of each stream; what comes beyond is an error
OUTPUT_LIMIT = 64 << 20


class RunFailed(SampanError):
    """The program ended with another exit code than 0, and ``check`` was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A run that has ended: its exit code and what it wrote, as text and as bytes."""

    exit_code: int
    stdout_bytes: bytes
    stderr_bytes: bytes

    @property
    def stdout(self) -> str:
        """Standard output, decoded as UTF-8 with what is not replaced."""
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """Standard error, decoded as UTF-8 with what is not replaced."""
        return self.stderr_bytes.decode(errors="replace")


class RunOptions(TypedDict, total=False):
    """How to run; the words are those of ``docker run``.

    ``volumes`` are ``-v`` specifications, ``ports`` maps ``80/tcp`` to a host port, ``memory`` is
    bytes, ``cpus`` a number of processors, ``timeout`` seconds after which it is killed; ``pull``
    (default true) fetches a missing image, ``check`` raises when the exit code is not 0. For
    everything else pass a whole ``host_config``.
    """

    name: str
    env: Mapping[str, str]
    user: str
    workdir: str
    stdin: bytes
    volumes: Sequence[str]
    ports: Mapping[str, int]
    network: str
    memory: int
    cpus: float
    read_only: bool
    privileged: bool
    pull: bool
    check: bool
    timeout: float
    host_config: HostConfig


def create_request(
    image: str, command: str | Sequence[str] | None, options: RunOptions
) -> ContainerCreateRequest:
    """The create request of a run (pure)."""
    words = shlex.split(command) if isinstance(command, str) else command
    host = options.get("host_config") or HostConfig(
        binds=list(options.get("volumes") or ()) or None,
        network_mode=options.get("network"),
        memory=options.get("memory"),
        nano_cpus=round(cpus * 1e9) if (cpus := options.get("cpus")) else None,
        readonly_rootfs=options.get("read_only") or None,
        privileged=options.get("privileged") or None,
        port_bindings={
            port: [PortBinding(host_port=str(number))]
            for port, number in (options.get("ports") or {}).items()
        }
        or None,
    )
    return ContainerCreateRequest(
        image=image,
        cmd=list(words) if words is not None else None,
        env=[f"{key}={value}" for key, value in (options.get("env") or {}).items()] or None,
        user=options.get("user"),
        working_dir=options.get("workdir"),
        attach_stdout=True,
        attach_stderr=True,
        open_stdin=options.get("stdin") is not None,
        stdin_once=options.get("stdin") is not None,
        host_config=host,
    )
