"""Which daemon a command talks to, and starting ours when it is not running.

The order is Docker's: ``--host``, ``--context``, ``DOCKER_HOST``, ``DOCKER_CONTEXT``, the
configured context, the default. Only the default daemon is started on demand.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from sampan.cli.context_store import DEFAULT, Context, ContextStore
from sampan.cli.fault import CliError
from sampan.client.api import ApiClient
from sampan.client.endpoint import Endpoint, TlsFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.cli.session import Session

SOCKET_NAME = "sampan.sock"


class Target(NamedTuple):
    """The chosen daemon."""

    context: str
    endpoint: Endpoint
    #: Whether this is the daemon a command may start.
    ours: bool


def run_directory(environment: Mapping[str, str]) -> str:
    """Where our daemon's socket is: ``/run``, or the user's own for other users than root."""
    private = environment.get("XDG_RUNTIME_DIR", "")
    if os.geteuid() == 0 or not private or os.access(f"/run/{SOCKET_NAME}", os.W_OK):
        return "/run"
    return private


def default_host(environment: Mapping[str, str]) -> str:
    """The address of our own daemon."""
    return f"unix://{run_directory(environment)}/{SOCKET_NAME}"


def context_name(session: Session) -> str:
    """The name of the context in use. Raises :class:`CliError` for contradicting options."""
    options = session.options
    if options.context and options.hosts:
        raise CliError("conflicting options: cannot specify both --host and --context")
    if options.context:
        return options.context
    if options.hosts or session.environment.get("DOCKER_HOST"):
        return DEFAULT
    name = session.environment.get("DOCKER_CONTEXT") or session.config.text("currentContext")
    return name or DEFAULT


def target(session: Session) -> Target:
    """The daemon the options, the environment and the configuration choose."""
    name = context_name(session)
    if name != DEFAULT:
        try:
            context = ContextStore(session.config.directory).get(name)
        except CliError as error:
            raise _unresolved(error.message) from error
        return Target(name, context_endpoint(context), ours=False)
    hosts = session.options.hosts
    host = hosts[0] if hosts else session.environment.get("DOCKER_HOST", "")
    if not host:
        endpoint = Endpoint.parse(default_host(session.environment))
        return Target(name, endpoint, ours=True)
    if "://" not in host:
        host = f"tcp://{host}"
    scheme = host.partition("://")[0]
    if scheme not in ("unix", "tcp", "http", "https", "ssh"):
        if scheme in ("npipe", "fd"):
            raise CliError("Failed to initialize: protocol not available")
        raise _unresolved(f"invalid bind address format: {host}")
    return Target(name, Endpoint.parse(host, _tls_files(session)), ours=False)


def _unresolved(reason: str) -> CliError:
    return CliError(f"Failed to initialize: unable to resolve docker endpoint: {reason}")


def context_endpoint(context: Context) -> Endpoint:
    """The endpoint a stored context describes."""
    paths = {
        name: os.path.join(context.tls_path, "docker", name) if name in context.tls_files else ""
        for name in ("ca.pem", "cert.pem", "key.pem")
    }
    tls = None
    if any(paths.values()) or context.skip_tls_verify:
        verify = not context.skip_tls_verify
        tls = TlsFiles(paths["ca.pem"], paths["cert.pem"], paths["key.pem"], verify)
    return Endpoint.parse(context.host, tls)


def _tls_files(session: Session) -> TlsFiles | None:
    options, environment = session.options, session.environment
    verify = options.tls_verify or bool(environment.get("DOCKER_TLS_VERIFY"))
    if not (options.tls or verify or environment.get("DOCKER_TLS")):
        return None
    directory = environment.get("DOCKER_CERT_PATH") or session.config.directory

    def existing(option: str, name: str) -> str:
        default = os.path.join(directory, name)
        return option or (default if os.path.exists(default) else "")

    authority = options.tls_ca or os.path.join(directory, "ca.pem")
    if not os.path.exists(authority):
        raise _unresolved(f"open {authority}: no such file or directory")
    return TlsFiles(
        authority,
        existing(options.tls_cert, "cert.pem"),
        existing(options.tls_key, "key.pem"),
        verify,
    )


def open_client(session: Session) -> ApiClient:
    """A client of the chosen daemon; nothing is sent yet."""
    from sampan import __version__

    chosen = target(session)
    headers = {"User-Agent": f"Sampan-Client/{__version__} (linux)"}
    headers.update(session.config.labels("HttpHeaders"))
    headers.update(_custom_headers(session.environment))

    def start() -> bool:
        from sampan.cli.autostart import DaemonFiles, start_daemon

        directory = run_directory(session.environment)
        files = DaemonFiles(
            socket=chosen.endpoint.address, exec_root=os.path.join(directory, "sampan")
        )
        start_daemon(files, session.environment)
        return True

    return ApiClient(
        chosen.endpoint,
        session.environment,
        headers=headers,
        api_version=session.environment.get("DOCKER_API_VERSION", "").removeprefix("v"),
        on_unreachable=start if chosen.ours else None,
    )


def _custom_headers(environment: Mapping[str, str]) -> dict[str, str]:
    """``DOCKER_CUSTOM_HEADERS``: ``name=value`` pairs as comma-separated values."""
    value = environment.get("DOCKER_CUSTOM_HEADERS", "")
    if not value:
        return {}
    from sampan.cli.kinds import split_csv

    headers = {}
    for field in split_csv(value):
        name, equals, content = field.partition("=")
        if not equals or not name.strip():
            raise CliError(
                "Failed to initialize: failed to set custom headers from DOCKER_CUSTOM_HEADERS "
                f"environment variable: missing \"=\" in key=value pair: '{field}'"
            )
        headers[name.strip()] = content
    return headers
