"""Where a daemon listens, and how to get a connected stream socket to it.

endpoint ::= "unix://" path | "tcp://" host [ ":" port ] [ path ]
           | "ssh://" [ user "@" ] host [ ":" port ] [ socket-path ]

(Docker CLI ``-H``; the port defaults are Docker's: 2375 plain, 2376 with TLS.)
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

from sampan.client.failure import ConnectionFailed
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: Seconds a TCP or ssh connection may take to be set up.
CONNECT_TIMEOUT = 30.0


class TlsFiles(NamedTuple):
    """PEM files of a mutual TLS connection; an empty path means "not given"."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    verify: bool = True


class Endpoint(NamedTuple):
    """A parsed daemon address."""

    url: str
    scheme: str
    address: str
    port: int = 0
    path: str = ""
    user: str = ""
    tls: TlsFiles | None = None

    @classmethod
    def parse(cls, url: str, tls: TlsFiles | None = None) -> Endpoint:
        """The endpoint a ``-H`` value names.

        :raises InvalidParameter: the scheme is unknown or the address is malformed.
        """
        scheme, separator, rest = url.partition("://")
        if not separator:
            raise InvalidParameter(f"unable to parse docker host `{url}`")
        if scheme == "unix":
            return cls(url, scheme, rest or "/run/sampan.sock")
        if scheme in ("tcp", "http", "https"):
            host, port, path, _user = _authority(url, rest)
            return cls(url, "tcp", host, port or (2376 if tls else 2375), path, tls=tls)
        if scheme == "ssh":
            host, port, path, user = _authority(url, rest)
            if not host:
                raise InvalidParameter(f"ssh host is not given: {url}")
            if host.startswith("-") or user.startswith("-"):
                raise InvalidParameter(f"ssh host is not a host name: {url}")
            return cls(url, scheme, host, port, path, user)
        raise InvalidParameter(f"protocol not available: {scheme}")

    @property
    def host_header(self) -> str:
        """The value of the Host header (RFC 9110, section 7.2)."""
        if self.scheme != "tcp":
            return "api.sampan.localhost"
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"

    @property
    def silence(self) -> str:
        """What it means when a connection ends without an answer; ssh has said more itself."""
        if self.scheme != "ssh":
            return "EOF"
        return (
            f"ssh to {self.address} has ended: make sure the URL is valid, and sampan, or Docker "
            "18.09 or later, is installed on the remote host"
        )

    def dial(self, environment: Mapping[str, str]) -> socket.socket:
        """A connected, blocking stream socket.

        ``environment`` is passed to ``ssh``. Raises :class:`ConnectionFailed`.
        """
        if self.scheme == "unix":
            return self._dial_unix()
        if self.scheme == "ssh":
            return self._dial_ssh(environment)
        return self._dial_tcp()

    def _dial_unix(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(self.address)
        except OSError as error:
            sock.close()
            raise self._unreachable(error) from error
        return sock

    def _dial_tcp(self) -> socket.socket:
        try:
            sock = socket.create_connection((self.address, self.port), CONNECT_TIMEOUT)
        except OSError as error:
            raise self._unreachable(error) from error
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self.tls is not None:
                from sampan.client.tls import wrap

                sock = wrap(sock, self.address, self.tls)
            sock.settimeout(None)
        except OSError as error:
            sock.close()
            message = f"error during connect: {self.url}: {_reason(error)}"
            raise ConnectionFailed(message) from error
        return sock

    def _dial_ssh(self, environment: Mapping[str, str]) -> socket.socket:
        """A socket pair whose other end is stdin and stdout of ``ssh ... system dial-stdio``."""
        ours, theirs = socket.socketpair()
        arguments = ["ssh", "-o", f"ConnectTimeout={int(CONNECT_TIMEOUT)}", "-T"]
        if self.user:
            arguments += ["-l", self.user]
        if self.port:
            arguments += ["-p", str(self.port)]
        arguments += ["--", self.address, _remote_command(self.path)]
        with theirs:
            actions = [
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), 1),
            ]
            # sh starts ssh in the background and ends, so ssh is nobody's zombie, and a SIGINT
            # meant for the container does not end the transport (background jobs ignore it).
            # Descriptor 3, since the shell gives a background job /dev/null for standard input.
            shell = ["sh", "-c", 'exec 3<&0; "$@" <&3 3<&- &', "sh", *arguments]
            try:
                pid = os.posix_spawnp("sh", shell, dict(environment), file_actions=actions)
            except OSError as error:
                ours.close()
                raise ConnectionFailed(f"cannot run ssh: {_reason(error)}") from error
        os.waitpid(pid, 0)
        return ours

    def _unreachable(self, error: OSError) -> ConnectionFailed:
        if isinstance(error, PermissionError):
            return ConnectionFailed(
                "permission denied while trying to connect to the Docker daemon socket at "
                f"{self.url}: dial {self.scheme} {self.address}: connect: permission denied"
            )
        return ConnectionFailed(
            f"Cannot connect to the Docker daemon at {self.url}. Is the docker daemon running?"
        )


def _authority(url: str, rest: str) -> tuple[str, int, str, str]:
    """Host, port (0 when absent), path and user of ``[user@]host[:port][/path]``."""
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    if user and ":" in user:
        raise InvalidParameter("plain-text password is not supported in a daemon address")
    host = host if at else authority
    port_text = ""
    if host.startswith("["):
        host, bracket, after = host[1:].partition("]")
        if not bracket or (after and not after.startswith(":")):
            raise InvalidParameter(f"invalid bind address format: {url}")
        port_text = after[1:]
    elif ":" in host:
        host, _colon, port_text = host.rpartition(":")
    if port_text and not (port_text.isdecimal() and int(port_text) < 65536):
        raise InvalidParameter(f"invalid bind address format: {url}")
    return host, int(port_text or 0), slash + path, user


def _remote_command(socket_path: str) -> str:
    """The shell words that proxy stdio to the far daemon, whichever engine is there."""
    host = ""
    if socket_path and socket_path != "/":
        quoted = "'" + f"unix://{socket_path}".replace("'", "'\\''") + "'"
        host = f" --host={quoted}"
    return (
        f"if command -v sampan >/dev/null 2>&1; then exec sampan{host} system dial-stdio; "
        f"else exec docker{host} system dial-stdio; fi"
    )


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
