"""aiohttp's server protocol, made to leave alone what follows a request to upgrade.

aiohttp reads only websocket upgrades as the end of HTTP on a connection. Docker's ``Upgrade: tcp``
is one as well, and so is ``Upgrade: h2c`` of BuildKit's services; a client may send the first bytes
of what follows together with the request. HTTP/2 from the first byte is an upgrade without one.

It also refuses a request that repeats a field of which one was enough. Go's server takes the first
one, and clients rely on it: bollard sends ``Content-Type`` twice.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from aiohttp import EMPTY_PAYLOAD, StreamReader, web

from sampan.api import reply

log = logging.getLogger("sampan.api")

_UPGRADE = re.compile(rb"^upgrade:[ \t]*(?:tcp|h2c)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_LENGTH = re.compile(
    rb"^content-length:[ \t]*([0-9]{1,18})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE
)
_HEAD_END = b"\r\n\r\n"
#: How a client begins that knows HTTP/2 is spoken here (RFC 9113, section 3.4); and the request to
#: upgrade that stands for it, so that it is judged like one.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_STAND_IN = b"POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
_METHODS = (b"GET ", b"POST ", b"PUT ", b"DELETE ", b"HEAD ")
_CONTENT_TYPE = re.compile(rb"\r\ncontent-type:[^\r\n]*", re.IGNORECASE)


class Protocol(web.RequestHandler):
    """Holds back bytes that are no longer HTTP; :meth:`take_early` hands them over."""

    _upgrade_left: int | None = None
    _early = b""
    #: What came first while it may still be a preface; None once that is decided.
    _first: bytes | None = b""
    #: Whether the client speaks HTTP/2 without having asked, and expects no answer in HTTP/1.
    prior_knowledge = False
    #: The body of the request that came last.
    _body: StreamReader = EMPTY_PAYLOAD

    def data_received(self, data: bytes) -> None:
        """Bytes from the client: HTTP up to the end of an upgrade request, then not."""
        if self._first is not None:
            data = self._first + data
            if data != _PREFACE[: len(data)] and not data.startswith(_PREFACE):
                self._first = None
            elif len(data) < len(_PREFACE):
                self._first = data
                return
            else:
                self._first, self.prior_knowledge = None, True
                data = _STAND_IN + data
        if data.startswith(_METHODS) and self._body.is_eof():
            data = _with_one_type(data)
        if self._upgrade_left is None:
            self._upgrade_left = _rest_of_upgrade(data)
        if self._upgrade_left is None:
            self._parse(data)
            return
        mine, early = data[: self._upgrade_left], data[self._upgrade_left :]
        self._upgrade_left -= len(mine)
        self._early += early
        if len(self._early) > _EARLY_LIMIT and self.transport is not None:
            self.transport.pause_reading()
        if mine:
            self._parse(mine)

    def _parse(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            self._body = self._messages[-1][1]

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is not HTTP is its sender's fault: an answer, and no traceback in our log."""
        if status >= 500 or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        log.debug("not HTTP: %s", exc)
        text = (message or "malformed request").strip().partition("\n")[0].rstrip(":")
        response = reply.error(text, status)
        response.force_close()
        return response

    def take_early(self) -> bytes:
        """What came after the request; from now on nobody holds anything back."""
        early, self._early = self._early, b""
        return early

    def resume_http(self) -> None:
        """The upgrade was declined: what was held back is HTTP after all."""
        self._upgrade_left = None
        early = self.take_early()
        if early:
            self.data_received(early)
        if len(early) > _EARLY_LIMIT and self.transport is not None:
            self.transport.resume_reading()


_EARLY_LIMIT = 64 << 10


class Server(web.Server):
    """A server whose connections speak :class:`Protocol`."""

    def __call__(self) -> Protocol:
        """The protocol of a new connection."""
        options: dict[str, Any] = self._kwargs
        return Protocol(self, loop=self._loop, **options)


def _with_one_type(data: bytes) -> bytes:
    """A request's bytes with the first ``Content-Type`` of its head alone."""
    end = data.find(_HEAD_END)
    fields = list(_CONTENT_TYPE.finditer(data, 0, max(end, 0)))
    for field in fields[:0:-1]:
        data = data[: field.start()] + data[field.end() :]
    return data


def _rest_of_upgrade(data: bytes) -> int | None:
    """How many bytes of ``data`` on belong to a request to upgrade; None: it is none."""
    if b"pgrade" not in data:
        return None
    end = data.find(_HEAD_END)
    if end < 0 or not _UPGRADE.search(data, 0, end + 2):
        return None
    length = _LENGTH.search(data, 0, end + 2)
    return end + len(_HEAD_END) + (int(length[1]) if length else 0)
