"""TLS whose two directions end separately (RFC 8446, section 6.1: close_notify).

asyncio's own TLS closes a connection as soon as the peer has ended its side, and with it the
output of ``echo question | docker -H tcp://... run -i image``. Here a close_notify is the end of
the peer's input and no more, as an end of file is on a plain socket.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

log = logging.getLogger("sampan.api")

#: seconds a client may take for its handshake
HANDSHAKE_TIMEOUT = 30.0
_READ_SIZE = 256 << 10


class TlsServer(asyncio.Protocol):
    """The protocol of an accepted connection; speaks TLS for the protocol ``factory`` makes."""

    def __init__(
        self, context: ssl.SSLContext, factory: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        self._factory = factory
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._wire: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._transport: TlsTransport | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the client's hello."""
        self._wire = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_TIMEOUT, self._wire.abort)

    def data_received(self, data: bytes) -> None:
        """Encrypted bytes."""
        self._incoming.write(data)
        if self._transport is None:
            self._shake_hands()
        if self._transport is not None:
            self._transport.deliver()

    def eof_received(self) -> bool:
        """The peer has ended its side of the TCP connection."""
        if self._transport is None:
            return False
        self._transport.input_ended()
        return not self._transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.lost(exc)

    def pause_writing(self) -> None:
        """The peer does not keep up."""
        if self._transport is not None:
            self._transport.protocol.pause_writing()

    def resume_writing(self) -> None:
        """The peer keeps up again."""
        if self._transport is not None:
            self._transport.protocol.resume_writing()

    def _shake_hands(self) -> None:
        wire = self._wire
        assert wire is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            wire.write(self._outgoing.read())
            return
        except ssl.SSLError as error:
            log.debug("TLS handshake failed: %s", error)
            wire.write(self._outgoing.read())
            wire.close()
            return
        if self._timer is not None:
            self._timer.cancel()
        wire.write(self._outgoing.read())
        self._transport = TlsTransport(wire, self._tls, self._outgoing, self._factory())
        self._transport.protocol.connection_made(self._transport)


class TlsTransport(asyncio.Transport):
    """What the inner protocol sees: a transport like any other, half-close included."""

    def __init__(
        self,
        wire: asyncio.Transport,
        tls: ssl.SSLObject,
        outgoing: ssl.MemoryBIO,
        protocol: asyncio.BaseProtocol,
    ) -> None:
        super().__init__()
        self._wire = wire
        self._tls = tls
        self._outgoing = outgoing
        self.protocol = protocol
        self._reading = True
        self._input_over = False
        self._output_over = False
        self._delivering = False

    def deliver(self) -> None:
        """Hand decrypted bytes to the protocol while it wants them."""
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._reading and not self._input_over and not self._wire.is_closing():
                try:
                    data = self._tls.read(_READ_SIZE)
                except ssl.SSLWantReadError:
                    break
                except ssl.SSLZeroReturnError:
                    data = b""
                except ssl.SSLError as error:
                    log.debug("TLS connection failed: %s", error)
                    self._wire.abort()
                    break
                if not data:
                    self.input_ended()
                    break
                cast(asyncio.Protocol, self.protocol).data_received(data)
        finally:
            self._delivering = False
        self._flush()

    def input_ended(self) -> None:
        """The peer sends no more: tell the protocol, which decides whether to go on."""
        if self._input_over:
            return
        self._input_over = True
        if not cast(asyncio.Protocol, self.protocol).eof_received():
            self.close()

    def lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self.protocol.connection_lost(exc)

    def _flush(self) -> None:
        if self._outgoing.pending and not self._wire.is_closing():
            self._wire.write(self._outgoing.read())

    # asyncio.Transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What is known of the connection: TLS facts here, the rest from the TCP transport."""
        if name == "ssl_object":
            return self._tls
        if name == "sslcontext":
            return self._tls.context
        if name == "peercert":
            return self._tls.getpeercert()
        if name == "cipher":
            return self._tls.cipher()
        return self._wire.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Speak for another protocol from now on."""
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol this transport speaks for."""
        return self.protocol

    def is_closing(self) -> bool:
        """Whether the connection is closing or closed."""
        return self._wire.is_closing()

    def is_reading(self) -> bool:
        """Whether bytes are delivered."""
        return self._reading and not self._input_over

    def pause_reading(self) -> None:
        """Deliver nothing until :meth:`resume_reading`."""
        self._reading = False
        if not self._wire.is_closing():
            self._wire.pause_reading()

    def resume_reading(self) -> None:
        """Deliver bytes again, first those already decrypted."""
        if self._reading:
            return
        self._reading = True
        if not self._wire.is_closing():
            self._wire.resume_reading()
            asyncio.get_running_loop().call_soon(self.deliver)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send; never blocks."""
        if self._output_over or not data or self._wire.is_closing():
            return
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            log.debug("TLS connection failed: %s", error)
            self._wire.abort()
            return
        self._flush()

    def can_write_eof(self) -> bool:
        """Output can end alone."""
        return True

    def write_eof(self) -> None:
        """Send close_notify: the end of the output."""
        if self._output_over:
            return
        self._output_over = True
        with suppress(ssl.SSLError):  # it also wants the peer's, which may come late or never
            self._tls.unwrap()
        self._flush()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """When ``pause_writing`` is called, in bytes."""
        self._wire.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Bytes not sent yet."""
        return self._wire.get_write_buffer_size()

    def close(self) -> None:
        """End the output and close once it is sent."""
        if not self._wire.is_closing():
            self.write_eof()
            self._wire.close()

    def abort(self) -> None:
        """Close at once."""
        self._wire.abort()
