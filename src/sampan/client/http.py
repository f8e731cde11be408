"""HTTP/1.1 over one stream socket (RFC 9112), as much of it as a Docker client needs.

``http.client`` is not used because its import alone (``email`` and all) costs as much as the rest
of a command. What is here: requests with a sized or chunked body, responses with a sized, chunked
or close-delimited body, keep-alive, and taking the connection over after ``101`` or a raw stream.
Every buffer is bounded: a head is at most :data:`MAX_HEAD` bytes.
"""

from __future__ import annotations

import socket

from sampan.client.failure import ConnectionFailed, ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MAX_HEAD = 64 * 1024
CHUNK = 64 * 1024


class Stream:
    """A connection taken over from HTTP: bytes both ways, with what was already read first."""

    def __init__(self, sock: socket.socket, early: bytes) -> None:
        self.socket = sock
        self._early = early

    def fileno(self) -> int:
        """The descriptor, for polling; look at :meth:`take_early` first."""
        return self.socket.fileno()

    def take_early(self) -> bytes:
        """Bytes that arrived together with the response head; empty from the second call on."""
        early, self._early = self._early, b""
        return early

    def recv(self, size: int = CHUNK) -> bytes:
        """The next bytes; empty at the end of the stream."""
        return self.take_early() or self.socket.recv(size)

    def sendall(self, data: bytes) -> None:
        """Send everything."""
        self.socket.sendall(data)

    def close_write(self) -> None:
        """Tell the peer that nothing more comes (half-close); idempotent."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the peer closed first: there is nobody left to tell

    def close(self) -> None:
        """Close; idempotent."""
        self.socket.close()


class Response:
    """A response whose body has not been read yet."""

    def __init__(
        self, connection: Connection, status: int, headers: dict[str, str], *, bodiless: bool
    ) -> None:
        self.status = status
        self.headers = headers
        self._connection = connection
        self._chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        length = headers.get("content-length", "")
        self._remaining: int | None = int(length) if length.isdecimal() else None
        if bodiless or status in (204, 304):
            self._chunked, self._remaining = False, 0
        self._done = False
        self._finish_if(not self._chunked and self._remaining == 0)

    @property
    def done(self) -> bool:
        """Whether the body has been read to its end."""
        return self._done

    def read(self) -> bytes:
        """The rest of the body."""
        return b"".join(self)

    def __iter__(self) -> Iterator[bytes]:
        """Pieces of the body as they arrive, chunk framing removed."""
        while not self._done:
            piece = self._next_chunk() if self._chunked else self._next_piece()
            if piece:
                yield piece

    def lines(self) -> Iterator[bytes]:
        """Lines of the body as they arrive, without their line ends; empty ones are left out."""
        pending = b""
        for piece in self:
            *whole, pending = (pending + piece).split(b"\n")
            for line in whole:
                if line.strip():
                    yield line
        if pending.strip():
            yield pending

    def take_over(self) -> Stream:
        """The raw connection after this response's head; the response is finished."""
        self._done = True
        return self._connection.detach()

    def fileno(self) -> int:
        """The connection's descriptor, to poll; look at :attr:`buffered` first."""
        return self._connection.fileno()

    @property
    def buffered(self) -> bool:
        """Whether bytes of the body are here already, so that polling would miss them."""
        return self._connection.buffered

    def close(self) -> None:
        """Give the connection up if the body was not read to its end; idempotent."""
        if not self._done:
            self._done = True
            self._connection.close()

    def _next_chunk(self) -> bytes:
        if not self._remaining:
            size_text = self._connection.read_line().split(b";")[0].strip()
            if not size_text:
                raise ConnectionFailed("unexpected EOF")
            try:
                self._remaining = int(size_text, 16)
            except ValueError as error:
                raise ProtocolError(f"malformed chunk size {size_text!r}") from error
            if self._remaining == 0:
                while self._connection.read_line():
                    pass  # trailer fields carry nothing for us
                self._finish_if(True)
                return b""
        piece = self._connection.read_some(min(self._remaining, CHUNK))
        if not piece:
            raise ConnectionFailed("unexpected EOF")
        self._remaining -= len(piece)
        if self._remaining == 0:
            self._connection.read_line()
        return piece

    def _next_piece(self) -> bytes:
        limit = CHUNK if self._remaining is None else min(self._remaining, CHUNK)
        piece = self._connection.read_some(limit)
        if self._remaining is None:
            self._finish_if(not piece)
            return piece
        if not piece:
            raise ConnectionFailed("unexpected EOF")
        self._remaining -= len(piece)
        self._finish_if(self._remaining == 0)
        return piece

    def _finish_if(self, finished: bool) -> None:
        if finished and not self._done:
            self._done = True
            delimited = self._chunked or self._remaining is not None
            closing = self.headers.get("connection", "").lower() == "close"
            if closing or not delimited:
                self._connection.close()


