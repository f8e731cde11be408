"""Calling a plugin: one HTTP POST of JSON for each call, one connection for each POST.

A plugin is somebody else's program: every answer is bounded in time and size, and an error says
which plugin gave it. Calls block; make them from a worker thread.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from sampan.errors import NotFound, SampanError, Unavailable
from sampan.plugin import endpoint
from sampan.plugin.endpoint import PluginAddress, Tls

#: seconds an answer may take
TIMEOUT = 30.0
#: seconds to wait between attempts to reach one that is not there (yet): 15 together, as dockerd
PAUSES = (0.25, 0.5, 1.0, 2.0, 3.25, 4.0, 4.0)
_MEDIA_TYPE = "application/vnd.docker.plugins.v1.2+json"
_MAX_ANSWER = 16 << 20

#: What a plugin answers: a JSON object.
Answer: TypeAlias = Mapping[str, object]
_Found = TypeVar("_Found")


class Absent(Unavailable):
    """Nobody listens where the plugin should be."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("plugin", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self._path)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


class Plugin:
    """One plugin. May be used from several threads."""

    def __init__(self, address: PluginAddress, timeout: float = TIMEOUT) -> None:
        self.name = address.name
        self._address = address
        self._timeout = timeout

    def activate(self) -> frozenset[str]:
        """The interfaces it implements (``VolumeDriver``, ``NetworkDriver``, ``IpamDriver``)."""
        implements = self.call("Plugin.Activate").get("Implements")
        if not isinstance(implements, list):
            raise Unavailable(f"plugin {self.name}: Plugin.Activate told no interfaces")
        return frozenset(str(item) for item in implements)

    def call(
        self, method: str, body: Mapping[str, object] | None = None, *, patient: bool = False
    ) -> Answer:
        """Call ``Interface.Method``; returns the answer's object. ``patient``: one that is not
        there is waited for, it may be about to start.

        Raises :class:`NotFound` when the plugin does not know the method, :class:`Unavailable`
        when it cannot be reached or understood, :class:`SampanError` with the plugin's own words
        when it refuses.
        """
        sent = json.dumps(body or {}).encode()
        status, data = _persistently(lambda: self._post(method, sent), patient=patient)
        answer = self._parse(method, status, data)
        refusal = answer.get("Err") or answer.get("Error")
        if refusal:
            raise SampanError(f"{method}: {refusal}")
        if status == 404:
            raise NotFound(f"plugin {self.name} does not have {method}")
        if status != 200:
            raise SampanError(f"{method}: plugin {self.name} answered with status {status}")
        return answer

    def _parse(self, method: str, status: int, data: bytes) -> Answer:
        try:
            answer = json.loads(data or b"{}")
        except ValueError as error:
            if status != 200:
                return {}
            raise Unavailable(f"plugin {self.name}: answer to {method} is no JSON") from error
        if answer is None:
            return {}
        if not isinstance(answer, dict):
            raise Unavailable(f"plugin {self.name}: answer to {method} is not an object")
        return answer

    def _post(self, method: str, body: bytes) -> tuple[int, bytes]:
        headers = {"Accept": _MEDIA_TYPE, "Content-Type": "application/json"}
        try:
            with contextlib.closing(self._connection()) as connection:
                connection.request("POST", f"/{method}", body, headers)
                response = connection.getresponse()
                data = response.read(_MAX_ANSWER + 1)
                if len(data) > _MAX_ANSWER:
                    raise http.client.HTTPException("the answer is too long")
                return response.status, data
        except (OSError, http.client.HTTPException) as error:
            absent = isinstance(error, ConnectionRefusedError | FileNotFoundError)
            kind = Absent if absent else Unavailable
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise kind(f"plugin {self.name} does not answer {method}: {reason}") from error

    def _connection(self) -> http.client.HTTPConnection:
        address = self._address
        if address.socket:
            return _UnixConnection(address.socket, self._timeout)
        if address.tls is None:
            return http.client.HTTPConnection(address.host, address.port, timeout=self._timeout)
        context = _context(address.tls)
        return http.client.HTTPSConnection(
            address.host, address.port, timeout=self._timeout, context=context
        )


def _persistently(attempt: Callable[[], _Found], *, patient: bool) -> _Found:
    """What ``attempt`` returns, made again for a while if there is no plugin and we are patient."""
    for pause in PAUSES if patient else ():
        try:
            return attempt()
        except (Absent, NotFound):
            time.sleep(pause)
    return attempt()


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca or None)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.certificate:
        context.load_cert_chain(tls.certificate, tls.key or None)
    return context


class Plugins:
    """All plugins of one engine: found when they are asked for, greeted once."""

    def __init__(self, directories: Sequence[Path], timeout: float = TIMEOUT) -> None:
        """``directories`` are looked in in this order (:mod:`sampan.plugin.endpoint`)."""
        self._directories = tuple(directories)
        self._timeout = timeout
        self._lock = threading.Lock()
        self._known: dict[str, tuple[PluginAddress, Plugin, frozenset[str]]] = {}

    def find(self, name: str, interface: str, *, patient: bool = False) -> Plugin:
        """The plugin ``name`` that implements ``interface``. ``patient``: one that is not there is
        waited for.

        Raises :class:`NotFound` when there is none or it is another kind of plugin,
        :class:`Unavailable` when it does not answer.
        """
        plugin, interfaces = _persistently(lambda: self._greeted(name), patient=patient)
        if interface not in interfaces:
            raise NotFound(f'plugin "{name}" does not implement {interface}')
        return plugin

    def _greeted(self, name: str) -> tuple[Plugin, frozenset[str]]:
        """A plugin and what it implements, which is asked when it is new."""
        address = endpoint.find(name, self._directories)
        with self._lock:
            known = self._known.get(name)
        if known is None or known[0] != address:
            plugin = Plugin(address, self._timeout)
            known = (address, plugin, plugin.activate())
            with self._lock:
                self._known[name] = known
        return known[1:]

    def names(self, interface: str) -> tuple[str, ...]:
        """Names of all that implement ``interface`` and answer."""
        found = []
        for name in endpoint.names(self._directories):
            with contextlib.suppress(SampanError):
                self.find(name, interface)
                found.append(name)
        return tuple(found)
