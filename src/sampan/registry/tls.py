"""Certificates per registry (``/etc/docker/certs.d``) and proxies: which, and when.

``<directory>/<host:port>/*.crt`` are CAs to trust, ``*.cert`` with ``*.key`` client certificates,
as docker, podman and skopeo read them.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from sampan.errors import InvalidParameter

_Files = tuple[tuple[str, int], ...]
CERTIFICATE_DIRECTORIES = (Path("/etc/docker/certs.d"), Path("/etc/containers/certs.d"))


@dataclass(slots=True)
class Certificates:
    """TLS contexts by host, made from the ``directories`` once and again when files change there.

    ``authorities`` is a PEM file of more CAs, trusted for every host.
    """

    directories: Sequence[Path] = CERTIFICATE_DIRECTORIES
    authorities: str = ""
    _made: dict[tuple[str, bool], tuple[_Files, ssl.SSLContext]] = field(default_factory=dict)

    def context(self, host: str, *, insecure: bool) -> ssl.SSLContext:
        """The context to reach ``host`` (``host[:port]``) with; ``insecure`` verifies nothing.

        Raises :class:`InvalidParameter` for a file that cannot be used.
        """
        files = self._files(host)
        known, context = self._made.get((host, insecure), ((), None))
        if context is None or known != files:
            context = self._make(host, insecure=insecure)
            self._made[host, insecure] = files, context
        return context

    def _files(self, host: str) -> _Files:
        """What tells whether anything for ``host`` has changed since."""
        found = []
        for place in self._places(host):
            try:
                with os.scandir(place) as entries:
                    found += [(entry.path, entry.stat().st_mtime_ns) for entry in entries]
            except OSError:  # usually there is no such directory; reading it says what is wrong
                continue
        return tuple(sorted(found))

    def _places(self, host: str) -> Iterator[Path]:
        # The host comes from a parsed reference or URL: it should hold no slash.
        if "/" not in host and host not in ("", ".", ".."):
            yield from (directory / host for directory in self.directories)

    def _make(self, host: str, *, insecure: bool) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context()
            if self.authorities:
                context.load_verify_locations(self.authorities)
        except OSError as error:
            raise InvalidParameter(f"cannot use {self.authorities}: {error}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        for place in self._places(host):
            if place.is_dir():
                _load(context, place)
        if insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _load(context: ssl.SSLContext, place: Path) -> None:
    for path in sorted(place.iterdir()):
        try:
            if path.suffix == ".crt":
                context.load_verify_locations(path)
            elif path.suffix == ".cert":
                key = path.with_suffix(".key")
                if not key.exists():
                    raise InvalidParameter(f"missing key {key} for client certificate {path}")
                context.load_cert_chain(path, key)
        except OSError as error:  # ssl.SSLError is one
            raise InvalidParameter(f"cannot use {path}: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxies:
    """What ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY`` say; nothing reads the environment.

    ``none`` is a comma-separated list of hosts, ``.domain`` suffixes, ``host:port``, addresses and
    CIDR blocks, or ``*``.
    """

    http: str = field(default="", repr=False)
    https: str = field(default="", repr=False)
    none: str = ""

    def of(self, url: str) -> str:
        """The proxy for ``url``, empty for none."""
        parts = urlsplit(url)
        proxy = self.https if parts.scheme == "https" else self.http
        if not proxy or self._direct(parts.hostname or "", parts.port):
            return ""
        return proxy if "://" in proxy else f"http://{proxy}"

    def _direct(self, host: str, port: int | None) -> bool:
        if host == "localhost":
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            address = None
        if address and address.is_loopback:
            return True
        for word in self.none.replace(" ", ",").split(","):
            pattern = word.strip().lower()
            if not pattern:
                continue
            if pattern in ("*", host, f"{host}:{port}"):
                return True
            if address is None and host.endswith("." + pattern.removeprefix("*").lstrip(".")):
                return True
            if address and "/" in pattern:
                try:
                    if address in ipaddress.ip_network(pattern, strict=False):
                        return True
                except ValueError:
                    continue  # no block of addresses
        return False