class Connection:
    """One connection; one request at a time."""

    def __init__(
        self, sock: socket.socket, host: str, *, exact: bool = False, silence: str = "EOF"
    ) -> None:
        """``exact``: read not one byte beyond a response's head, so that the socket itself can
        be handed over afterwards. Slower, and only of use for that. ``silence`` is what it means
        when nothing comes back.
        """
        self._silence = silence
        self._socket = sock
        self._host = host
        self._buffer = b""
        self._ahead = 1 if exact else CHUNK
        self.closed = False

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None = None,
    ) -> Response:
        """Send a request and read the response's head.

        An iterable body is sent chunked; if the peer answers and closes before the end of it, the
        answer is returned. Raises :class:`ConnectionFailed` or :class:`ProtocolError`.
        """
        early = self.send(method, target, headers, body)
        return early if early is not None else self.receive(method)

    def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None = None,
    ) -> Response | None:
        """Send a request; the answer if it came before the body was sent, else None.

        Raises :class:`ConnectionFailed` or :class:`ProtocolError`.
        """
        fields = {"Host": self._host, **headers}
        if isinstance(body, bytes):
            fields["Content-Length"] = str(len(body))
        elif body is not None:
            fields["Transfer-Encoding"] = "chunked"
        elif method == "POST":
            fields["Content-Length"] = "0"
        head = f"{method} {target} HTTP/1.1\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        payload = (head + "\r\n").encode("utf-8", "surrogateescape")
        try:
            self._socket.sendall(payload + body if isinstance(body, bytes) else payload)
            if body is not None and not isinstance(body, bytes):
                self._send_chunks(body)
        except (BrokenPipeError, ConnectionResetError):
            # The answer of a peer that stopped reading, if it gave one; else its end is told as it
            # is after a request that was read.
            return self.receive(method)
        except OSError as error:
            self.close()
            raise ConnectionFailed(f"error during connect: {error.strerror}") from error
        return None

    def _send_chunks(self, body: Iterable[bytes]) -> None:
        for piece in body:
            if piece:
                self._socket.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        self._socket.sendall(b"0\r\n\r\n")

    def receive(self, method: str) -> Response:
        """Read the head of the answer to the request sent last.

        Raises :class:`ConnectionFailed` or :class:`ProtocolError`.
        """
        while True:
            status_line = self.read_line()
            version, _space, rest = status_line.partition(b" ")
            code = rest[:3]
            if not version.startswith(b"HTTP/1.") or not code.isdigit():
                self.close()
                if not status_line:
                    raise ConnectionFailed(f"error during connect: {self._silence}")
                raise ProtocolError(f"malformed HTTP response {status_line[:60]!r}")
            headers: dict[str, str] = {}
            size = len(status_line)
            while line := self.read_line():
                size += len(line)
                if size > MAX_HEAD:
                    raise ProtocolError("HTTP response head is too large")
                name, _colon, value = line.partition(b":")
                headers[name.decode("latin-1").lower()] = value.strip().decode("latin-1")
            status = int(code)
            if status >= 200 or status == 101:
                return Response(self, status, headers, bodiless=method == "HEAD")

    def read_line(self) -> bytes:
        """The next line without its CRLF; empty at the end of the stream."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise ProtocolError("HTTP line is too long")
            piece = self._receive(self._ahead)
            if not piece:
                line, self._buffer = self._buffer, b""
                return line
            self._buffer += piece
        line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
        return line.rstrip(b"\r")

    def read_some(self, limit: int) -> bytes:
        """1 to ``limit`` bytes; empty at the end of the stream."""
        if self._buffer:
            piece, self._buffer = self._buffer[:limit], self._buffer[limit:]
            return piece
        return self._receive(limit)

    def _receive(self, limit: int) -> bytes:
        try:
            return self._socket.recv(limit)
        except ConnectionResetError:
            return b""
        except OSError as error:
            self.close()
            raise ConnectionFailed(f"error during connect: {error.strerror}") from error

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    @property
    def buffered(self) -> bool:
        """Whether received bytes wait in a buffer."""
        return bool(self._buffer)

    def detach(self) -> Stream:
        """Hand the socket over; this object is closed without closing it."""
        early, self._buffer = self._buffer, b""
        self.closed = True
        return Stream(self._socket, early)

    def close(self) -> None:
        """Close; idempotent."""
        if not self.closed:
            self.closed = True
            self._socket.close()
