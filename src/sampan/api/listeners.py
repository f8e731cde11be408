"""The sockets a daemon listens on: Unix, TCP (with TLS), and those systemd hands over.

Sockets are bound before the engine opens, so clients that come early wait in the queue instead of
being refused.
"""

from __future__ import annotations

import errno
import grp
import logging
import os
import socket
import ssl
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sampan.api.access import Access
from sampan.api.settings import Tls
from sampan.errors import Conflict, InvalidParameter, NotFound, SampanError, Unavailable

log = logging.getLogger("sampan.api")

BACKLOG = 1024
_FIRST_PASSED = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A bound socket, how to speak on it and what it may be used for."""

    address: str
    socket: socket.socket
    access: Access
    tls: ssl.SSLContext | None = None
    path: Path | None = None

    def close(self) -> None:
        """Stop listening and take the name of a Unix socket away."""
        self.socket.close()
        if self.path is not None:
            with suppress(FileNotFoundError):
                self.path.unlink()


def open_all(
    hosts: Iterable[str],
    *,
    group: str,
    group_required: bool,
    tls: Tls | None,
    passed: int,
) -> list[Listener]:
    """Bind every ``-H`` once; what was bound is closed again if one fails.

    ``passed`` is the number of descriptors systemd handed over. Raises
    :class:`InvalidParameter` (malformed), :class:`Conflict` (in use), :class:`Unavailable`.
    """
    found: list[Listener] = []
    try:
        for host in dict.fromkeys(hosts):
            found.extend(_open(host, group, group_required, tls, passed))
    except BaseException:
        for listener in found:
            listener.close()
        raise
    return found


def warnings(bound: Iterable[Listener]) -> Iterator[str]:
    """What ``docker info`` is told about sockets that anybody on the network may use."""
    for listener in bound:
        scheme, _, address = listener.address.partition("://")
        if scheme != "tcp":
            continue
        if listener.tls is None:
            lack, url = "encryption", f"http://{address}"
        elif listener.tls.verify_mode != ssl.CERT_REQUIRED:
            lack, url = "TLS client verification", f"https://{address}"
        else:
            continue
        yield (
            f"[DEPRECATION NOTICE]: API is accessible on {url} without {lack}.\n"
            "         Access to the remote API is equivalent to root access on the host."
        )


def _open(
    host: str, group: str, group_required: bool, tls: Tls | None, passed: int
) -> Iterator[Listener]:
    address, _, options = host.partition("?")
    access = Access.parse(options)
    scheme, separator, rest = address.partition("://")
    if not separator:
        scheme, rest = ("unix", address) if address.startswith("/") else ("tcp", address)
    if scheme == "unix" and rest.startswith("/"):
        path = Path(rest)
        yield Listener(
            address=f"unix://{path}",
            socket=_bind_unix(path, _group_id(group, group_required)),
            access=access,
            path=path,
        )
    elif scheme == "tcp":
        context = None if tls is None else tls_context(tls)
        if context is None:
            log.warning("%s is open to everybody who can reach it: use --tlsverify", address)
        for bound in _bind_tcp(rest, 2375 if tls is None else 2376):
            shown = "{}:{}".format(*bound.getsockname()[:2])
            yield Listener(address=f"tcp://{shown}", socket=bound, access=access, tls=context)
    elif scheme == "fd":
        yield from _take_passed(rest, access, passed)
    else:
        raise InvalidParameter(f"invalid bind address format: {host}")


def _group_id(name: str, required: bool) -> int:
    """The numeric group, or -1 (leave it) when the default group does not exist here."""
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if required:
            raise NotFound(f"group {name} not found") from None
        return -1


def _bind_unix(path: Path, group: int) -> socket.socket:
    if len(os.fsencode(path)) > 107:  # unix(7): sun_path
        raise InvalidParameter(f"socket path too long: {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_away(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    # Nobody but us may connect before owner and mode are right.
    mask = os.umask(0o177)
    try:
        bound.bind(str(path))
        os.chown(path, -1, group)
        os.chmod(path, 0o660)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise _failed(str(path), error) from error
    finally:
        os.umask(mask)
    return bound


def _clear_away(path: Path) -> None:
    """Remove a socket nobody listens on any more; anything else in the way is a Conflict."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Conflict(f"{path} exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink()
            return
    raise Conflict(f"{path}: another daemon listens there")


def _bind_tcp(text: str, default_port: int) -> Iterator[socket.socket]:
    host, colon, port_text = text.rstrip("/").rpartition(":")
    if not colon or port_text.endswith("]"):
        host, port_text = text.rstrip("/"), str(default_port)
    if not port_text.isdecimal() or int(port_text) > 0xFFFF:
        raise InvalidParameter(f"invalid bind address: tcp://{text}")
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or "0.0.0.0",
            int(port_text),
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except socket.gaierror as error:
        raise InvalidParameter(f"invalid bind address tcp://{text}: {error.strerror}") from None
    for family, kind, _, _, address in found:
        bound = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind(address)
            bound.listen(BACKLOG)
        except OSError as error:
            bound.close()
            raise _failed(f"tcp://{text}", error) from error
        yield bound


def _take_passed(name: str, access: Access, passed: int) -> Iterator[Listener]:
    if not passed:
        raise Unavailable("fd://: no sockets found via socket activation: was this started by it?")
    if name in ("", "*"):
        wanted = list(range(_FIRST_PASSED, _FIRST_PASSED + passed))
    elif name.isdecimal() and _FIRST_PASSED <= int(name) < _FIRST_PASSED + passed:
        wanted = [int(name)]
    else:
        raise InvalidParameter(f"fd://{name}: no such passed socket")
    for descriptor in wanted:
        os.set_inheritable(descriptor, False)
        taken = socket.socket(fileno=descriptor)
        taken.setblocking(False)
        yield Listener(address=f"fd://{descriptor}", socket=taken, access=access)


def tls_context(tls: Tls) -> ssl.SSLContext:
    """TLS 1.2 or newer; with ``verify`` only for clients the CA has signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.verify:
            context.load_verify_locations(tls.ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # ssl.SSLError is one
        raise InvalidParameter(
            f"could not load TLS certificates ({tls.certificate}, {tls.key}"
            f"{', ' + tls.ca if tls.verify else ''}): {error}"
        ) from None
    return context


def _failed(address: str, error: OSError) -> SampanError:
    if error.errno == errno.EADDRINUSE:
        return Conflict(f"can't listen on {address}: address already in use")
    return Unavailable(f"can't listen on {address}: {error.strerror}")
