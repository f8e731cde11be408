"""TLS as a plain socket: one end of a socket pair whose other end a thread encrypts.

``ssl.SSLSocket`` cannot end one direction and go on reading, which attaching to a container needs
(end of input, output goes on), and hides bytes from ``poll``. Here the TLS state works on memory
buffers, so a close_notify can be sent at a moment when nothing is left to be read (RFC 8446,
section 6.1: it ends one direction only), and callers poll, read, write and shut down an ordinary
socket. At most :data:`LIMIT` bytes wait in each direction.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.client.endpoint import TlsFiles

LIMIT = 256 * 1024
_CHUNK = 64 * 1024


def context(files: TlsFiles) -> ssl.SSLContext:
    """The client's side of TLS. Raises ``OSError`` for files that cannot be used."""
    made = ssl.create_default_context(cafile=files.ca or None)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if not files.verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if files.cert or files.key:
        made.load_cert_chain(files.cert, files.key or None)
    return made


def wrap(sock: socket.socket, host: str, files: TlsFiles) -> socket.socket:
    """A socket that speaks in clear text what ``sock`` speaks in TLS; ``sock`` is taken over.

    The handshake is done when this returns, within the socket's timeout. Raises ``OSError``
    (``ssl.SSLError`` is one).
    """
    relay = _Relay(sock, context(files), host)
    relay.handshake()
    ours, theirs = socket.socketpair()
    relay.start(theirs)
    return ours


class _Relay:
    """The TLS state of one connection and the thread that moves its bytes."""

    def __init__(self, sock: socket.socket, settings: ssl.SSLContext, host: str) -> None:
        self._sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = settings.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._encrypted = b""  # for the network
        self._clear = b""  # for the user
        self._user_ended = False
        self._peer_ended = False

    def handshake(self) -> None:
        """Agree with the peer, blocking."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._sock.sendall(self._outgoing.read())
                data = self._sock.recv(_CHUNK)
                if not data:
                    raise ConnectionResetError("the peer ended the TLS handshake") from None
                self._incoming.write(data)
                continue
            self._encrypted = self._outgoing.read()
            return

    def start(self, user: socket.socket) -> None:
        """Move bytes between ``user`` and the peer until both have ended."""
        user.setblocking(False)
        self._sock.setblocking(False)
        threading.Thread(target=self._run, args=(user,), name="sampan-tls", daemon=True).start()

    def _run(self, user: socket.socket) -> None:
        with user, self._sock:
            try:
                self._decrypt()
                while self._step(user):
                    pass
            except OSError:
                return  # either side broke off; closing both tells the other

    def _step(self, user: socket.socket) -> bool:
        """Wait for something to do and do it. False when there is nothing left."""
        poll = select.poll()
        network = select.POLLOUT if self._encrypted else 0
        if not self._peer_ended and len(self._clear) < LIMIT:
            network |= select.POLLIN
        local = select.POLLOUT if self._clear else 0
        if not self._user_ended and len(self._encrypted) < LIMIT:
            local |= select.POLLIN
        if self._peer_ended and not self._clear:
            return False
        poll.register(self._sock, network)
        poll.register(user, local)
        ready = dict(poll.poll())
        if ready.get(user.fileno(), 0) & (select.POLLIN | select.POLLHUP) and local & select.POLLIN:
            self._from_user(user)
        if ready.get(self._sock.fileno(), 0) and network & select.POLLIN:
            self._from_network()
        self._send(user)
        # A user who closed altogether reads no more: nothing is left to do for him.
        return not (ready.get(user.fileno(), 0) & select.POLLERR)

    def _from_user(self, user: socket.socket) -> None:
        try:
            data = user.recv(_CHUNK)
        except BlockingIOError:
            return
        if data:
            self._tls.write(data)
        else:
            self._user_ended = True
            self._decrypt()
            # The alert is in the buffer then; the peer's own comes when it has said everything.
            with suppress(ssl.SSLError):
                self._tls.unwrap()
        self._encrypted += self._outgoing.read()

    def _from_network(self) -> None:
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        self._decrypt()

    def _decrypt(self) -> None:
        while not self._peer_ended:
            try:
                data = self._tls.read(_CHUNK)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError:
                data = b""
            if data:
                self._clear += data
            else:
                self._peer_ended = True
        self._encrypted += self._outgoing.read()

    def _send(self, user: socket.socket) -> None:
        if self._encrypted:
            with suppress(BlockingIOError):
                self._encrypted = self._encrypted[self._sock.send(self._encrypted) :]
        if self._clear:
            with suppress(BlockingIOError):
                self._clear = self._clear[user.send(self._clear) :]
